//! The page of `skbtrace report` in a real browser: a recording is written, the program makes a page of it, and Chromium says what
//! is on it then.
//!
//! Without a Chromium on the PATH these tests are ignored, and say so: what a page holds is tested without one too, beside the
//! code. No test asserts a time.

#![expect(clippy::unwrap_used, reason = "these are tests, their helpers included")]

mod browser;
mod recording;
#[path = "../../skbtrace/src/trace/testkit.rs"]
#[expect(dead_code, reason = "it has more traffic than is looked at here")]
mod testkit;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use browser::{Browser, Dom};
use recording::{damaged, hops_of_garbled, many, mixed, report};

/// What a test does with a browser.
type Test = fn(&Browser) -> Result<(), Failed>;

const TESTS: [(&str, Test); 8] = [
    ("findings_topology_and_the_packet_are_on_the_page", findings),
    ("the_hop_of_the_change_and_its_bytes_are_marked", change),
    ("the_address_chooses_packets_and_opens_one", address),
    ("of_ten_thousand_packets_few_are_elements", ten_thousand),
    ("names_stay_names", hostile),
    ("what_is_put_into_the_page_does_not_run", policy),
    ("a_damaged_recording_is_shown_and_said_to_be_one", torn),
    ("times_are_written_as_the_program_writes_them", times),
];

fn main() -> ExitCode {
    let browser = Browser::find();
    let kind = if browser.is_some() { "" } else { "no Chromium on the PATH" };
    let trials = TESTS.iter().map(|(name, test)| {
        let browser = browser.clone();
        let ignored = browser.is_none();
        let run = move || browser.as_ref().map_or(Err("no Chromium on the PATH".into()), test);
        Trial::test(*name, run).with_kind(kind).with_ignored_flag(ignored)
    });
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Fails with the words that are not on the page.
fn has(dom: &Dom, words: &[&str]) -> Result<(), Failed> {
    let missing: Vec<&&str> = words.iter().filter(|words| !dom.text.contains(**words)).collect();
    if missing.is_empty() { Ok(()) } else { Err(format!("missing {missing:?} in {}", dom.text).into()) }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, is: T, expected: T) -> Result<(), Failed> {
    if is == expected { Ok(()) } else { Err(format!("{what}: {is:?}, expected {expected:?}").into()) }
}

fn findings(browser: &Browser) -> Result<(), Failed> {
    let dom = browser.open(&report(&mixed(b"calmveth2_peer")), "")?;
    has(
        &dom,
        &["GARBLED between __dev_queue_xmit and veth_xmit, on ns-calm2/calmveth2: 1 packet of 4 (#1)", "Show it"],
    )?;
    has(&dom, &["DROPPED", "nf_hook_slow+0x44", "port of calmbr", "4 packets", "6.1.0-test", "calmveth2 ═ calmveth1"])?;
    equal("findings", dom.count("class=\"finding is-"), 2)?;
    // Two ports, their bridge, and the two ends.
    equal("nodes", dom.count("class=\"node"), 5)?;
    // The bridge's two sides, and the datagram's own way; one more is in the legend.
    equal("pairs", dom.count("class=\"pair inner\""), 3 + 1)?;
    equal("rows of packets", dom.count("class=\"row is-"), 4)?;
    // The first packet of the first finding is open, with all its hops but the end, and the row that says how it ended.
    equal("packet", dom.selected(), Some(1))?;
    equal("hops", dom.count("role=\"row\"") - 1, hops_of_garbled() + 1)?;
    equal("complaints", dom.complaints, Vec::<String>::new())
}

fn change(browser: &Browser) -> Result<(), Failed> {
    let dom = browser.open(&report(&mixed(b"calmveth2_peer")), "")?;
    equal("marked hops", dom.count("class=\"hop garbled tainted"), 1)?;
    let (_, from) = dom.html.split_once("class=\"hop garbled tainted").ok_or("no row")?;
    let row = from.split("role=\"row\"").nth(1).ok_or("no row")?;
    if !row.contains(">veth_xmit<") || !row.contains("payload changed") {
        return Err(format!("another row is marked: {row}").into());
    }
    has(&dom, &["delivered to python3[301]", "with its payload changed"])?;
    // A byte before and after, in figures and in letters.
    equal("changed bytes", dom.count("<mark>"), 4)?;
    equal("before and after", (dom.count("<mark>75</mark>"), dom.count("<mark>55</mark>")), (1, 1))
}

fn address(browser: &Browser) -> Result<(), Failed> {
    let page = report(&mixed(b"calmveth2_peer"));
    let dom = browser.open(&page, "#packet=3")?;
    equal("packet", dom.selected(), Some(3))?;
    for (query, shown, count) in [
        ("is:dropped,garbled", "2 of 4 packets", 2),
        ("hop:tcp_queue_rcv", "1 of 4 packets", 1),
        ("-is:delivered", "1 of 4 packets", 1),
        ("dev:ns-calm1/", "3 of 4 packets", 3),
        ("took>100us", "1 of 4 packets", 1),
        ("%232-3", "2 of 4 packets", 2),
        ("nothing of the kind", "0 of 4 packets", 0),
    ] {
        let dom = browser.open(&page, &format!("#find={}", query.replace(' ', "%20")))?;
        has(&dom, &[shown])?;
        equal(query, dom.count("class=\"row is-"), count)?;
        equal(query, dom.text.contains("The query finds no packet"), count == 0)?;
    }
    Ok(())
}

fn ten_thousand(browser: &Browser) -> Result<(), Failed> {
    let dom = browser.open(&report(&many(10_000)), "#packet=5000")?;
    has(&dom, &["10,000 packets", "#5000"])?;
    equal("packet", dom.selected(), Some(5000))?;
    let rows = dom.count("class=\"row is-");
    if !(5..100).contains(&rows) { Err(format!("{rows} rows").into()) } else { Ok(()) }
}

fn hostile(browser: &Browser) -> Result<(), Failed> {
    let dom = browser.open(&report(&mixed(b"<b id=x>&quot;")), "")?;
    has(&dom, &["<b id=x>&quot;"])?;
    equal("elements by that name", dom.count("<b id=\"x\""), 0)
}

fn policy(browser: &Browser) -> Result<(), Failed> {
    let page = report(&mixed(b"calmveth2_peer"));
    let inserted =
        "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\"><p style=\"color:red\">";
    let with_more = page.replace("<main>", &format!("<main>{inserted}"));
    assert_ne!(page, with_more);
    let dom = browser.open(&with_more, "")?;
    equal("what was put in", dom.html.contains("<title>ran</title>"), false)?;
    has(&dom, &["4 packets"])?;
    if dom.complaints.is_empty() { Err("nobody refused it".into()) } else { Ok(()) }
}

fn torn(browser: &Browser) -> Result<(), Failed> {
    let dom = browser.open(&report(&damaged()), "")?;
    has(&dom, &["This recording is damaged or cut short", "the file ends in the middle of a block", "There are none"])
}

fn times(browser: &Browser) -> Result<(), Failed> {
    let spans = [0, 640, 999, 1_000, 3_149, 99_960, 412_499, 999_500, 21_700_000, 1_209_000_000, 150_000_000_000];
    let dom = browser.open(&report(&recording::lasting(&spans)), "")?;
    let written: Vec<String> = spans.iter().map(|ns| format!(">+{}<", skbtrace::render::duration(*ns))).collect();
    let missing: Vec<&String> = written.iter().filter(|text| !dom.html.contains(text.as_str())).collect();
    equal("missing", missing, Vec::new())
}
