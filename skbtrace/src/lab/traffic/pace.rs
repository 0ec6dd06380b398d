//! Pacing by absolute deadlines: the n-th record is due n / rate after the first, however late the one before was. So
//! a slow machine sends bursts, and the mean rate stays as asked.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The longest sleep without a look at the stop flag.
const NAP: Duration = Duration::from_millis(50);

/// When record `index` is due after the first, at `rate` records a second; 0: at once.
#[must_use]
pub fn due(index: u64, rate: u64) -> Duration {
    if rate == 0 {
        return Duration::ZERO;
    }
    let nanoseconds = u128::from(index % rate) * 1_000_000_000 / u128::from(rate);
    Duration::from_secs(index / rate) + Duration::from_nanos(nanoseconds as u64)
}

/// A running pace.
#[derive(Debug)]
pub struct Pace {
    start: Instant,
    rate: u64,
}

impl Pace {
    /// Starts now.
    #[must_use]
    pub fn start(rate: u64) -> Self {
        Self { start: Instant::now(), rate }
    }

    /// Sleeps until record `index` is due; `false` when `stop` was set meanwhile.
    #[must_use]
    pub fn wait(&self, index: u64, stop: &AtomicBool) -> bool {
        let due = due(index, self.rate);
        loop {
            if stop.load(Ordering::Relaxed) {
                return false;
            }
            match due.checked_sub(self.start.elapsed()) {
                None | Some(Duration::ZERO) => return true,
                Some(left) => thread::sleep(left.min(NAP)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_nth_record_is_due_n_over_rate_after_the_first() {
        assert_eq!(due(0, 1000), Duration::ZERO);
        assert_eq!(due(1, 1000), Duration::from_millis(1));
        assert_eq!(due(2500, 1000), Duration::from_millis(2500));
        assert_eq!(due(1, 3), Duration::from_nanos(333_333_333));
        assert_eq!(due(3, 3), Duration::from_secs(1));
        assert_eq!(due(u64::MAX, 0), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn deadlines_never_go_back_and_never_drift(index in 0..u64::MAX, rate in 1..u64::MAX) {
            prop_assert!(due(index, rate) <= due(index + 1, rate));
            let exact = u128::from(index) * 1_000_000_000 / u128::from(rate);
            prop_assert_eq!(due(index, rate).as_nanos(), exact);
        }
    }

    #[test]
    fn a_set_stop_flag_ends_the_wait_at_once() {
        let pace = Pace::start(1);
        assert!(pace.wait(0, &AtomicBool::new(false)));
        assert!(!pace.wait(1_000_000, &AtomicBool::new(true)));
    }
}
