//! The ring of events, read when the kernel says that there is something in it, and then with some patience: the kernel wakes a
//! reader with the first event that comes after it has read all (kernel/bpf/ringbuf.c, bpf_ringbuf_commit), and to wake one costs
//! a packet far more than the event itself. Who reads each event as it comes is woken, and paid for, with each.

use std::{io, time::Duration};

use aya::maps::{MapData, RingBuf};
use tokio::{io::unix::AsyncFd, time::sleep};

/// How long events may gather after the first. Nobody who watches sees it, and a ring of the usual size holds ten times what a busy
/// CPU sends meanwhile.
const GATHER: Duration = Duration::from_millis(2);

/// The reading end of the ring.
pub struct Ring {
    fd: AsyncFd<RingBuf<MapData>>,
}

impl Ring {
    /// Takes the map over. Must be called within a runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch the ring.
    pub fn new(ring: RingBuf<MapData>) -> io::Result<Ring> {
        // SAFETY: the map's file descriptor is the same for the whole life of the ring, and closed only with it.
        let fd = unsafe { AsyncFd::register(ring) }.map_err(io::Error::from)?;
        Ok(Ring { fd })
    }

    /// Waits until there are events, and then a little for more. Safe to cancel: nothing is taken from the ring here, and what
    /// is there is still known to be.
    ///
    /// # Errors
    /// When the runtime ends.
    pub async fn readable(&mut self) -> io::Result<()> {
        let mut ready = self.fd.readable_mut().await?;
        sleep(GATHER).await;
        ready.clear_ready();
        Ok(())
    }

    /// Hands up to `most` events to `each`, oldest first, and returns how many there were. It stops early when `each`
    /// fails; that event counts as read.
    ///
    /// # Errors
    /// What `each` returns.
    pub fn drain<E>(&mut self, most: usize, mut each: impl FnMut(&[u8]) -> Result<(), E>) -> Result<usize, E> {
        let ring = self.fd.get_mut();
        let mut count = 0;
        while count < most
            && let Some(item) = ring.next()
        {
            count += 1;
            each(&item)?;
        }
        Ok(count)
    }
}
