//! Durations, short: three digits say enough of a time between two hops.

/// A duration in the unit that suits it: `640 ns`, `3.1 µs`, `412 µs`, `21.7 ms`, `1.20 s`.
#[must_use]
pub fn duration(ns: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("µs", 1_000), ("ms", 1_000_000), ("s", 1_000_000_000)];
    if ns < 1000 {
        return format!("{ns} ns");
    }
    // Rounded first, so that 999.6 µs becomes 1.0 ms and not 1000 µs.
    let (unit, size) = UNITS.into_iter().find(|(_, size)| rounded(ns, *size) < 1000).unwrap_or(UNITS[2]);
    let tenths = rounded(ns, size / 10);
    if tenths >= 1000 {
        format!("{} {unit}", rounded(ns, size))
    } else if unit == "s" {
        let hundredths = rounded(ns, size / 100);
        format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

/// How many times a size fits, to the nearest.
fn rounded(ns: u64, size: u64) -> u64 {
    ns.saturating_add(size / 2) / size
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn a_duration_is_in_the_unit_that_suits_it() {
        let cases = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.0 µs"),
            (3_149, "3.1 µs"),
            (99_949, "99.9 µs"),
            (99_960, "100 µs"),
            (412_499, "412 µs"),
            (999_499, "999 µs"),
            (999_500, "1.0 ms"),
            (21_700_000, "21.7 ms"),
            (1_200_000_000, "1.20 s"),
            (1_209_000_000, "1.21 s"),
            (150_000_000_000, "150 s"),
        ];
        for (ns, text) in cases {
            assert_eq!(duration(ns), text, "{ns}");
        }
        assert!(duration(u64::MAX).ends_with(" s"));
    }
}
