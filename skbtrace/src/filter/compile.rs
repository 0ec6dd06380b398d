//! From an expression to classic BPF, by libpcap, and where in an expression libpcap finds fault.
//!
//! libpcap says what is wrong and hardly ever where. It can be made to: behind the beginning of an expression is put what its
//! scanner complains of in words of its own. When it does, the parser has come so far; when it complains of something else, that
//! came before. The first word behind which it does is the one at fault.

use std::{ffi::CString, fmt, ops::Range};

use thiserror::Error;

use super::{Link, cbpf, libpcap::Libpcap, tcpdump};
use crate::name::still_printable;

/// What no expression has, and what libpcap's scanner says of it.
const STOPPER: &str = " 1:2:";
const STOPPED: &str = "bogus ethernet address";

/// Before what libpcap says of a word where it stands wrongly: no news to whoever reads an error.
const PREAMBLE: &str = "can't parse filter expression: ";

/// Why an expression was not compiled.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CompileError {
    /// There is nothing here that compiles it.
    #[error(
        "a filter expression is compiled by libpcap, which is not installed here: install it (Debian: libpcap0.8, or tcpdump; \
         Fedora: libpcap), or filter by --proto, --host and --port"
    )]
    NoLibpcap,
    /// libpcap refuses it.
    #[error("{0}")]
    Refused(Fault),
}

/// What libpcap says of an expression, and the part of it that it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The expression.
    pub expression: String,
    /// What it says.
    pub message: String,
    /// The part: bytes of the expression. Empty at its end, when that came too early; `None` when all of it is meant.
    pub part: Option<Range<usize>>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the filter expression: {}", still_printable(&self.message))?;
        let Some(part) = &self.part else { return Ok(()) };
        let shown = |range: Range<usize>| still_printable(self.expression.get(range).unwrap_or_default());
        let before = shown(0..part.start).chars().count();
        let width = shown(part.clone()).chars().count().max(1);
        write!(f, "\n    {}\n    {:before$}{}", still_printable(&self.expression), "", "^".repeat(width))
    }
}

/// What compiles.
pub(super) enum Compiler {
    Library(Libpcap),
    Tcpdump,
}

impl Compiler {
    /// The best that there is here. Whether tcpdump is there is seen when it is run.
    pub(super) fn find() -> Compiler {
        Libpcap::open().map_or(Compiler::Tcpdump, Compiler::Library)
    }

    /// What libpcap makes of it, or says of it.
    fn try_compile(&self, expression: &str, link: Link) -> Result<Result<Vec<cbpf::Insn>, String>, CompileError> {
        match self {
            Compiler::Library(libpcap) => {
                let text = CString::new(expression).unwrap_or_default();
                Ok(libpcap.compile(&text, link))
            }
            Compiler::Tcpdump => tcpdump::compile(expression, link).ok_or(CompileError::NoLibpcap),
        }
    }

    /// Compiles an expression.
    ///
    /// # Errors
    /// When libpcap refuses it, with what it says, or is not there.
    pub(super) fn compile(&self, expression: &str, link: Link) -> Result<Vec<cbpf::Insn>, CompileError> {
        let message = match self.try_compile(expression, link)? {
            Ok(program) => return Ok(program),
            Err(message) => message,
        };
        let part = self.part_at_fault(expression, link, &message)?;
        let message = message.strip_prefix(PREAMBLE).unwrap_or(&message).to_owned();
        Err(CompileError::Refused(Fault { expression: expression.to_owned(), message, part }))
    }

    /// Which part of the expression libpcap means.
    fn part_at_fault(&self, expression: &str, link: Link, message: &str) -> Result<Option<Range<usize>>, CompileError> {
        for word in words(expression) {
            let beginning = format!("{}{STOPPER}", &expression[..word.end]);
            if self.try_compile(&beginning, link)?.is_err_and(|said| !said.starts_with(STOPPED)) {
                return Ok(Some(word));
            }
        }
        if let Some(quoted) = message.split('\'').nth(1)
            && let Some(start) = expression.find(quoted)
            && !quoted.is_empty()
        {
            return Ok(Some(start..start + quoted.len()));
        }
        // Every word was right where it stands: more was to come.
        Ok(message.starts_with(PREAMBLE).then_some(expression.len()..expression.len()))
    }
}

/// The words of an expression, as far as its parts must be told apart: names and numbers, and signs one by one.
fn words(expression: &str) -> Vec<Range<usize>> {
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '-' | '/' | '\\');
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut in_name = false;
    for (at, c) in expression.char_indices() {
        let end = at + c.len_utf8();
        match words.last_mut() {
            Some(word) if in_name && is_name(c) => word.end = end,
            _ if !c.is_whitespace() => words.push(at..end),
            _ => {}
        }
        in_name = is_name(c);
    }
    words
}
