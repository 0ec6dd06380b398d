//! The types of the running kernel and of its modules, from /sys/kernel/btf.
//!
//! The file is copied to anonymous memory and mapped from there: parsing all of it costs some 0.4 s, mapping it
//! milliseconds, and the kernel's own file cannot be mapped before 6.18. To look a name up is to go through all that is
//! mapped, so that each is looked up once.

use std::{cell::RefCell, collections::HashMap, fs, io, io::Write as _, os::fd::AsRawFd as _, path::PathBuf, rc::Rc};

use btf_rs::{Btf, BtfType, EnumMember, Struct, Type};
use skbtrace_common::Bits;
use thiserror::Error;

/// Why there are no types.
#[derive(Debug, Error)]
pub enum BtfError {
    /// The kernel has none.
    #[error(
        "this kernel has no BTF (/sys/kernel/btf/vmlinux: {0}), and without it nobody knows where things are in an \
         sk_buff; use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as most distributions' are since 2021"
    )]
    Missing(io::Error),
    /// It is there and cannot be understood.
    #[error("cannot parse {path}: {source}")]
    Damaged {
        /// The file.
        path: String,
        /// Why.
        source: btf_rs::Error,
    },
}

/// What a parameter of a kernel function is, as far as hops care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Param {
    /// `struct sk_buff *`
    Skb,
    /// `struct sk_buff **`
    SkbIndirect,
    /// `struct net_device *`
    Device,
    /// `struct net_bridge_port *`
    BridgePort,
    /// `struct sock *`
    Sock,
    /// `struct nf_hook_state *`
    HookState,
    /// `enum skb_drop_reason`
    Reason,
    /// `void *`
    Address,
    /// Anything else.
    Other,
}

/// The types of the kernel and, as they are asked for, of its modules.
pub struct KernelBtf {
    base: Types,
    directory: PathBuf,
    modules: RefCell<HashMap<String, Option<Rc<Types>>>>,
}

/// Types, and those by their names that have been asked for.
struct Types {
    btf: Btf,
    named: RefCell<HashMap<String, Rc<[Type]>>>,
}

impl From<Btf> for Types {
    fn from(btf: Btf) -> Types {
        Types { btf, named: RefCell::default() }
    }
}

impl Types {
    /// All types of this name.
    fn named(&self, name: &str) -> Rc<[Type]> {
        if let Some(types) = self.named.borrow().get(name) {
            return Rc::clone(types);
        }
        let types: Rc<[Type]> = self.btf.resolve_types_by_name(name).unwrap_or_default().into();
        self.named.borrow_mut().insert(name.to_owned(), Rc::clone(&types));
        types
    }

    fn find<T>(&self, name: &str, pick: impl Fn(&Type) -> Option<T>) -> Option<T> {
        self.named(name).iter().find_map(pick)
    }

    /// What `f` makes of the structure of this name.
    fn of_struct<T>(&self, name: &str, f: impl Fn(&Struct) -> Option<T>) -> Option<T> {
        self.find(name, |t| if let Type::Struct(found) = t { Some(f(found)) } else { None })?
    }
}

impl KernelBtf {
    /// Opens the running kernel's types.
    ///
    /// # Errors
    /// When there are none or they cannot be parsed.
    pub fn open() -> Result<KernelBtf, BtfError> {
        let directory = PathBuf::from("/sys/kernel/btf");
        let path = directory.join("vmlinux");
        let bytes = fs::read(&path).map_err(BtfError::Missing)?;
        let base = map(&bytes).map_err(|source| BtfError::Damaged { path: path.display().to_string(), source })?;
        Ok(KernelBtf { base: base.into(), directory, modules: RefCell::default() })
    }

    /// The types of a module; those of the kernel where the module is built in; `None` where it has no types of its
    /// own (not loaded, or a kernel before 5.11).
    fn module(&self, name: &str) -> Option<Rc<Types>> {
        let mut modules = self.modules.borrow_mut();
        modules
            .entry(name.to_owned())
            .or_insert_with(|| {
                let bytes = fs::read(self.directory.join(name)).ok()?;
                Some(Rc::new(Btf::from_split_bytes(&bytes, &self.base.btf).ok()?.into()))
            })
            .clone()
    }

    /// Calls `f` with the types of the module, then with those of the kernel, until it finds something.
    fn search<T>(&self, module: Option<&str>, f: impl Fn(&Types) -> Option<T>) -> Option<T> {
        if let Some(types) = module.and_then(|name| self.module(name))
            && let Some(found) = f(&types)
        {
            return Some(found);
        }
        f(&self.base)
    }

    /// Size of a structure, bytes.
    #[must_use]
    pub fn size(&self, structure: &str, module: Option<&str>) -> Option<u32> {
        self.search(module, |types| types.of_struct(structure, |found| u32::try_from(found.size()).ok()))
    }

    /// Byte offset of a member, also of one in an anonymous member.
    #[must_use]
    pub fn member(&self, structure: &str, member: &str, module: Option<&str>) -> Option<u32> {
        self.search(module, |types| {
            let (bit, _) = types.of_struct(structure, |found| find_member(&types.btf, found, member, 0))?;
            Some(bit / 8)
        })
    }

    /// A bit field.
    #[must_use]
    pub fn bits(&self, structure: &str, member: &str) -> Option<Bits> {
        let (bit, size) = self.base.of_struct(structure, |found| find_member(&self.base.btf, found, member, 0))?;
        // A member that is no bit field any more, as some became, is a byte.
        let size = size.unwrap_or(8).min(8);
        let mask = u8::try_from((1_u32 << size) - 1).ok()?;
        Some(Bits { offset: u16::try_from(bit / 8).ok()?, shift: (bit % 8) as u8, mask })
    }

    /// What the parameters of a function are, in order.
    #[must_use]
    pub fn function(&self, name: &str, module: Option<&str>) -> Option<Vec<Param>> {
        self.search(module, |types| {
            types.find(name, |t| {
                let Type::Func(function) = t else { return None };
                parameters(&types.btf, types.btf.resolve_chained_type(function).ok()?)
            })
        })
    }

    /// What the arguments of a raw tracepoint are, in order.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<Vec<Param>> {
        let btf = &self.base.btf;
        let mut all = self.base.find(&format!("btf_trace_{name}"), |t| {
            let Type::Typedef(typedef) = t else { return None };
            let Type::Ptr(pointer) = btf.resolve_chained_type(typedef).ok()? else { return None };
            parameters(btf, btf.resolve_chained_type(&pointer).ok()?)
        })?;
        // The first one is the tracepoint's own data.
        (!all.is_empty()).then(|| all.split_off(1))
    }

    /// Values and names of an enumeration.
    #[must_use]
    pub fn enumeration(&self, name: &str) -> Option<Vec<(u32, String)>> {
        let named = |member: &EnumMember| Some((member.val(), self.base.btf.resolve_name(member).ok()?));
        self.base.find(name, |t| {
            let Type::Enum(found) = t else { return None };
            Some(found.members.iter().filter_map(named).collect())
        })
    }
}

/// Copies BTF to anonymous memory and maps it.
fn map(bytes: &[u8]) -> Result<Btf, btf_rs::Error> {
    let mapped = || -> io::Result<Btf> {
        let fd = rustix::fs::memfd_create("btf", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = fs::File::from(fd);
        file.write_all(bytes)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Btf::from_file_with_backend(path, btf_rs::Backend::Mmap).map_err(io::Error::other)
    };
    // Where there is no memfd or no /proc, parsing works too.
    mapped().or_else(|_| Btf::from_bytes(bytes))
}

/// Bit offset and bit-field size of a member.
fn find_member(btf: &Btf, structure: &Struct, name: &str, base: u32) -> Option<(u32, Option<u32>)> {
    for member in &structure.members {
        let offset = base + member.bit_offset();
        let own = btf.resolve_name(member).unwrap_or_default();
        if own == name {
            return Some((offset, member.bitfield_size().filter(|size| *size > 0)));
        }
        if own.is_empty()
            && let Ok(Type::Struct(inner) | Type::Union(inner)) = btf.resolve_chained_type(member)
            && let Some(found) = find_member(btf, &inner, name, offset)
        {
            return Some(found);
        }
    }
    None
}

fn parameters(btf: &Btf, t: Type) -> Option<Vec<Param>> {
    let Type::FuncProto(prototype) = t else { return None };
    Some(prototype.parameters.iter().map(|parameter| parameter_kind(btf, parameter)).collect())
}

fn parameter_kind<T: BtfType>(btf: &Btf, parameter: &T) -> Param {
    match unqualified(btf, parameter) {
        Some(Type::Ptr(pointer)) => match unqualified(btf, &pointer) {
            Some(Type::Struct(target)) => match btf.resolve_name(&target).as_deref() {
                Ok("sk_buff") => Param::Skb,
                Ok("net_device") => Param::Device,
                Ok("net_bridge_port") => Param::BridgePort,
                Ok("sock") => Param::Sock,
                Ok("nf_hook_state") => Param::HookState,
                _ => Param::Other,
            },
            Some(Type::Ptr(inner)) => match unqualified(btf, &inner) {
                Some(Type::Struct(target)) if btf.resolve_name(&target).is_ok_and(|name| name == "sk_buff") => {
                    Param::SkbIndirect
                }
                _ => Param::Other,
            },
            None => Param::Address,
            Some(_) => Param::Other,
        },
        Some(Type::Enum(target)) if btf.resolve_name(&target).is_ok_and(|name| name == "skb_drop_reason") => {
            Param::Reason
        }
        _ => Param::Other,
    }
}

/// The type that something refers to, behind `const`, `volatile`, `restrict`, tags and typedefs; `None` for `void`.
fn unqualified<T: BtfType>(btf: &Btf, t: &T) -> Option<Type> {
    let mut found = btf.resolve_chained_type(t).ok()?;
    loop {
        found = match &found {
            Type::Const(inner) | Type::Volatile(inner) | Type::Restrict(inner) => {
                btf.resolve_chained_type(inner).ok()?
            }
            Type::Typedef(inner) => btf.resolve_chained_type(inner).ok()?,
            Type::TypeTag(inner) => btf.resolve_chained_type(inner).ok()?,
            Type::Void => return None,
            _ => return Some(found),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::{KernelBtf, Param};

    /// BTF is world-readable: this runs on whatever kernel the tests run on, if it has BTF.
    #[test]
    fn this_kernels_types_are_read() {
        let Ok(btf) = KernelBtf::open() else {
            eprintln!("skipped: this kernel has no BTF");
            return;
        };
        assert_eq!(btf.member("net_device", "no_such_member", None), None);
        let size = btf.size("sk_buff", None).unwrap();
        assert!((200..=256).contains(&size), "sk_buff has {size} bytes");
        let cloned = btf.bits("sk_buff", "cloned").unwrap();
        assert_eq!(cloned.mask, 1);
        assert_eq!(btf.bits("sk_buff", "ip_summed").unwrap().mask, 3);
        let ip_rcv = btf.function("ip_rcv", None).unwrap();
        assert_eq!(ip_rcv[..2], [Param::Skb, Param::Device]);
        assert_eq!(btf.function("__br_forward", Some("bridge")).unwrap()[..2], [Param::BridgePort, Param::Skb]);
        assert_eq!(btf.function("br_handle_frame", Some("bridge")).unwrap()[0], Param::SkbIndirect);
        assert_eq!(btf.tracepoint("kfree_skb").unwrap()[..2], [Param::Skb, Param::Address]);
    }
}
