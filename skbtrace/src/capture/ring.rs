//! The ring of events, read when the kernel says that there is something in it.

use std::io;

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;

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

    /// Waits until there are events. Safe to cancel: nothing is taken from the ring here.
    ///
    /// # Errors
    /// When the runtime ends.
    pub async fn readable(&mut self) -> io::Result<()> {
        self.fd.readable_mut().await?.clear_ready();
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
