//! The traffic: paced datagrams that `skbtrace lab traffic` sends and counts, and iperf3's for what gets through at most.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use super::network::{CLIENT, SERVER};
use super::sample::Throughput;
use crate::tools;

/// How long the server may be busy with a client that has ended.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came of paced datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Traffic {
    /// How many were sent.
    pub sent: u64,
    /// How many came.
    pub received: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Sends so many datagrams at that rate (0: as fast as they are received) through the lab, or as `path` says.
///
/// # Errors
/// Where nothing can be sent; that not all came is no error.
pub fn datagrams(skbtrace: &Path, rate: u64, count: u64, path: &[&str]) -> Result<Traffic> {
    let mut command = Command::new(skbtrace);
    command.args(["lab", "traffic", "--proto", "udp", "--json", "--size", "512"]);
    command.args(["--rate", &rate.to_string(), "--count", &count.to_string()]).args(path);
    let done = command.stdin(Stdio::null()).output()?;
    serde_json::from_slice(&done.stdout).with_context(|| format!("no traffic: {}", tools::said(&done)))
}

/// iperf3's server in the lab; gone when dropped.
pub struct Iperf(Child);

impl Iperf {
    /// Starts the server, and waits until it listens.
    ///
    /// # Errors
    /// Where it does not.
    pub fn start() -> Result<Self> {
        let mut command = tools::command("ip")?;
        command.args(["netns", "exec", SERVER.0, "iperf3", "--server", "--bind", SERVER.1]);
        let server = Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
        for _ in 0..600 {
            // Seen by its socket: a connection would be one that it serves.
            let sockets = Command::new("ip").args(["netns", "exec", SERVER.0, "ss", "-Hltn"]).output()?;
            if String::from_utf8_lossy(&sockets.stdout).contains(":5201") {
                return Ok(server);
            }
            thread::sleep(Duration::from_millis(100));
        }
        bail!("iperf3 does not listen in {}", SERVER.0)
    }

    /// What gets through, each for so many seconds.
    ///
    /// # Errors
    /// Where iperf3 fails.
    pub fn throughput(&self, seconds: u64) -> Result<Throughput> {
        let (udp_sent_mbit, udp_mbit) = client(seconds, &["--udp", "--bandwidth", "0", "--length", "1000"])?;
        let (_, tcp_mbit) = client(seconds, &[])?;
        Ok(Throughput { udp_mbit, udp_sent_mbit, tcp_mbit })
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sent and received.
fn client(seconds: u64, more: &[&str]) -> Result<(f64, f64)> {
    let mut command = tools::command("ip")?;
    command.args(["netns", "exec", CLIENT, "iperf3", "--json", "--client", SERVER.1, "--time", &seconds.to_string()]);
    command.args(more).stdin(Stdio::null());
    let start = Instant::now();
    loop {
        let done = command.output()?;
        // It may print its error as JSON, and then end as if there were none.
        let report: Value =
            serde_json::from_slice(&done.stdout).with_context(|| format!("iperf3: {}", tools::said(&done)))?;
        match mbits(&report) {
            Some(measured) => return Ok(measured),
            // The server takes a while to be done with the client before, who does not wait for that.
            None if is_busy(&report) && start.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(200)),
            None => bail!("iperf3 says nothing of what came: {}", tools::said(&done)),
        }
    }
}

fn is_busy(report: &Value) -> bool {
    report.get("error").and_then(Value::as_str).is_some_and(|error| error.contains("server is busy"))
}

/// Sent and received. Of UDP what was received is what was sent without what the receiver has missed.
fn mbits(report: &Value) -> Option<(f64, f64)> {
    let end = report.get("end")?;
    let rate = |of: &str| Some(end.get(of)?.get("bits_per_second")?.as_f64()? / 1e6);
    match end.get("sum").and_then(|sum| sum.get("lost_percent")?.as_f64()) {
        Some(lost) => rate("sum").map(|sent| (sent, sent * (1.0 - lost / 100.0))),
        None => Some((rate("sum_sent")?, rate("sum_received")?)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Traffic, is_busy, mbits};

    #[test]
    fn what_was_sent_and_never_came_is_no_throughput() {
        let udp = json!({ "end": { "sum": { "bits_per_second": 8e6, "lost_percent": 25.0, "packets": 4 } } });
        assert_eq!(mbits(&udp), Some((8.0, 6.0)));
        let tcp =
            json!({ "end": { "sum_sent": { "bits_per_second": 9e6 }, "sum_received": { "bits_per_second": 7e6 } } });
        assert_eq!(mbits(&tcp), Some((9.0, 7.0)));
        assert_eq!(mbits(&json!({ "error": "unable to connect" })), None);
    }

    #[test]
    fn a_busy_server_is_told_from_one_that_is_not_there() {
        let busy = json!({ "start": { "connected": [] }, "intervals": [], "end": {},
            "error": "the server is busy running a test. try again later" });
        assert!(is_busy(&busy) && mbits(&busy).is_none());
        assert!(!is_busy(&json!({ "error": "unable to connect to server: Connection refused" })));
    }

    #[test]
    fn the_labs_report_is_understood() {
        let report = r#"{"protocol":"udp","sent":10,"received":9,"lost":1,"seconds":0.5,"stopped":null}"#;
        let traffic: Traffic = serde_json::from_str(report).unwrap();
        assert_eq!(traffic, Traffic { sent: 10, received: 9, seconds: 0.5 });
    }
}
