use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn record(sequence: u64) -> Record {
    Record { run: 7, connection: 1, sequence }
}

fn encoded(record: Record, size: usize) -> Vec<u8> {
    let mut buffer = vec![0xaa; size];
    encode(record, &mut buffer);
    buffer
}

fn check(bytes: &[u8]) -> Result<Record, Fault> {
    verify(7, bytes, &mut Vec::new())
}

#[test]
fn the_format_is_the_documented_one() {
    let bytes = encoded(Record { run: 0x01020304, connection: 0x0506, sequence: 0x0708090a0b0c0d0e }, 40);
    let text: Vec<_> =
        bytes.chunks(8).map(|row| row.iter().map(|byte| format!("{byte:02x}")).collect::<String>()).collect();
    insta::assert_snapshot!(text.join("\n"), @"
    736b625401020304
    050600000708090a
    0b0c0d0e00000028
    6ac993d22614d839
    7ea95214f85ac7ff
    ");
}

#[test]
fn a_changed_payload_byte_is_named_with_its_record() {
    let mut bytes = encoded(record(17), 100);
    bytes[52] ^= 0x40;
    let fault = check(&bytes).unwrap_err();
    let Fault::Corrupt { record: Some(found), first: Some((offset, sent, got)) } = fault else { panic!("{fault:?}") };
    assert_eq!((found, offset, sent ^ got), (record(17), 52, 0x40));
    assert_eq!(fault.to_string(), format!("connection 1 record 17: byte 52 sent as {sent:02x}, came as {got:02x}"));
}

/// The bytes that say which record it is.
fn says_which(offset: usize) -> bool {
    matches!(offset, 4..10 | 12..20)
}

#[test]
fn a_header_that_names_the_wrong_record_is_not_believed() {
    for offset in 0..HEADER {
        let mut bytes = encoded(record(17), 100);
        bytes[offset] ^= 1;
        let fault = check(&bytes).unwrap_err();
        let believed = matches!(fault, Fault::Corrupt { record: Some(found), .. } if found == record(17));
        assert_eq!(believed, !says_which(offset), "byte {offset}: {fault:?}");
    }
}

#[test]
fn without_a_payload_a_wrong_hash_leaves_it_open_what_is_wrong() {
    for offset in [8, 30] {
        let mut bytes = encoded(record(17), HEADER);
        bytes[offset] ^= 1;
        assert_eq!(check(&bytes), Err(Fault::Corrupt { record: None, first: None }));
    }
}

#[test]
fn another_run_is_stray_and_a_short_record_is_corrupt() {
    let other = Record { run: 8, ..record(3) };
    assert_eq!(check(&encoded(other, 64)), Err(Fault::Stray(other)));
    assert_eq!(check(&encoded(record(3), 64)[..31]), Err(Fault::Corrupt { record: None, first: None }));
    assert_eq!(check(&encoded(record(3), 64)[..63]), Err(Fault::Corrupt { record: None, first: None }));
    assert_eq!(check(&[]), Err(Fault::Corrupt { record: None, first: None }));
}

proptest! {
    #[test]
    fn what_was_encoded_verifies(connection: u16, sequence: u64, size in HEADER..4000) {
        let record = Record { run: 7, connection, sequence };
        prop_assert_eq!(check(&encoded(record, size)), Ok(record));
    }

    #[test]
    fn any_changed_byte_is_seen(sequence: u64, size in HEADER..400, at: prop::sample::Index, by in 1..=u8::MAX) {
        let mut bytes = encoded(record(sequence), size);
        let offset = at.index(size);
        bytes[offset] ^= by;
        match check(&bytes) {
            Err(Fault::Corrupt { record: Some(found), first: Some((first, ..)) }) => {
                prop_assert!(!says_which(offset), "a changed header was believed");
                prop_assert_eq!((found, first), (record(sequence), offset));
            }
            Err(Fault::Corrupt { record: None, first: None }) => {
                let unproven = HASH.contains(&offset) && size < HEADER + 8;
                prop_assert!(says_which(offset) || unproven, "a good header was not believed");
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn arbitrary_bytes_never_verify(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(check(&bytes).is_err());
    }

    /// Against a model that keeps everything that came in a list.
    #[test]
    fn the_tally_counts_as_a_list_would(arrivals in prop::collection::vec((0..3_u16, 0..200_u64), 0..300)) {
        let mut tally = Tally::default();
        let (mut seen, mut duplicate, mut reordered) = (HashSet::new(), 0, 0);
        for (index, (connection, sequence)) in arrivals.iter().enumerate() {
            tally.count(Ok(Record { run: 7, connection: *connection, sequence: *sequence }));
            if !seen.insert((connection, sequence)) {
                duplicate += 1;
            } else if arrivals[..index].iter().any(|(c, s)| c == connection && s > sequence) {
                reordered += 1;
            }
        }
        let intact = seen.len() as u64;
        prop_assert_eq!((tally.received, tally.intact), (arrivals.len() as u64, intact));
        prop_assert_eq!((tally.duplicate, tally.reordered), (duplicate, reordered));
        prop_assert_eq!(tally.lost(intact + 5), 5);
    }
}

#[test]
fn a_corrupt_record_is_not_lost_as_well_and_a_stray_one_is_not_received() {
    let mut tally = Tally::default();
    tally.count(Ok(record(0)));
    tally.count(Err(Fault::Corrupt { record: None, first: None }));
    tally.count(Err(Fault::Stray(Record { run: 8, ..record(2) })));
    assert_eq!((tally.received, tally.corrupt, tally.stray, tally.lost(3)), (2, 1, 1, 1));
    assert_eq!(tally.first_fault, Some(Fault::Corrupt { record: None, first: None }));
}
