//! What else ran on the host meanwhile: whether the figures are for others to see is for the reader to know, not for the one who
//! started it to remember. All that the processors did is compared with what our machine had of it.

use anyhow::{Context as _, Result};
use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;

use crate::tools;

/// Ticks a second in /proc/stat (USER_HZ).
const TICKS: f64 = 100.0;

/// A moment, seconds of processor time since the host was started.
#[derive(Clone, Copy)]
pub struct Moment {
    /// Of all processors, at work or not.
    all: f64,
    /// At work.
    busy: f64,
    /// At work for us, and for those of our children that have ended.
    ours: f64,
}

/// What others had of the host.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Others {
    /// Of all that its processors could do, percent.
    pub percent: f64,
}

impl Moment {
    /// Now.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn now() -> Result<Self> {
        let (all, busy) = of_stat(&tools::read("/proc/stat".as_ref())?).context("/proc/stat is not understood")?;
        let mut ours = 0.0;
        for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
            let usage = getrusage(who)?;
            for time in [usage.user_time(), usage.system_time()] {
                ours += time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
            }
        }
        Ok(Self { all, busy, ours })
    }

    /// What others have had from here on until then.
    pub fn others_until(&self, then: &Moment) -> Others {
        let theirs = (then.busy - self.busy) - (then.ours - self.ours);
        // Two clocks: less than nothing is nothing.
        let part = (theirs / (then.all - self.all)).max(0.0);
        Others { percent: if part.is_finite() { 100.0 * part } else { 0.0 } }
    }
}

/// All and busy, seconds: of `user nice system idle iowait irq softirq steal` all but the fourth and fifth. Guests' time, behind
/// those, is in `user` and `nice` already.
fn of_stat(stat: &str) -> Option<(f64, f64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<f64> = line.split_whitespace().take(8).map_while(|field| field.parse().ok()).collect();
    let idle = ticks.get(3)? + ticks.get(4)?;
    let all: f64 = ticks.iter().sum();
    Some((all / TICKS, (all - idle) / TICKS))
}

#[cfg(test)]
mod tests {
    use super::{Moment, of_stat};

    #[test]
    fn waiting_is_no_work_and_a_guests_time_is_counted_once() {
        let stat = "cpu  1000 200 300 5000 400 10 20 70 900 100\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(of_stat(stat), Some((70.0, 16.0)));
        assert_eq!(of_stat("cpu0 1 2 3 4 5\n"), None);
    }

    #[test]
    fn others_had_what_we_had_not() {
        let before = Moment { all: 1000.0, busy: 100.0, ours: 1.0 };
        let after = Moment { all: 1200.0, busy: 250.0, ours: 101.0 };
        assert_eq!(before.others_until(&after).percent, 25.0);
        assert_eq!(before.others_until(&Moment { all: 1200.0, busy: 190.0, ours: 101.0 }).percent, 0.0);
        assert_eq!(before.others_until(&before).percent, 0.0);
    }
}
