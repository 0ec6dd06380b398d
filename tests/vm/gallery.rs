//! The gallery of faults: each one is put in place, its traffic shows it, it is taken back, and then the machine is as it
//! was: the traffic is clean and every setting that a fault could touch is back.

mod clean;

use std::{collections::BTreeSet, fs, sync::atomic::AtomicBool, time::Instant};

use skbtrace::lab::{
    Scenario,
    fault::{self, Fault, Injected},
    netns::{self, Found},
    traffic::{self, Options, Protocol},
};

use crate::support::{
    lab::{CLIENT, Lab, SERVER, within},
    machine::sh,
};

static GO: AtomicBool = AtomicBool::new(false);

/// Every setting that a fault could touch, a line each.
///
/// In as few processes as can be, for it is read twice a row under emulation. A filter of tc goes with its qdisc.
fn settings() -> BTreeSet<String> {
    let here = "printf 'link show\\nvlan show\\nfdb show\\n' | bridge -d -batch -; \
         ls /proc/sys/net/bridge 2>&1; true";
    let everywhere = "printf 'link show\\naddress show\\nroute show table all\\nneigh show nud permanent\\n' \
         | ip -4 -d -batch -; tc qdisc show; nft -s list ruleset";
    let mut lines = BTreeSet::new();
    let mut add = |place: &str, text: &str| {
        // Only what is static in the bridge's table; the rest comes and goes with traffic.
        let learned = |line: &&str| line.contains(" dev ") && line.contains(" master ") && !line.contains("static");
        let kept = text.lines().filter(|line| !learned(line));
        lines.extend(kept.map(|line| format!("{place}: {}", without_what_moves(line))));
    };
    add("here", &sh(here));
    add("here", &(sh(everywhere) + &sysctls()));
    for (netns, _) in [SERVER, CLIENT] {
        // The loopback lab has one namespace.
        if matches!(netns::find(netns), Ok(Found::Namespace(_))) {
            add(netns, &within(netns, || sh(everywhere) + &sysctls()));
        }
    }
    lines
}

/// A bridge's timers run on, and what follows a semicolon in an alias is the mark that names the fault.
fn without_what_moves(line: &str) -> String {
    let is_alias = line.trim_start().starts_with("alias ");
    let line = if is_alias { line.split(';').next().unwrap_or_default() } else { line };
    let mut words = line.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if word.ends_with("_timer") {
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// The settings of IPv4 devices of the calling thread's namespace.
fn sysctls() -> String {
    let mut text = String::new();
    for device in fs::read_dir("/proc/sys/net/ipv4/conf").unwrap() {
        for file in fs::read_dir(device.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            text += &format!("\n{} {}", path.display(), fs::read_to_string(&path).unwrap_or_default().trim());
        }
    }
    text
}

/// Traffic of both kinds arrives whole.
fn assert_clean(after: &str) {
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let options = Options {
            count: 20,
            size: 512,
            rate: 200,
            connections: 1,
            port: 8000,
            from: None,
            to: None,
            bind: None,
            server: None,
        };
        let path = traffic::path(&options).unwrap();
        let report = traffic::run(protocol, &path, &options, &GO).unwrap();
        assert!(report.is_clean() && report.received == 20, "{after}: {report:?}");
    }
}

/// One row of the table: what is wrong with it. `before` are the settings without it, and afterwards those that it left.
fn try_out(fault: &'static Fault, before: &mut BTreeSet<String>) -> Result<(), String> {
    let said = |error: fault::Error| error.to_string();
    if fault::inject(fault, false, &GO).map_err(said)? != Injected::Now {
        return Err("it was in place before".into());
    }
    let names: Vec<_> = fault::in_place().map_err(said)?.1.into_iter().map(|one| one.name).collect();
    if names != [fault.name] {
        return Err(format!("in place: {names:?}"));
    }
    let changed = settings() != *before;
    let seen = fault::show::run(fault, &GO);
    let cleared = fault::clear().map_err(said)?;
    let seen = seen.map_err(said)?;
    if !seen.effect {
        return Err(format!("no effect: {:?}", seen.lines));
    }
    // What changes nothing has its fault in its traffic.
    if changed == fault.steps.is_empty() {
        return Err("the settings that this test looks at do not show it".into());
    }
    if cleared.len() != 1 || !fault::clear().map_err(said)?.is_empty() {
        return Err(format!("cleared: {cleared:?}"));
    }
    assert_clean(fault.name);
    let after = settings();
    let lost = before.difference(&after).map(|line| format!("- {line}"));
    let differences: Vec<_> = lost.chain(after.difference(before).map(|line| format!("+ {line}"))).collect();
    *before = after;
    if differences.is_empty() { Ok(()) } else { Err(format!("not restored: {differences:#?}")) }
}

fn try_all(scenario: Scenario) {
    let _lab = Lab::up(scenario.name());
    assert_clean("before any fault");
    let rows: Vec<_> = fault::all().filter(|fault| fault.scenario == scenario).collect();
    assert!(!rows.is_empty());
    let mut before = settings();
    let mut wrong = Vec::new();
    for fault in &rows {
        let start = Instant::now();
        let done = try_out(fault, &mut before);
        let result = if done.is_ok() { "seen, gone, clean" } else { "FAILED" };
        println!("{:26} {result} ({:.1} s)", fault.name, start.elapsed().as_secs_f64());
        wrong.extend(done.err().map(|why| (fault.name, why)));
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), rows.len());
}

#[test]
#[ignore = "needs the modules of a whole kernel, as root: run by cargo xtask test"]
fn every_fault_of_the_bridge_lab_shows_and_goes() {
    try_all(Scenario::Bridge);
}

#[test]
#[ignore = "needs the modules of a whole kernel, as root: run by cargo xtask test"]
fn every_fault_of_the_other_labs_shows_and_goes() {
    try_all(Scenario::Pair);
    try_all(Scenario::Loopback);
}

#[test]
#[ignore = "needs the modules of a whole kernel, as root: run by cargo xtask test"]
fn faults_are_refused_together_unless_asked_for_and_go_with_the_lab() {
    let before;
    {
        let _lab = Lab::up("bridge");
        before = sh("nft -s list ruleset");
        let inject =
            |name, also| fault::inject(fault::find(name).unwrap(), also, &GO).map_err(|error| error.to_string());
        assert_eq!(inject("nft-bridge-drop", false), Ok(Injected::Now));
        assert_eq!(inject("nft-bridge-drop", false), Ok(Injected::Before));
        assert_eq!(
            inject("netem-loss", false).unwrap_err(),
            "nft-bridge-drop is in place: `skbtrace lab fault clear` takes it back, --also adds to it"
        );
        assert_eq!(inject("netem-loss", true), Ok(Injected::Now));
        assert_eq!(
            inject("netem-delay", true).unwrap_err(),
            "netem-delay and netem-loss, which is in place, change the same thing: `skbtrace lab fault clear` first"
        );
        assert_eq!(
            inject("tc-bpf-pair", true).unwrap_err(),
            "tc-bpf-pair needs the pair lab, and the bridge lab is up: `skbtrace lab up pair` replaces it"
        );
        // Part of it is taken back by somebody else: no reason to stop there.
        sh("tc qdisc del dev calmveth1_peer root");
        let cleared: Vec<_> = fault::clear().unwrap().into_iter().map(|one| (one.name, one.commands.len())).collect();
        assert_eq!(cleared, [("netem-loss".to_owned(), 0), ("nft-bridge-drop".to_owned(), 1)]);
        assert_clean("clear");
        // What a run that was killed half way leaves behind: the mark, and the first step.
        sh("ip link set dev calmbr alias 'skbtrace lab bridge; rp-filter 2=0 3=0'");
        sh("ip -n ns-calm2 address add 10.99.0.11/32 dev calmveth2");
        let cleared = fault::clear().unwrap();
        assert_eq!(cleared[0].commands.last().unwrap(), "ns-calm2: ip address del 10.99.0.11/32 dev calmveth2");
        assert!(!sh("ip -n ns-calm2 address").contains("10.99.0.11"));
        assert_eq!(fault::clear().unwrap(), []);
        // The namespaces are taken away with a fault in place, and then the lab.
        assert_eq!(inject("nft-bridge-drop", false), Ok(Injected::Now));
        assert_eq!(inject("rp-filter", true), Ok(Injected::Now));
        sh("ip netns del ns-calm1");
    }
    assert_eq!(sh("nft -s list ruleset"), before);
    let error = fault::inject(fault::find("netem-loss").unwrap(), false, &GO).unwrap_err().to_string();
    assert_eq!(error, "no lab is up, and netem-loss needs the bridge lab: `skbtrace lab up bridge`");
}
