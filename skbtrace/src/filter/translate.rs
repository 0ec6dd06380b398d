//! From the classic BPF that libpcap compiles to a program that the kernel runs behind a tail call.
//!
//! The packet is not there: the program reads a [`Window`], which holds the packet's first bytes in one piece, and is as long as a
//! window is. So every load is within memory that is the program's own, which the verifier sees by a comparison with a constant;
//! a second comparison, with the number of bytes that were copied, decides what the load means: behind them the answer is no, as
//! libpcap answers for a packet that was cut off there. Accumulator and index are the lower halves of two registers, whose upper
//! halves stay 0: the sum of an index and an offset then cannot wrap.
//!
//! Only what can be reached is translated, for the verifier refuses anything else, and jumps lead forward only.

use std::{collections::BTreeSet, mem::offset_of};

use skbtrace_common::{WINDOW_BYTES, Window};
use thiserror::Error;

use super::{
    cbpf::{self, Insn},
    ebpf::{self, Code, FRAME, If, Label, Op, R0, R1, R2, R3, Register, Size, With},
};

/// The window, through all of the program.
const WINDOW: Register = 6;
/// Bytes that were copied.
const COPIED: Register = 7;
/// The accumulator.
const A: Register = 8;
/// The index.
const X: Register = 9;

/// Where on the stack the context is kept, the key of the window's map, and the numbered places of memory from there down.
const CONTEXT_AT: i16 = -8;
const KEY_AT: i16 = -12;
const MEMORY_AT: i16 = -16;

const MAP_LOOKUP: u32 = 1;
const TAIL_CALL: u32 = 12;

/// Four times the longest number that fits into four bits: the length of an IPv4 header.
const LONGEST_HEADER: u32 = 60;

/// Why an expression cannot run in the kernel.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TranslateError {
    /// `protochain`: a loop of which nobody can say when it ends.
    #[error("it needs a loop (`protochain`), which the kernel does not allow: name the headers one by one")]
    Loop,
    /// More than a program can hold.
    #[error("it is too long for one program of the kernel's")]
    TooLong,
    /// No instruction of classic BPF.
    #[error("libpcap compiled it to an instruction that is not known here ({0:#06x})")]
    Unknown(u16),
}

/// The maps that a program needs, by their descriptors, and its places in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// The map of windows.
    pub windows: i32,
    /// Which window.
    pub window: u32,
    /// The array of the program that goes on with the verdict.
    pub programs: i32,
    /// Its place there.
    pub answer: u32,
}

/// How many of a packet's bytes the program can look at.
#[must_use]
pub fn reach(program: &[Insn]) -> u32 {
    const ALL: u32 = WINDOW_BYTES as u32;
    let index = program.iter().map(|insn| match insn.code {
        code if code == cbpf::LDX | cbpf::MSH | cbpf::B => LONGEST_HEADER,
        code if code == cbpf::LDX | cbpf::IMM => insn.k,
        code if code & 7 == cbpf::LDX || code == cbpf::MISC => ALL,
        _ => 0,
    });
    let index = index.max().unwrap_or(0);
    let ends = program.iter().map(|insn| {
        let size = size(insn.code).map_or(0, Size::bytes);
        match (insn.code & 7, insn.code & 0xe0) {
            (cbpf::LD, cbpf::ABS) => insn.k.saturating_add(size),
            (cbpf::LDX, cbpf::MSH) => insn.k.saturating_add(1),
            (cbpf::LD, cbpf::IND) => insn.k.saturating_add(index).saturating_add(size),
            _ => 0,
        }
    });
    // One at least: a program that looks at none is asked as well.
    ends.max().unwrap_or(0).clamp(1, ALL)
}

/// Translates a program.
///
/// # Errors
/// When the kernel has no program like it.
pub fn translate(program: &[Insn], places: Places) -> Result<Vec<ebpf::Insn>, TranslateError> {
    let reached = reachable(program)?;
    let mut code = Code::default();
    begin(&mut code, program, places);
    for (at, insn) in program.iter().enumerate() {
        if reached[at] {
            code.label(Label::At(at));
            one(&mut code, at, *insn)?;
        }
    }
    end(&mut code, places);
    code.finish().ok_or(TranslateError::TooLong)
}

/// Which instructions are ever run.
fn reachable(program: &[Insn]) -> Result<Vec<bool>, TranslateError> {
    let mut reached = vec![false; program.len()];
    let mut ahead = vec![0];
    while let Some(at) = ahead.pop() {
        // What jumps out of it jumps backward: the distance is a number without a sign.
        let insn = program.get(at).ok_or(TranslateError::Loop)?;
        if !std::mem::replace(&mut reached[at], true) {
            ahead.extend(successors(at, *insn));
        }
    }
    Ok(reached)
}

/// The instructions that may follow.
fn successors(at: usize, insn: Insn) -> Vec<usize> {
    match (insn.code & 7, insn.code & 0xf0) {
        (cbpf::RET, _) => vec![],
        (cbpf::JMP, cbpf::JA) => vec![target(at, insn.k)],
        (cbpf::JMP, _) => vec![target(at, insn.jt.into()), target(at, insn.jf.into())],
        // It always says no.
        _ if outside(insn) => vec![],
        _ => vec![at + 1],
    }
}

/// Where a jump leads: backward is out of every program.
fn target(at: usize, distance: u32) -> usize {
    at + 1 + distance as usize
}

/// Whether it loads from where no window has bytes.
fn outside(insn: Insn) -> bool {
    let fixed = matches!((insn.code & 7, insn.code & 0xe0), (cbpf::LD, cbpf::ABS | cbpf::IND) | (cbpf::LDX, cbpf::MSH));
    let bytes = size(insn.code).map_or(1, Size::bytes);
    fixed && insn.k.saturating_add(bytes) > WINDOW_BYTES as u32
}

fn size(code: u16) -> Option<Size> {
    match code & 0x18 {
        cbpf::W => Some(Size::Word),
        cbpf::H => Some(Size::Half),
        cbpf::B => Some(Size::Byte),
        _ => None,
    }
}

/// Finds the window and clears what the program may read before it writes.
fn begin(code: &mut Code, program: &[Insn], places: Places) {
    code.store(Size::Double, FRAME, CONTEXT_AT, With::Register(R1));
    code.store(Size::Word, FRAME, KEY_AT, With::Number(places.window));
    code.alu64(Op::Mov, R2, With::Register(FRAME));
    code.alu64(Op::Add, R2, With::Number(i32::from(KEY_AT).cast_unsigned()));
    code.map(R1, places.windows);
    code.call(MAP_LOOKUP);
    code.jump_if64(If::Equal, R0, With::Number(0), Label::No);
    code.alu64(Op::Mov, WINDOW, With::Register(R0));
    code.load(Size::Word, COPIED, WINDOW, offset_of!(Window, copied) as i16);
    code.alu(Op::Mov, A, With::Number(0));
    code.alu(Op::Mov, X, With::Number(0));
    let loads = |insn: &&Insn| matches!(insn.code & 7, cbpf::LD | cbpf::LDX) && insn.code & 0xe0 == cbpf::MEM;
    let places: BTreeSet<_> = program.iter().filter(loads).map(|insn| insn.k % cbpf::MEMORY).collect();
    for place in places {
        code.store(Size::Word, FRAME, memory(place), With::Number(0));
    }
}

/// Where a numbered place of memory is on the stack.
fn memory(place: u32) -> i16 {
    MEMORY_AT - 4 * (place % cbpf::MEMORY) as i16
}

/// Leaves the verdict and goes on in the program that hears it. The verdict is no until something else is found.
fn end(code: &mut Code, places: Places) {
    if code.goes_to(Label::Yes) {
        code.label(Label::Yes);
        code.store(Size::Word, WINDOW, offset_of!(Window, verdict) as i16, With::Number(1));
    }
    code.label(Label::No);
    code.load(Size::Double, R1, FRAME, CONTEXT_AT);
    code.map(R2, places.programs);
    code.alu(Op::Mov, R3, With::Number(places.answer));
    code.call(TAIL_CALL);
    code.alu(Op::Mov, R0, With::Number(0));
    code.exit();
}

/// Translates one instruction.
fn one(code: &mut Code, at: usize, insn: Insn) -> Result<(), TranslateError> {
    let unknown = TranslateError::Unknown(insn.code);
    if outside(insn) {
        code.jump(Label::No);
        return Ok(());
    }
    match insn.code & 7 {
        cbpf::LD => load_accumulator(code, insn).ok_or(unknown),
        cbpf::LDX => load_index(code, insn).ok_or(unknown),
        cbpf::ST | cbpf::STX => {
            let from = if insn.code & 7 == cbpf::ST { A } else { X };
            code.store(Size::Word, FRAME, memory(insn.k), With::Register(from));
            Ok(())
        }
        cbpf::ALU => calculate(code, at, insn).ok_or(unknown),
        cbpf::JMP => jump(code, at, insn).ok_or(unknown),
        cbpf::RET => {
            match (insn.code & 0x18, insn.k) {
                (cbpf::A, _) => {
                    code.jump_if(If::Equal, A, With::Number(0), Label::No);
                    code.jump(Label::Yes);
                }
                (_, 0) => code.jump(Label::No),
                _ => code.jump(Label::Yes),
            }
            Ok(())
        }
        _ => {
            let (to, from) = if insn.code & cbpf::TXA == 0 { (X, A) } else { (A, X) };
            code.alu(Op::Mov, to, With::Register(from));
            Ok(())
        }
    }
}

/// Says no when the bytes from `k` on were not copied.
fn must_be_there(code: &mut Code, k: u32, size: Size) {
    code.jump_if64(If::Below, COPIED, With::Number(k + size.bytes()), Label::No);
}

/// Offset of a byte in the window.
fn byte(k: u32) -> i16 {
    // Within a window, which is shorter than what an offset can say.
    (offset_of!(Window, bytes) as u32 + k) as i16
}

fn load_accumulator(code: &mut Code, insn: Insn) -> Option<()> {
    let size = size(insn.code)?;
    match insn.code & 0xe0 {
        cbpf::IMM => code.alu(Op::Mov, A, With::Number(insn.k)),
        cbpf::LEN => code.load(Size::Word, A, WINDOW, offset_of!(Window, len) as i16),
        cbpf::MEM => code.load(Size::Word, A, FRAME, memory(insn.k)),
        cbpf::ABS => {
            must_be_there(code, insn.k, size);
            code.load(size, A, WINDOW, byte(insn.k));
            code.network_to_host(size, A);
        }
        cbpf::IND => {
            code.alu64(Op::Mov, R1, With::Register(X));
            code.alu64(Op::Add, R1, With::Number(insn.k));
            // For the meaning …
            code.alu64(Op::Mov, R2, With::Register(R1));
            code.alu64(Op::Add, R2, With::Number(size.bytes()));
            code.jump_if64(If::Above, R2, With::Register(COPIED), Label::No);
            // … and for the verifier.
            code.jump_if64(If::Above, R1, With::Number(WINDOW_BYTES as u32 - size.bytes()), Label::No);
            code.alu64(Op::Add, R1, With::Register(WINDOW));
            code.load(size, A, R1, byte(0));
            code.network_to_host(size, A);
        }
        _ => return None,
    }
    Some(())
}

fn load_index(code: &mut Code, insn: Insn) -> Option<()> {
    match insn.code & 0xe0 {
        cbpf::IMM => code.alu(Op::Mov, X, With::Number(insn.k)),
        cbpf::LEN => code.load(Size::Word, X, WINDOW, offset_of!(Window, len) as i16),
        cbpf::MEM => code.load(Size::Word, X, FRAME, memory(insn.k)),
        cbpf::MSH => {
            must_be_there(code, insn.k, Size::Byte);
            code.load(Size::Byte, X, WINDOW, byte(insn.k));
            code.alu(Op::And, X, With::Number(15));
            code.alu(Op::Shl, X, With::Number(2));
        }
        _ => return None,
    }
    Some(())
}

fn calculate(code: &mut Code, at: usize, insn: Insn) -> Option<()> {
    let op = match insn.code & 0xf0 {
        cbpf::ADD => Op::Add,
        cbpf::SUB => Op::Sub,
        cbpf::MUL => Op::Mul,
        cbpf::DIV => Op::Div,
        cbpf::OR => Op::Or,
        cbpf::AND => Op::And,
        cbpf::LSH => Op::Shl,
        cbpf::RSH => Op::Shr,
        cbpf::NEG => Op::Neg,
        cbpf::MOD => Op::Mod,
        cbpf::XOR => Op::Xor,
        _ => return None,
    };
    let by_index = insn.code & cbpf::X != 0;
    let with = if by_index { With::Register(X) } else { With::Number(insn.k) };
    match op {
        Op::Neg => code.alu(Op::Neg, A, With::Number(0)),
        // Nothing can be divided by 0: libpcap says no.
        Op::Div | Op::Mod if by_index => {
            code.jump_if(If::Equal, X, With::Number(0), Label::No);
            code.alu(op, A, with);
        }
        Op::Div | Op::Mod if insn.k == 0 => return None,
        // Bits shifted out are gone; the machine would shift by the lowest five bits alone.
        Op::Shl | Op::Shr if by_index => {
            code.jump_if(If::AtMost, X, With::Number(31), Label::Over(at));
            code.alu(Op::Mov, A, With::Number(0));
            code.label(Label::Over(at));
            code.alu(op, A, with);
        }
        Op::Shl | Op::Shr if insn.k > 31 => code.alu(Op::Mov, A, With::Number(0)),
        _ => code.alu(op, A, with),
    }
    Some(())
}

fn jump(code: &mut Code, at: usize, insn: Insn) -> Option<()> {
    let condition = match insn.code & 0xf0 {
        cbpf::JA => {
            code.jump(Label::At(target(at, insn.k)));
            return Some(());
        }
        cbpf::JEQ => If::Equal,
        cbpf::JGT => If::Above,
        cbpf::JGE => If::AtLeast,
        cbpf::JSET => If::AnyBit,
        _ => return None,
    };
    let with = if insn.code & cbpf::X == 0 { With::Number(insn.k) } else { With::Register(X) };
    let to = |distance: u8| Label::At(target(at, distance.into()));
    match condition.opposite() {
        Some(opposite) if insn.jt == 0 => code.jump_if(opposite, A, with, to(insn.jf)),
        _ => {
            code.jump_if(condition, A, with, to(insn.jt));
            if insn.jf != 0 {
                code.jump(to(insn.jf));
            }
        }
    }
    Some(())
}
