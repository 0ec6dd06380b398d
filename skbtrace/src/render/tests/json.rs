//! What programs get to read, and that it is what the schema says.

use skbtrace_common::{Event, HopId};

use super::finding::explained;
use super::{LabNames, stitch};
use crate::render::Json;
use crate::trace::Losses;
use crate::trace::testkit::{Lab, VETH1, VETH2, in_order};
use crate::verdict::payload;

fn json(events: &[Event], losses: Losses) -> Vec<serde_json::Value> {
    let (packets, summary) = stitch(events, losses);
    let mut out = Vec::new();
    for packet in &packets {
        Json::default().packet(&mut out, packet, &payload(packet), &LabNames).unwrap();
    }
    Json::default().summary(&mut out, &summary, &explained(&packets, None), &LabNames).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.lines().count(), packets.len() + 1, "one line per object");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn json_follows_its_schema() {
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../../schema/packet.schema.json")).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let mut lab = Lab::new();
    let mut cut = lab.tcp_data(3, 9, 9);
    cut.drain(..2);
    let parent = lab.tcp_data(20, 1, 1);
    let tap = lab.clone_of(21, &parent[2]).hop(HopId::PacketRcv, 0, VETH2, 106).end(HopId::ConsumeSkb, 50).events;
    let mut rich = lab.datagram(4, 4);
    (rich.next.gso_size, rich.next.vlan_tci) = (100, 7);
    rich.next.flags |= skbtrace_common::EventFlags::READ_FAILED;
    let mut gone = lab.datagram(9, 9);
    gone.events.truncate(1);
    let gone = gone.hop(HopId::DevQueueXmit, 1, VETH1, 1).end(HopId::ConsumeSkb, 1).events;
    let events = [
        lab.tcp_control(1, 0x02, 1),
        lab.udp_dropped(2, 2),
        cut,
        rich.hop(HopId::SkbCopyDatagramIter, 5, VETH1, 5).events,
        lab.datagram(5, 5).events,
        lab.datagram(6, 6).dropped(5, 0, None).events,
        lab.arp(7),
        lab.ping_loopback(8),
        gone,
        in_order([parent, tap]),
    ]
    .concat();
    let lossy = Losses { ring_full: 3, ..Losses::default() };
    let mut statuses = std::collections::BTreeSet::new();
    for value in json(&events, Losses::default()).into_iter().chain(json(&events, lossy)) {
        let errors: Vec<String> =
            validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert_eq!(errors, [""; 0], "{value:#}");
        statuses.extend(value["outcome"]["status"].as_str().map(str::to_owned));
        // The schema is strict: nothing goes by unnoticed.
        let mut more = value.clone();
        more["surprise"] = 1.into();
        assert!(!validator.is_valid(&more));
        for key in value.as_object().unwrap().keys().filter(|key| !["flow", "tcp", "total"].contains(&key.as_str())) {
            let mut less = value.clone();
            less.as_object_mut().unwrap().remove(key);
            assert!(!validator.is_valid(&less), "{key} can be left out");
        }
    }
    let expected = ["delivered", "dropped", "incomplete", "left", "waiting"];
    assert_eq!(statuses.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn a_drop_in_json() {
    let mut lines = json(&Lab::new().udp_dropped(1, 1), Losses::default());
    // The hops between are like the first and the last.
    let hops = lines[0]["hops"].as_array_mut().unwrap();
    hops.drain(1..hops.len() - 2);
    let text: Vec<String> = lines.iter().map(|line| serde_json::to_string_pretty(line).unwrap()).collect();
    insta::assert_snapshot!(text.join("\n"), @r#"
    {
      "branches": [],
      "ethertype": 2048,
      "flow": {
        "dport": 9000,
        "dst": "78.78.0.10",
        "fragment": false,
        "protocol": 17,
        "sport": 40000,
        "src": "78.78.0.11"
      },
      "hops": [
        {
          "cloned": false,
          "context": "process",
          "cpu": 0,
          "data_len": 0,
          "delta_ns": 0,
          "device": {
            "ifindex": 2,
            "name": "calmveth2",
            "netns": 4026532002,
            "netns_name": "ns-calm2"
          },
          "hop": "ip_output",
          "ip_summed": "partial",
          "len": 92,
          "mark": 0,
          "process": {
            "name": "sender",
            "pid": 400
          },
          "skb": "0xffff888001000100",
          "step": 0,
          "time_ns": 1001000000,
          "ttl": 64,
          "users": 1
        },
        {
          "bridge": "calmbr",
          "cloned": false,
          "context": "softirq",
          "cpu": 0,
          "data_len": 0,
          "delta_ns": 1000,
          "device": {
            "ifindex": 12,
            "name": "calmveth2_peer",
            "netns": 4026531840,
            "netns_name": "init"
          },
          "hop": "__br_forward",
          "ip_summed": "partial",
          "len": 92,
          "mark": 0,
          "skb": "0xffff888001000100",
          "step": 8,
          "time_ns": 1001035700,
          "to": {
            "ifindex": 11,
            "name": "calmveth1_peer",
            "netns": 4026531840,
            "netns_name": "init"
          },
          "ttl": 64,
          "users": 1
        },
        {
          "cloned": false,
          "context": "softirq",
          "cpu": 0,
          "data_len": 0,
          "delta_ns": 2500,
          "hop": "kfree_skb",
          "ip_summed": "partial",
          "len": 0,
          "mark": 0,
          "skb": "0xffff888001000100",
          "step": 9,
          "time_ns": 1001038200,
          "ttl": 64,
          "users": 1
        }
      ],
      "id": "0x1",
      "number": 1,
      "outcome": {
        "after": "__br_forward",
        "location": "nf_hook_slow+0x44",
        "reason": "NETFILTER_DROP",
        "stage": "path",
        "status": "dropped"
      },
      "payload_len": 64,
      "retransmission": false,
      "time_ns": 1001000000,
      "total_ns": 38200,
      "type": "packet",
      "verdict": "dropped",
      "version": 1
    }
    {
      "branches": 0,
      "consumed": 0,
      "delivered": 0,
      "drop_reasons": [
        {
          "count": 1,
          "reason": "NETFILTER_DROP"
        }
      ],
      "dropped": 1,
      "elsewhere": 0,
      "events": 10,
      "every_packet_complete": true,
      "findings": [
        {
          "advice": [
            "nft list ruleset; ebtables -L"
          ],
          "because": "a rule or a policy of netfilter drops at this hook (the host was not looked at)",
          "cause": "nftables",
          "class": "dropped",
          "count": 1,
          "device": "calmveth1_peer",
          "evidence": [
            "the kernel's reason is NETFILTER_DROP, given in nf_hook_slow+0x44",
            "it was in netfilter's hook bridge FORWARD"
          ],
          "first_ns": 1001038200,
          "from": "__br_forward",
          "ifindex": 11,
          "last": 1,
          "last_ns": 1001038200,
          "location": "nf_hook_slow+0x44",
          "netfilter": "bridge FORWARD",
          "netns": 4026531840,
          "netns_name": "init",
          "packets": [
            1
          ],
          "reasons": [
            "NETFILTER_DROP"
          ],
          "to": null,
          "toward": {
            "ifindex": 11,
            "name": "calmveth1_peer",
            "netns": 4026531840,
            "netns_name": "init"
          }
        }
      ],
      "garbled": 0,
      "hops": [],
      "incomplete": 0,
      "late_events": 0,
      "latency": [
        {
          "count": 1,
          "from": "ip_output",
          "max_ns": 900,
          "p50_ns": 900,
          "p90_ns": 900,
          "p99_ns": 900,
          "to": "__dev_queue_xmit"
        },
        {
          "count": 1,
          "from": "__dev_queue_xmit",
          "max_ns": 1300,
          "p50_ns": 1300,
          "p90_ns": 1300,
          "p99_ns": 1300,
          "to": "veth_xmit"
        },
        {
          "count": 1,
          "from": "veth_xmit",
          "max_ns": 400,
          "p50_ns": 400,
          "p90_ns": 400,
          "p99_ns": 400,
          "to": "__dev_forward_skb"
        },
        {
          "count": 1,
          "from": "__dev_forward_skb",
          "max_ns": 800,
          "p50_ns": 800,
          "p90_ns": 800,
          "p99_ns": 800,
          "to": "netif_rx_internal"
        },
        {
          "count": 1,
          "from": "netif_rx_internal",
          "max_ns": 300,
          "p50_ns": 300,
          "p90_ns": 300,
          "p99_ns": 300,
          "to": "enqueue_to_backlog"
        },
        {
          "count": 1,
          "from": "enqueue_to_backlog",
          "max_ns": 30000,
          "p50_ns": 30000,
          "p90_ns": 30000,
          "p99_ns": 30000,
          "to": "br_handle_frame",
          "waited": "backlog"
        },
        {
          "count": 1,
          "from": "br_handle_frame",
          "max_ns": 1000,
          "p50_ns": 1000,
          "p90_ns": 1000,
          "p99_ns": 1000,
          "to": "br_handle_frame_finish"
        },
        {
          "count": 1,
          "from": "br_handle_frame_finish",
          "max_ns": 1000,
          "p50_ns": 1000,
          "p90_ns": 1000,
          "p99_ns": 1000,
          "to": "__br_forward"
        },
        {
          "count": 1,
          "from": "__br_forward",
          "max_ns": 2500,
          "p50_ns": 2500,
          "p90_ns": 2500,
          "p99_ns": 2500,
          "to": "kfree_skb"
        }
      ],
      "left": 0,
      "loopback": 0,
      "losses": {
        "map_full": 0,
        "missed_probes": 0,
        "read_failed": 0,
        "ring_full": 0,
        "unread": 0,
        "unreadable": 0
      },
      "merged": 0,
      "packets": 1,
      "retransmissions": 0,
      "tapped": 0,
      "type": "summary",
      "version": 1,
      "waiting": 0
    }
    "#);
}

#[test]
fn each_hop_can_have_an_object_of_its_own() {
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../../schema/packet.schema.json")).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let mut lab = Lab::new();
    let parent = lab.tcp_data(20, 1, 1);
    let tap = lab.clone_of(21, &parent[2]).hop(HopId::PacketRcv, 0, VETH2, 106).end(HopId::ConsumeSkb, 50).events;
    let events = in_order([parent, tap]);
    let (packets, _) = stitch(&events, Losses::default());
    let mut out = Vec::new();
    Json::default().events(&mut out, &packets[0], &LabNames).unwrap();
    let lines: Vec<serde_json::Value> =
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), events.len());
    let summary: Vec<String> = lines
        .iter()
        .map(|line| {
            assert!(validator.is_valid(line), "{line:#}");
            let mut more = line.clone();
            more["surprise"] = 1.into();
            assert!(!validator.is_valid(&more));
            format!("{} {} {} {} {}", line["number"], line["id"], line["parent"], line["verdict"], line["event"]["hop"])
        })
        .collect();
    let last = summary.len() - 3;
    insta::assert_snapshot!([&summary[..2], &summary[last..]].concat().join("\n"), @r##"
    1 "0x14" null "delivered" "ip_output"
    1 "0x14" null "delivered" "__dev_queue_xmit"
    1 "0x14" null "delivered" "skb_release_head_state"
    1 "0x15" "0x14" "tapped" "packet_rcv"
    1 "0x15" "0x14" "tapped" "consume_skb"
    "##);
}
