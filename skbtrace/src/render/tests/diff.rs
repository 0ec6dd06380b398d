//! What changes from hop to hop, as text and as JSON.

use skbtrace_common::{Event, HopId};

use super::{LabNames, stitch, text_with};
use crate::render::{Json, Style};
use crate::trace::Losses;
use crate::trace::testkit::{Lab, VETH2};

/// A datagram that is routed, tagged and given other addresses on its way.
fn changing() -> Vec<Event> {
    let mut lab = Lab::new();
    let mut trip = lab.datagram(1, 7);
    trip.events.truncate(3);
    (trip.events[0].gso_segs, trip.events[0].gso_size) = (3, 1448);
    let mut trip = trip.hop(HopId::IpForward, 900, VETH2, 92);
    (trip.next.ttl, trip.next.ip_summed, trip.next.vlan_tci, trip.next.mark) = (63, 0, 0x2005, 0x10);
    (trip.next.saddr[15], trip.next.sport) = (99, 1024);
    let mut trip = trip.hop(HopId::IpOutput, 900, VETH2, 92);
    trip.next.dport = 53;
    (trip.next.cloned, trip.next.users, trip.next.vlan_tci) = (1, 2, 0);
    trip.hop(HopId::DevQueueXmit, 500, VETH2, 106).dropped(5, 0xabcd, None).events
}

#[test]
fn only_what_changed_is_told() {
    let style = Style { diff: true, ..Style::default() };
    let out = text_with(style, &changing(), Losses::default());
    let rows: Vec<&str> = out.lines().skip(1).take(6).collect();
    insta::assert_snapshot!(rows.join("\n"), @r"
    ns-calm1  calmveth1        ip_output                                   0      92
                               __dev_queue_xmit                      +900 ns  len 92→106, gso 3×1448→none
                               veth_xmit → calmveth2                 +1.3 µs
    ns-calm2  calmveth2        ip_forward                           +17.4 µs  device ns-calm1/calmveth1 → ns-calm2/calmveth2, len 106→92
                               ip_output                             +900 ns  mark 0x0→0x10, vlan none→5, csum partial→none, ttl 64→63, snat 78.78.0.10:40000 → 78.78.0.99:1024
                               __dev_queue_xmit                      +500 ns  len 92→106, vlan 5→none, cloned no→yes, users 1→2, dnat 78.78.0.11:9000 → 78.78.0.11:53
    ");
    // An unchanged packet has nothing to tell beside its path.
    let mut same = Lab::new().datagram(1, 1).events;
    same.truncate(2);
    same[1] = Event { len: same[0].len, ..same[1] };
    assert!(text_with(style, &same, Losses::default()).lines().nth(2).unwrap().ends_with("+900 ns"));
}

#[test]
fn programs_get_old_value_and_new() {
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../../schema/packet.schema.json")).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let (packets, _) = stitch(&changing(), Losses::default());
    let mut out = Vec::new();
    Json { diff: true }.packet(&mut out, &packets[0], &crate::verdict::payload(&packets[0]), &LabNames).unwrap();
    let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert!(validator.is_valid(&value), "{value:#}");
    let changed = |hop: usize| value["hops"][hop]["changed"].clone();
    assert_eq!(changed(0), serde_json::json!([]));
    insta::assert_snapshot!(
        changed(4),
        @r#"[{"field":"mark","from":0,"to":16},{"field":"vlan","from":null,"to":5},{"field":"ip_summed","from":"partial","to":"none"},{"field":"ttl","from":64,"to":63},{"field":"source","from":"78.78.0.10:40000","to":"78.78.0.99:1024"}]"#
    );
    // Without --diff there is no word of it.
    let mut out = Vec::new();
    Json::default().packet(&mut out, &packets[0], &crate::verdict::payload(&packets[0]), &LabNames).unwrap();
    assert!(!String::from_utf8(out).unwrap().contains("\"changed\""));
}
