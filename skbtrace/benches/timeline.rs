//! What an event costs on the user side, from the ring to the last line: each stage of it on recorded events.
//!
//! The events are those of a real run (`bridge.pcapng.gz`: TCP across veth, bridge, veth on Linux 6.1, with digests and the first
//! bytes of every packet, a third of which a queue lost and another third a tc filter garbled). They are laid behind one another, each
//! time as other packets at a later time, as often as a stage needs to show whether its cost grows with the length of a trace.
//!
//! `cargo bench -p skbtrace`; criterion compares with the run before, and `-- --save-baseline NAME`, `--baseline NAME` with any.

use std::hint::black_box;
use std::io::{self, Read as _};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flate2::read::GzDecoder;

use skbtrace::render::{Json, Style, Text};
use skbtrace::run::{Format, Look, Output, Replay};
use skbtrace::store::{Item, Reader, Record, RecordedNames, Start};
use skbtrace::trace::{Packet, StitchOptions, Stitcher, decode, encode, encode_digest};
use skbtrace::verdict::{Findings, Payload, payload};
use skbtrace_common::{Digest, Event, EventFlags};

/// A run, as it was recorded.
struct Recording {
    file: Vec<u8>,
    events: Vec<(Event, Digest, Vec<u8>)>,
    start: Start,
    names: RecordedNames,
}

impl Recording {
    fn read() -> Recording {
        let mut file = Vec::new();
        let packed: &[u8] = include_bytes!("bridge.pcapng.gz");
        GzDecoder::new(packed).read_to_end(&mut file).expect("the recording is whole");
        let (mut events, mut start) = (Vec::new(), None);
        let mut reader = Reader::new(&file[..]);
        while let Some(item) = reader.next_item().expect("the recording is whole") {
            match item {
                Item::Event(event, digest, frame) => events.push((event, digest, frame.to_vec())),
                Item::Record(Record::Start(begins)) => start = Some(*begins),
                Item::Record(_) => {}
            }
        }
        let start: Start = start.expect("a recording has a start");
        let names = start.recorded_names();
        Recording { file, events, start, names }
    }

    fn options(&self) -> StitchOptions {
        self.start.stitch_options()
    }

    /// So many events, and perhaps some more: the run once, and then again and again as others' packets.
    fn repeated(&self, at_least: usize) -> Vec<(Event, Digest, &[u8])> {
        let first_ns = self.events[0].0.time_ns;
        let last_ns = self.events.iter().map(|(event, ..)| event.time_ns).max().unwrap_or(first_ns);
        let ids = self.events.iter().map(|(event, ..)| event.packet).max().unwrap_or(0) + 1;
        let rounds = at_least.div_ceil(self.events.len()) as u64;
        let again = |round: u64| {
            self.events.iter().map(move |(event, digest, frame)| {
                let id = |id: u64| if id == 0 { 0 } else { id + round * ids };
                let time_ns = event.time_ns + round * (last_ns - first_ns + 1_000_000);
                let event = Event { packet: id(event.packet), other: id(event.other), time_ns, ..*event };
                (event, *digest, &frame[..])
            })
        };
        (0..rounds).flat_map(again).collect()
    }

    /// The packets of the run, and what is known of their payload.
    fn packets(&self) -> Vec<(Packet, Payload)> {
        let mut packets = Vec::new();
        stitch(self.options(), &self.repeated(1), &mut |packet| packets.push(packet));
        packets
            .into_iter()
            .map(|packet| (payload(&packet), packet))
            .map(|(payload, packet)| (packet, payload))
            .collect()
    }
}

/// Events to packets, as a run does it.
fn stitch(options: StitchOptions, events: &[(Event, Digest, &[u8])], sink: &mut dyn FnMut(Packet)) {
    let mut stitcher = Stitcher::new(options);
    for (event, digest, frame) in events {
        stitcher.push_copied(event, digest, frame, sink);
    }
    stitcher.finish(u64::MAX, sink);
}

fn decoding(criterion: &mut Criterion) {
    let recording = Recording::read();
    let record = |(event, digest, frame): &(Event, Digest, Vec<u8>)| {
        let digest = encode_digest(digest);
        let digest = if event.flags & EventFlags::DIGEST == 0 { &[][..] } else { &digest[..] };
        [&encode(event)[..], digest, frame].concat()
    };
    let records: Vec<Vec<u8>> = recording.events.iter().map(record).collect();
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(records.len() as u64));
    group.bench_function("ring records", |bencher| {
        bencher.iter(|| records.iter().filter(|record| decode(black_box(record)).is_ok()).count());
    });
    group.finish();
}

/// The whole of what a run does with an event but for writing it, at growing lengths of a trace.
fn stitching(criterion: &mut Criterion) {
    let recording = Recording::read();
    for (name, judged) in [("stitch", false), ("stitch and verdict", true)] {
        let mut group = criterion.benchmark_group(name);
        for length in [10_000, 100_000, 1_000_000] {
            let events = recording.repeated(length);
            group.sample_size(10).throughput(Throughput::Elements(events.len() as u64));
            group.bench_with_input(BenchmarkId::from_parameter(length), &events, |bencher, events| {
                bencher.iter(|| {
                    let mut findings = Findings::new(recording.options().reasons, None);
                    let mut packets = 0;
                    stitch(recording.options(), events, &mut |packet| {
                        packets += 1;
                        if judged {
                            findings.observe(&packet, &payload(&packet), &|_| None);
                        }
                    });
                    (packets, findings.all().len())
                });
            });
        }
        group.finish();
    }
}

fn comparing(criterion: &mut Criterion) {
    let packets = Recording::read().packets();
    let hops: usize = packets.iter().flat_map(|(packet, _)| packet.tree()).map(|part| part.steps.len()).sum();
    let mut group = criterion.benchmark_group("compare digests");
    group.throughput(Throughput::Elements(hops as u64));
    group.bench_function("hops", |bencher| {
        bencher.iter(|| packets.iter().filter(|(packet, _)| matches!(payload(packet), Payload::Garbled(_))).count());
    });
    group.finish();
}

fn rendering(criterion: &mut Criterion) {
    let recording = Recording::read();
    let packets = recording.packets();
    let hops: usize = packets.iter().flat_map(|(packet, _)| packet.tree()).map(|part| part.steps.len()).sum();
    let mut group = criterion.benchmark_group("render");
    group.throughput(Throughput::Elements(hops as u64));
    group.bench_function("text", |bencher| {
        bencher.iter(|| {
            let mut text = Text::new(Style { colour: false, explain: false, diff: false, payload: None });
            for (packet, payload) in &packets {
                text.packet(&mut io::sink(), packet, payload, &recording.names).expect("a sink takes everything");
            }
        });
    });
    group.bench_function("json", |bencher| {
        bencher.iter(|| {
            for (packet, payload) in &packets {
                let json = Json::default();
                json.packet(&mut io::sink(), packet, payload, &recording.names).expect("a sink takes everything");
            }
        });
    });
    group.finish();
}

/// A recording to text, as `skbtrace show` does it.
fn showing(criterion: &mut Criterion) {
    let recording = Recording::read();
    let look = Look { format: Format::Text, colour: false, explain: false, diff: false, quiet: false, payload: None };
    let mut group = criterion.benchmark_group("show");
    group.throughput(Throughput::Elements(recording.events.len() as u64));
    group.bench_function("text", |bencher| {
        bencher.iter(|| {
            let mut replay = Replay::new(Output::to(Box::new(io::sink()), look));
            replay.part("bridge.pcapng", &recording.file[..]).expect("a sink takes everything");
            replay.finish().expect("a sink takes everything").summary.map(|summary| summary.events)
        });
    });
    group.finish();
}

criterion_group!(benches, decoding, stitching, comparing, rendering, showing);
criterion_main!(benches);
