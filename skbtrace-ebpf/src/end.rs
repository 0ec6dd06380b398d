//! net/core/skbuff.c: the end of an `sk_buff`.
//!
//! The tracepoints fire once the last user has let go. They do not see what TCP's receive path frees by itself, which
//! skb_release_head_state does. From 5.18 on a reader hands what it has read to the CPU that allocated it, which frees it
//! when it finds the time: for the packet that is the end. Whichever comes first ends the packet, and the others find it
//! no longer tracked.

crate::kprobes! {
    kfree_skb_partial = KfreeSkbPartial,
    napi_skb_free_stolen_head = NapiSkbFreeStolenHead,
    skb_release_head_state = SkbReleaseHeadState,
    skb_attempt_defer_free = SkbAttemptDeferFree,
}

crate::tracepoints! {
    kfree_skb = KfreeSkb,
    consume_skb = ConsumeSkb,
}
