//! Translated expressions run in an interpreter, and libpcap's own answer stands beside theirs.

mod machine;
mod random;

use super::{
    CompileError, Expression, Fault, FilterError, Link, Places, TranslateError,
    cbpf::{self, Insn},
    compile::Compiler,
    libpcap::Libpcap,
    object::{Kind, object},
    tcpdump, translate,
};
use machine::{run, window};
use skbtrace_common::WINDOW_BYTES;

/// What a wire had: TCP, UDP, ICMP, ARP, IPv6 with and without extension headers, fragments, options, tags, labels, tunnels, LLC.
fn packets() -> Vec<&'static [u8]> {
    let mut rest = &include_bytes!("fixtures/packets.pcap")[24..];
    let mut packets = Vec::new();
    while rest.len() > 16 {
        let length = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        packets.push(&rest[16..16 + length]);
        rest = &rest[16 + length..];
    }
    assert_eq!(packets.len(), 85);
    packets
}

fn libpcap() -> Libpcap {
    Libpcap::open().expect("libpcap is on every machine that `cargo xtask setup` has seen: it comes with tcpdump")
}

const PLACES: Places = Places { windows: 41, window: 3, programs: 42, answer: 7 };

/// What the translated program says of a packet of `len` bytes of which these were copied.
fn answer(program: &[Insn], packet: &[u8], len: u32) -> bool {
    let translated = translate(program, PLACES).unwrap();
    run(&translated, PLACES, window(packet, len))
}

/// Packets that a wire had and that an expression wants, counted.
fn wanted(expression: &str, link: Link) -> usize {
    let libpcap = libpcap();
    let program = libpcap.compile(&std::ffi::CString::new(expression).unwrap(), link).unwrap();
    let begins_at = if link == Link::Ethernet { 0 } else { 14 };
    let mut count = 0;
    for packet in packets() {
        let packet = &packet[begins_at..];
        let wanted = answer(&program, packet, packet.len() as u32);
        assert_eq!(wanted, libpcap.wants(&program, packet, packet.len() as u32), "{expression}: {packet:02x?}");
        count += usize::from(wanted);
    }
    count
}

/// The numbers are those of `tcpdump -r`.
#[test]
fn expressions_want_what_they_say() {
    for (text, count) in [
        ("tcp port 8000 and not host 78.78.0.12", 20),
        ("tcp", 32),
        ("udp", 9),
        ("icmp or icmp6", 24),
        ("ip6", 35),
        ("host 78.78.0.12 and port 8000", 10),
        ("tcp[tcpflags] & tcp-syn != 0", 5),
        ("tcp[((tcp[12:1] & 0xf0) >> 2):4] = 0x47455420", 2),
        ("ip[6:2] & 0x1fff != 0", 2),
        ("ip[0] & 0xf > 5", 1),
        ("portrange 53-99", 10),
    ] {
        assert_eq!(wanted(text, Link::Ethernet), count, "{text}");
        assert_eq!(wanted(text, Link::Network), count, "{text}, before the Ethernet header");
    }
    for (text, count) in [
        // Two of them are ARP's.
        ("net 78.78.0.0/24", 42),
        ("arp", 6),
        ("ether broadcast", 3),
        ("ether multicast", 18),
        ("vlan 5", 1),
        ("vlan and vlan", 1),
        ("vlan and udp port 8000", 1),
        ("mpls 100", 1),
        ("stp", 1),
        ("less 60", 19),
        ("greater 1500", 4),
        ("not ip and not ip6", 10),
    ] {
        assert_eq!(wanted(text, Link::Ethernet), count, "{text}");
    }
}

#[test]
fn ten_thousand_pairs_at_random_are_answered_as_libpcap_does() {
    let (libpcap, packets) = (libpcap(), packets());
    let mut random = random::Random(8000);
    let (mut pairs, mut yes) = (0, 0);
    let mut refused = 0;
    while pairs < 10_000 {
        let depth = random.below(4) as u32;
        let text = random.expression(depth);
        let link = if random.below(3) == 0 { Link::Network } else { Link::Ethernet };
        let expression = std::ffi::CString::new(text.as_str()).unwrap();
        let Ok(program) = libpcap.compile(&expression, link) else {
            refused += 1;
            continue;
        };
        let translated = translate(&program, PLACES).unwrap_or_else(|error| panic!("{text}: {error}"));
        for _ in 0..4 {
            let packet = random.packet(&packets);
            let begins_at = if link == Link::Ethernet { 0 } else { packet.len().min(14) };
            let packet = &packet[begins_at..];
            // The packet may be longer than what is there.
            let len = packet.len() as u32 + if random.below(4) == 0 { random.below(3000) as u32 } else { 0 };
            let there = &packet[..packet.len().min(WINDOW_BYTES)];
            let wanted = run(&translated, PLACES, window(there, len));
            assert_eq!(wanted, libpcap.wants(&program, there, len), "{link:?} {text}: {len} {there:02x?}");
            pairs += 1;
            yes += u64::from(wanted);
        }
    }
    // A generator that makes nothing but nonsense proves nothing.
    assert!((1500..8500).contains(&yes), "{yes} of {pairs} wanted");
    assert!(refused < 5000, "{refused} refused");
}

/// Every instruction, with numbers that expressions hardly have.
#[test]
fn programs_at_random_are_answered_as_libpcap_does() {
    let (libpcap, packets) = (libpcap(), packets());
    let mut random = random::Random(78);
    let mut yes = 0;
    for _ in 0..20_000 {
        let program = random.program();
        let packet = random.packet(&packets);
        let there = &packet[..packet.len().min(WINDOW_BYTES)];
        let wanted = answer(&program, there, packet.len() as u32);
        assert_eq!(wanted, libpcap.wants(&program, there, packet.len() as u32), "{program:?}: {there:02x?}");
        yes += u64::from(wanted);
    }
    assert!((4000..16_000).contains(&yes), "{yes} wanted");
}

#[test]
fn what_was_not_copied_is_answered_no_and_never_read() {
    // The byte is there on the wire, and not in the window: neither it nor its opposite is so.
    let packet = vec![7; WINDOW_BYTES + 10];
    for (text, wants) in [
        (format!("ether[{}] = 7", WINDOW_BYTES - 1), true),
        (format!("ether[{WINDOW_BYTES}] = 7"), false),
        (format!("not ether[{WINDOW_BYTES}] = 7"), false),
        (format!("ether[{}:2] = 0x0707", WINDOW_BYTES - 2), true),
        (format!("ether[{}:2] = 0x0707", WINDOW_BYTES - 1), false),
        (format!("ether[ether[0] + {}] = 7", WINDOW_BYTES - 8), true),
        (format!("ether[ether[0] + {}] = 7", WINDOW_BYTES - 7), false),
        (format!("not ether[ether[0] + {}] = 7", WINDOW_BYTES - 7), false),
        ("ether[0 - 1] = 7".to_owned(), false),
        ("ether[ether[0] - 8] = 7".to_owned(), false),
        (format!("len = {}", WINDOW_BYTES + 10), true),
    ] {
        let program = libpcap().compile(&std::ffi::CString::new(text.as_str()).unwrap(), Link::Ethernet).unwrap();
        assert_eq!(answer(&program, &packet, packet.len() as u32), wants, "{text}");
    }
}

#[test]
fn the_window_is_as_long_as_an_expression_reaches() {
    let reach = |text: &str| Expression::compile(text).unwrap().unwrap().reach();
    assert_eq!(reach("ip"), 14);
    assert_eq!(reach("ether[100:4] = 1"), 104);
    // Ethernet, the longest IPv4 header, two ports.
    assert_eq!(reach("tcp port 80"), 14 + 60 + 4);
    assert_eq!(reach("len > 10"), 1);
    assert_eq!(usize::from(reach("tcp[tcp[12] >> 2] = 1")), WINDOW_BYTES);
    // No byte behind what it says is looked at.
    for text in ["ip", "tcp port 80", "ether[100:4] = 1 or udp", "ip6 and udp port 53", "arp or len > 10"] {
        let expression = Expression::compile(text).unwrap().unwrap();
        let (_, program) = expression.programs().next().unwrap();
        for packet in packets() {
            let cut = &packet[..packet.len().min(expression.reach().into())];
            let whole = answer(program, packet, packet.len() as u32);
            assert_eq!(answer(program, cut, packet.len() as u32), whole, "{text}");
        }
    }
}

#[test]
fn what_only_an_ethernet_header_answers_is_asked_where_there_is_one() {
    let links = |text: &str| {
        let expression = Expression::compile(text).unwrap().unwrap();
        expression.programs().map(|(link, _)| link).collect::<Vec<_>>()
    };
    assert_eq!(links("tcp port 80"), [Link::Ethernet, Link::Network]);
    for text in ["arp", "not ether host 2:0:0:0:0:5", "vlan 5", "tcp and ether multicast"] {
        assert_eq!(links(text), [Link::Ethernet], "{text}");
    }
    assert!(Expression::compile(" \n").unwrap().is_none());
}

/// What is said of an expression that libpcap refuses.
fn said(text: &str) -> String {
    match Expression::compile(text) {
        Err(FilterError::Compile(CompileError::Refused(fault))) => fault.to_string(),
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn a_fault_is_shown_where_it_is() {
    for (text, message, place) in [
        ("tcp port 80 adn host 1.2.3.4", "syntax error", "            ^^^"),
        ("tcp port", "syntax error", "        ^"),
        ("(tcp or udp", "syntax error", "           ^"),
        ("port 80) or tcp", "syntax error", "       ^"),
        ("tcp @ port 80", "syntax error", "    ^"),
        ("tcp port http9 or udp", "unknown port 'http9'", "         ^^^^^"),
        ("ip host fe80::1", "'ip' modifier applied to ip6 host", "        ^^^^^^^"),
        ("ip[2:3] = 4", "data size must be 1, 2, or 4", "      ^"),
        ("ip broadcast", "netmask not known, so 'ip broadcast' not supported", "   ^^^^^^^^^"),
        ("udp port 70000", "illegal port number 70000 > 65535", "         ^^^^^"),
    ] {
        assert_eq!(said(text), format!("the filter expression: {message}\n    {text}\n    {place}"));
    }
    // All of it is meant.
    assert_eq!(said("tcp and udp"), "the filter expression: expression rejects all packets");
}

#[test]
fn loops_are_refused() {
    let said = Expression::compile("ip6 protochain 6").unwrap_err();
    assert!(matches!(said, FilterError::Translate(TranslateError::Loop)), "{said:?}");
}

#[test]
fn tcpdump_compiles_and_complains_alike() {
    let by = |compiler: &Compiler, text: &str, link: Link| compiler.compile(text, link);
    let library = Compiler::Library(libpcap());
    for text in ["tcp port 8000 and not host 78.78.0.12", "arp", "tcp port 80 adn udp", "-d", "tcp and udp", "len > 5"]
    {
        for link in [Link::Ethernet, Link::Network] {
            assert_eq!(by(&Compiler::Tcpdump, text, link), by(&library, text, link), "{text}");
        }
    }
    assert!(tcpdump::compile("tcp", Link::Ethernet).unwrap().unwrap().len() > 3);
}

#[test]
fn the_object_is_one_that_the_loader_reads() {
    let expression = Expression::compile("tcp port 8000").unwrap().unwrap();
    let (_, program) = expression.programs().next().unwrap();
    let translated = translate(program, PLACES).unwrap();
    for (kind, section) in [(Kind::Kprobe, "kprobe"), (Kind::RawTracepoint, "raw_tp")] {
        let file = object("expression", kind, &translated).unwrap();
        let read = section_of(&file);
        assert_eq!(read, (section.to_owned(), translated.len()));
    }
}

/// The section of the program `expression` and how many instructions it has, read with another half of the crate.
fn section_of(file: &[u8]) -> (String, usize) {
    use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
    let file = object::File::parse(file).unwrap();
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok("expression")).unwrap();
    let section = file.section_by_index(symbol.section_index().unwrap()).unwrap();
    assert!(file.section_by_name("license").is_some() && symbol.is_definition() && symbol.is_global());
    (section.name().unwrap().to_owned(), symbol.size() as usize / 8)
}

#[test]
fn a_fault_names_no_place_where_there_is_none() {
    let fault = Fault { expression: "a".into(), message: "no".into(), part: None };
    assert_eq!(fault.to_string(), "the filter expression: no");
    let fault = Fault { expression: "\u{1b}\\ c".into(), message: "\u{7}".into(), part: Some(3..4) };
    assert_eq!(fault.to_string(), "the filter expression: \\x07\n    \\x1b\\ c\n          ^");
    let fault = Fault { expression: "añb c".into(), message: "no".into(), part: Some(5..6) };
    assert_eq!(fault.to_string(), "the filter expression: no\n    añb c\n        ^");
}

#[test]
fn what_is_no_program_is_refused() {
    let too_far = [Insn { code: cbpf::JMP | cbpf::JA, jt: 0, jf: 0, k: 7 }];
    assert_eq!(translate(&too_far, PLACES), Err(TranslateError::Loop));
    let end = Insn { code: cbpf::RET, jt: 0, jf: 0, k: 0 };
    for code in
        [cbpf::LD | 0xc0, cbpf::ALU | 0xc0, cbpf::JMP | 0x50, cbpf::ALU | cbpf::DIV, cbpf::LD | 0x18 | cbpf::ABS]
    {
        let unknown = [Insn { code, jt: 0, jf: 0, k: 0 }, end];
        assert_eq!(translate(&unknown, PLACES), Err(TranslateError::Unknown(code)), "{code:#x}");
    }
    // The verifier refuses what nothing leads to: it is left out.
    let dead = [Insn { code: cbpf::JMP | cbpf::JA, jt: 0, jf: 0, k: 1 }, Insn { code: 0xff, jt: 0, jf: 0, k: 0 }, end];
    assert_eq!(translate(&dead, PLACES).unwrap().len(), translate(&[end], PLACES).unwrap().len() + 1);
}
