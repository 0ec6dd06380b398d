//! The page: its data, and what is around it.

use serde_json::{Value, json};

use super::{data_of, garbled, garbled_at, page, stitched};
use crate::store::testkit::names;
use crate::trace::testkit::{Lab, VETH2, in_order};
use crate::verdict::payload;

/// The steps of a life in words: `+1.3 µs veth_xmit at calmveth2`.
fn steps(data: &Value, life: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let steps = life["steps"].as_array().unwrap();
    let words = steps.chunks(2).map(|step| {
        let shape = &data["shapes"][number(&step[0])];
        let hop = data["hops"][number(&shape["hop"])]["name"].as_str().unwrap();
        let device = |key: &str| {
            let device = shape.get(key).map(|place| &data["devices"][number(place)]);
            device.map_or_else(String::new, |device| {
                let netns = &data["netns"][number(&device["netns"])];
                format!(" {key} {}/{}", netns.as_str().unwrap(), device["name"].as_str().unwrap())
            })
        };
        let rest: Vec<String> = ["within", "waited", "says", "lost"]
            .iter()
            .filter_map(|key| Some(format!(" {}", shape.get(key)?)))
            .collect();
        format!("+{} {hop}{}{} {}{}", step[1], device("dev"), device("to"), shape["len"], rest.concat())
    });
    words.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_packet_is_in_the_page_with_all_its_hops() {
    let mut lab = Lab::new();
    let (packets, summary) = stitched(&[lab.udp_dropped(1, 7), lab.udp(2, 8)].concat());
    let mut data = data_of(page(&packets, Some(&summary), &names(), 10));
    insta::assert_snapshot!(steps(&data, &data["packets"][0]), @r#"
    +0 ip_output dev ns-calm2/calmveth2 92 ["sender[400]","csum partial"]
    +900 __dev_queue_xmit dev ns-calm2/calmveth2 106
    +1300 veth_xmit dev ns-calm2/calmveth2 to init/calmveth2_peer 106
    +400 __dev_forward_skb dev ns-calm2/calmveth2 to init/calmveth2_peer 106
    +800 netif_rx_internal dev init/calmveth2_peer 92
    +300 enqueue_to_backlog dev init/calmveth2_peer 92
    +30000 br_handle_frame dev init/calmveth2_peer 92 "calmbr" "backlog" ["softirq"]
    +1000 br_handle_frame_finish dev init/calmveth2_peer 92
    +1000 __br_forward dev init/calmveth2_peer to init/calmveth1_peer 92
    +2500 kfree_skb 0
    "#);
    data["packets"][0]["steps"] = Value::Null;
    insta::assert_snapshot!(format!("{:#}", data["packets"][0]), @r#"
    {
      "at": 0,
      "ended": "DROPPED after 38.2 µs: NETFILTER_DROP",
      "is": "UDP 78.78.0.11:40000 → 78.78.0.10:9000 64 bytes",
      "n": 1,
      "steps": null,
      "took": 38200,
      "verdict": "dropped",
      "words": "DROPPED in nf_hook_slow+0x44: NETFILTER_DROP"
    }
    "#);
    insta::assert_snapshot!(format!("{}\n{}\n{}", data["netns"], data["devices"], data["links"]), @r#"
    ["ns-calm2","init","ns-calm1"]
    [{"ifindex":2,"name":"calmveth2","netns":0,"target":true},{"bridge":"calmbr","ifindex":12,"name":"calmveth2_peer","netns":1},{"bridge":"calmbr","ifindex":11,"name":"calmveth1_peer","netns":1},{"ifindex":2,"name":"calmveth1","netns":2}]
    [{"from":0,"packets":1,"pair":true,"to":1},{"from":3,"packets":1,"pair":true,"to":0}]
    "#);
    assert_eq!(data["since"], json!([1_700_000_001, 1_000_000]));
    assert_eq!((&data["books"]["packets"], &data["books"]["dropped"]), (&json!(2), &json!(1)));
    assert_eq!(data["hops"].as_array().unwrap().iter().find(|hop| hop["name"] == "kfree_skb").unwrap()["end"], true);
}

#[test]
fn what_was_found_stands_beside_what_programs_get_of_it() {
    let mut lab = Lab::new();
    let bad = garbled(&mut lab, 1);
    let data = data_of(page(&[bad], None, &names(), 10));
    let finding = &data["findings"][0];
    assert_eq!(
        (&finding["class"], &finding["from"], &finding["to"]),
        (&json!("garbled"), &json!("__dev_queue_xmit"), &json!("veth_xmit"))
    );
    insta::assert_snapshot!(finding["headline"].as_str().unwrap(), @"GARBLED between __dev_queue_xmit and veth_xmit, on ns-calm2/calmveth2: 1 packet of 1 (#1)");
    assert_eq!(finding["lines"][0][0], "evidence");
    assert!(data.get("books").is_none());
}

#[test]
fn the_step_that_first_saw_the_change_is_marked_and_has_the_bytes() {
    let bad = garbled(&mut Lab::new(), 1);
    let data = data_of(page(&[bad], None, &names(), 10));
    let packet = &data["packets"][0];
    assert_eq!(packet["garbled"].as_array().unwrap().len(), 1);
    let place = packet["garbled"][0][0].as_u64().unwrap() as usize;
    assert_eq!(steps(&data, packet).lines().nth(place).unwrap().split(' ').nth(1), Some("veth_xmit"));
    let change = &packet["changed"]["all"][0];
    assert_eq!((change["offset"].as_u64(), change["before"].as_str().unwrap().len()), (Some(0), 128));
    let byte = |side: &str| change[side].as_str().unwrap()[40..42].to_owned();
    assert_eq!((byte("before"), byte("after")), ("75".to_owned(), "55".to_owned()));
    insta::assert_snapshot!(packet["changed"]["says"].as_str().unwrap(), @"GARBLED between __dev_queue_xmit and veth_xmit");
    assert_eq!(change.get("why"), None);
}

#[test]
fn a_payload_that_changes_twice_is_marked_twice() {
    let bad = garbled_at(&mut Lab::new(), 1, &[20, 40]);
    let data = data_of(page(&[bad], None, &names(), 10));
    let packet = &data["packets"][0];
    let all = steps(&data, packet);
    let marks = packet["garbled"].as_array().unwrap().iter().map(|mark| {
        let hop = all.lines().nth(mark[0].as_u64().unwrap() as usize).unwrap();
        (hop.split(' ').nth(1).unwrap(), &mark[1])
    });
    assert_eq!(marks.collect::<Vec<_>>(), [("veth_xmit", &json!(0)), ("__dev_forward_skb", &json!(1))]);
    let says = "GARBLED between __dev_queue_xmit and veth_xmit, again between veth_xmit and __dev_forward_skb";
    assert_eq!(packet["changed"]["says"], says);
    let byte = |number: usize, side: &str| packet["changed"]["all"][number][side].as_str().unwrap()[80..82].to_owned();
    assert_eq!([byte(0, "before"), byte(0, "after"), byte(1, "before"), byte(1, "after")], ["6f", "6f", "6f", "4f"]);
    assert_eq!(data["findings"].as_array().unwrap().len(), 2);
}

#[test]
fn a_branch_stands_where_it_left_and_is_timed_from_there() {
    let mut lab = Lab::new();
    let tapped = lab.udp(1, 7);
    let clone = lab.clone_of(2, &tapped[7]);
    let clone = clone.hop(skbtrace_common::HopId::PacketRcv, 400, VETH2, 92).events;
    let (packets, _) = stitched(&in_order([tapped, clone]));
    let data = data_of(page(&packets, None, &names(), 10));
    let branch = &data["packets"][0]["branches"][0];
    // 100 ns after the event that it was cloned at, and 400 of its own.
    assert_eq!(branch["steps"][1], 500);
    assert_eq!(branch["verdict"], "tapped");
    assert_eq!(branch["after"], 7);
}

#[test]
fn a_page_that_would_be_too_large_keeps_what_is_not_well() {
    let mut lab = Lab::new();
    let events: Vec<_> =
        (0..20).flat_map(|id| if id % 5 == 4 { lab.udp_dropped(id, 1) } else { lab.udp(id, 1) }).collect();
    let (packets, _) = stitched(&events);
    let numbers = |most| -> (Vec<u64>, Value) {
        let data = data_of(page(&packets, None, &names(), most));
        let packets = data["packets"].as_array().unwrap();
        (packets.iter().map(|packet| packet["n"].as_u64().unwrap()).collect(), data["left_out"].clone())
    };
    assert_eq!(numbers(20).1, 0);
    assert_eq!(numbers(3), (vec![1, 2, 3, 5, 10, 15], json!(14)));
    assert_eq!(page(&packets, None, &names(), 3).counts(), (6, 14));
}

#[test]
fn thousands_of_packets_share_what_they_have_in_common() {
    let mut lab = Lab::new();
    let events: Vec<_> = (0..1000).flat_map(|id| lab.tcp_data(id, 100 + id as u32, 7)).collect();
    let (packets, summary) = stitched(&events);
    let data = page(&packets, Some(&summary), &names(), 1000).data(None).unwrap();
    let hops = packets[0].steps.len();
    assert!(data.len() < 1000 * (250 + 10 * hops), "{} bytes for {hops} hops", data.len());
}

#[test]
fn the_page_says_what_is_wrong_with_the_recording() {
    let (packets, _) = stitched(&Lab::new().udp(1, 1));
    let mut page = page(&packets, None, &names(), 10);
    page.notice("the segment is now <b>");
    let html = page.finish(Some("x.pcapng: damaged at byte 7")).unwrap();
    assert!(html.contains(r#""damage":"x.pcapng: damaged at byte 7""#));
    assert!(html.contains(r#""notices":["the segment is now \u003cb\u003e"]"#));
}

#[test]
fn a_page_needs_nothing_but_itself() {
    let (packets, summary) = stitched(&Lab::new().udp(1, 1));
    let html = page(&packets, Some(&summary), &names(), 10).finish(None).unwrap();
    // The namespace of drawings is a name, and no address to go to.
    let addresses = html.replace("http://www.w3.org/2000/svg", "");
    for outside in [
        "http:",
        "https:",
        "src=",
        "@import",
        "url(",
        "<link",
        "<iframe",
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
    ] {
        assert!(!addresses.contains(outside), "{outside}");
    }
    assert!(html.contains("default-src 'none'; script-src 'sha256-"), "{}", &html[..800]);
    // No attribute runs a script or bears a style: the policy forbids both.
    let (frame, _) = html.split_once("<script>").unwrap();
    assert!(!frame.contains(" style=") && !frame.contains(" onclick=") && !frame.contains("javascript:"));
}

#[test]
fn packets_without_a_number_are_passed_over() {
    let (mut packets, _) = stitched(&Lab::new().udp(1, 1));
    packets[0].number = None;
    let mut page = page(&[], None, &names(), 10);
    page.packet(&packets[0], &payload(&packets[0]), &names());
    assert_eq!(page.counts(), (0, 0));
}
