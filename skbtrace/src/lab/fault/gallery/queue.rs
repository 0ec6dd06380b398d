//! Queues that delay, lose, double and reorder.

use super::*;

const QUEUE: (HopId, HopId) = (HopId::DevQueueXmit, HopId::VethXmit);

const fn queued(class: Class, because: &'static str) -> Verdict {
    Verdict { class, ..garbled(QUEUE, (HERE, SERVER_PORT), Cause::Qdisc, because) }
}

pub(super) static PAGE: [Fault; 6] = [
    Fault {
        name: "netem-delay",
        teaches: "netem holds every packet on the bridge port for 300 ms: the time passes in the queue of the device \
                  and not in any function.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[qdisc!(HERE, "calmveth1_peer", "netem delay 300ms", "sch_netem")],
        show: Show { by: By::Timed, effect: Effect::Late(300) },
        verdict: queued(Class::Delayed, "netem holds packets for 300 ms"),
    },
    Fault {
        name: "netem-duplicate",
        teaches: "netem sends some packets twice: UDP hands both to the application, TCP would throw the second away.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[qdisc!(HERE, "calmveth1_peer", "netem duplicate 50%", "sch_netem")],
        show: traffic(UDP, Effect::Duplicate),
        verdict: queued(Class::Duplicated, "netem sends packets twice"),
    },
    Fault {
        name: "netem-reorder",
        teaches: "netem holds half of the packets for 100 ms and lets the others pass at once, so they overtake.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[qdisc!(HERE, "calmveth1_peer", "netem delay 100ms reorder 50%", "sch_netem")],
        show: traffic(UDP, Effect::Reordered),
        verdict: queued(Class::Reordered, "netem lets packets overtake each other"),
    },
    Fault {
        name: "netem-loss",
        teaches: "netem throws packets away where they would be queued; the interface's own drop counter never moves.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[qdisc!(HERE, "calmveth1_peer", "netem loss 30%", "sch_netem")],
        show: traffic(UDP, Effect::Lost),
        verdict: dropped(
            HopId::DevQueueXmit,
            (HERE, SERVER_PORT),
            Cause::Qdisc,
            "netem loses packets",
            &["NOT_SPECIFIED", "QDISC_DROP"],
        ),
    },
    Fault {
        name: "tbf-full",
        teaches: "A token bucket holds the port to 1 Mbit/s and its queue to a few packets: what comes faster finds \
                  the queue full.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[qdisc!(HERE, "calmveth1_peer", "tbf rate 1mbit burst 2kb limit 3kb", "sch_tbf")],
        show: traffic(Traffic { rate: 0, ..UDP }, Effect::Lost),
        verdict: dropped(
            HopId::DevQueueXmit,
            (HERE, SERVER_PORT),
            Cause::Qdisc,
            "the queue of tbf is full",
            &["QDISC_DROP", "QDISC_OVERLIMIT"],
        ),
    },
    Fault {
        name: "socket-buffer-full",
        teaches: "The receiver does not read, and its socket buffer holds a few datagrams: the path is in order, and \
                  the last step of it drops.",
        scenario: Scenario::Bridge,
        requires: None,
        steps: &[],
        show: counted(By::Deaf, SERVER, "Udp", "RcvbufErrors"),
        verdict: dropped(
            HopId::UdpEnqueueScheduleSkb,
            (SERVER, SERVER_VETH),
            Cause::Socket,
            "the receiver's socket buffer is full",
            &["SOCKET_RCVBUFF"],
        ),
    },
];
