//! The levels at which programs run. A place in a map for each of them keeps apart what interrupts one another on a CPU;
//! the programs that the hops go on in are put into program arrays by user space at the same numbers.

/// Where a scratch value is used: programs of these kinds can interrupt one another on a CPU, but hardly themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    /// Kprobes, which do not interrupt one another.
    Kprobe = 0,
    /// The tracepoint of a drop.
    Drop = 1,
    /// The tracepoint of a packet that is freed having served its purpose.
    Consume = 2,
    /// Tracepoints where no softirq can come between: on receiving, and on handing a packet to a driver.
    Softirq = 3,
    /// A process reads from a socket.
    Read = 4,
    /// TCP takes a segment: in a softirq, or in a process that had the socket, which a softirq may interrupt.
    Tcp = 5,
}

/// How many levels there are.
pub const LEVELS: u32 = Level::Tcp as u32 + 1;
