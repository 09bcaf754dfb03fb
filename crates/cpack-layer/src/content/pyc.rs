//! `.pyc` files: whether one is valid, and the *unchecked-hash* file that is shipped in its place.
//!
//! A `.pyc` (PEP 552) is a header of 16 bytes and the marshalled code of a module: magic number of the byte-code (4 bytes),
//! flags (4), then either modification time and size of the source (4 and 4, flags 0) or the hash of the source (8; flags 1,
//! and 3 if the interpreter is to check it). With flags 1 an interpreter loads the code without looking at the source, so
//! neither extraction, which gives files other times, nor a clock can invalidate it.
//!
//! The hash is SipHash with the magic number as key: SipHash-2-4 up to CPython 3.10, SipHash-1-3 from 3.11 on.

use std::fmt;
use std::hash::Hasher as _;

use cpack_format::SafePath;
use siphasher::sip::{SipHasher13, SipHasher24};

use super::marshal::{self, Layout, MarshalError};

const HEADER: usize = 16;

/// Flags of a file whose source hash the interpreter does not check.
const UNCHECKED_HASH: u32 = 0b01;

/// Flags of a file whose source hash the interpreter checks.
const CHECKED_HASH: u32 = 0b11;

/// The first number of the byte-code of CPython 3.11, which hashes sources otherwise than before.
const FIRST_3_11: u16 = 3450;

/// The byte-code of the releases that are supported: minor version of CPython 3, number, layout of code objects. A number
/// stays the same for all patch releases; source: `Include/internal/pycore_magic_number.h`, `importlib/_bootstrap_external.py`.
const RELEASES: [(u8, u16, Layout); 6] = [
    (9, 3425, Layout::ThreeTuples),
    (10, 3439, Layout::ThreeTuples),
    (11, 3495, Layout::LocalsPlus),
    (12, 3531, Layout::LocalsPlus),
    (13, 3571, Layout::LocalsPlus),
    (14, 3627, Layout::LocalsPlus),
];

/// The magic number of an interpreter's byte-code, as `importlib.util.MAGIC_NUMBER` gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Magic(pub [u8; 4]);

/// What the validity of byte-code depends on in its source.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The whole file.
    pub bytes: &'a [u8],
    /// When it was modified, in seconds since 1970.
    pub modified: i64,
}

/// Why a `.pyc` file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum PycError {
    #[error("the header has {found} bytes instead of 16")]
    Header { found: usize },
    #[error("byte-code of magic number {found}, expected {expected}")]
    Magic { found: Magic, expected: Magic },
    #[error("unknown flags {0:#x}")]
    Flags(u32),
    #[error("it was not compiled from the source as it is now")]
    Stale,
    #[error("byte-code of magic number {0} is not known; CPython 3.9 to 3.14 are")]
    Unsupported(Magic),
    #[error(transparent)]
    Marshal(#[from] MarshalError),
}

impl Magic {
    /// The magic number of CPython 3.`minor`.
    pub fn of_cpython(minor: u8) -> Option<Self> {
        RELEASES.iter().find(|release| release.0 == minor).map(|(_, number, _)| {
            let [low, high] = number.to_le_bytes();
            Self([low, high, b'\r', b'\n'])
        })
    }

    /// The number, without the line end that follows it.
    const fn number(self) -> u16 {
        u16::from_le_bytes([self.0[0], self.0[1]])
    }

    /// How code objects are laid out, if this byte-code is known.
    pub fn layout(self) -> Result<Layout, PycError> {
        let known = RELEASES.iter().find(|(_, number, _)| *number == self.number() && self.0.ends_with(b"\r\n"));
        known.map(|(_, _, layout)| *layout).ok_or(PycError::Unsupported(self))
    }

    /// The hash of a source, as `_imp.source_hash` computes it.
    pub fn source_hash(self, source: &[u8]) -> [u8; 8] {
        let key = u64::from(u32::from_le_bytes(self.0));
        let hash = if self.number() < FIRST_3_11 {
            let mut hasher = SipHasher24::new_with_keys(key, 0);
            hasher.write(source);
            hasher.finish()
        } else {
            let mut hasher = SipHasher13::new_with_keys(key, 0);
            hasher.write(source);
            hasher.finish()
        };
        hash.to_le_bytes()
    }
}

impl fmt::Display for Magic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// The code in `pyc` if it belongs to `source` and to interpreters with this `magic`.
///
/// A hash is compared even where the interpreter would not compare it: the code that is shipped must be that of its source.
pub fn valid_code<'a>(pyc: &'a [u8], magic: Magic, source: Source<'_>) -> Result<&'a [u8], PycError> {
    let parts = pyc.split_first_chunk::<4>().and_then(|(magic, rest)| {
        let (flags, rest) = rest.split_first_chunk::<4>()?;
        let (stamp, code) = rest.split_first_chunk::<8>()?;
        Some((Magic(*magic), u32::from_le_bytes(*flags), *stamp, code))
    });
    let (found, flags, stamp, code) = parts.ok_or(PycError::Header { found: pyc.len() })?;
    if found != magic {
        return Err(PycError::Magic { found, expected: magic });
    }
    let expected = match flags {
        0 => {
            // Both are cut to 32 bits, as the interpreter does.
            let [a, b, c, d, ..] = source.modified.to_le_bytes();
            let [e, f, g, h, ..] = (source.bytes.len() as u64).to_le_bytes();
            [a, b, c, d, e, f, g, h]
        }
        UNCHECKED_HASH | CHECKED_HASH => magic.source_hash(source.bytes),
        other => return Err(PycError::Flags(other)),
    };
    if stamp == expected { Ok(code) } else { Err(PycError::Stale) }
}

/// Where the interpreter looks for the byte-code of the source at `path`. `None` if that is no source, or if the name gets too
/// long, as it then is in Python too.
pub fn cache_path(path: &SafePath, cache_tag: &str) -> Option<SafePath> {
    let stem = path.as_bytes().strip_suffix(b".py")?;
    let (directory, name) = stem.split_at(stem.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1));
    SafePath::new(&[directory, b"__pycache__/", name, b".", cache_tag.as_bytes(), b".pyc"].concat()).ok()
}

/// The unchecked-hash `.pyc` of `source` with this marshalled `code`. `path` is what the code objects will say they were
/// compiled from: the path of the source relative to the environment.
pub fn unchecked(magic: Magic, source: &[u8], code: &[u8], path: &[u8]) -> Result<Vec<u8>, PycError> {
    let code = marshal::relocate(code, magic.layout()?, path)?;
    let mut pyc = Vec::with_capacity(HEADER + code.len());
    pyc.extend_from_slice(&magic.0);
    pyc.extend_from_slice(&UNCHECKED_HASH.to_le_bytes());
    pyc.extend_from_slice(&magic.source_hash(source));
    pyc.extend_from_slice(&code);
    Ok(pyc)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &[u8] = b"code";

    fn pyc(magic: Magic, flags: u32, stamp: [u8; 8]) -> Vec<u8> {
        [&magic.0[..], &flags.to_le_bytes(), &stamp, CODE].concat()
    }

    #[test]
    fn code_is_used_only_with_its_own_source_and_interpreter() {
        let magic = Magic::of_cpython(11).expect("known");
        let source = Source { bytes: b"x = 1\n", modified: 0x1_6500_0001 };
        let stamp = [1, 0, 0, 0x65, 6, 0, 0, 0];
        let hash = magic.source_hash(source.bytes);
        assert_eq!(valid_code(&pyc(magic, 0, stamp), magic, source), Ok(CODE));
        assert_eq!(valid_code(&pyc(magic, 1, hash), magic, source), Ok(CODE));
        assert_eq!(valid_code(&pyc(magic, 3, hash), magic, source), Ok(CODE));

        let later = Source { modified: source.modified + 1, ..source };
        let longer = Source { bytes: b"x = 12\n", ..source };
        let other = Source { bytes: b"x = 2\n", ..source };
        assert_eq!(valid_code(&pyc(magic, 0, stamp), magic, later), Err(PycError::Stale));
        assert_eq!(valid_code(&pyc(magic, 0, stamp), magic, longer), Err(PycError::Stale));
        assert_eq!(valid_code(&pyc(magic, 1, hash), magic, other), Err(PycError::Stale));
        assert_eq!(valid_code(&pyc(magic, 3, hash), magic, other), Err(PycError::Stale));
        assert_eq!(valid_code(&pyc(magic, 3, hash), magic, later), Ok(CODE));
        assert_eq!(valid_code(&pyc(magic, 2, hash), magic, source), Err(PycError::Flags(2)));
        let expected = Magic::of_cpython(12).expect("known");
        assert_eq!(
            valid_code(&pyc(magic, 0, stamp), expected, source),
            Err(PycError::Magic { found: magic, expected })
        );
        for length in 0..HEADER {
            let cut = &pyc(magic, 0, stamp)[..length];
            assert_eq!(valid_code(cut, magic, source), Err(PycError::Header { found: length }));
        }
    }

    #[test]
    fn byte_code_of_unknown_interpreters_is_refused() {
        for magic in [[0; 4], [0xff; 4], *b"a\r\r\r"] {
            assert_eq!(Magic(magic).layout(), Err(PycError::Unsupported(Magic(magic))));
            assert!(unchecked(Magic(magic), b"", CODE, b"x").is_err());
        }
        assert_eq!(Magic::of_cpython(9), Some(Magic(*b"a\r\r\n")));
        assert_eq!(Magic::of_cpython(8), None);
    }
}
