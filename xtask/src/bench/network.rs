//! The networks that traffic goes through: the lab, which `skbtrace lab` builds, and chains of veth pairs with a bridge between each
//! two, of any length. A chain without a bridge is a single pair: what goes through it is none of the lab's segment.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::tools;

/// The lab's interface that tools are told to trace.
pub const IFACE: &str = "calmveth1";
/// The lab's server, which iperf3 runs in: its namespace and address; and the namespace of its client.
pub const SERVER: (&str, &str) = ("ns-calm1", "78.78.0.10");
/// See [`SERVER`].
pub const CLIENT: &str = "ns-calm2";

/// Runs a line of the shell's that must succeed.
///
/// # Errors
/// What it complained about.
pub fn sh(line: &str) -> Result<()> {
    let done = tools::command("sh")?.args(["-c", line]).output()?;
    ensure!(done.status.success(), "{line}: {}", tools::said(&done));
    Ok(())
}

/// Writes a setting under /proc/sys.
///
/// # Errors
/// Where the kernel refuses it.
pub fn sysctl(name: &str, value: &str) -> Result<()> {
    std::fs::write(Path::new("/proc/sys").join(name), value).with_context(|| format!("{name} = {value}"))
}

/// A chain that is up; gone when dropped.
pub struct Chain {
    bridges: u32,
}

impl Chain {
    /// The interface at its client.
    pub const IFACE: &str = "bench0a";

    /// Builds one with so many bridges.
    ///
    /// # Errors
    /// What `ip` complained about.
    pub fn up(bridges: u32) -> Result<Self> {
        let chain = Self { bridges };
        sh(&build(bridges).join(" && "))?;
        Ok(chain)
    }

    /// What `skbtrace lab traffic` is to be told.
    pub fn path() -> [&'static str; 8] {
        ["--from", "bench-a", "--to", "bench-b", "--bind", "10.77.0.1", "--server", "10.77.0.2"]
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // The machine ends soon; what is in the way of the next chain is told by that one.
        let _ = sh(&remove(self.bridges).join("; "));
    }
}

/// Pair N is `benchNa` and `benchNb`; bridge N has the `b` of pair N and the `a` of pair N + 1.
fn build(bridges: u32) -> Vec<String> {
    let mut lines = vec!["ip netns add bench-a && ip netns add bench-b".to_owned()];
    lines.extend((0..=bridges).map(|pair| format!("ip link add bench{pair}a type veth peer name bench{pair}b")));
    for bridge in 0..bridges {
        lines.push(format!("ip link add benchbr{bridge} up type bridge"));
        for port in [format!("bench{bridge}b"), format!("bench{}a", bridge + 1)] {
            lines.push(format!("ip link set {port} up master benchbr{bridge}"));
        }
    }
    for (netns, device, address) in
        [("bench-a", "bench0a".to_owned(), "10.77.0.1"), ("bench-b", format!("bench{bridges}b"), "10.77.0.2")]
    {
        lines.push(format!("ip link set {device} netns {netns}"));
        lines.push(format!("ip -n {netns} address add {address}/24 dev {device}"));
        lines.push(format!("ip -n {netns} link set {device} up"));
    }
    lines
}

fn remove(bridges: u32) -> Vec<String> {
    let mut lines = vec!["ip netns del bench-a; ip netns del bench-b".to_owned()];
    lines.extend((0..=bridges).map(|pair| format!("ip link del bench{pair}a 2> /dev/null")));
    lines.extend((0..bridges).map(|bridge| format!("ip link del benchbr{bridge}")));
    // A namespace's devices go a little after it: the next chain has the same names.
    lines.push("for i in $(seq 100); do ip link show bench0b > /dev/null 2>&1 || break; sleep 0.1; done".to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::build;

    #[test]
    fn a_chain_without_bridges_is_a_pair() {
        insta::assert_snapshot!(build(0).join("\n"), @r"
        ip netns add bench-a && ip netns add bench-b
        ip link add bench0a type veth peer name bench0b
        ip link set bench0a netns bench-a
        ip -n bench-a address add 10.77.0.1/24 dev bench0a
        ip -n bench-a link set bench0a up
        ip link set bench0b netns bench-b
        ip -n bench-b address add 10.77.0.2/24 dev bench0b
        ip -n bench-b link set bench0b up
        ");
    }

    #[test]
    fn each_bridge_joins_two_pairs() {
        let lines = build(2);
        let ports: Vec<&String> = lines.iter().filter(|line| line.contains("master")).collect();
        assert_eq!(
            ports,
            [
                "ip link set bench0b up master benchbr0",
                "ip link set bench1a up master benchbr0",
                "ip link set bench1b up master benchbr1",
                "ip link set bench2a up master benchbr1",
            ]
        );
        assert!(lines.contains(&"ip link set bench2b netns bench-b".to_owned()));
    }
}
