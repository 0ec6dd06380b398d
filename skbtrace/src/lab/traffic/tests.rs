use super::*;
use crate::lab::Scenario;

fn ends(scenario: Scenario, from: Option<&str>, to: Option<&str>) -> [String; 2] {
    let layout = Some(scenario.layout());
    [(1, from), (0, to)].map(|(talker, namespace)| match endpoint(layout, talker, namespace, None) {
        Ok((namespace, address)) => format!("{namespace} {address}"),
        Err(error) => error.to_string(),
    })
}

#[test]
fn the_scenario_says_where_traffic_goes() {
    assert_eq!(ends(Scenario::Bridge, None, None), ["ns-calm2 78.78.0.11", "ns-calm1 78.78.0.10"]);
    assert_eq!(ends(Scenario::Pair, None, None), ["ns-calm2 78.78.0.11", "ns-calm1 78.78.0.10"]);
    assert_eq!(ends(Scenario::Loopback, None, None), ["ns-calm1 78.78.0.11", "ns-calm1 78.78.0.10"]);
    assert_eq!(
        ends(Scenario::Bridge, Some("ns-calm1"), Some("ns-calm2")),
        ["ns-calm1 78.78.0.10", "ns-calm2 78.78.0.11"]
    );
    assert_eq!(
        ends(Scenario::Loopback, Some("a\x1bb"), Some("b")),
        [
            r"the scenario has no address in a\x1bb: give one with --bind",
            "the scenario has no address in b: give one with --server"
        ]
    );
}

#[test]
fn without_a_lab_both_namespace_and_address_must_be_named() {
    let address = Some(Ipv4Addr::new(10, 0, 0, 1));
    assert_eq!(endpoint(None, 0, Some("a"), address).unwrap(), ("a".to_owned(), Ipv4Addr::new(10, 0, 0, 1)));
    assert!(matches!(endpoint(None, 0, Some("a"), None), Err(Error::NotUp)));
    assert!(matches!(endpoint(None, 0, None, address), Err(Error::NotUp)));
}

fn report() -> Report {
    Report {
        protocol: Protocol::Udp,
        sent: 1000,
        received: 1000,
        lost: 0,
        duplicate: 0,
        reordered: 0,
        corrupt: 0,
        stray: 0,
        seconds: 5.04,
        first_fault: None,
        stopped: None,
    }
}

#[test]
fn the_summary_is_one_line_when_all_is_well() {
    assert_eq!(
        report().lines(),
        ["udp 1000 sent, 1000 received, 0 lost, 0 duplicate, 0 reordered, 0 corrupt in 5.0 s"]
    );
    assert!(report().is_clean());
    assert!(Report { stray: 1, ..report() }.is_clean());
}

#[test]
fn anything_wrong_is_not_clean_and_what_needs_words_gets_a_line() {
    for wrong in [
        Report { lost: 1, ..report() },
        Report { duplicate: 1, ..report() },
        Report { reordered: 1, ..report() },
        Report { corrupt: 1, ..report() },
        Report { stopped: Some("why".into()), ..report() },
    ] {
        assert!(!wrong.is_clean(), "{wrong:?}");
    }
    let wrong = Report { first_fault: Some("fault".into()), stopped: Some("why".into()), stray: 2, ..report() };
    assert_eq!(
        wrong.lines()[1..],
        ["udp first corrupt: fault", "udp stopped: why", "udp 2 records of an earlier run, not counted"]
    );
}
