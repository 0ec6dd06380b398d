//! Machines made up: a good one, and each way of being worse.

use insta::assert_snapshot;
use rustix::thread::CapabilitySet;

use super::{Config, Facts, Hops, Module, Network, Report, State, Structures, Thing, Tracers};
use crate::{host::Privileges, render::doctor, verdict::Cause};

fn privileges(effective: CapabilitySet) -> Privileges {
    Privileges { effective: effective.bits(), ..Privileges::default() }
}

/// A machine as a distribution installs it, with a lab on it.
fn good() -> Facts {
    let options = "BPF BPF_SYSCALL BPF_EVENTS PERF_EVENTS KPROBES KPROBE_EVENTS KALLSYMS DEBUG_INFO_BTF BRIDGE_NETFILTER \
                   DEBUG_INFO_BTF_MODULES KALLSYMS_ALL BPF_JIT VETH BRIDGE RANDOMIZE_MEMORY";
    let on = options.split_whitespace().map(str::to_owned).collect();
    let module = |name| Module { name, present: true, types: true };
    Facts {
        release: "6.1.0-56-amd64".into(),
        machine: "x86_64".into(),
        privileges: privileges(CapabilitySet::from_bits_retain(u64::MAX)),
        root: true,
        config: Some(Config { path: "/boot/config-6.1.0-56-amd64".into(), on }),
        btf: Ok(()),
        modules: vec![module("bridge"), module("veth")],
        lockdown: Some("none".into()),
        kprobes: Ok(()),
        programs: Ok(()),
        jit: Some(1),
        tracefs: Some("/sys/kernel/tracing"),
        symbols: Ok(()),
        kptr_restrict: Some(0),
        structures: Some(Ok(Structures {
            pages: Some("the kernel's variables"),
            veth_peer: true,
            bridge_port: true,
            context: true,
        })),
        hops: Some(Hops { all: 70, left_out: vec![("gro_receive_skb", "not in this kernel".into())] }),
        bridge_netfilter: None,
        tracers: Tracers { kprobes: Some(0), programs: Some(0), ftrace: None },
        network: Ok(Network { netns: 3, devices: 8, pairs: vec![(1500, 1500); 2], ..Network::default() }),
    }
}

fn text(facts: &Facts) -> String {
    let mut out = Vec::new();
    doctor::text(&mut out, &Report::of(facts), false).unwrap();
    String::from_utf8(out).unwrap()
}

/// What a machine has that the good one has not.
fn worse(spoil: impl FnOnce(&mut Facts)) -> (bool, String) {
    let mut facts = good();
    spoil(&mut facts);
    let (before, after) = (Report::of(&good()), Report::of(&facts));
    let rows = after.rows.iter().filter(|row| !before.rows.contains(row));
    let line = |row: &super::Row| format!("{} {}: {}", row.state.name(), row.name, row.found);
    (after.works(), rows.map(line).collect::<Vec<_>>().join("\n"))
}

fn network(facts: &mut Facts) -> &mut Network {
    facts.network.as_mut().unwrap()
}

fn thing(cause: Cause, what: &str, drops: bool, undo: Option<&str>) -> Thing {
    let place = "ns-calm1/calmveth1".to_owned();
    Thing { cause, place, what: what.into(), drops, down: false, undo: undo.map(str::to_owned) }
}

#[test]
fn of_a_good_machine_everything_is_well() {
    assert_snapshot!(text(&good()), @r#"
    ok       kernel          Linux 6.1.0-56-amd64 on x86_64
    ok       privileges      root; these would do: CAP_BPF, CAP_PERFMON, CAP_SYSLOG, CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_NET_ADMIN
    ok       BTF             the kernel has its types in /sys/kernel/btf/vmlinux
    ok       BTF of modules  bridge, veth
    ok       lockdown        none
    ok       kprobes         offered to BPF programs
    ok       BPF programs    the kernel takes them
    ok       kallsyms        the kernel shows the addresses of its functions (kernel.kptr_restrict = 0)
    ok       structures      all that is read in them is known; pages by the kernel's variables
    ok       configuration   /boot/config-6.1.0-56-amd64: all options that a run has a use for
    ok       BPF JIT         on
    ok       tracefs         /sys/kernel/tracing
    ok       hops            69 of 70
    ok                       left out: gro_receive_skb: not in this kernel
    ok       other tracers   none
    ok       network         3 network namespaces, 8 devices
    ok       veth pairs      2, the ends of each with the same MTU (1500)
    ok       br_netfilter    not loaded: bridged packets pass no rules of iptables

    `skbtrace run` works here
    "#);
}

#[test]
fn what_stops_a_run_is_broken() {
    let spoils: [fn(&mut Facts); 10] = [
        |facts| facts.release = "5.4.0-1-amd64".into(),
        |facts| facts.machine = "riscv64".into(),
        |facts| facts.privileges = privileges(CapabilitySet::empty()),
        |facts| facts.btf = Err("/sys/kernel/btf/vmlinux: No such file or directory (os error 2)".into()),
        |facts| facts.lockdown = Some("confidentiality".into()),
        |facts| facts.programs = Err("the kernel refuses a BPF program: Operation not permitted (os error 1)".into()),
        |facts| facts.symbols = Err("the addresses of the kernel's functions are hidden".into()),
        |facts| facts.structures = Some(Err("this kernel's BTF has no sk_buff.len".into())),
        |facts| facts.hops = Some(Hops { all: 1, left_out: vec![("ip_rcv", "not in this kernel".into())] }),
        |facts| network(facts).segment = Some(Err("no interface x".into())),
    ];
    let mut all = String::new();
    for spoil in spoils {
        let (works, rows) = worse(spoil);
        assert!(!works && rows.contains("broken"), "{rows}");
        all += &format!("{rows}\n");
    }
    assert_snapshot!(all, @r#"
    broken kernel: Linux 5.4.0-1-amd64 on x86_64
    broken kernel: Linux 6.1.0-56-amd64 on riscv64
    broken privileges: root, and without CAP_BPF: it takes that to load BPF programs
    broken privileges: root, and without CAP_PERFMON: it takes that to attach programs to the kernel's functions
    broken privileges: root, and without CAP_SYSLOG: it takes that to see the addresses of the kernel's functions
    warning privileges: root, and without CAP_SYS_ADMIN: other network namespaces are not entered: devices there are not known, and not named
    warning privileges: root, and without CAP_SYS_PTRACE: network namespaces that have no name are not found, nor who owns a socket
    warning privileges: root, and without CAP_NET_ADMIN: rules of netfilter are not among the causes of a finding
    broken BTF: /sys/kernel/btf/vmlinux: No such file or directory (os error 2)
    broken lockdown: confidentiality
    broken BPF programs: the kernel refuses a BPF program: Operation not permitted (os error 1)
    broken kallsyms: the addresses of the kernel's functions are hidden
    broken structures: this kernel's BTF has no sk_buff.len
    broken hops: none is in this kernel
    broken segment: no interface x
    "#);
}

#[test]
fn what_a_run_can_do_without_is_no_more_than_a_warning() {
    let spoils: [fn(&mut Facts); 14] = [
        |facts| facts.kprobes = Err("no kprobe under /sys/bus/event_source/devices".into()),
        |facts| facts.config = None,
        |facts| facts.config.as_mut().unwrap().on.retain(|option| option != "KALLSYMS_ALL"),
        |facts| facts.modules[0].types = false,
        |facts| facts.lockdown = Some("integrity".into()),
        |facts| facts.structures.as_mut().unwrap().as_mut().unwrap().pages = None,
        |facts| facts.structures.as_mut().unwrap().as_mut().unwrap().bridge_port = false,
        |facts| facts.jit = Some(0),
        |facts| {
            let names = ["br_nf_pre_routing", "br_nf_forward_ip", "br_nf_forward", "a", "b"];
            let reason = "module br_netfilter is not loaded".to_owned();
            let moved =
                ("tcp_queue_rcv", "compiled as tcp_queue_rcv.isra.0, whose arguments may have moved".to_owned());
            let left_out = names.into_iter().map(|name| (name, reason.clone())).chain([moved]).collect();
            facts.hops = Some(Hops { all: 70, left_out });
        },
        |facts| facts.bridge_netfilter = Some(vec![("iptables", true), ("arptables", false)]),
        |facts| facts.tracers = Tracers { kprobes: Some(1), programs: Some(2), ftrace: Some("function".into()) },
        |facts| network(facts).unseen = (0..8).map(|n| format!("network namespace {n}: not permitted")).collect(),
        |facts| network(facts).pairs[1] = (1500, 9000),
        |facts| facts.privileges = privileges(CapabilitySet::SYS_ADMIN | CapabilitySet::SYSLOG),
    ];
    let mut all = String::new();
    for spoil in spoils {
        let (works, rows) = worse(spoil);
        assert!(works && !rows.is_empty(), "{rows}");
        all += &format!("{rows}\n");
    }
    assert_snapshot!(all, @r#"
    note kprobes: no kprobe under /sys/bus/event_source/devices: a run traces by raw tracepoints, which see fewer hops
    note configuration: neither /proc/config.gz nor /boot/config-6.1.0-56-amd64 is there to be read
    note configuration: /boot/config-6.1.0-56-amd64: without CONFIG_KALLSYMS_ALL (finding payload in pages)
    note BTF of modules: no types of bridge
    ok lockdown: integrity
    warning structures: where pages are is not known: payload in page frags, as TCP's is, is not compared
    note structures: where a bridge's port keeps its device is not known: it is not named
    warning BPF JIT: off: programs are interpreted, and each hop costs several times more
    ok hops: 64 of 70
    note hops: left out: br_nf_pre_routing, br_nf_forward_ip, br_nf_forward, a and 1 more: module br_netfilter is not loaded
    note hops: left out: tcp_queue_rcv: compiled as tcp_queue_rcv.isra.0, whose arguments may have moved
    note br_netfilter: bridged packets pass the rules of iptables as if they were routed
    note other tracers: 1 kprobe, 2 BPF programs, ftrace's function at work: what they cost is in the times of hops, and a probe that runs hides others
    warning network: not seen: network namespace 0: not permitted
    warning network: not seen: network namespace 1: not permitted
    warning network: not seen: network namespace 2: not permitted
    warning network: not seen: network namespace 3: not permitted
    warning network: not seen: network namespace 4: not permitted
    warning network: not seen: network namespace 5: not permitted
    warning network: not seen: 2 more
    warning veth pairs: 1 of 2 with another MTU at the other end (1500, 9000)
    warning privileges: root, and without CAP_SYS_PTRACE: network namespaces that have no name are not found, nor who owns a socket
    warning privileges: root, and without CAP_NET_ADMIN: rules of netfilter are not among the causes of a finding
    "#);
}

#[test]
fn what_stands_in_the_way_of_packets_is_told_with_its_remedy() {
    let mut facts = good();
    let undo = "ip link set dev calmveth1_peer mtu 9000";
    let mtu = "MTU of calmveth1 is 9000, that of its other end calmveth1_peer is 1500";
    let mut things = vec![
        thing(Cause::Device, mtu, true, Some(undo)),
        thing(Cause::Device, "something of an offload", false, None),
        thing(Cause::Xdp, "XDP program id 7, native", true, Some("ip link set dev calmveth1 xdpdrv off")),
        thing(Cause::Socket, "packet socket of tcpdump[7]: copies packets, changes none", false, None),
        thing(Cause::Nftables, "a rule", true, None),
    ];
    things.extend((0..8).map(|n| thing(Cause::TcFilter, &format!("tc filter egress pref {n} bpf"), true, None)));
    things.push(Thing { down: true, ..thing(Cause::Device, "ns-calm1/calmveth1 is down", true, None) });
    network(&mut facts).things = things;
    let report = Report::of(&facts);
    assert!(report.works());
    let told = text(&facts);
    let told = told.split_once("not loaded: bridged").unwrap().1;
    assert_snapshot!(told, @r#"
     packets pass no rules of iptables
    note     XDP             ns-calm1/calmveth1: XDP program id 7, native
                             → if it is not there on purpose: ip link set dev calmveth1 xdpdrv off
    warning  device          ns-calm1/calmveth1: MTU of calmveth1 is 9000, that of its other end calmveth1_peer is 1500
                             → ip link set dev calmveth1_peer mtu 9000
    note                     ns-calm1/calmveth1: something of an offload
                             → see whether it is there on purpose
    note                     ns-calm1/calmveth1 is down
                             → see whether it is there on purpose
    note     socket          ns-calm1/calmveth1: packet socket of tcpdump[7]: copies packets, changes none
                             → none needed: the copies are shown as branches of their packet; end it where times matter
    note     tc filter       ns-calm1/calmveth1: tc filter egress pref 0 bpf
                             → see whether it is there on purpose
    note                     ns-calm1/calmveth1: tc filter egress pref 1 bpf
                             → see whether it is there on purpose
    note                     ns-calm1/calmveth1: tc filter egress pref 2 bpf
                             → see whether it is there on purpose
    note                     ns-calm1/calmveth1: tc filter egress pref 3 bpf
                             → see whether it is there on purpose
    note                     ns-calm1/calmveth1: tc filter egress pref 4 bpf
                             → see whether it is there on purpose
    note                     ns-calm1/calmveth1: tc filter egress pref 5 bpf
                             → see whether it is there on purpose
    note     survey          3 more that can change, drop or delay packets: rules, routes, queues and the like
                             → `skbtrace survey` lists them, with the command that takes each away

    `skbtrace run` works here: 1 warning, 11 notes
    "#);
    // Of all devices some are down because nobody uses them; one that was asked for is not.
    network(&mut facts).segment = Some(Ok("a ═ b".into()));
    assert_eq!(Report::of(&facts).count(State::Warning), report.count(State::Warning) + 1);
}

#[test]
fn what_is_not_ok_has_a_remedy_and_json_follows_its_schema() {
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../schema/doctor.schema.json")).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let mut bad = good();
    bad.privileges = privileges(CapabilitySet::empty());
    bad.config = None;
    bad.jit = Some(0);
    bad.kprobes = Err("\u{1b}[2J".into());
    let mut states = std::collections::BTreeSet::new();
    // The last one is this machine, whatever it is.
    for facts in [good(), bad, Facts::read(None)] {
        let report = Report::of(&facts);
        let mut out = Vec::new();
        doctor::json(&mut out, &report).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert_eq!(errors, [""; 0], "{value:#}");
        assert_eq!(value["works"], report.works());
        states.extend(report.rows.iter().map(|row| row.state));
        // The schema is strict.
        let mut more = value.clone();
        more["checks"][0]["more"] = 1.into();
        assert!(!validator.is_valid(&more));
        let mut without = value;
        for row in without["checks"].as_array_mut().unwrap() {
            row.as_object_mut().unwrap().remove("fix");
        }
        assert_eq!(validator.is_valid(&without), report.rows.iter().all(|row| row.state == State::Ok));
    }
    assert_eq!(states.len(), 4);
}

#[test]
fn colours_are_all_that_a_terminal_gets_more() {
    let mut out = Vec::new();
    let facts = {
        let mut facts = good();
        facts.jit = Some(0);
        facts
    };
    doctor::text(&mut out, &Report::of(&facts), true).unwrap();
    let coloured = String::from_utf8(out).unwrap();
    assert!(coloured.contains("\u{1b}[32mok") && coloured.contains("\u{1b}[33mwarning"));
    let mut plain = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        plain += before;
        rest = after.split_once('m').unwrap().1;
    }
    assert_eq!(plain + rest, text(&facts));
}
