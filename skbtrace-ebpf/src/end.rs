//! net/core/skbuff.c: the end of an `sk_buff`.
//!
//! The tracepoints fire once the last user has let go. They do not see what TCP's receive path frees by itself, which
//! skb_release_head_state does. From 5.18 on a reader hands what it has read to the CPU that allocated it, which frees it
//! when it finds the time: for the packet that is the end. Whichever comes first ends the packet, and the others find it
//! no longer tracked.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use skbtrace_common::HopId;

crate::kprobes! {
    skb_release_head_state = SkbReleaseHeadState,
    skb_attempt_defer_free = SkbAttemptDeferFree,
}

#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn kfree_skb(ctx: RawTracePointContext) -> i32 {
    crate::hit::hit(&ctx, HopId::KfreeSkb);
    0
}

#[raw_tracepoint(tracepoint = "consume_skb")]
pub fn consume_skb(ctx: RawTracePointContext) -> i32 {
    crate::hit::hit(&ctx, HopId::ConsumeSkb);
    0
}
