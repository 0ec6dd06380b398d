//! A machine that runs translated programs: rbpf's interpreter, with a window for a map and a tail call that goes nowhere.

use std::cell::{Cell, RefCell};

use skbtrace_common::{WINDOW_BYTES, Window};

use crate::filter::{Places, ebpf::Insn};

thread_local! {
    static WINDOW: RefCell<Option<Box<Window>>> = const { RefCell::new(None) };
    static PLACES: Cell<Option<Places>> = const { Cell::new(None) };
    static ANSWERED: Cell<u32> = const { Cell::new(0) };
}

/// A window as the kernel side would have filled it. What was not copied is what another packet left there.
pub fn window(packet: &[u8], len: u32) -> Box<Window> {
    let mut bytes = [0xa5; 2 * WINDOW_BYTES];
    let copied = packet.len().min(WINDOW_BYTES);
    bytes[..copied].copy_from_slice(&packet[..copied]);
    Box::new(Window { verdict: 0, copied: copied as u32, len, reserved: 0, bytes })
}

/// Runs a program to its end; whether it wants the packet.
pub fn run(program: &[Insn], places: Places, window: Box<Window>) -> bool {
    let from = (&raw const *window) as u64;
    WINDOW.set(Some(window));
    PLACES.set(Some(places));
    ANSWERED.set(0);
    let code: Vec<u8> = program.iter().flat_map(|insn| insn.bytes()).collect();
    let mut machine = rbpf::EbpfVmNoData::new(Some(&code)).unwrap();
    machine.register_helper(1, look_up).unwrap();
    machine.register_helper(12, tail_call).unwrap();
    machine.register_allowed_memory(from..from + size_of::<Window>() as u64);
    assert_eq!(machine.execute_program().unwrap(), 0);
    assert_eq!(ANSWERED.get(), 1, "a program ends in a tail call");
    let verdict = WINDOW.take().unwrap().verdict;
    assert!(verdict < 2, "{verdict}");
    verdict == 1
}

/// bpf_map_lookup_elem: a map is its descriptor here.
fn look_up(map: u64, key: u64, _: u64, _: u64, _: u64) -> u64 {
    let places = PLACES.get().unwrap();
    assert_eq!(map, places.windows as u64);
    // SAFETY: the program keeps its key on the machine's stack.
    assert_eq!(unsafe { (key as *const u32).read_unaligned() }, places.window);
    WINDOW.with_borrow_mut(|window| (&raw mut **window.as_mut().unwrap()) as u64)
}

/// bpf_tail_call.
fn tail_call(_: u64, map: u64, place: u64, _: u64, _: u64) -> u64 {
    let places = PLACES.get().unwrap();
    assert_eq!((map, place), (places.programs as u64, u64::from(places.answer)));
    ANSWERED.set(ANSWERED.get() + 1);
    u64::MAX
}
