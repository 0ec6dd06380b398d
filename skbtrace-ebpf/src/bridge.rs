//! net/bridge: a frame enters through a port, is looked up, and leaves through others or goes up.

crate::kprobes! {
    br_handle_frame = BrHandleFrame,
    br_handle_frame_finish = BrHandleFrameFinish,
    br_flood = BrFlood,
    br_forward = BrForwardDecision,
    __br_forward = BrForward,
    br_dev_queue_push_xmit = BrDevQueuePushXmit,
    br_pass_frame_up = BrPassFrameUp,
    br_dev_xmit = BrDevXmit,
}
