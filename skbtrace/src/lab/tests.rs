//! The lab on the running kernel, as root. Each test has a network and a mount namespace of its own, with a fresh
//! /run: names are global on a machine, and a test must not meet a lab that somebody uses, or another test.

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{
    traffic::{self, Options, Protocol, Report},
    *,
};

static GO: AtomicBool = AtomicBool::new(false);

/// Runs a test apart from the rest of the machine; without the right to do so it is skipped and says so.
fn apart(test: impl FnOnce() + Send + 'static) {
    if let Err(error) = observe() {
        eprintln!("SKIPPED: {error}");
        return;
    }
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>).unwrap();
        mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).unwrap();
        test();
    };
    thread::spawn(run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip, of the Debian package iproute2");
    assert!(status.success(), "ip {arguments}");
}

/// The device names here, without lo and what a kernel puts into every namespace.
fn devices_here() -> Vec<String> {
    let names = fs::read_dir("/sys/class/net").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.starts_with("calm")).collect();
    names.sort();
    names
}

fn namespaces() -> Vec<String> {
    let Ok(directory) = fs::read_dir(netns::DIRECTORY) else { return Vec::new() };
    let mut names: Vec<_> = directory.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn gone() -> bool {
    devices_here().is_empty() && namespaces().is_empty() && observe().unwrap().is_empty()
}

#[test]
fn each_scenario_comes_up_whole_and_goes_without_a_trace() {
    apart(|| {
        for layout in &LAYOUTS {
            let scenario = layout.scenario;
            let built = up(scenario, &GO).unwrap();
            assert_eq!((built.replaced, built.was_there), (None, false));
            let status = Status::of(observe().unwrap());
            assert_eq!((status.scenario, status.missing.as_slice()), (Some(scenario), [].as_slice()));
            assert_eq!(namespaces().len(), layout.namespaces.len());
            let ports = ["calmbr", "calmveth1_peer", "calmveth2_peer"];
            assert_eq!(devices_here(), if scenario == Scenario::Bridge { ports.as_slice() } else { &[] });
            let again = up(scenario, &GO).unwrap();
            assert_eq!(again, Outcome { replaced: None, was_there: true, repaired: Vec::new(), cleared: Vec::new() });
            assert_eq!(down(Some(scenario)).unwrap(), Removed::Lab(Some(scenario)));
            assert!(gone());
            assert_eq!(down(None).unwrap(), Removed::Nothing);
        }
    });
}

#[test]
fn another_scenario_replaces_the_one_that_is_up_and_down_of_another_does_nothing() {
    apart(|| {
        up(Scenario::Bridge, &GO).unwrap();
        assert_eq!(down(Some(Scenario::Pair)).unwrap(), Removed::Another(Scenario::Bridge));
        assert_eq!(up(Scenario::Loopback, &GO).unwrap().replaced, Some(Scenario::Bridge));
        assert_eq!((devices_here().len(), namespaces()), (0, vec!["ns-calm1".to_owned()]));
        assert_eq!(scenario(&observe().unwrap()), Some(Scenario::Loopback));
    });
}

/// A default route and every kind of damage that `ip` can do.
#[test]
fn what_was_taken_away_is_repaired_and_nothing_else_is_touched() {
    apart(|| {
        let layout = Scenario::Bridge.layout();
        up(Scenario::Bridge, &GO).unwrap();
        for (damage, expected) in [
            ("-n ns-calm1 link set calmveth1 down", "ns-calm1/calmveth1 is down"),
            ("-n ns-calm2 addr flush dev calmveth2", "ns-calm2/calmveth2 has not the address 78.78.0.11/24"),
            ("-n ns-calm1 route del default", "ns-calm1 has no default route through calmveth1"),
            ("link set calmveth1_peer nomaster", "calmveth1_peer is no port of calmbr"),
            ("link del calmveth2_peer", "no veth pair ns-calm2/calmveth2, calmveth2_peer"),
            ("link del calmbr", "no bridge calmbr"),
            ("netns del ns-calm2", "no namespace ns-calm2"),
            ("-n ns-calm1 link set calmveth1 netns ns-calm2", "no veth pair ns-calm1/calmveth1, calmveth1_peer"),
        ] {
            let kept = observe().unwrap().device(Some("ns-calm1"), "lo").unwrap().clone();
            ip(damage);
            let repaired = up(Scenario::Bridge, &GO).unwrap();
            assert!(repaired.was_there, "{damage}");
            assert!(repaired.repaired.iter().any(|missing| missing.to_string() == expected), "{damage}: {repaired:?}");
            assert_eq!(missing(layout, &observe().unwrap()), [], "{damage}");
            assert_eq!(observe().unwrap().device(Some("ns-calm1"), "lo"), Some(&kept), "{damage}");
        }
        down(None).unwrap();
        assert!(gone());
    });
}

#[test]
fn a_namespace_that_a_process_keeps_alive_keeps_no_device() {
    apart(|| {
        up(Scenario::Bridge, &GO).unwrap();
        let held = File::open(netns::path("ns-calm1")).unwrap();
        down(None).unwrap();
        assert!(gone());
        let left = link::Session::open(Some(&held)).unwrap().get("calmveth1").unwrap();
        assert_eq!(left, None);
    });
}

#[test]
fn foreign_things_with_the_labs_names_are_named_and_stay() {
    apart(|| {
        ip("link add calmbr type bridge");
        ip("netns add ns-calm2");
        let error = up(Scenario::Bridge, &GO).unwrap_err();
        assert!(matches!(error, Error::Foreign { .. }));
        insta::assert_snapshot!(error, @"there is a namespace ns-calm2, there is a device calmbr, not made by skbtrace, so it stays as it is: remove or rename it first (ip netns del ns-calm2; ip link del calmbr)");
        assert_eq!((devices_here(), namespaces()), (vec!["calmbr".to_owned()], vec!["ns-calm2".to_owned()]));
        assert_eq!(down(None).unwrap(), Removed::Nothing);
        assert_eq!((devices_here(), namespaces()), (vec!["calmbr".to_owned()], vec!["ns-calm2".to_owned()]));
        // The loopback scenario needs neither name.
        up(Scenario::Loopback, &GO).unwrap();
        assert_eq!(down(None).unwrap(), Removed::Lab(Some(Scenario::Loopback)));
        assert_eq!((devices_here(), namespaces()), (vec!["calmbr".to_owned()], vec!["ns-calm2".to_owned()]));
    });
}

#[test]
fn an_interrupted_build_leaves_nothing_wherever_it_is_interrupted() {
    apart(|| {
        assert!(matches!(up(Scenario::Bridge, &AtomicBool::new(true)), Err(Error::Interrupted)));
        for microseconds in (0..30_000).step_by(1_500) {
            let stop = AtomicBool::new(false);
            let outcome = thread::scope(|scope| {
                scope.spawn(|| {
                    thread::sleep(Duration::from_micros(microseconds));
                    stop.store(true, Ordering::Relaxed);
                });
                up(Scenario::Bridge, &stop)
            });
            match outcome {
                Ok(_) => drop(down(None).unwrap()),
                Err(Error::Undone { cause }) => assert!(matches!(*cause, Error::Interrupted)),
                Err(error) => assert!(matches!(error, Error::Interrupted), "{error}"),
            }
            assert!(gone(), "after {microseconds} µs");
        }
    });
}

#[test]
fn a_failure_in_the_middle_undoes_what_came_before() {
    apart(|| {
        // Room for /run itself, the directory and one name: the second namespace gets none.
        mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), Some("nr_inodes=3")).unwrap();
        let error = up(Scenario::Bridge, &GO).unwrap_err();
        assert!(matches!(error, Error::Undone { .. }), "{error}");
        assert!(gone());
        assert!(up(Scenario::Loopback, &GO).is_ok());
    });
}

#[test]
fn what_is_no_namespace_under_a_namespaces_name_is_foreign() {
    apart(|| {
        fs::create_dir_all(netns::path("ns-calm1")).unwrap();
        fs::create_dir_all(netns::DIRECTORY).unwrap();
        fs::write(netns::path("ns-calm2"), "notes").unwrap();
        assert!(matches!(up(Scenario::Pair, &GO), Err(Error::Foreign { what, .. }) if what.len() == 2));
        assert_eq!(down(None).unwrap(), Removed::Nothing);
        assert_eq!(namespaces(), ["ns-calm1", "ns-calm2"]);
    });
}

#[test]
fn a_leftover_file_of_a_killed_run_is_used_and_removed() {
    apart(|| {
        fs::create_dir_all(netns::DIRECTORY).unwrap();
        File::create(netns::path("ns-calm1")).unwrap();
        up(Scenario::Pair, &GO).unwrap();
        down(None).unwrap();
        assert!(gone());
        File::create(netns::path("ns-calm2")).unwrap();
        assert_eq!(down(None).unwrap(), Removed::Lab(None));
        assert!(gone());
    });
}

#[test]
fn iproute2_and_the_lab_understand_each_others_namespaces() {
    apart(|| {
        up(Scenario::Pair, &GO).unwrap();
        ip("netns exec ns-calm1 ip link set lo up");
        ip("netns add other");
        ip("netns del ns-calm1");
        assert_eq!(namespaces(), ["ns-calm2", "other"]);
        up(Scenario::Pair, &GO).unwrap();
        down(None).unwrap();
        assert_eq!(namespaces(), ["other"]);
        ip("netns del other");
        assert!(gone());
    });
}

fn send(protocol: Protocol, change: impl FnOnce(&mut Options), stop: &AtomicBool) -> Report {
    let mut options = Options {
        count: 300,
        size: 200,
        rate: 0,
        connections: 1,
        port: 8000,
        from: None,
        to: None,
        bind: None,
        server: None,
    };
    change(&mut options);
    traffic::run(protocol, &traffic::path(&options).unwrap(), &options, stop).unwrap()
}

#[test]
fn traffic_arrives_whole_in_every_scenario() {
    apart(|| {
        for layout in &LAYOUTS {
            up(layout.scenario, &GO).unwrap();
            for protocol in [Protocol::Udp, Protocol::Tcp] {
                let small = send(protocol, |_| {}, &GO);
                assert_eq!((small.sent, small.received, small.is_clean()), (300, 300, true), "{small:?}");
                // Fragments for UDP, many segments for TCP; a number of connections that does not divide the count.
                let large = send(protocol, |options| (options.size, options.connections) = (20_000, 7), &GO);
                assert_eq!((large.sent, large.received, large.is_clean()), (300, 300, true), "{large:?}");
            }
        }
    });
}

/// How many packets the client's side has sent, as the bridge's port counts them.
fn sent_packets() -> u64 {
    let count = fs::read_to_string("/sys/class/net/calmveth2_peer/statistics/rx_packets").unwrap();
    count.trim().parse().unwrap()
}

/// Stops traffic that is well on its way: some packets beyond those that were counted, and some time more.
fn stop_after(packets: u64, stop: &AtomicBool) {
    while sent_packets() < packets {
        thread::sleep(Duration::from_millis(10));
    }
    thread::sleep(Duration::from_millis(500));
    stop.store(true, Ordering::Relaxed);
}

#[test]
fn traffic_stops_when_asked_and_accounts_for_what_it_sent() {
    apart(|| {
        up(Scenario::Bridge, &GO).unwrap();
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            let stop = AtomicBool::new(false);
            let report = thread::scope(|scope| {
                let before = sent_packets();
                let stop = &stop;
                scope.spawn(move || stop_after(before + 30, stop));
                send(protocol, |options| (options.count, options.rate) = (0, 500), stop)
            });
            assert!(report.sent > 0 && report.received == report.sent && report.is_clean(), "{report:?}");
        }
    });
}

/// Loads rules for what reaches the receiver, in place of those before; whether nft is there and could.
fn rules(rule: &str) -> bool {
    let file = Path::new("/run/rules");
    let chain = format!("chain c {{\ntype filter hook input priority 0\n{rule}\n}}");
    fs::write(file, format!("flush ruleset\ntable ip t {{\n{chain}\n}}\n")).unwrap();
    match Command::new("ip").args(["netns", "exec", "ns-calm1", "nft", "-f"]).arg(file).output() {
        Ok(output) if output.status.success() => true,
        output => {
            eprintln!("SKIPPED: no nft, of the Debian package nftables, or no nf_tables in this kernel: {output:?}");
            false
        }
    }
}

#[test]
fn loss_and_corruption_are_counted_and_named() {
    apart(|| {
        up(Scenario::Bridge, &GO).unwrap();
        if !rules("udp dport 8000 numgen inc mod 10 0 drop") {
            return;
        }
        let report = send(Protocol::Udp, |_| {}, &GO);
        assert_eq!((report.sent, report.received, report.lost, report.corrupt), (300, 270, 30, 0));
        assert!(!report.is_clean());

        // The UDP header has 8 bytes, so bit 640 of the transport header is byte 72 of the record.
        assert!(rules("udp dport 8000 numgen inc mod 10 3 @th,640,8 set 0x00"));
        let report = send(Protocol::Udp, |_| {}, &GO);
        assert_eq!((report.sent, report.received, report.lost), (300, 300, 0));
        // A byte that was zero already stays right: one in 256.
        assert!((25..=30).contains(&report.corrupt), "{report:?}");
        let fault = report.first_fault.unwrap();
        assert!(fault.contains(": byte 72 sent as ") && fault.ends_with(", came as 00"), "{fault}");
    });
}

#[test]
fn a_tcp_stream_that_stands_still_ends_when_asked_with_its_losses_counted() {
    apart(|| {
        up(Scenario::Bridge, &GO).unwrap();
        if !rules("tcp dport 8000 tcp flags & psh == psh numgen inc mod 100000 >= 20 drop") {
            return;
        }
        let stop = AtomicBool::new(false);
        let report = thread::scope(|scope| {
            let before = sent_packets();
            let stop = &stop;
            scope.spawn(move || stop_after(before + 24, stop));
            send(Protocol::Tcp, |options| (options.count, options.rate) = (0, 400), stop)
        });
        assert!(report.sent > report.received && report.lost == report.sent - report.received, "{report:?}");
        assert_eq!((report.received > 0, report.corrupt, report.is_clean()), (true, 0, false));
    });
}
