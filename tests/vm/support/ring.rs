//! A packet socket that sends from a ring (PACKET_TX_RING), and whose program can write to a frame once it has been sent.

use std::{
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr::NonNull,
};

use nix::libc;

use super::lab::{ifindex, within};

/// One block, of two frames.
const BLOCK: usize = 4096;
/// Where a frame's bytes begin: behind `struct tpacket_hdr`, aligned, and `struct virtio_net_hdr`.
const DATA: usize = HEADER + 10;
const HEADER: usize = 32;
/// So many bytes of a frame are copied, those of its headers; the others stay in the ring.
const COPIED: u16 = 42;
const PACKET_VNET_HDR: libc::c_int = 15;
const TP_STATUS_SEND_REQUEST: libc::c_ulong = 1;

/// `struct tpacket_req`.
#[repr(C)]
struct Request {
    block_size: libc::c_uint,
    blocks: libc::c_uint,
    frame_size: libc::c_uint,
    frames: libc::c_uint,
}

/// The socket and its ring.
pub struct Sender {
    socket: OwnedFd,
    ring: NonNull<u8>,
}

// SAFETY: the ring belongs to it alone, whatever thread it is on.
unsafe impl Send for Sender {}

impl Sender {
    /// How large the ring is.
    pub const BYTES: usize = BLOCK;

    /// On a device of a namespace. It receives nothing.
    pub fn on(netns: &str, device: &str) -> Sender {
        within(netns, || Sender::here(device).unwrap())
    }

    fn here(device: &str) -> io::Result<Sender> {
        // SAFETY: plain numbers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        ok(fd)?;
        // SAFETY: the kernel has just given it to us.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let on: libc::c_int = 1;
        // SAFETY: a value of the size that is told.
        ok(unsafe {
            let size = size_of_val(&on) as u32;
            libc::setsockopt(fd, libc::SOL_PACKET, PACKET_VNET_HDR, (&raw const on).cast(), size)
        })?;
        let request = Request { block_size: BLOCK as u32, blocks: 1, frame_size: BLOCK as u32 / 2, frames: 2 };
        // SAFETY: a value of the size that is told.
        ok(unsafe {
            libc::setsockopt(
                fd,
                libc::SOL_PACKET,
                libc::PACKET_TX_RING,
                (&raw const request).cast(),
                size_of_val(&request) as u32,
            )
        })?;
        // SAFETY: all zeroes is one of its values.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = ifindex(device).try_into().map_err(io::Error::other)?;
        // SAFETY: a value of the size that is told.
        ok(unsafe { libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as u32) })?;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses where, and keeps the ring until it is unmapped.
        let ring = unsafe { libc::mmap(std::ptr::null_mut(), BLOCK, access, libc::MAP_SHARED, fd, 0) };
        if ring == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Sender { socket, ring: NonNull::new(ring.cast()).ok_or(io::ErrorKind::InvalidData)? })
    }

    /// Sends a frame from the ring.
    pub fn send(&self, frame: &[u8]) {
        self.write(0, frame);
        let length = u32::try_from(DATA - HEADER + frame.len()).unwrap();
        let header = self.ring.as_ptr();
        // SAFETY: the first frame of the ring, which begins with `struct tpacket_hdr`: status, length, …
        unsafe {
            header.add(8).cast::<u32>().write_volatile(length);
            // Flags, kind of GSO, length of the headers.
            header.add(HEADER + 2).cast::<u16>().write_volatile(COPIED);
            header.cast::<libc::c_ulong>().write_volatile(TP_STATUS_SEND_REQUEST);
        }
        // Not until it is sent, when nobody else has the frame any more.
        // SAFETY: nothing is read: the frame is in the ring.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), std::ptr::null(), 0, libc::MSG_DONTWAIT) };
        assert!(sent > 0, "{}", io::Error::last_os_error());
    }

    /// Writes to the frame that was sent.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(DATA + at + bytes.len() <= BLOCK / 2);
        // SAFETY: within the first frame of the ring, which is ours.
        unsafe { self.ring.as_ptr().add(DATA + at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // SAFETY: mapped by us, and nobody else has it.
        let done = unsafe { libc::munmap(self.ring.as_ptr().cast(), BLOCK) };
        assert_eq!(done, 0);
    }
}

fn ok(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
