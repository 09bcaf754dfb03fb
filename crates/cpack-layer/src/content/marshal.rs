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

mod error;
mod graph;
mod layout;
mod write;

use graph::Graph;

pub(super) use error::MarshalError;
pub(super) use layout::Layout;

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
