//! Packets inside packets. A tunnel's device (VXLAN, GENEVE, GRE, IP in IP, WireGuard) puts headers of its own in front of a
//! packet and sends it anew; at the other end they are taken off, and the packet comes in anew. All of it in one `sk_buff`: to
//! who follows it, it is one packet, though none of its headers stay the same.
//!
//! Headers that changed are otherwise the sign of another packet under an old address (see `identity`). So it must have been
//! handed to a driver right before, and become longer; or have come to IP or UDP, and become shorter; nothing must be missing
//! between; and what comes out of a tunnel must be what went in, where that was seen.

use skbtrace_common::{Event, EventFlags, HopId};

use super::identity::Identity;
use super::open::Open;
use super::packet::{Step, device, is_end};
use crate::hops::{Role, hop};

const ESP: u8 = 50;
const AH: u8 = 51;
/// IPv4 and IPv6 in IP, UDP, GRE, ESP, AH, L2TP.
const CARRIERS: [u8; 7] = [4, 41, 17, 47, ESP, AH, 115];
/// So many tunnels may be inside one another.
const MAX_LAYERS: usize = 3;

impl Open {
    /// Whether the event is this packet's with other headers, since a tunnel has put some in front of it or taken some off. It
    /// then goes on as what it is now.
    pub(super) fn tunnels(&mut self, hop_id: HopId, event: &Event) -> bool {
        let anew = event.flags & (EventFlags::REUSED | EventFlags::FIRST) != 0;
        let next = event.step.saturating_add(self.step_base) == self.next_step;
        if anew || !next || self.skb != event.skb {
            return false;
        }
        let Some(last) = self.last_place().copied() else { return false };
        if self.inside.len() < MAX_LAYERS && goes_in(&last, hop_id, event) {
            self.inside.push(std::mem::take(&mut self.identity));
            self.layer += 1;
            return true;
        }
        let was_there = self.inside.last().is_none_or(|inside| inside.is_uncovered_by(hop_id, event));
        if was_there && usize::from(self.layer.unsigned_abs()) < MAX_LAYERS && comes_out(&last, hop_id, event) {
            self.identity = self.inside.pop().unwrap_or_default().arriving();
            self.layer -= 1;
            return true;
        }
        false
    }

    /// It is a clone or a part of this packet: what is inside that one is inside it.
    pub(super) fn inherit_layers(&mut self, source: &Open, is_part: bool) {
        let part = |identity: &Identity| if is_part { identity.of_parts() } else { *identity };
        self.inside = source.inside.iter().map(part).collect();
        self.layer = source.layer;
    }
}

fn goes_in(last: &Step, hop_id: HopId, event: &Event) -> bool {
    let sent = matches!(hop(hop_id).role, Role::Send | Role::Netfilter | Role::Transmit) || is_end(hop_id, event);
    let grown = event.flags & EventFlags::L3 != 0 && event.len > last.event.len;
    last.hop == HopId::NetDevStartXmit
        && sent
        && grown
        && CARRIERS.contains(&event.l4_proto)
        && (device(event) != last.device() || matches!(event.l4_proto, ESP | AH))
}

fn comes_out(last: &Step, hop_id: HopId, event: &Event) -> bool {
    // Before it is received it may be given more room, and may be freed.
    let stays = hop(hop_id).role == Role::Work || is_end(hop_id, event);
    let received = matches!(hop(hop_id).role, Role::Enqueue | Role::Receive) || stays;
    let carrier = last.event.l4_proto;
    let carried = last.event.flags & EventFlags::L3 != 0 && CARRIERS.contains(&carrier);
    matches!(last.role(), Role::Receive | Role::Transport)
        && received
        && carried
        && event.len < last.event.len
        && (device(event) != last.device() || stays || matches!(carrier, ESP | AH))
}
