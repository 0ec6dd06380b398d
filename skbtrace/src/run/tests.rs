//! A recording shows what the run showed, byte for byte: runs without a kernel, recorded and shown again.

mod names;

use std::cell::RefCell;
use std::io::{self, Write};
use std::rc::Rc;

use proptest::prelude::*;

use super::{Format, Look, Output, Replay, Replayed, session::Session};
use crate::render::Names;
use crate::store::props::seen;
use crate::store::testkit::{Memory, Seen, digest_of, names, start, traffic};
use crate::store::{End, NameTable, RecordedNames, Recorder, Start};
use crate::survey::{Effects, Fact, Spot, Survey};
use crate::trace::Losses;
use crate::trace::testkit::INIT;
use crate::verdict::Cause;

/// Somewhere to write to and to look at later.
#[derive(Clone, Default)]
struct Paper(Rc<RefCell<Vec<u8>>>);

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

const TEXT: Look =
    Look { format: Format::Text, colour: false, explain: false, diff: false, quiet: false, payload: None };
const JSON: Look = Look { format: Format::Json, ..TEXT };

/// A run, as `run` would do it.
struct Live<N = RecordedNames> {
    session: Session,
    recorder: Option<Recorder<Memory>>,
    names: N,
    paper: Paper,
    failure: Option<io::Error>,
}

impl Live {
    fn new(look: Look, memory: &Memory, start: Start, rotate: Option<u64>) -> Live {
        Live::with(names(), look, memory, start, rotate)
    }

    fn rename(&mut self, table: NameTable) {
        self.names.table = table.clone();
        self.record(|recorder, _, _| recorder.names(table));
    }
}

impl<N: Names> Live<N> {
    fn with(names: N, look: Look, memory: &Memory, start: Start, rotate: Option<u64>) -> Live<N> {
        let paper = Paper::default();
        let mut output = Output::to(Box::new(paper.clone()), look);
        for line in &start.preface {
            output.preface(line).unwrap();
        }
        let session = Session::new(start.stitch_options(), start.slow_ns, output);
        let recorder = Some(Recorder::new(memory.clone(), start, rotate).unwrap());
        Live { session, recorder, names, paper, failure: None }
    }

    fn record(&mut self, write: impl FnOnce(&mut Recorder<Memory>, &Session, &N) -> io::Result<()>) {
        let Some(recorder) = &mut self.recorder else { return };
        if let Err(error) = write(recorder, &self.session, &self.names) {
            self.failure = Some(error);
            assert!(recorder.give_up(End { failed: true, finished: true, why: "full".to_owned(), ..End::default() }));
            self.recorder = None;
        }
    }

    fn events(&mut self, seen: &[Seen]) {
        for (event, bytes) in seen {
            let mut findings = Vec::new();
            self.session.event(event, (&digest_of(event), bytes), &self.names, Some(&mut findings)).unwrap();
            self.record(|recorder, session, names| {
                recorder.event(event, &digest_of(event), bytes, &findings, session.stitcher(), names)
            });
        }
    }

    fn tick(&mut self, now_ns: u64, losses: Losses, is_behind: bool) {
        self.record(|recorder, _, _| recorder.tick(now_ns, losses, is_behind));
        self.session.tick(now_ns, losses, is_behind, &self.names).unwrap();
    }

    fn end(mut self, now_ns: u64, losses: Losses, finished: bool) -> String {
        self.session.set_losses(losses);
        if finished {
            self.session.finish(now_ns, &self.names).unwrap();
        }
        let survey = self.session.has_findings().then(|| survey("nft rule bridge filter forward: drop"));
        self.session.findings(survey.as_ref(), &self.names).unwrap();
        self.session.books(&self.names).unwrap();
        if let Some(survey) = survey {
            self.record(|recorder, _, _| recorder.survey(survey));
        }
        self.record(|recorder, _, _| {
            recorder.end(End { now_ns, losses, finished, why: "SIGINT".to_owned(), ..End::default() })
        });
        self.paper.text()
    }
}

/// A host with one rule, of this name.
fn survey(what: &str) -> Survey {
    let rule = Fact {
        cause: Cause::Nftables,
        netns: INIT,
        ifindex: None,
        spot: Spot::BridgeForward,
        effects: Effects { drop: true, ..Effects::default() },
        what: what.to_owned(),
        undo: Some(what.to_owned()),
    };
    Survey { facts: vec![rule], unseen: vec![what.to_owned()] }
}

fn show(look: Look, files: &[Vec<u8>]) -> (String, Replayed) {
    let paper = Paper::default();
    let mut replay = Replay::new(Output::to(Box::new(paper.clone()), look));
    for file in files {
        if !replay.part("x", &file[..]).unwrap() {
            break;
        }
    }
    let replayed = replay.finish().unwrap();
    (paper.text(), replayed)
}

/// A run in which all happens that can change what is printed, with little room for open packets.
fn eventful(look: Look, rotate: Option<u64>) -> (String, Vec<Vec<u8>>) {
    let memory = Memory::new();
    let mut live = Live::new(look, &memory, Start { max_open: 24, idle_ns: 1, ..start() }, rotate);
    let seen = traffic(60);
    let later = seen[seen.len() - 1].0.time_ns + 1_000_000;
    let third = seen.len() / 3;
    let (first, rest) = seen.split_at(third);
    let (second, last) = rest.split_at(third);
    live.events(first);
    live.tick(first[third - 1].0.time_ns + 500, Losses::default(), false);
    let mut table = start().names;
    table.netns.insert(crate::trace::testkit::VETH1.netns, "renamed".to_owned());
    table.bridges.clear();
    live.rename(table);
    live.events(second);
    live.tick(second[third - 1].0.time_ns + 500, Losses { ring_full: 3, ..Losses::default() }, false);
    live.events(last);
    let text = live.end(later, Losses { ring_full: 3, read_failed: 1, ..Losses::default() }, true);
    let files = memory.files.borrow().clone();
    (text, files)
}

#[test]
fn nothing_is_idle_while_there_are_events_to_be_read() {
    let memory = Memory::new();
    let mut live = Live::new(TEXT, &memory, Start { max_open: 24, idle_ns: 1, ..start() }, None);
    let seen = traffic(60);
    live.events(&seen[..seen.len() / 2]);
    let later = seen[seen.len() / 2].0.time_ns + 1_000_000_000;
    let mut open = vec![live.session.stitcher().open_packets()];
    for is_behind in [true, false] {
        live.tick(later, Losses::default(), is_behind);
        open.push(live.session.stitcher().open_packets());
    }
    assert!(open[0] > 12 && open[1] == open[0] && open[2] < open[1], "{open:?}");
    let text = live.end(later, Losses::default(), true);
    let (shown, replayed) = show(TEXT, &[memory.file(0)]);
    assert_eq!((shown, replayed.complaint), (text, None));
}

#[test]
fn a_recording_shows_what_the_run_showed() {
    let events = Look { format: Format::JsonEvents, ..TEXT };
    let looks = [TEXT, JSON, events, Look { explain: true, colour: true, ..TEXT }, Look { quiet: true, ..TEXT }];
    for look in looks {
        let (live, files) = eventful(look, None);
        assert_eq!(files.len(), 1);
        let (shown, replayed) = show(look, &files);
        assert_eq!(shown, live);
        assert_eq!(replayed.complaint, None);
        assert!(replayed.summary.is_some_and(|summary| summary.packets > 100 && summary.late_events == 0));
    }
    // What happened in the run is in what was printed, or the comparison would say little.
    let (live, _) = eventful(TEXT, None);
    for sign in [
        "DROPPED at __br_forward, on calmveth1_peer: ",
        "cause     nft rule bridge filter forward: drop\n",
        "ns-calm1 ",
        "renamed ",
        "(calmbr)",
        "nf_hook_slow+0x44",
        "NETFILTER_DROP",
        "still in",
        "3 events lost",
    ] {
        assert!(live.contains(sign), "{sign}");
    }
}

#[test]
fn a_run_that_had_its_packets_shows_no_more_than_these() {
    let memory = Memory::new();
    let mut live = Live::new(TEXT, &memory, start(), None);
    live.events(&traffic(2)[..100]);
    let text = live.end(9_000_000_000, Losses::default(), false);
    let (shown, replayed) = show(TEXT, &[memory.file(0)]);
    assert_eq!(shown, text);
    assert_eq!(replayed.complaint, None);
}

#[test]
fn the_parts_of_a_recording_show_the_whole_run() {
    let (live, files) = eventful(TEXT, Some(64 << 10));
    assert!(files.len() > 5, "{}", files.len());
    assert!(files.iter().all(|file| file.len() < 66 << 10));
    let (shown, replayed) = show(TEXT, &files);
    assert_eq!(shown, live);
    assert_eq!(replayed.complaint, None);
    // One after another in one file, as `cat` leaves them, they are the same.
    let (shown, replayed) = show(TEXT, &[files.concat()]);
    assert_eq!((shown, replayed.complaint), (live, None));
}

#[test]
fn a_part_can_be_shown_by_itself() {
    let memory = Memory::new();
    let mut live = Live::new(TEXT, &memory, start(), Some(80 << 10));
    live.events(&traffic(12));
    let live = live.end(9_000_000_000, Losses::default(), true);
    let (shown, replayed) = show(TEXT, &memory.files.borrow()[2..3]);
    assert_eq!(replayed.complaint, None);
    assert!(replayed.summary.is_some());
    // But for its number and what counts from the beginning, a packet that is all in this part is as it was.
    let packets = |text: &str| -> Vec<String> {
        let packets = text.split("\n\n").filter(|packet| packet.contains("UDP") && packet.contains("DROPPED"));
        packets.filter_map(|packet| Some(packet.split_once(" UDP ")?.1.to_owned())).collect()
    };
    let (whole, part) = (packets(&live), packets(&shown));
    assert!(part.len() > 1 && part.len() < whole.len());
    assert!(part.iter().all(|packet| whole.contains(packet)), "{part:#?}");
}

#[test]
fn parts_that_do_not_follow_each_other_are_refused() {
    let (_, files) = eventful(TEXT, Some(64 << 10));
    let gap = show(TEXT, &[files[0].clone(), files[2].clone()]).1;
    assert_eq!(gap.complaint.as_deref(), Some("x: this is part 3 of the recording, and part 2 is next"));
    assert!(gap.summary.is_none());
    let (_, other) = eventful(TEXT, None);
    let memory = Memory::new();
    let live = Live::new(TEXT, &memory, Start { recording: "2-2".to_owned(), ..start() }, None);
    live.end(1, Losses::default(), true);
    let mixed = show(TEXT, &[other[0].clone(), memory.file(0)]).1;
    assert_eq!(mixed.complaint.as_deref(), Some("x: another recording begins here: show one at a time"));
}

#[test]
fn a_torn_tail_costs_no_more_than_itself() {
    let (live, files) = eventful(TEXT, None);
    let file = &files[0];
    for length in [file.len() - 1, file.len() - 30, file.len() * 2 / 3, file.len() / 2] {
        let (shown, replayed) = show(TEXT, &[file[..length].to_vec()]);
        let complaint = replayed.complaint.unwrap();
        assert!(complaint.contains("cut short; shown is what comes before: "), "{complaint}");
        assert!(replayed.summary.is_none() && !shown.contains("packets: "));
        // What had been finished by then is as it was.
        let finished: u64 =
            complaint.split(" to their end ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
        let next = format!("\n#{} ", finished + 1);
        let ends = |text: &str| [next.as_str(), "\n\nDROPPED "].iter().filter_map(|end| text.find(end)).min();
        let until = |text: &str| text[..ends(text).unwrap_or(text.len())].trim_end().to_owned();
        assert!(finished > 50 && until(&live).starts_with(&until(&shown)), "{finished} packets");
    }
}

#[test]
fn a_run_that_was_killed_is_shown_and_told_from_one_that_ended() {
    let memory = Memory::new();
    let mut live = Live::new(TEXT, &memory, start(), None);
    live.events(&traffic(1));
    live.recorder.as_mut().unwrap().flush().unwrap();
    let (shown, replayed) = show(TEXT, &[memory.file(0)]);
    assert!(shown.contains("\n#4 "), "{shown}");
    // Found is found, but nobody looked at the host.
    assert!(shown.contains("DROPPED at __br_forward") && shown.contains("(the host was not looked at)"), "{shown}");
    let complaint = replayed.complaint.unwrap();
    assert!(
        complaint.starts_with("it ends without an end: the run was killed, or is still going on; shown"),
        "{complaint}"
    );
}

#[test]
fn a_full_disk_ends_the_recording_in_good_order() {
    let memory = Memory { room: 200_000, ..Memory::new() };
    let mut live = Live::new(TEXT, &memory, start(), None);
    live.events(&traffic(40));
    assert_eq!(live.failure.as_ref().unwrap().kind(), io::ErrorKind::StorageFull);
    assert!(memory.file(0).len() > 100_000);
    let (shown, replayed) = show(TEXT, &[memory.file(0)]);
    assert_eq!(replayed.complaint, None);
    let summary = replayed.summary.unwrap();
    assert!(summary.events > 200 && shown.contains("#10 "));
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (_, files) = eventful(TEXT, None);
    let mut replay = Replay::new(Output::to(Box::new(Gone), TEXT));
    while replay.part("x", &files[0][..]).unwrap() {}
    let replayed = replay.finish().unwrap();
    assert!(replayed.closed && replayed.complaint.is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever stands in a recording is shown without harm, to the terminal neither.
    #[test]
    fn hostile_recordings_are_shown_without_harm(
        seen in prop::collection::vec(seen(), 0..20),
        text in ".{0,40}",
        number in prop_oneof![Just(0u64), Just(u64::MAX), any::<u64>()],
    ) {
        let losses = Losses { ring_full: number, unread: number, map_full: number, unreadable: number, missed_probes: number, read_failed: number };
        let memory = Memory::new();
        let mut table = NameTable::default();
        table.netns.insert(seen.first().map_or(0, |(event, _)| event.netns), text.clone());
        let hostile = Start {
            preface: vec![text.clone()],
            max_open: number as usize,
            idle_ns: number,
            clock_offset_ns: number as i64,
            under_way: number as usize,
            losses,
            names: table,
            target: None,
            ..start()
        };
        let mut recorder = Recorder::new(memory.clone(), hostile, None).unwrap();
        let stitcher = crate::trace::Stitcher::new(crate::trace::StitchOptions::default());
        for (event, bytes) in &seen {
            recorder.event(event, &digest_of(event), bytes, std::slice::from_ref(&text), &stitcher, &names()).unwrap();
        }
        recorder.tick(number, losses, number % 2 == 0).unwrap();
        recorder.survey(survey(&text)).unwrap();
        recorder.end(End { now_ns: number, losses, finished: true, why: text.clone(), ..End::default() }).unwrap();
        for look in [TEXT, JSON] {
            let (shown, replayed) = show(look, &[memory.file(0)]);
            prop_assert_eq!(replayed.complaint, None);
            prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
        }
    }
}
