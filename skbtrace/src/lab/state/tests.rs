use proptest::{prelude::*, sample::subsequence};

use super::*;
use crate::lab::{BRIDGE_MAC, NAMESPACES};

fn nothing() -> Observed {
    Observed { here: Vec::new(), namespaces: NAMESPACES.map(|name| (name, Namespace::Absent)).to_vec() }
}

fn device(name: &str, index: u32, mac: Vec<u8>) -> Device {
    Device {
        name: name.into(),
        index,
        mac,
        alias: None,
        kind: None,
        up: false,
        operstate: "down".into(),
        master: None,
        peer: None,
        port_state: None,
        addresses: Vec::new(),
        default_route: false,
    }
}

fn lab_mac(last: u8) -> Vec<u8> {
    [MAC_PREFIX.as_slice(), &[last]].concat()
}

/// The devices of a place, which must be there: a step whose place is missing is a step out of order.
fn devices_mut(observed: &mut Observed, place: Place) -> &mut Vec<Device> {
    let Some(name) = place else { return &mut observed.here };
    match observed.namespaces.iter_mut().find(|(known, _)| *known == name) {
        Some((_, Namespace::Ours(devices))) => devices,
        other => panic!("{name} is {other:?}"),
    }
}

fn device_mut<'a>(observed: &'a mut Observed, place: Place, name: &str) -> &'a mut Device {
    let found = devices_mut(observed, place).iter_mut().find(|device| device.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {place:?}"))
}

/// A model of what the kernel does with a step. It panics where the kernel would refuse.
fn take(layout: &Layout, observed: &mut Observed, step: Missing) {
    match step {
        Missing::Namespace(name) => {
            let slot = observed.namespaces.iter_mut().find(|(known, _)| *known == name).unwrap();
            assert!(matches!(slot.1, Namespace::Absent | Namespace::Leftover));
            slot.1 = Namespace::Ours(vec![device("lo", 1, vec![0; 6])]);
        }
        Missing::Bridge(name) => {
            assert_eq!(observed.device(None, name), None);
            observed.here.push(device(name, 100, lab_mac(BRIDGE_MAC)));
        }
        Missing::Pair(pair) => {
            let places: Vec<_> = observed.places().collect();
            for place in places {
                if !observed.devices(place).is_empty() {
                    devices_mut(observed, place).retain(|device| pair.iter().all(|end| end.device != device.name));
                }
            }
            for (end, other) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
                let mut new = device(end.device, u32::from(end.mac), lab_mac(end.mac));
                new.peer = Some(u32::from(other.mac));
                devices_mut(observed, end.place).push(new);
            }
        }
        Missing::Mark(place, name) => device_mut(observed, place, name).alias = Some(layout.scenario.alias()),
        Missing::Up(place, name) => device_mut(observed, place, name).up = true,
        Missing::Port(name, bridge) => {
            let index = observed.device(None, bridge).unwrap().index;
            device_mut(observed, None, name).master = Some(index);
        }
        Missing::Address(place, name, address) => {
            let addresses = &mut device_mut(observed, place, name).addresses;
            assert!(!addresses.contains(&(address, PREFIX_LEN)), "EEXIST");
            addresses.push((address, PREFIX_LEN));
        }
        Missing::DefaultRoute(place, name) => {
            let device = device_mut(observed, Some(place), name);
            assert!(device.up, "ENETDOWN");
            assert!(!device.default_route, "EEXIST");
            device.default_route = true;
        }
        Missing::Carrier(place, name) => {
            let device = device_mut(observed, place, name);
            assert!(device.up);
            device.operstate = "up".into();
        }
        Missing::Forwarding(name) => {
            let device = device_mut(observed, None, name);
            assert!(device.master.is_some());
            device.port_state = Some("forwarding".into());
        }
    }
}

fn repair(layout: &'static Layout, observed: &mut Observed) {
    for step in missing(layout, observed) {
        take(layout, observed, step);
    }
}

fn complete(layout: &'static Layout) -> Observed {
    let mut observed = nothing();
    repair(layout, &mut observed);
    observed
}

#[test]
fn building_from_nothing_leaves_nothing_missing() {
    for layout in &LAYOUTS {
        let observed = complete(layout);
        assert_eq!(missing(layout, &observed), []);
        assert_eq!(scenario(&observed), Some(layout.scenario));
        assert_eq!(foreign(layout, &observed), []);
        assert!(!observed.is_empty());
    }
    assert_eq!(scenario(&nothing()), None);
    assert!(nothing().is_empty());
}

#[test]
fn the_bridge_lab_is_the_one_that_is_drawn() {
    let layout = Scenario::Bridge.layout();
    let text: Vec<_> = missing(layout, &nothing()).iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(text.join("\n"), @"
    no namespace ns-calm1
    no namespace ns-calm2
    ns-calm1/lo has not the lab's alias
    ns-calm1/lo is down
    ns-calm2/lo has not the lab's alias
    ns-calm2/lo is down
    no bridge calmbr
    calmbr has not the lab's alias
    calmbr is down
    no veth pair ns-calm1/calmveth1, calmveth1_peer
    no veth pair ns-calm2/calmveth2, calmveth2_peer
    ns-calm1/calmveth1 has not the lab's alias
    ns-calm1/calmveth1 is down
    ns-calm1/calmveth1 has not the address 78.78.0.10/24
    calmveth1_peer has not the lab's alias
    calmveth1_peer is down
    calmveth1_peer is no port of calmbr
    ns-calm2/calmveth2 has not the lab's alias
    ns-calm2/calmveth2 is down
    ns-calm2/calmveth2 has not the address 78.78.0.11/24
    calmveth2_peer has not the lab's alias
    calmveth2_peer is down
    calmveth2_peer is no port of calmbr
    ns-calm1 has no default route through calmveth1
    ns-calm2 has no default route through calmveth2
    ns-calm1/calmveth1 is set up and its link is not
    calmveth1_peer is set up and its link is not
    the bridge port calmveth1_peer does not forward
    ns-calm2/calmveth2 is set up and its link is not
    calmveth2_peer is set up and its link is not
    the bridge port calmveth2_peer does not forward
    ");
}

#[test]
fn one_damage_is_one_thing_missing() {
    let layout = Scenario::Bridge.layout();
    let after = |damage: &dyn Fn(&mut Observed)| {
        let mut observed = complete(layout);
        damage(&mut observed);
        missing(layout, &observed).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let client = |observed: &mut Observed, damage: &dyn Fn(&mut Device)| {
        damage(device_mut(observed, Some("ns-calm2"), "calmveth2"));
    };
    assert_eq!(after(&|o| client(o, &|d| d.up = false)), ["ns-calm2/calmveth2 is down"]);
    assert_eq!(
        after(&|o| client(o, &|d| d.addresses[0].1 = 16)),
        ["ns-calm2/calmveth2 has not the address 78.78.0.11/24"]
    );
    assert_eq!(
        after(&|o| client(o, &|d| d.default_route = false)),
        ["ns-calm2 has no default route through calmveth2"]
    );
    assert_eq!(
        after(&|o| device_mut(o, None, "calmveth1_peer").master = Some(7)),
        ["calmveth1_peer is no port of calmbr"]
    );
    assert_eq!(
        after(&|o| device_mut(o, None, "calmveth1_peer").port_state = Some("blocking".into())),
        ["the bridge port calmveth1_peer does not forward"]
    );
}

#[test]
fn a_namespace_without_the_mark_is_foreign_and_not_emptied() {
    let layout = Scenario::Pair.layout();
    let mut observed = nothing();
    observed.namespaces[1].1 = Namespace::Foreign;
    observed.here.push(device("calmveth1_peer", 7, vec![2, 0, 0, 0, 0, 1]));
    assert_eq!(
        foreign(layout, &observed),
        [("there is a namespace ns-calm2".to_owned(), "ip netns del ns-calm2".to_owned())]
    );
    // The pair needs no calmveth1_peer; the bridge does.
    assert_eq!(foreign(Scenario::Bridge.layout(), &observed).len(), 2);
    assert_eq!(observed.ours().count(), 0);
    assert!(observed.is_empty());
}

#[test]
fn a_device_is_the_labs_by_its_mac_before_it_has_its_alias() {
    let mut born = device("calmbr", 9, lab_mac(BRIDGE_MAC));
    assert!(born.is_marked());
    born.mac = vec![2, 0, 0, 0, 0, 1];
    assert!(!born.is_marked());
    born.alias = Some("skbtrace lab bridge".into());
    assert!(born.is_marked());
    assert_eq!(born.scenario(), Some(Scenario::Bridge));
}

fn any_layout() -> impl Strategy<Value = &'static Layout> {
    (0..LAYOUTS.len()).prop_map(|index| &LAYOUTS[index])
}

proptest! {
    /// A run that was killed after any step, and from which somebody then took anything away, is repaired.
    #[test]
    fn any_half_built_lab_is_repaired(
        layout in any_layout(),
        steps in 0..40_usize,
        removed in subsequence(DEVICES_AND_PLACES.to_vec(), 0..5),
        changed in subsequence((0..40_usize).collect::<Vec<_>>(), 0..6),
    ) {
        let mut observed = nothing();
        for step in missing(layout, &observed).into_iter().take(steps) {
            take(layout, &mut observed, step);
        }
        for (place, name) in removed {
            if observed.device(place, name).is_some() {
                devices_mut(&mut observed, place).retain(|device| device.name != name);
            }
        }
        let places: Vec<_> = observed.places().collect();
        let mut index = 0;
        for place in places {
            if observed.devices(place).is_empty() {
                continue;
            }
            for device in devices_mut(&mut observed, place).iter_mut().filter(|device| device.name != "lo") {
                for damage in 0..4 {
                    index += 1;
                    match damage {
                        _ if !changed.contains(&index) => {}
                        0 => { device.up = false; device.default_route = false; device.operstate = "down".into() }
                        1 => device.addresses.clear(),
                        2 => device.peer = Some(4242),
                        _ => { device.master = None; device.port_state = None }
                    }
                }
            }
        }
        repair(layout, &mut observed);
        prop_assert_eq!(missing(layout, &observed), []);
    }
}

const DEVICES_AND_PLACES: [(Place, &str); 7] = [
    (None, "calmbr"),
    (None, "calmveth1_peer"),
    (None, "calmveth2_peer"),
    (Some("ns-calm1"), "calmveth1"),
    (Some("ns-calm1"), "calmveth2"),
    (Some("ns-calm2"), "calmveth2"),
    (Some("ns-calm2"), "calmveth1"),
];
