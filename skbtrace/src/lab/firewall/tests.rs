use super::*;

fn iptables(rules: &str) -> Option<&'static str> {
    let listing = format!("-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n-N DOCKER-USER\n-N LOOP\n{rules}");
    iptables_drop("iptables", &listing, "calmbr").map(|drop| match drop.why.as_str() {
        "policy DROP" => "policy",
        _ => "rule",
    })
}

#[test]
fn the_policy_of_forward_decides_unless_a_rule_does() {
    assert_eq!(iptables_drop("iptables", "-P INPUT DROP\n-P FORWARD ACCEPT\n-P OUTPUT DROP\n", "calmbr"), None);
    assert_eq!(
        iptables_drop("iptables", "-P FORWARD DROP\n", "calmbr"),
        Some(Drop {
            chain: "iptables FORWARD".into(),
            why: "policy DROP".into(),
            repair: "iptables -I FORWARD -i calmbr -j ACCEPT".into(),
        })
    );
    assert_eq!(
        iptables_drop("iptables-legacy", "-P FORWARD DROP\n", "calmbr").unwrap().repair,
        "iptables-legacy -I FORWARD -i calmbr -j ACCEPT"
    );
    for (rules, dropped_by) in [
        ("-A FORWARD -i calmbr -j ACCEPT", None),
        ("-A FORWARD -o calmbr -j ACCEPT", None),
        ("-A FORWARD -i calm+ -j ACCEPT", None),
        ("-A FORWARD -j ACCEPT", None),
        ("-A FORWARD -m physdev --physdev-is-bridged -j ACCEPT", None),
        (r#"-A FORWARD -i calmbr -m comment --comment "the \"lab\" -j DROP" -j ACCEPT"#, None),
        ("-A FORWARD -i docker0 -j ACCEPT", Some("policy")),
        ("-A FORWARD ! -i calmbr -j ACCEPT", Some("policy")),
        ("-A FORWARD -i calmbr -p tcp -j ACCEPT", Some("policy")),
        ("-A FORWARD -j LOG --log-prefix x\n-A FORWARD -i calmbr -j ACCEPT", None),
        ("-A FORWARD -j DROP\n-A FORWARD -i calmbr -j ACCEPT", Some("rule")),
        ("-A FORWARD -j REJECT --reject-with icmp-host-prohibited", Some("rule")),
        // A typing error is no target that iptables would list, and lets nothing through.
        ("-A FORWARD -i calmbr -j ACCEP", Some("policy")),
        ("-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -i calmbr -j ACCEPT\n-A DOCKER-USER -j RETURN", None),
        ("-A FORWARD -j DOCKER-USER\n-A DOCKER-USER -j RETURN\n-A DOCKER-USER -j ACCEPT", Some("policy")),
        ("-A FORWARD -g DOCKER-USER\n-A FORWARD -j ACCEPT", Some("policy")),
        ("-A FORWARD -j LOOP\n-A LOOP -j LOOP\n-A FORWARD -j ACCEPT", None),
    ] {
        assert_eq!(iptables(rules), dropped_by, "{rules}");
    }
}

/// What `nft -j list ruleset` 1.0.6 printed, with this rule in DOCKER-USER.
fn nft(rule: &str) -> String {
    r#"{"nftables": [{"metainfo": {"version": "1.0.6", "release_name": "Lester Gooch #5", "json_schema_version": 1}},
    {"table": {"family": "ip", "name": "filter", "handle": 1}},
    {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
    {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER", "handle": 2}},
    {"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 3, "expr": [{"counter": {"packets": 0, "bytes": 0}}, {"jump": {"target": "DOCKER-USER"}}]}},
    {"rule": {"family": "ip", "table": "filter", "chain": "DOCKER-USER", "handle": 4, "expr": [RULE]}},
    {"table": {"family": "ip6", "name": "filter", "handle": 1}},
    {"chain": {"family": "ip6", "table": "filter", "name": "FORWARD", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
    {"table": {"family": "bridge", "name": "b", "handle": 2}},
    {"chain": {"family": "bridge", "table": "b", "name": "for\u001bward", "handle": 1, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
    {"chain": {"family": "bridge", "table": "b", "name": "in", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}}]}"#
    .replace("RULE", rule)
}

const FROM_BRIDGE: &str = r#"{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "calmbr"}}"#;

fn chains(rule: &str, bridge_netfilter: bool) -> Vec<String> {
    let drops = nft_drops(&nft(rule), "calmbr", bridge_netfilter).unwrap();
    drops.into_iter().map(|drop| format!("{}: {}", drop.chain, drop.repair)).collect()
}

#[test]
fn nftables_bridge_chains_count_always_and_ip_chains_with_br_netfilter() {
    const IP: &str = "iptables FORWARD: iptables -I FORWARD -i calmbr -j ACCEPT";
    const BRIDGE: &str = r"nftables bridge b for\x1bward: nft insert rule bridge b for\x1bward ibrname calmbr accept";
    let accept = format!(r#"{FROM_BRIDGE}, {{"counter": {{"packets": 0, "bytes": 0}}}}, {{"accept": null}}"#);
    assert_eq!(chains(&accept, true), [BRIDGE]);
    assert_eq!(chains(&accept.replace("calmbr", "calm*"), true), [BRIDGE]);
    assert_eq!(chains(r#"{"accept": null}"#, true), [BRIDGE]);
    assert_eq!(chains(&accept, false), [BRIDGE]);
    assert_eq!(chains(&accept.replace("calmbr", "docker0"), true), [IP, BRIDGE]);
    assert_eq!(chains(&accept.replace("==", "!="), true), [IP, BRIDGE]);
    assert_eq!(chains(&accept.replace("accept", "drop"), true), [IP, BRIDGE]);
    assert_eq!(chains(r#"{"xt": null}, {"accept": null}"#, true), [IP, BRIDGE]);
    assert_eq!(chains(r#"{"goto": {"target": "DOCKER-USER"}}"#, true), [IP, BRIDGE]);
    assert_eq!(chains("{}", false), [BRIDGE]);
}

#[test]
fn an_inet_chain_is_repaired_through_nft() {
    let json = nft("{}").replace(r#""ip""#, r#""inet""#);
    let drops = nft_drops(&json, "calmbr", true).unwrap();
    assert_eq!(drops[0].repair, "nft insert rule inet filter FORWARD iifname calmbr accept");
}

#[test]
fn broken_or_unknown_json_is_an_error_or_nothing() {
    assert!(nft_drops("", "calmbr", true).is_err());
    assert_eq!(nft_drops("{}", "calmbr", true).unwrap(), []);
    assert_eq!(nft_drops(r#"{"nftables": [1, {"chain": []}, {"rule": {"expr": 3}}]}"#, "calmbr", true).unwrap(), []);
}

#[test]
fn warnings_name_the_chain_the_reason_and_the_command() {
    let report = Report {
        bridge_netfilter: true,
        drops: iptables_drop("iptables", "-P FORWARD DROP", "calmbr").into_iter().collect(),
        unchecked: vec!["nftables (there is no nft)".into()],
    };
    insta::assert_snapshot!(report.warnings().join("\n"), @"
    br_netfilter is active and iptables FORWARD drops what the bridge forwards (policy DROP); to repair: iptables -I FORWARD -i calmbr -j ACCEPT
    firewall not checked: nftables (there is no nft)
    ");
    assert_eq!(Report::default().warnings(), [""; 0]);
}
