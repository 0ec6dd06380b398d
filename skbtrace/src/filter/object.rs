//! A translated expression as an object file, for the loader takes nothing else: one section with the program, and the licence.
//!
//! Nothing in it is to be relocated: descriptors of maps stand in the instructions themselves.

use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    write::{Object, Symbol, SymbolSection},
};

use super::ebpf::Insn;

/// What kind of program calls it: programs of different kinds do not go on in one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Kprobes.
    Kprobe,
    /// Raw tracepoints.
    RawTracepoint,
}

/// An object file with this program, under this name.
///
/// # Errors
/// When it is larger than a file can be.
pub fn object(name: &str, kind: Kind, program: &[Insn]) -> Result<Vec<u8>, object::write::Error> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let section_name = match kind {
        Kind::Kprobe => "kprobe",
        Kind::RawTracepoint => "raw_tp",
    };
    let section = object.add_section(Vec::new(), section_name.into(), SectionKind::Text);
    let code: Vec<u8> = program.iter().flat_map(|insn| insn.bytes()).collect();
    object.append_section_data(section, &code, 8);
    object.add_symbol(Symbol {
        name: name.into(),
        value: 0,
        size: code.len() as u64,
        kind: SymbolKind::Text,
        scope: SymbolScope::Linkage,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    });
    // That of the programs it stands among.
    let licence = object.add_section(Vec::new(), b"license".to_vec(), SectionKind::Data);
    object.append_section_data(licence, b"Dual MIT/GPL\0", 1);
    object.write()
}
