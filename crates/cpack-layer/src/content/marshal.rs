//! CPython's marshal format, as far as compiled modules use it: code objects get another file name and one canonical form.
//!
//! # Why a canonical form
//!
//! Two compilations of one source give code objects that are equal, and bytes that are not:
//!
//! - `FLAG_REF` marks an object that later bytes may refer to. CPython sets it where the reference count is above one at
//!   the time of writing, which depends on what else the process holds. Here only objects that are referred to carry it,
//!   and references are numbered in the order in which their objects appear.
//! - Up to CPython 3.10 the elements of a `frozenset` are written in the order of their salted hashes; later they are
//!   sorted by bytes that contain `FLAG_REF`. Here they are sorted by their bytes without flags and references.
//! - Whether equal constants are one object, and a string is interned, depends on what else the process holds: a constant
//!   and the qualified name that equals it, strings of one character, sets in the constants of two functions. Here
//!   constants of the same type and bytes are one object, and a string is interned if it was anywhere, or if it has less
//!   than two characters and no code point above 255, as CPython 3.13 keeps these.
//! - Every code object holds the path of its source.
//!
//! Values, types and order stay as they are, and code objects that were two stay two. A constant stays what it is even if
//! it equals the old path, or is the same object as the old path: only the position counts.
//!
//! # The format
//!
//! Source: `Python/marshal.c`. An object is a type byte (bit 7 is `FLAG_REF`), a payload, and its parts. A flagged object
//! takes the next reference number when it begins, before its parts. `TYPE_REF` and a number stand for an object that was
//! read before. Integers are little-endian. Code objects of 3.9 and 3.10 differ from later ones ([`Layout`]); the `slice`
//! of 3.14 is read under all. Types that compilers never write (lists, dictionaries, sets, text floats) are refused.
//!
//! The input is not trusted: it is read without recursion, to a bounded depth, and every count is checked by reading.

mod graph;
mod write;

use graph::Graph;

/// Bit of the type byte: the object takes a reference number.
const FLAG_REF: u8 = 0x80;

/// Order of the fields in a code object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// CPython 3.9 and 3.10: variables, free variables and cell variables are three tuples.
    ThreeTuples,
    /// CPython 3.11 and later: one tuple of all local variables, a qualified name, an exception table.
    LocalsPlus,
}

impl Layout {
    /// Bytes of the integers that a code object starts with.
    const fn head(self) -> usize {
        match self {
            Self::ThreeTuples => 6 * 4,
            Self::LocalsPlus => 5 * 4,
        }
    }

    /// How many parts come before, and after, the number of the first line.
    const fn parts(self) -> (usize, usize) {
        match self {
            Self::ThreeTuples => (8, 1),
            Self::LocalsPlus => (8, 2),
        }
    }

    /// Which part is `co_filename`.
    const fn file_name(self) -> usize {
        match self {
            Self::ThreeTuples => 6,
            Self::LocalsPlus => 5,
        }
    }
}

/// Why marshalled code cannot be rewritten. Offsets count from the first byte of the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MarshalError {
    /// The data ends within an object.
    #[error("the code is cut short: an object that ends after byte {at} is expected")]
    Truncated {
        /// Where reading stopped.
        at: usize,
    },
    /// A type that compiled modules do not contain.
    #[error("unexpected object of type {kind:#04x} at byte {at} of the code")]
    Type {
        /// The type byte.
        kind: u8,
        /// Where it is.
        at: usize,
    },
    /// A reference to an object that is not, or not yet, there.
    #[error("reference to an unknown object before byte {at} of the code")]
    Reference {
        /// Where the reference ends.
        at: usize,
    },
    /// Nesting that CPython would not read either.
    #[error("objects are nested more than 2000 deep at byte {at} of the code")]
    Depth {
        /// Where the limit was met.
        at: usize,
    },
    /// More objects than can be numbered, or sets too large to be sorted.
    #[error("the module is too large: more than 4 billion objects, or sets that take more than 16 MiB to sort")]
    Size,
    /// Bytes after the module.
    #[error("the code ends at byte {at}, but more bytes follow")]
    Trailing {
        /// The end of the code.
        at: usize,
    },
}

/// Rewrites the marshalled code object of a module into its canonical form, with `file_name` as `co_filename` of it and of
/// all code objects within. `file_name` need not be UTF-8: it is escaped as `os.fsdecode` does.
pub(super) fn relocate(code: &[u8], layout: Layout, file_name: &[u8]) -> Result<Vec<u8>, MarshalError> {
    let graph = Graph::read(code, layout)?;
    Ok(write::module(&graph, &escape(file_name), code.len()))
}

/// The text of a path, in UTF-8. Bytes that are not UTF-8 become lone surrogates, as `os.fsdecode` makes them and marshal's
/// `surrogatepass` writes them.
fn escape(path: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        text.extend_from_slice(chunk.valid().as_bytes());
        // U+DC00 + byte in three bytes of UTF-8.
        text.extend(chunk.invalid().iter().flat_map(|byte| [0xed, 0xb0 | (byte >> 6), 0x80 | (byte & 0x3f)]));
    }
    text
}

#[cfg(test)]
mod tests;
