//! The kernel's symbols: which functions exist, where they are, and which one an address lies in.
//!
//! There are some 150,000, and a run reads them before it can begin: their names lie in one text, and nothing is allocated for
//! each.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    hash::BuildHasher as _,
    io::{self, Read as _, Seek as _, SeekFrom},
};

use hashbrown::{DefaultHashBuilder, HashTable, hash_table::Entry};
use thiserror::Error;

/// Why there are no symbols.
#[derive(Debug, Error)]
pub enum SymbolError {
    /// /proc/kallsyms could not be read.
    #[error("cannot read /proc/kallsyms: {0}; the kernel needs CONFIG_KALLSYMS")]
    Unreadable(#[from] io::Error),
    /// Every address is zero.
    #[error(
        "/proc/kallsyms shows no addresses: run as root or with CAP_SYSLOG, and see that /proc/sys/kernel/kptr_restrict is not 2 \
         (sysctl kernel.kptr_restrict=1)"
    )]
    Hidden,
}

/// A function. What it is called is in the text of all names: its own, and behind it that of its module.
struct Symbol {
    address: u64,
    begin: u32,
    length: u16,
    module_length: u16,
}

/// The symbols of the kernel and of the modules that are loaded.
pub struct Symbols {
    /// The names of the functions and of their modules.
    names: String,
    /// Functions, by address.
    functions: Vec<Symbol>,
    /// Index into `functions` by name; the first one where a name occurs twice.
    by_name: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Those of `by_name` whose names occur more than once.
    ambiguous: HashSet<u32>,
    /// Data and per-CPU symbols that were asked for.
    data: HashMap<&'static str, u64>,
}

/// The data symbols that anything here asks for.
const DATA: [&str; 8] = [
    "__per_cpu_offset",
    "__preempt_count",
    "pcpu_hot",
    "current_kprobe",
    "kprobe_instance",
    "bpf_prog_active",
    "vmemmap_base",
    "page_offset_base",
];

impl Symbols {
    /// Reads /proc/kallsyms.
    ///
    /// # Errors
    /// When it cannot be read or hides the addresses.
    pub fn read() -> Result<Symbols, SymbolError> {
        Symbols::read_from(&Symbols::file()?)
    }

    /// The file that they are read from. Who opened it while allowed to see addresses sees them in it later too.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn file() -> io::Result<File> {
        File::open("/proc/kallsyms")
    }

    /// Reads the file, from its beginning.
    ///
    /// # Errors
    /// When it cannot be read or hides the addresses.
    pub fn read_from(mut file: &File) -> Result<Symbols, SymbolError> {
        let mut text = Vec::with_capacity(16 << 20);
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut text)?;
        let symbols = Symbols::parse(&String::from_utf8_lossy(&text));
        if symbols.functions.last().is_none_or(|symbol| symbol.address == 0) {
            return Err(SymbolError::Hidden);
        }
        Ok(symbols)
    }

    fn parse(text: &str) -> Symbols {
        let mut names = String::with_capacity(text.len() / 2);
        let mut functions = Vec::with_capacity(120_000);
        let mut data = HashMap::new();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
            let Ok(address) = u64::from_str_radix(address, 16) else { continue };
            if matches!(kind, "t" | "T" | "w" | "W") {
                let module = words.next().unwrap_or_default().trim_matches(['[', ']']);
                let lengths = (u32::try_from(names.len()), u16::try_from(name.len()), u16::try_from(module.len()));
                let (Ok(begin), Ok(length), Ok(module_length)) = lengths else { continue };
                names.extend([name, module]);
                functions.push(Symbol { address, begin, length, module_length });
            } else if let Some(name) = DATA.iter().find(|wanted| **wanted == name) {
                data.insert(*name, address);
            }
        }
        functions.sort_by_key(|symbol| symbol.address);
        let mut symbols = Symbols {
            names,
            by_name: HashTable::with_capacity(functions.len()),
            functions,
            hasher: DefaultHashBuilder::default(),
            ambiguous: HashSet::new(),
            data,
        };
        symbols.index();
        symbols
    }

    fn index(&mut self) {
        let Symbols { names, functions, by_name, hasher, ambiguous, .. } = self;
        let name = |index: u32| name_of(names, &functions[index as usize]);
        for index in 0..u32::try_from(functions.len()).unwrap_or(u32::MAX) {
            let hash = hasher.hash_one(name(index));
            match by_name.entry(hash, |other| name(*other) == name(index), |other| hasher.hash_one(name(*other))) {
                Entry::Vacant(entry) => drop(entry.insert(index)),
                Entry::Occupied(entry) => drop(ambiguous.insert(*entry.get())),
            }
        }
    }

    fn name(&self, symbol: &Symbol) -> &str {
        name_of(&self.names, symbol)
    }

    /// The function of this name, the first if there are more.
    fn find(&self, name: &str) -> Option<u32> {
        let is_it = |index: &u32| self.name(&self.functions[*index as usize]) == name;
        self.by_name.find(self.hasher.hash_one(name), is_it).copied()
    }

    /// Whether there is a function of exactly this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Where the only function of exactly this name begins; `None` when there is none, or more than one.
    #[must_use]
    pub fn only(&self, name: &str) -> Option<u64> {
        let index = self.find(name).filter(|index| !self.ambiguous.contains(index))?;
        self.functions.get(index as usize).map(|symbol| symbol.address)
    }

    /// What the compiler made of a function that is not there under its own name: `name.constprop.0` and the like.
    #[must_use]
    pub fn variant(&self, name: &str) -> Option<&str> {
        self.functions
            .iter()
            .map(|symbol| self.name(symbol))
            .find(|symbol| symbol.strip_prefix(name).is_some_and(|rest| rest.starts_with('.') && rest != ".cold"))
    }

    /// Address of a data symbol. Per-CPU ones are offsets from each CPU's area, and 0 is one that can be.
    #[must_use]
    pub fn data(&self, name: &'static str) -> Option<u64> {
        self.data.get(name).copied()
    }

    /// Where the functions are whose names begin with one of these, as ranges of addresses: those that follow one another make
    /// one.
    #[must_use]
    pub fn ranges(&self, prefixes: &[&str]) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (symbol, next) in self.functions.iter().zip(self.functions.iter().skip(1)) {
            if !prefixes.iter().any(|prefix| self.name(symbol).starts_with(prefix)) {
                continue;
            }
            match ranges.last_mut().filter(|last| last.1 == symbol.address) {
                Some(last) => last.1 = next.address,
                None => ranges.push((symbol.address, next.address)),
            }
        }
        ranges
    }

    /// `function+0x12` or `function+0x12 [module]` for an address within a function.
    #[must_use]
    pub fn describe(&self, address: u64) -> Option<String> {
        let after = self.functions.partition_point(|symbol| symbol.address <= address);
        let symbol = self.functions.get(after.checked_sub(1)?)?;
        let offset = address - symbol.address;
        // The last function before a gap does not own the gap: no function of the kernel is this large.
        if offset > 1 << 20 {
            return None;
        }
        let begin = symbol.begin as usize + usize::from(symbol.length);
        let module = &self.names[begin..begin + usize::from(symbol.module_length)];
        let name = self.name(symbol);
        Some(if module.is_empty() { format!("{name}+{offset:#x}") } else { format!("{name}+{offset:#x} [{module}]") })
    }
}

fn name_of<'a>(names: &'a str, symbol: &Symbol) -> &'a str {
    &names[symbol.begin as usize..][..usize::from(symbol.length)]
}

#[cfg(test)]
mod tests {
    use super::Symbols;

    const TEXT: &str = "\
0000000000000000 A __per_cpu_start
000000000002c040 A __preempt_count
ffffffff81000000 T _stext
ffffffff81001000 T ip_rcv
ffffffff81002000 t __netif_receive_skb_core.constprop.0
ffffffff81002800 t tcp_queue_rcv.cold
ffffffff82000000 D __per_cpu_offset
ffffffffc0001000 t veth_xmit\t[veth]
";

    #[test]
    fn functions_data_and_variants_are_found() {
        let symbols = Symbols::parse(TEXT);
        assert!(symbols.has("ip_rcv") && symbols.has("veth_xmit"));
        assert!(!symbols.has("__netif_receive_skb_core") && !symbols.has("__per_cpu_offset"));
        assert_eq!(symbols.variant("__netif_receive_skb_core"), Some("__netif_receive_skb_core.constprop.0"));
        assert_eq!(symbols.variant("tcp_queue_rcv"), None);
        assert_eq!(symbols.data("__preempt_count"), Some(0x2c040));
        assert_eq!(symbols.data("pcpu_hot"), None);
    }

    #[test]
    fn of_functions_of_one_name_none_is_the_only_one() {
        let symbols = Symbols::parse(&format!("{TEXT}ffffffffc0002000 t ip_rcv\t[other]\n"));
        assert_eq!(symbols.only("veth_xmit"), Some(0xffff_ffff_c000_1000));
        assert!(symbols.has("ip_rcv"));
        assert_eq!([symbols.only("ip_rcv"), symbols.only("nothing")], [None, None]);
    }

    #[test]
    fn functions_that_follow_one_another_make_one_range() {
        let symbols = Symbols::parse(TEXT);
        assert_eq!(symbols.ranges(&["ip_", "__netif"]), [(0xffff_ffff_8100_1000, 0xffff_ffff_8100_2800)]);
        assert_eq!(symbols.ranges(&["none"]), []);
    }

    #[test]
    fn addresses_are_described_within_functions_only() {
        let symbols = Symbols::parse(TEXT);
        assert_eq!(symbols.describe(0xffff_ffff_8100_1034).as_deref(), Some("ip_rcv+0x34"));
        assert_eq!(symbols.describe(0xffff_ffff_c000_1001).as_deref(), Some("veth_xmit+0x1 [veth]"));
        assert_eq!(symbols.describe(0xffff_ffff_9000_0000), None);
        assert_eq!(symbols.describe(0x1000), None);
    }
}
