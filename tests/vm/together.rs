//! Functions are attached together, by one link, where the kernel has that and counts what it misses; and one by one elsewhere, and
//! where one of them cannot be together with others. Either way a packet is seen at the same hops.

use std::{fs, path::Path};

use skbtrace_common::HopId;

use crate::support::{
    lab::Lab,
    machine::{assert_nothing_attached, attaches_together, sh},
    model::Trace,
    tracer::{Done, Tracer},
    traffic::lab_exchange,
};

/// A hop on the way of every packet over the lab's bridge.
const HOP: &str = "__br_forward";

/// To what a process has attached its programs.
#[derive(Debug, PartialEq, Eq)]
struct Attached {
    /// Links to many functions.
    together: usize,
    /// Links and perf events to one.
    alone: usize,
}

impl Attached {
    fn of(tracer: &Tracer) -> Attached {
        let process = Path::new("/proc").join(tracer.pid().to_string());
        let mut attached = Attached { together: 0, alone: 0 };
        for entry in fs::read_dir(process.join("fdinfo")).unwrap() {
            let number = entry.unwrap().file_name();
            // A descriptor may have been closed meanwhile.
            let Ok(info) = fs::read_to_string(process.join("fdinfo").join(&number)) else { continue };
            let Ok(file) = fs::read_link(process.join("fd").join(&number)) else { continue };
            let kind = info.lines().find_map(|line| line.strip_prefix("link_type:")).unwrap_or_default().trim();
            match kind {
                "kprobe_multi" => attached.together += 1,
                _ if kind.starts_with("perf") || file.as_os_str() == "anon_inode:[perf_event]" => attached.alone += 1,
                _ => {}
            }
        }
        attached
    }
}

/// A file of the kernel's that says something else while this is there.
struct Instead(&'static str);

impl Instead {
    fn of(path: &'static str, text: &str) -> Instead {
        let file = format!("/tmp/skbtrace-instead-{}", path.replace('/', "-"));
        fs::write(&file, text).unwrap();
        sh(&format!("mount --bind {file} {path}"));
        Instead(path)
    }
}

impl Drop for Instead {
    fn drop(&mut self) {
        sh(&format!("umount {}", self.0));
    }
}

/// The kernel's symbols, each line changed.
fn symbols(change: impl Fn(&str) -> String) -> String {
    fs::read_to_string("/proc/kallsyms").unwrap().lines().map(change).collect()
}

/// The name that a line of symbols is about.
fn name(line: &str) -> &str {
    line.split_ascii_whitespace().nth(2).unwrap()
}

/// The lab's exchange, traced; what was attached to see it; and what was said.
fn exchange() -> (Trace, Attached, Done) {
    let tracer = Tracer::start(&["--iface", "calmveth1", "--json"]);
    let attached = Attached::of(&tracer);
    lab_exchange();
    let done = tracer.interrupt();
    assert_nothing_attached();
    let trace = done.trace();
    trace.assert_complete();
    assert_eq!(trace.packets.len(), 11, "nothing but the exchange");
    (trace, attached, done)
}

/// The way of the first segment, and of the first with data.
fn ways(trace: &Trace) -> [Vec<String>; 2] {
    let segments = trace.of(6);
    let first = segments.iter().find(|packet| packet.flags() == "SYN").unwrap();
    let data = segments.iter().find(|packet| packet.payload_len > 0).unwrap();
    assert!(data.names().contains(&HOP), "{data:#?}");
    [first.path(), data.path()]
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn one_link_is_all_that_it_takes() {
    let _lab = Lab::up("bridge");
    let (trace, attached, done) = exchange();
    assert!(!done.stderr.contains("by itself"), "{done:#?}");
    let books = done.stdout.contains("\"hop\":\"kprobe.multi\"");
    if !attaches_together() {
        assert_eq!((attached.together, books), (0, false));
        assert!(attached.alone > 40, "{attached:?}");
        return;
    }
    assert_eq!(attached, Attached { together: 1, alone: 0 });
    assert!(books, "what was missed is told of all of them: {done:#?}");
    let together = ways(&trace);

    let twice = |line: &str| match HopId::ALL.iter().find(|hop| hop.name() == name(line)) {
        Some(hop) => format!("{line}\nffffffffffff0000 t {}\t[twice]\n", hop.name()),
        None => format!("{line}\n"),
    };
    let _symbols = Instead::of("/proc/kallsyms", &symbols(twice));
    let (trace, attached, done) = exchange();
    assert_eq!((attached.together, attached.alone > 40), (0, true), "{attached:?}");
    let said = format!("{HOP} is attached by itself: there is more than one function of this name");
    assert!(done.stderr.contains(&said), "{done:#?}");
    assert_eq!(ways(&trace), together, "the same hops in the same order");
}

#[test]
#[ignore = "needs a kernel with kprobes, as root: run by cargo xtask test"]
fn a_function_that_cannot_be_together_with_others_is_attached_by_itself() {
    if !attaches_together() {
        return;
    }
    let _lab = Lab::up("bridge");
    let together = ways(&exchange().0);

    // Nothing begins at this address, so that the kernel refuses them all; what it does with this one by its name is right.
    let moved = |line: &str| match line.split_once(' ') {
        Some((_, rest)) if name(line) == HOP => format!("{:016x} {rest}\n", 1),
        _ => format!("{line}\n"),
    };
    let _symbols = Instead::of("/proc/kallsyms", &symbols(moved));
    let (trace, attached, done) = exchange();
    assert_eq!((attached.together, attached.alone > 40), (0, true), "{attached:?}");
    assert!(done.stderr.contains("every function is attached by itself"), "{done:#?}");
    assert!(done.stderr.contains("BPF_LINK_CREATE"), "{done:#?}");
    assert_eq!(ways(&trace), together);

    let paths =
        ["/sys/kernel/tracing/available_filter_functions", "/sys/kernel/debug/tracing/available_filter_functions"];
    let list = paths.into_iter().find(|path| Path::new(path).exists()).unwrap();
    let traceable = fs::read_to_string(list).unwrap();
    let without = traceable.lines().filter(|line| line.split_whitespace().next() != Some(HOP));
    let without: String = without.map(|line| format!("{line}\n")).collect();
    let _list = Instead::of(list, &without);
    let (trace, attached, done) = exchange();
    assert_eq!(attached, Attached { together: 1, alone: 1 });
    let said = format!("{HOP} is attached by itself: ftrace does not trace it");
    assert!(done.stderr.contains(&said), "{done:#?}");
    assert!(!done.stderr.contains("every function"), "{done:#?}");
    assert_eq!(ways(&trace), together);
}
