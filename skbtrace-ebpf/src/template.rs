//! A packet that TCP is about to send. The `sk_buff` at hand is the one that TCP keeps until it is acknowledged: it has no
//! headers yet, and a clone of it will get them. What they will say is known from the socket.

use skbtrace_common::{EventFlags, SOCK_READ};

use crate::{maps::offset, packet::Scratch};

const AF_INET: u16 = 2;
const IPPROTO_TCP: u8 = 6;

/// Fills in what the headers will say. A function of its own for the verifier's sake.
#[inline(never)]
pub fn describe_template(scratch: &mut Scratch, sock: u64) -> u32 {
    scratch.found.known = 0;
    if !scratch.read_headers(sock, SOCK_READ) {
        scratch.event.flags |= EventFlags::READ_FAILED;
        return 0;
    }
    let family: u16 = scratch.header(offset!(sock_family));
    if family == AF_INET {
        scratch.event.saddr = scratch.mapped(offset!(sock_saddr));
        scratch.event.daddr = scratch.mapped(offset!(sock_daddr));
    } else {
        scratch.event.saddr = scratch.header(offset!(sock_saddr6));
        scratch.event.daddr = scratch.header(offset!(sock_daddr6));
    }
    scratch.event.l4_proto = IPPROTO_TCP;
    scratch.event.sport = scratch.header(offset!(sock_num));
    scratch.event.dport = scratch.be16(offset!(sock_dport));
    scratch.event.seq = scratch.u32(offset!(tcp_cb_seq));
    scratch.event.tcp_flags = scratch.u8(offset!(tcp_cb_flags));
    scratch.event.payload_len = scratch.u32(offset!(len));
    scratch.event.flags |= EventFlags::L3 | EventFlags::L4;
    scratch.found.payload = (scratch.u64(offset!(data)) as u32).wrapping_sub(scratch.u64(offset!(head)) as u32);
    scratch.found.bytes = scratch.event.payload_len;
    scratch.found.position = scratch.event.seq;
    scratch.found.l4_len = 0;
    scratch.found.l3_len = 0;
    scratch.found.known = 1;
    0
}
