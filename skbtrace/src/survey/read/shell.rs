//! Words of commands that are offered to be run as root. Names in them were chosen by people: what a shell would take for
//! more than a word is quoted, and what cannot be shown as it is gets no command at all.

use crate::name::printable;

/// A name as one word of a shell's command; `None` where it cannot be printed as it is, or not be quoted simply.
pub(super) fn word(name: &[u8]) -> Option<String> {
    let text = printable(name);
    if text.as_bytes() != name || name.is_empty() || name.contains(&b'\'') {
        return None;
    }
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/@,=+%".contains(byte);
    Some(if name.iter().all(plain) { text } else { format!("'{text}'") })
}

#[cfg(test)]
mod tests {
    use super::word;

    #[test]
    fn a_name_is_one_word_or_none() {
        assert_eq!(word(b"eth0.100").as_deref(), Some("eth0.100"));
        assert_eq!(word(b"$(reboot)").as_deref(), Some("'$(reboot)'"));
        assert_eq!(word(b"a;b").as_deref(), Some("'a;b'"));
        assert_eq!(word("brücke".as_bytes()).as_deref(), Some("'brücke'"));
        for none in [b"a'b".as_slice(), b"\x1b[2J", b"\xff", b"a\\b", b""] {
            assert_eq!(word(none), None, "{none:?}");
        }
    }
}
