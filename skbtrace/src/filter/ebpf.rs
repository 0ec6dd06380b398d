//! The instructions of eBPF that a translated expression is made of, and jumps between places that are not known yet.

use std::collections::BTreeMap;

/// An instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    /// What it does.
    pub code: u8,
    /// The register it does it to.
    pub dst: u8,
    /// The register it does it with.
    pub src: u8,
    /// An offset, of memory or of a jump.
    pub off: i16,
    /// A number.
    pub imm: i32,
}

impl Insn {
    /// Eight bytes, as a little-endian kernel takes them: the only ones that skbtrace is built for.
    #[must_use]
    pub fn bytes(self) -> [u8; 8] {
        let [off0, off1] = self.off.to_le_bytes();
        let [imm0, imm1, imm2, imm3] = self.imm.to_le_bytes();
        [self.code, self.src << 4 | self.dst, off0, off1, imm0, imm1, imm2, imm3]
    }
}

/// A register.
pub(super) type Register = u8;

// The first are used up by a call, and the last is the frame's.
pub(super) const R0: Register = 0;
pub(super) const R1: Register = 1;
pub(super) const R2: Register = 2;
pub(super) const R3: Register = 3;
pub(super) const FRAME: Register = 10;

/// Sizes of loads and stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Byte,
    Half,
    Word,
    Double,
}

impl Size {
    fn code(self) -> u8 {
        match self {
            Size::Word => 0x00,
            Size::Half => 0x08,
            Size::Byte => 0x10,
            Size::Double => 0x18,
        }
    }

    /// In bytes.
    pub(super) fn bytes(self) -> u32 {
        match self {
            Size::Byte => 1,
            Size::Half => 2,
            Size::Word => 4,
            Size::Double => 8,
        }
    }
}

/// Operations on registers; the numbers are those of both kinds of BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Op {
    Add = 0x00,
    Sub = 0x10,
    Mul = 0x20,
    Div = 0x30,
    Or = 0x40,
    And = 0x50,
    Shl = 0x60,
    Shr = 0x70,
    Neg = 0x80,
    Mod = 0x90,
    Xor = 0xa0,
    Mov = 0xb0,
}

/// Conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum If {
    Equal = 0x10,
    Above = 0x20,
    AtLeast = 0x30,
    AnyBit = 0x40,
    NotEqual = 0x50,
    Below = 0xa0,
    AtMost = 0xb0,
}

impl If {
    /// The opposite, where there is an instruction for it.
    pub(super) fn opposite(self) -> Option<If> {
        Some(match self {
            If::Equal => If::NotEqual,
            If::NotEqual => If::Equal,
            If::Above => If::AtMost,
            If::AtMost => If::Above,
            If::AtLeast => If::Below,
            If::Below => If::AtLeast,
            If::AnyBit => return None,
        })
    }
}

/// The other operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum With {
    Number(u32),
    Register(Register),
}

/// Where a jump goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Label {
    /// To what this instruction of classic BPF has become.
    At(usize),
    /// Over a part of what it has become.
    Over(usize),
    /// To where the packet is wanted.
    Yes,
    /// To where it is not.
    No,
}

/// Code in the making.
#[derive(Default)]
pub(super) struct Code {
    insns: Vec<Insn>,
    jumps: Vec<(usize, Label)>,
    labels: BTreeMap<Label, usize>,
}

impl Code {
    fn push(&mut self, code: u8, dst: Register, src: Register, off: i16, imm: u32) {
        self.insns.push(Insn { code, dst, src, off, imm: imm.cast_signed() });
    }

    /// What follows is at this label.
    pub(super) fn label(&mut self, label: Label) {
        self.labels.insert(label, self.insns.len());
    }

    /// `dst = *(src + off)`.
    pub(super) fn load(&mut self, size: Size, dst: Register, src: Register, off: i16) {
        self.push(0x61 | size.code(), dst, src, off, 0);
    }

    /// `*(dst + off) = src`.
    pub(super) fn store(&mut self, size: Size, dst: Register, off: i16, src: With) {
        match src {
            With::Number(number) => self.push(0x62 | size.code(), dst, 0, off, number),
            With::Register(src) => self.push(0x63 | size.code(), dst, src, off, 0),
        }
    }

    /// Of 32 bits; the upper half of `dst` becomes 0.
    pub(super) fn alu(&mut self, op: Op, dst: Register, with: With) {
        self.operation(0x04 | op as u8, dst, with);
    }

    /// Of 64 bits; a number must be below 2³¹.
    pub(super) fn alu64(&mut self, op: Op, dst: Register, with: With) {
        self.operation(0x07 | op as u8, dst, with);
    }

    fn operation(&mut self, code: u8, dst: Register, with: With) {
        match with {
            With::Number(number) => self.push(code, dst, 0, 0, number),
            With::Register(src) => self.push(code | 0x08, dst, src, 0, 0),
        }
    }

    /// Turns what was loaded from the network's byte order into a number.
    pub(super) fn network_to_host(&mut self, size: Size, dst: Register) {
        if size != Size::Byte {
            self.push(0xdc, dst, 0, 0, size.bytes() * 8);
        }
    }

    /// Jumps when the lower halves compare so.
    pub(super) fn jump_if(&mut self, condition: If, dst: Register, with: With, to: Label) {
        self.conditional(0x06 | condition as u8, dst, with, to);
    }

    /// Jumps when all of it compares so; a number must be below 2³¹.
    pub(super) fn jump_if64(&mut self, condition: If, dst: Register, with: With, to: Label) {
        self.conditional(0x05 | condition as u8, dst, with, to);
    }

    fn conditional(&mut self, code: u8, dst: Register, with: With, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.operation(code, dst, with);
    }

    /// Jumps.
    pub(super) fn jump(&mut self, to: Label) {
        self.jumps.push((self.insns.len(), to));
        self.push(0x05, 0, 0, 0, 0);
    }

    /// `dst` = the map with this descriptor.
    pub(super) fn map(&mut self, dst: Register, fd: i32) {
        const PSEUDO_MAP_FD: u8 = 1;
        self.push(0x18, dst, PSEUDO_MAP_FD, 0, fd.cast_unsigned());
        self.push(0, 0, 0, 0, 0);
    }

    /// Calls one of the kernel's helpers.
    pub(super) fn call(&mut self, helper: u32) {
        self.push(0x85, 0, 0, 0, helper);
    }

    /// The end.
    pub(super) fn exit(&mut self) {
        self.push(0x95, 0, 0, 0, 0);
    }

    /// Whether something jumps there.
    pub(super) fn goes_to(&self, label: Label) -> bool {
        self.jumps.iter().any(|(_, to)| *to == label)
    }

    /// The instructions, once every label has its place. `None`: a jump is further than an instruction can say, or leads nowhere.
    pub(super) fn finish(mut self) -> Option<Vec<Insn>> {
        for (from, to) in &self.jumps {
            let distance = self.labels.get(to)?.checked_sub(from + 1)?;
            self.insns.get_mut(*from)?.off = i16::try_from(distance).ok()?;
        }
        Some(self.insns)
    }
}
