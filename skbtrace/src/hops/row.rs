//! What a row of the catalogue says: how a hop is traced, what happens there, and where its arguments are.

use serde::{Serialize, Serializer};
use skbtrace_common::{HopId, hop_flags};

/// How a hop is traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A kprobe on the entry of a function.
    Function,
    /// A raw tracepoint.
    Tracepoint,
}

/// What a run traces by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Backend {
    /// kprobes, and raw tracepoints where they say as much
    Kprobe,
    /// Raw tracepoints alone: fewer hops, and a kernel without kprobes, or that forbids them, will do
    Tracepoint,
}

impl Backend {
    /// Its name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Backend::Kprobe => "kprobe",
            Backend::Tracepoint => "tracepoint",
        }
    }
}

impl Serialize for Backend {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What happens to the packet at a hop: what the stitching of timelines and the verdicts rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A transport hands it to IP: headers are still to come.
    Output,
    /// A layer above sends it: where a packet of this host begins.
    Send,
    /// It is handed to a device.
    Transmit,
    /// It crosses from one end of a veth pair to the other.
    Cross,
    /// It is put into the input queue of a CPU, and waits.
    Enqueue,
    /// It was taken from the queue and enters a layer: what passed since the hop before is mostly waiting.
    Receive,
    /// The bridge decides or moves.
    Bridge,
    /// Rules look at it and decide.
    Netfilter,
    /// IP decides to route it on.
    Forward,
    /// A transport protocol has it.
    Transport,
    /// It is put into a socket's queue.
    Socket,
    /// A process copies it out of the socket.
    Copy,
    /// A packet socket (tcpdump) takes its copy.
    Tap,
    /// It is cut into parts, which go on in its place.
    Split,
    /// Its bytes are to be appended to another packet.
    Merge,
    /// It is cloned, copied or given more room: this says nothing of where it is.
    Work,
    /// The sk_buff is freed.
    End,
}

impl Role {
    /// Whether a hop of this kind tells where the packet is on its way; what is done to it in passing does not.
    #[must_use]
    pub fn is_place(self) -> bool {
        !matches!(self, Role::Netfilter | Role::Copy | Role::Split | Role::Merge | Role::Work)
    }

    /// Whether packets of this host begin at such a hop.
    #[must_use]
    pub fn is_origin(self) -> bool {
        matches!(self, Role::Output | Role::Send)
    }
}

/// Where a function has the packet: the argument, and whether it is a pointer to the pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkbAt {
    /// Position of the argument, from 0.
    pub arg: u8,
    /// A `struct sk_buff **`.
    pub indirect: bool,
}

/// Where a hop finds a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceAt {
    /// There is none.
    None,
    /// `skb->dev`.
    Skb,
    /// An argument that is a `struct net_device *`.
    Arg(u8),
    /// The device of the packet's route.
    Route,
    /// The device of an argument that is a `struct net_bridge_port *`.
    Port(u8),
    /// The peer of the first device, a veth.
    Peer,
    /// The device of the route that an argument, a `struct sock *`, has cached.
    Socket(u8),
    /// Where an argument, a `struct nf_hook_state *`, says that the packet came in, or else goes out; at POSTROUTING the other
    /// way round.
    Hook(u8),
}

/// A row of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Hop {
    /// Its number, and by that its name.
    pub id: HopId,
    /// How it is traced.
    pub probe: Probe,
    /// The backend that it is of; `None`: a tracepoint of both. Functions are kprobes alone.
    pub only: Option<Backend>,
    /// The module that the function may live in; `None`: always in the kernel itself.
    pub module: Option<&'static str>,
    /// What happens here.
    pub role: Role,
    /// Where the packet is.
    pub skb: SkbAt,
    /// The device on which the packet is at this hop.
    pub device: DeviceAt,
    /// The device that it goes to.
    pub second: DeviceAt,
    /// Position of the `struct sock *`.
    pub sock: Option<u8>,
    /// Position of another `sk_buff`, before the packet's own: the one that it is appended to.
    pub other: Option<u8>,
    /// Position of the `struct nf_hook_state *`.
    pub state: Option<u8>,
    /// Positions of the first byte and of the number of bytes that a process gets.
    pub copied: Option<(u8, u8)>,
    /// Position of the acknowledgement number that is about to be sent.
    pub ack: Option<u8>,
    /// More bits of [`hop_flags`], beside those that follow from the other members.
    pub flags: u8,
    /// What the kernel does here, in a sentence for the reader.
    pub teaches: &'static str,
}

impl Hop {
    /// Name of the kernel function or tracepoint.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.id.name()
    }

    /// Whether only a run by raw tracepoints alone has this hop.
    #[must_use]
    pub fn is_of_tracepoints_alone(&self) -> bool {
        self.only == Some(Backend::Tracepoint)
    }

    /// Whether a run by this backend has this hop.
    #[must_use]
    pub fn is_of(&self, backend: Backend) -> bool {
        self.only.is_none_or(|only| only == backend)
    }

    /// Whether the payload is compared at this hop. Not where it is already known from the hop before, nor where the headers that
    /// lead to it are still to come.
    #[must_use]
    pub fn looks_at_payload(&self) -> bool {
        let template = self.flags & hop_flags::TEMPLATE != 0;
        let seen_elsewhere = matches!(self.role, Role::End | Role::Work | Role::Merge | Role::Output) && !template;
        // TCP's takes part in no chain of programs: a softirq may interrupt it.
        let interruptible = self.id == HopId::TcpProbe;
        !seen_elsewhere && !interruptible
    }

    pub(super) const fn function(id: HopId, role: Role, arg: u8, teaches: &'static str) -> Hop {
        Hop {
            id,
            probe: Probe::Function,
            only: Some(Backend::Kprobe),
            module: None,
            role,
            skb: SkbAt { arg, indirect: false },
            device: DeviceAt::Skb,
            second: DeviceAt::None,
            sock: None,
            other: None,
            state: None,
            copied: None,
            ack: None,
            flags: 0,
            teaches,
        }
    }

    /// An end knows no device: socket queues use `skb->dev` for other things.
    pub(super) const fn end(id: HopId, teaches: &'static str) -> Hop {
        Hop { device: DeviceAt::None, ..Hop::function(id, Role::End, 0, teaches) }
    }

    /// What is done to a packet wherever it is: socket queues use `skb->dev` for other things.
    pub(super) const fn work(id: HopId, teaches: &'static str) -> Hop {
        Hop { device: DeviceAt::None, ..Hop::function(id, Role::Work, 0, teaches) }
    }

    pub(super) const fn tracepoint(id: HopId, teaches: &'static str) -> Hop {
        Hop { probe: Probe::Tracepoint, only: None, ..Hop::end(id, teaches) }
    }

    pub(super) const fn only(self, backend: Backend) -> Hop {
        Hop { only: Some(backend), ..self }
    }

    pub(super) const fn at(self, arg: u8) -> Hop {
        Hop { skb: SkbAt { arg, indirect: false }, ..self }
    }

    pub(super) const fn role(self, role: Role) -> Hop {
        Hop { role, ..self }
    }

    pub(super) const fn module(self, module: &'static str) -> Hop {
        Hop { module: Some(module), ..self }
    }

    pub(super) const fn on(self, device: DeviceAt) -> Hop {
        Hop { device, ..self }
    }

    pub(super) const fn to(self, second: DeviceAt) -> Hop {
        Hop { second, ..self }
    }

    pub(super) const fn sock(self, arg: u8) -> Hop {
        Hop { sock: Some(arg), ..self }
    }

    pub(super) const fn appended_to(self, arg: u8) -> Hop {
        Hop { other: Some(arg), ..self }
    }

    pub(super) const fn hook_state(self, arg: u8) -> Hop {
        Hop { state: Some(arg), ..self }
    }

    pub(super) const fn flags(self, flags: u8) -> Hop {
        Hop { flags: self.flags | flags, ..self }
    }

    pub(super) const fn indirect(self) -> Hop {
        Hop { skb: SkbAt { arg: self.skb.arg, indirect: true }, ..self }
    }
}
