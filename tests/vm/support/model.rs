//! The JSON as types, and what tests ask of it.

use serde::Deserialize;

/// A line of the output.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    Packet(Box<Packet>),
    Summary(Summary),
}

/// One run's output.
#[derive(Debug)]
pub struct Trace {
    /// In the order of their beginning. The output has them in the order of their end.
    pub packets: Vec<Packet>,
    pub summary: Summary,
}

#[derive(Debug, Deserialize)]
pub struct Packet {
    pub number: Option<u64>,
    pub id: String,
    pub time_ns: u64,
    pub ethertype: u16,
    pub flow: Option<Flow>,
    pub tcp: Option<Tcp>,
    pub payload_len: u64,
    pub payload: Option<Payload>,
    pub retransmission: bool,
    /// Id of the packet that it was appended to.
    pub joined: Option<String>,
    /// What was appended to it.
    #[serde(default)]
    pub parts: Vec<Part>,
    pub verdict: String,
    pub outcome: Outcome,
    pub hops: Vec<Hop>,
    pub branches: Vec<Packet>,
    /// Of a branch: index of the hop of its source that it was seen after.
    pub after: Option<usize>,
}

#[derive(Debug, Deserialize)]
pub struct Part {
    pub id: String,
    pub payload_len: u64,
}

#[derive(Debug, Deserialize)]
pub struct Flow {
    pub protocol: u8,
    pub src: String,
    pub dst: String,
    pub dport: Option<u16>,
    pub icmp: Option<Icmp>,
}

#[derive(Debug, Deserialize)]
pub struct Icmp {
    pub r#type: u8,
}

/// What is known of a payload.
#[derive(Debug, Deserialize)]
pub struct Payload {
    pub verdict: String,
    pub hops: Option<u64>,
    pub before: Option<Site>,
    pub after: Option<Site>,
    pub offset: Option<u32>,
    pub bytes: Option<Bytes>,
}

/// What changed in it.
#[derive(Debug, Deserialize)]
pub struct Bytes {
    pub offset: u32,
    pub before: String,
    pub after: String,
}

#[derive(Debug, Deserialize)]
pub struct Site {
    pub hop: String,
    pub step: u32,
}

#[derive(Debug, Deserialize)]
pub struct Tcp {
    pub seq: u32,
    pub flags: String,
}

#[derive(Debug, Deserialize)]
pub struct Outcome {
    pub status: String,
    pub how: Option<String>,
    pub reason: Option<String>,
    pub process: Option<Process>,
    pub socket: Option<String>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub name: String,
}

#[derive(Debug, Deserialize)]
pub struct Device {
    pub name: String,
    pub netns_name: String,
}

#[derive(Debug, Deserialize)]
pub struct Hop {
    pub hop: String,
    pub step: u32,
    pub time_ns: u64,
    pub cpu: u32,
    pub process: Option<Process>,
    pub device: Option<Device>,
    pub to: Option<Device>,
    pub skb: String,
    pub vlan: Option<u16>,
    /// Bytes that were read from it.
    pub copied: Option<u64>,
    /// What changed with it, where `--diff` was given.
    #[serde(default)]
    pub changed: Vec<Changed>,
}

#[derive(Debug, Deserialize)]
pub struct Changed {
    pub field: String,
    pub from: serde_json::Value,
    pub to: serde_json::Value,
}

#[derive(Debug, Deserialize)]
pub struct Summary {
    pub packets: u64,
    pub delivered: u64,
    pub garbled: u64,
    pub incomplete: u64,
    pub loopback: u64,
    pub losses: std::collections::BTreeMap<String, u64>,
    pub every_packet_complete: bool,
}

impl Trace {
    /// Of a whole output: it must be numbered without a gap and end with its summary.
    pub fn parse(output: &str) -> Trace {
        let mut lines: Vec<Line> = output
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        let Some(Line::Summary(summary)) = lines.pop() else { panic!("no summary at the end of: {output}") };
        let mut packets: Vec<Packet> = lines
            .into_iter()
            .map(|line| if let Line::Packet(packet) = line { *packet } else { panic!("a second summary") })
            .collect();
        for (packet, number) in packets.iter().zip(1..) {
            assert_eq!(packet.number, Some(number), "numbers have no gap");
        }
        assert_eq!(summary.packets, packets.len() as u64, "the summary counts what was printed");
        packets.sort_by_key(|packet| packet.time_ns);
        Trace { packets, summary }
    }

    /// Nothing was lost and nothing was doubted.
    pub fn assert_complete(&self) {
        let Summary { incomplete, every_packet_complete, losses, .. } = &self.summary;
        let doubted = || self.packets.iter().filter(|packet| packet.verdict == "incomplete").collect::<Vec<_>>();
        assert!(*incomplete == 0 && *every_packet_complete, "{:#?}: {:#?}", self.summary, doubted());
        assert!(losses.values().all(|count| *count == 0), "{losses:?}");
        for packet in self.packets.iter().flat_map(Packet::tree) {
            let steps: Vec<u32> = packet.hops.iter().map(|hop| hop.step).collect();
            assert!(steps.iter().copied().eq(0..steps.len() as u32), "a gap in {steps:?} of {packet:#?}");
            assert!(packet.hops.is_sorted_by_key(|hop| hop.time_ns), "time goes back in {packet:#?}");
        }
    }

    /// Packets of this IP protocol.
    pub fn of(&self, protocol: u8) -> Vec<&Packet> {
        self.packets.iter().filter(|packet| packet.protocol() == Some(protocol)).collect()
    }
}

impl Packet {
    pub fn protocol(&self) -> Option<u8> {
        self.flow.as_ref().map(|flow| flow.protocol)
    }

    /// Flags of a TCP segment.
    pub fn flags(&self) -> &str {
        &self.tcp.as_ref().unwrap().flags
    }

    /// Type of an ICMP message.
    pub fn icmp_type(&self) -> Option<u8> {
        Some(self.flow.as_ref()?.icmp.as_ref()?.r#type)
    }

    /// Whether it goes to this address.
    pub fn goes_to(&self, address: &str) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.dst == address)
    }

    /// This packet and its branches.
    pub fn tree(&self) -> Vec<&Packet> {
        std::iter::once(self).chain(self.branches.iter().flat_map(Packet::tree)).collect()
    }

    /// Its hops, each with where it was and where it went on to: `veth_xmit ns/a → init/b`. Without those that depend on
    /// the machine, see [`Hop::is_of_the_packet`].
    pub fn path(&self) -> Vec<String> {
        self.hops.iter().filter(|hop| hop.is_of_the_packet()).map(Hop::described).collect()
    }

    /// The same without devices.
    pub fn names(&self) -> Vec<&str> {
        self.hops.iter().filter(|hop| hop.is_of_the_packet()).map(|hop| hop.hop.as_str()).collect()
    }

    /// It is told in these lines.
    #[track_caller]
    pub fn assert_told(&self, lines: &[Vec<String>]) {
        let (told, expected) = (self.told(), lines.concat().join("\n"));
        assert!(told == expected, "told:\n{told}\n\nexpected:\n{expected}\n\n{self:#?}");
    }

    /// Its path and its end; the branches, indented, stand where they begin.
    pub fn told(&self) -> String {
        self.lines().join("\n")
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (index, hop) in self.hops.iter().enumerate() {
            lines.extend(hop.is_of_the_packet().then(|| hop.described()));
            for branch in self.branches.iter().filter(|branch| branch.after == Some(index)) {
                lines.extend(branch.lines().iter().map(|line| format!("| {line}")));
            }
        }
        let outcome = &self.outcome;
        let words = [Some(&outcome.status), outcome.how.as_ref()];
        lines.push(words.into_iter().flatten().fold("=".to_owned(), |line, word| line + " " + word));
        lines
    }

    /// What changed on its way, with `--diff`: a line for each hop that is not as the one before it was, with both, and each
    /// field with its old value and its new one: `ip_forward → ip_output: ttl 64 63`. Hops that depend on the machine, see
    /// [`Hop::is_of_the_packet`], are left out, and what changed with them is told of the next.
    pub fn changes(&self) -> Vec<String> {
        let (mut lines, mut before, mut changed) = (Vec::new(), "", Vec::new());
        for hop in &self.hops {
            changed.extend(hop.changed.iter().map(|it| format!("{} {} {}", it.field, plain(&it.from), plain(&it.to))));
            if !hop.is_of_the_packet() {
                continue;
            }
            if !changed.is_empty() {
                lines.push(format!("{before} → {}: {}", hop.hop, changed.join(", ")));
            }
            (before, changed) = (&hop.hop, Vec::new());
        }
        lines
    }

    /// The only hop of this name.
    pub fn hop(&self, name: &str) -> &Hop {
        let [hop] = self.hops.iter().filter(|hop| hop.hop == name).collect::<Vec<_>>()[..] else {
            panic!("not one {name} in {self:#?}")
        };
        hop
    }
}

/// A value as it is, without the quotes of JSON.
fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl Hop {
    pub fn is_end(&self) -> bool {
        matches!(
            self.hop.as_str(),
            "kfree_skb"
                | "consume_skb"
                | "kfree_skb_partial"
                | "napi_skb_free_stolen_head"
                | "skb_release_head_state"
                | "skb_attempt_defer_free"
        )
    }

    /// Not its end, which depends on who let go last; nor the socket's backlog, which depends on who holds the socket; nor
    /// netfilter's hooks, which depend on who has rules: security modules have some in every namespace.
    fn is_of_the_packet(&self) -> bool {
        !self.is_end() && !matches!(self.hop.as_str(), "tcp_add_backlog" | "nf_hook_slow")
    }

    fn described(&self) -> String {
        let mut text = self.hop.clone();
        let mut add = |before: &str, device: &Option<Device>| {
            if let Some(Device { name, netns_name }) = device {
                text += &format!("{before}{netns_name}/{name}");
            }
        };
        add(" ", &self.device);
        add(" → ", &self.to);
        text
    }
}
