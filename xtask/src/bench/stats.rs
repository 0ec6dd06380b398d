//! Medians and how far the values lie apart. With three rounds more than that would be show.

use serde::Serialize;

/// Some values of one quantity.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one; of an even number the mean of the two in the middle.
    pub median: f64,
    /// The lowest.
    pub low: f64,
    /// The highest.
    pub high: f64,
    /// All of them, in the order of the rounds.
    pub values: Vec<f64>,
}

impl Spread {
    /// Of these values; none of none. What is not a number is left out.
    pub fn of(values: &[f64]) -> Option<Self> {
        let values: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let lower = if sorted.len().is_multiple_of(2) { *sorted.get(middle.checked_sub(1)?)? } else { upper };
        Some(Self { median: (lower + upper) / 2.0, low, high, values })
    }
}

/// A share of nothing is not a number, and left out later on.
pub fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { f64::NAN }
}

#[cfg(test)]
mod tests {
    use super::{Spread, share};

    #[test]
    fn the_median_is_the_middle_one_whatever_the_order() {
        let spread = Spread::of(&[9.0, 1.0, 5.0]).unwrap();
        assert_eq!((spread.low, spread.median, spread.high), (1.0, 5.0, 9.0));
        assert_eq!(spread.values, [9.0, 1.0, 5.0]);
        assert_eq!(Spread::of(&[4.0, 1.0, 2.0, 100.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of(&[7.0]).unwrap().median, 7.0);
    }

    #[test]
    fn what_is_no_number_counts_for_nothing() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[f64::NAN, share(1.0, 0.0)]), None);
        assert_eq!(Spread::of(&[f64::NAN, 2.0]).unwrap().values, [2.0]);
    }
}
