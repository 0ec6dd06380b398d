//! net/core/{skbuff,gro}.c: packets are copied, cut into parts, and put together.

crate::kprobes! {
    skb_clone = SkbClone,
    skb_copy = SkbCopy,
    skb_morph = SkbMorph,
    pskb_expand_head = PskbExpandHead,
    skb_segment = SkbSegment,
    skb_gro_receive = SkbGroReceive,
    skb_try_coalesce = SkbTryCoalesce,
}
