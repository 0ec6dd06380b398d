//! A recording as another program sees it: by what pcapng says of its blocks, without the reader under test, and fast
//! enough for a million events in a test that nobody has optimised.

use std::{
    fs::File,
    io::{BufReader, Read as _},
    mem::offset_of,
    path::Path,
};

use skbtrace_common::{Event, HopId};

/// An enhanced packet block.
#[derive(Debug)]
pub struct Frame {
    /// Wall clock, nanoseconds.
    pub time_ns: u64,
    /// The packet's bytes, from an Ethernet header on.
    pub bytes: Vec<u8>,
    /// The event as it was recorded.
    event: Vec<u8>,
}

impl Frame {
    /// The packet's id.
    pub fn packet(&self) -> u64 {
        self.u64(offset_of!(Event, packet))
    }

    /// Address of the `sk_buff`.
    pub fn skb(&self) -> u64 {
        self.u64(offset_of!(Event, skb))
    }

    /// Ordinal of the hop in the packet's life.
    pub fn step(&self) -> u32 {
        let at = offset_of!(Event, step);
        u32::from_ne_bytes(self.event[at..at + 4].try_into().unwrap())
    }

    /// Name of the hop. The program that wrote the file has the same numbers.
    pub fn hop(&self) -> &'static str {
        let at = offset_of!(Event, hop);
        HopId::from_number(u16::from_ne_bytes(self.event[at..at + 2].try_into().unwrap())).unwrap().name()
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.event[at..at + 8].try_into().unwrap())
    }
}

/// Hands each packet of a whole recording to `each`, in the file's order.
pub fn read(path: impl AsRef<Path>, mut each: impl FnMut(Frame)) {
    let mut input = BufReader::with_capacity(1 << 20, File::open(path).unwrap());
    let mut head = [0; 8];
    while let Ok(()) = input.read_exact(&mut head) {
        let (kind, length) = (u32_at(&head, 0), u32_at(&head, 4) as usize);
        let mut body = vec![0; length - 8];
        input.read_exact(&mut body).unwrap();
        assert_eq!(u32_at(&body, length - 12) as usize, length, "a block ends with its length");
        body.truncate(length - 12);
        // An enhanced packet block.
        if kind == 6 {
            let captured = u32_at(&body, 12) as usize;
            let options = &body[20 + captured.next_multiple_of(4)..];
            // A custom option: an enterprise's number, then a tag of ours.
            let event = option(options, |code, value| code == 2989 && value[4..].starts_with(b"SKBE"));
            each(Frame {
                time_ns: u64::from(u32_at(&body, 4)) << 32 | u64::from(u32_at(&body, 8)),
                bytes: body[20..20 + captured].to_vec(),
                event: event[8..].to_vec(),
            });
        }
    }
}

/// The value of the first option that is wanted.
fn option(mut options: &[u8], wanted: impl Fn(u16, &[u8]) -> bool) -> &[u8] {
    loop {
        let [a, b, c, d, ..] = options else { panic!("no such option") };
        let (code, length) = (u16::from_ne_bytes([*a, *b]), usize::from(u16::from_ne_bytes([*c, *d])));
        let value = &options[4..4 + length];
        if wanted(code, value) {
            return value;
        }
        options = &options[4 + length.next_multiple_of(4)..];
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
}
