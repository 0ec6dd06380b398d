//! What a process has used, from /proc.

use anyhow::{Context as _, Result};

use crate::tools;

/// Ticks a second in /proc/PID/stat (USER_HZ): the same on every x86 kernel.
const TICKS: f64 = 100.0;

/// Seconds of processor time, user and system, of all its threads.
///
/// # Errors
/// Where there is no such process.
pub fn cpu_s(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    cpu_of_stat(&tools::read(path.as_ref())?).with_context(|| format!("{path} is not understood"))
}

/// What it holds of memory, KiB.
///
/// # Errors
/// Where there is no such process.
pub fn rss_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    rss_of_status(&tools::read(path.as_ref())?).with_context(|| format!("{path} is not understood"))
}

/// Fields 14 and 15. The second one, the name, may hold blanks and parentheses.
fn cpu_of_stat(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (f64, f64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some((user + system) / TICKS)
}

fn rss_of_status(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{cpu_of_stat, rss_of_status};

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "312 (a) b (c) S 1 312 312 0 -1 4194560 900 0 3 0 250 50 7 8 20 0 2 0 1234 5678";
        assert_eq!(cpu_of_stat(stat), Some(3.0));
        assert_eq!(cpu_of_stat("312 (a) S 1"), None);
    }

    #[test]
    fn memory_is_that_which_is_resident() {
        assert_eq!(rss_of_status("Name:\tx\nVmHWM:\t 9000 kB\nVmRSS:\t    5120 kB\n"), Some(5120));
        assert_eq!(rss_of_status("Name:\tkthreadd\n"), None);
    }
}
