//! Any events come back as they were, and hostile bytes do no harm: what stands before the damage is handed out, and
//! nothing that was not recorded.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{RngAlgorithm, TestRng};
use skbtrace_common::{Event, EventFlags, HopId};

use super::testkit::{Seen, recorded, traffic};
use super::tests::{blocks, read};
use super::{Record, Start, Writer, testkit::start};
use crate::trace::{EVENT_SIZE, decode};

/// Any event that the ring could hold, and its bytes.
pub(crate) fn seen() -> impl Strategy<Value = Seen> {
    let event = prop::collection::vec(any::<u8>(), EVENT_SIZE);
    (event, 0..HopId::ALL.len() as u16, 1u64.., prop::collection::vec(any::<u8>(), 0..300)).prop_map(
        |(raw, hop, packet, bytes)| {
            // SAFETY: the vector has the size of an Event, which is made of integers only: every bit pattern is one.
            let any = unsafe { raw.as_ptr().cast::<Event>().read_unaligned() };
            (Event { hop, packet, caplen: bytes.len() as u16, ..any }, bytes)
        },
    )
}

/// What may befall a file.
#[derive(Clone, Debug)]
enum Damage {
    Flip {
        at: prop::sample::Index,
        bit: u8,
    },
    Cut {
        at: prop::sample::Index,
    },
    Remove {
        at: prop::sample::Index,
        length: usize,
    },
    Insert {
        at: prop::sample::Index,
        bytes: Vec<u8>,
    },
    Repeat {
        at: prop::sample::Index,
        length: usize,
    },
    Fill {
        at: prop::sample::Index,
        length: usize,
        with: u8,
    },
    /// A block in place of another one.
    Swap {
        one: prop::sample::Index,
        other: prop::sample::Index,
    },
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = || any::<prop::sample::Index>();
    prop_oneof![
        (at(), 0u8..8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        at().prop_map(|at| Damage::Cut { at }),
        (at(), 1usize..600).prop_map(|(at, length)| Damage::Remove { at, length }),
        (at(), prop::collection::vec(any::<u8>(), 1..100)).prop_map(|(at, bytes)| Damage::Insert { at, bytes }),
        (at(), 1usize..600).prop_map(|(at, length)| Damage::Repeat { at, length }),
        (at(), 1usize..600, prop_oneof![Just(0u8), Just(255), any::<u8>()])
            .prop_map(|(at, length, with)| Damage::Fill { at, length, with }),
        (at(), at()).prop_map(|(one, other)| Damage::Swap { one, other }),
    ]
}

impl Damage {
    fn apply(&self, file: &mut Vec<u8>) {
        let size = file.len();
        let until = |at: usize, length: usize| (at + length).min(size);
        match self {
            _ if size == 0 => {}
            Damage::Flip { at, bit } => file[at.index(size)] ^= 1 << bit,
            Damage::Cut { at } => file.truncate(at.index(size)),
            Damage::Remove { at, length } => drop(file.drain(at.index(size)..until(at.index(size), *length))),
            Damage::Insert { at, bytes } => drop(file.splice(at.index(size)..at.index(size), bytes.iter().copied())),
            Damage::Repeat { at, length } => {
                let piece = file[at.index(size)..until(at.index(size), *length)].to_vec();
                file.splice(at.index(size)..at.index(size), piece);
            }
            Damage::Fill { at, length, with } => file[at.index(size)..until(at.index(size), *length)].fill(*with),
            Damage::Swap { one, other } => {
                let blocks = blocks(file);
                if let (false, Some((to, length))) = (blocks.is_empty(), blocks.get(one.index(blocks.len().max(1)))) {
                    let (from, size) = blocks[other.index(blocks.len())];
                    if let (Some(block), true) =
                        (file.get(from..from + size).map(<[u8]>::to_vec), to + length <= file.len())
                    {
                        file.splice(*to..to + length, block);
                    }
                }
            }
        }
    }
}

/// Reads a damaged file, and compares it with what it was. `whole` events stand before the first byte that differs.
fn check(original: &[u8], events: &[Seen], damaged: &[u8]) -> Result<(), TestCaseError> {
    let (found, _, error) = read(damaged);
    let same = original.iter().zip(damaged).take_while(|(a, b)| a == b).count();
    let whole = blocks(original)
        .into_iter()
        .filter(|(at, length)| at + length <= same && original[*at..*at + 4] == 6u32.to_ne_bytes())
        .count();
    prop_assert!(found.len() >= whole, "{} of {whole} events before the damage", found.len());
    prop_assert!(found.len() <= events.len());
    prop_assert!(found[..] == events[..found.len()], "an event that was not recorded");
    if damaged != original && error.is_none() {
        // Only a file that was cut between two blocks has nothing wrong in it; its end is missing.
        prop_assert!(original.starts_with(damaged) && !damaged.is_empty());
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_events_come_back(seen in prop::collection::vec(seen(), 0..20)) {
        let (events, records, error) = read(&recorded(&seen));
        prop_assert!(error.is_none(), "{error:?}");
        prop_assert_eq!(events, seen);
        prop_assert!(matches!(records.last(), Some(Record::End(_))));
    }

    #[test]
    fn damage_never_passes_for_truth(damages in prop::collection::vec(damage(), 1..4)) {
        let events = traffic(1);
        let original = recorded(&events);
        let mut damaged = original.clone();
        damages.iter().for_each(|damage| damage.apply(&mut damaged));
        check(&original, &events, &damaged)?;
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let (events, records, error) = read(&bytes);
        prop_assert!(events.is_empty() && records.is_empty() && error.is_some());
    }

    /// Sound seals around hostile contents: made by somebody, not by chance.
    #[test]
    fn hostile_contents_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0u32..8) {
        let kind = [1, 6, 0x8053_4b42, 0x0a0d_0d0a, 4, 0xbad, 0, u32::MAX][kind as usize];
        let mut file = Vec::new();
        Writer::new(&mut file, &start()).unwrap();
        let mut block = super::pcapng::Block::new(&mut file, kind);
        block.bytes(&bytes).pad().seal(3);
        read(&file);
    }
}

/// A length of a block that is not there takes no memory.
#[test]
fn promised_lengths_cost_nothing() {
    let mut file = recorded(&[]);
    let (at, _) = blocks(&file)[2];
    file[at + 4..at + 8].copy_from_slice(&(16u32 << 20).to_ne_bytes());
    let (.., error) = read(&file);
    assert!(error.is_some_and(|error| error.to_string().contains("cut short")));
}

/// Mutates recordings for as long as `SKBTRACE_FUZZ_SECONDS` says (10 by default), from a new seed, which it prints:
/// `cargo test --release -p skbtrace -- --ignored fuzz_reader --nocapture`.
#[test]
#[ignore = "takes as long as it is told to"]
fn fuzz_reader() {
    let seconds = std::env::var("SKBTRACE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let seed: [u8; 32] = match std::env::var("SKBTRACE_FUZZ_SEED") {
        Ok(text) => std::array::from_fn(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()),
        Err(_) => std::array::from_fn(|n| {
            let hash = std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), n);
            hash as u8
        }),
    };
    let text: String = seed.iter().map(|byte| format!("{byte:02x}")).collect();
    eprintln!("SKBTRACE_FUZZ_SEED={text}");
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(ProptestConfig::default(), rng);
    let events = traffic(1);
    let original = recorded(&events);
    let hops = Start { hops: vec!["ip_rcv".to_owned(); 300], ..start() };
    let (until, mut count) = (Instant::now() + Duration::from_secs(seconds), 0u64);
    let strategies = prop::collection::vec(damage(), 1..6);
    while Instant::now() < until {
        for _ in 0..256 {
            let damages = strategies.new_tree(&mut runner).unwrap().current();
            let mut damaged = original.clone();
            damages.iter().for_each(|damage| damage.apply(&mut damaged));
            check(&original, &events, &damaged).unwrap_or_else(|error| panic!("{error}: {damages:?}"));
            // The same damage inside of a block whose seal is sound, which gets past the checksum.
            let blocks = blocks(&original);
            let (at, length) = blocks[count as usize % blocks.len()];
            let mut body = original[at + 8..at + length - 28].to_vec();
            damages.iter().for_each(|damage| damage.apply(&mut body));
            let mut file = Vec::new();
            Writer::new(&mut file, &hops).unwrap();
            let kind = u32::from_ne_bytes([original[at], original[at + 1], original[at + 2], original[at + 3]]);
            super::pcapng::Block::new(&mut file, kind).bytes(&body).pad().seal(3);
            let (events, ..) = read(&file);
            assert!(events.iter().all(|(event, bytes)| usize::from(event.caplen) == bytes.len()));
            for (event, bytes) in events {
                let event = Event { flags: event.flags & !EventFlags::DIGEST, ..event };
                assert!(decode(&[&crate::trace::encode(&event)[..], &bytes].concat()).is_ok());
            }
            count += 1;
        }
    }
    eprintln!("{count} files in {seconds} s");
}
