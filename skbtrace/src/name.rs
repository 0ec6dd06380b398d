//! Names that people chose: devices, namespaces, processes. They are hostile: an interface may be called
//! `\x1b[2J`, a process `<script>`. They pass through here before they reach a terminal.

use std::fmt::Write as _;

/// The text of a NUL-terminated name from the kernel, safe to print: control characters and bytes that are no UTF-8
/// come out as `\x1b`, a backslash as `\\`, so that two different names never look the same.
#[must_use]
pub fn printable(name: &[u8]) -> String {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut out = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                out.push_str("\\\\");
            } else if c.is_control() || is_invisible(c) {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    escape(&mut out, byte);
                }
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            escape(&mut out, *byte);
        }
    }
    out
}

/// The same for a text that was safe to print when it was written down, by whoever wrote it: what had been escaped then
/// stays as it was, and what had not is escaped now.
#[must_use]
pub fn still_printable(text: &str) -> String {
    text.split('\\').map(|piece| printable(piece.as_bytes())).collect::<Vec<_>>().join("\\")
}

/// Characters that reorder or hide text on a terminal without being control characters.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

fn escape(out: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{is_invisible, printable, still_printable};

    #[test]
    fn hostile_names_are_escaped_and_stay_distinct() {
        assert_eq!(printable(b"veth0\0garbage"), "veth0");
        assert_eq!(printable(b"a\x1b[2Jb"), "a\\x1b[2Jb");
        assert_eq!(printable(b"\xff\xfe"), "\\xff\\xfe");
        assert_eq!(printable(b"a\\x1b"), "a\\\\x1b");
        assert_eq!(printable("brücke".as_bytes()), "brücke");
        assert_eq!(printable("a\u{202e}b".as_bytes()), "a\\xe2\\x80\\xaeb");
    }

    proptest! {
        #[test]
        fn what_is_printable_stays_as_it_is_and_what_is_not_becomes_so(
            name in prop::collection::vec(any::<u8>(), 0..20),
            text in any::<String>(),
        ) {
            let shown = printable(&name);
            prop_assert_eq!(still_printable(&shown), shown);
            let shown = still_printable(&text);
            prop_assert!(!shown.chars().any(|c| c.is_control() || is_invisible(c)), "{:?}", shown);
            prop_assert_eq!(still_printable(&shown), shown);
        }
    }
}
