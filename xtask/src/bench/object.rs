//! The two programs that everything is measured against, put together by hand: one that does nothing, and one that reserves an event
//! in a ring and submits it.
//!
//! The second is less than any tracer can do that sends an event: it neither reads nor copies anything. skbtrace's kernel side makes its
//! event elsewhere and has it copied into the ring (`bpf_ringbuf_output`), which wakes by the same flags.
//!
//! A dozen instructions need no compiler, and no second object beside the kernel side. They go into an object file because they are
//! loaded, attached and read by what skbtrace is loaded, attached and read by, so that nothing differs but the program. What bpftrace
//! makes of an empty probe would be as short, but has no ring.

use anyhow::Result;
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};

/// The program's name in the object.
pub const NAME: &str = "bench";

/// An instruction: opcode, destination, source, offset, immediate.
type Insn = (u8, u8, u8, i16, i32);

const LD_IMM64: u8 = 0x18;
const MOV: u8 = 0xbf;
const MOV_K: u8 = 0xb7;
const JEQ_K: u8 = 0x15;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// As the source of [`LD_IMM64`]: the immediate is a map's descriptor.
const MAP_FD: u8 = 1;
const RINGBUF_RESERVE: i32 = 131;
const RINGBUF_SUBMIT: i32 = 132;

/// Whether a submitted event wakes who waits for it: the flags of `bpf_ringbuf_submit` (include/uapi/linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Where the reader has read everything that came before; 0, and what skbtrace's kernel side says.
    Waiting,
    /// Never: `BPF_RB_NO_WAKEUP`.
    Never,
}

/// Returns 0.
pub fn empty() -> Vec<Insn> {
    vec![(MOV_K, 0, 0, 0, 0), (EXIT, 0, 0, 0, 0)]
}

/// Sends an event of this many bytes, whatever is in them, to the ring with this descriptor; where that is full, nothing.
pub fn floor(ring: i32, size: i32, wake: Wake) -> Vec<Insn> {
    vec![
        (LD_IMM64, 1, MAP_FD, 0, ring),
        (0, 0, 0, 0, 0),
        (MOV_K, 2, 0, 0, size),
        (MOV_K, 3, 0, 0, 0),
        (CALL, 0, 0, 0, RINGBUF_RESERVE),
        (JEQ_K, 0, 0, 3, 0),
        (MOV, 1, 0, 0, 0),
        (MOV_K, 2, 0, 0, i32::from(wake == Wake::Never)),
        (CALL, 0, 0, 0, RINGBUF_SUBMIT),
        (MOV_K, 0, 0, 0, 0),
        (EXIT, 0, 0, 0, 0),
    ]
}

/// An object file with a program for kprobes.
///
/// # Errors
/// None, for a program this short.
pub fn object(program: &[Insn]) -> Result<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let section = object.add_section(Vec::new(), b"kprobe".to_vec(), SectionKind::Text);
    let code: Vec<u8> = program.iter().flat_map(|insn| bytes(*insn)).collect();
    object.append_section_data(section, &code, 8);
    object.add_symbol(Symbol {
        name: NAME.into(),
        value: 0,
        size: u64::try_from(code.len())?,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    let licence = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(licence, b"Dual MIT/GPL\0", 1);
    Ok(object.write()?)
}

fn bytes((code, dst, src, off, imm): Insn) -> [u8; 8] {
    let ([off0, off1], [imm0, imm1, imm2, imm3]) = (off.to_le_bytes(), imm.to_le_bytes());
    [code, src << 4 | dst, off0, off1, imm0, imm1, imm2, imm3]
}

#[cfg(test)]
mod tests {
    use aya::Ebpf;

    use super::{EXIT, JEQ_K, Wake, bytes, empty, floor, object};

    #[test]
    fn an_instruction_is_eight_bytes_of_a_little_endian_machine() {
        assert_eq!(bytes((JEQ_K, 1, 2, -2, 0x0102_0304)), [0x15, 0x21, 0xfe, 0xff, 4, 3, 2, 1]);
    }

    #[test]
    fn where_the_ring_is_full_the_floor_goes_on_behind_the_submission() {
        let program = floor(7, 248, Wake::Waiting);
        let at = program.iter().position(|insn| insn.0 == JEQ_K).unwrap();
        let target = at + 1 + usize::try_from(program[at].3).unwrap();
        assert_eq!(program[target..], empty());
        assert_eq!(program.last().unwrap().0, EXIT);
    }

    #[test]
    fn the_two_floors_differ_in_one_flag() {
        let [waking, silent] = [Wake::Waiting, Wake::Never].map(|wake| floor(7, 248, wake));
        let different: Vec<_> = waking.iter().zip(&silent).filter(|(a, b)| a != b).collect();
        assert_eq!(different.iter().map(|(a, b)| (a.4, b.4)).collect::<Vec<_>>(), [(0, 1)]);
    }

    #[test]
    fn the_loader_finds_the_program_in_the_object() {
        let file = object(&empty()).unwrap();
        let ebpf = Ebpf::load(&file).unwrap();
        assert_eq!(ebpf.programs().map(|(name, _)| name).collect::<Vec<_>>(), [super::NAME]);
    }
}
