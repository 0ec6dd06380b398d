//! net/netfilter and net/bridge/br_netfilter_hooks.c: rules look at a packet and decide.

crate::kprobes! {
    nf_hook_slow = NfHookSlow,
    br_nf_pre_routing = BrNfPreRouting,
    br_nf_forward_ip = BrNfForwardIp,
    br_nf_forward = BrNfForward,
}
