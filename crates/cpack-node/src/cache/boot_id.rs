//! Boot ids: a layer that was written under another boot of the node is checked before it is trusted.
//!
//! A power loss can leave a directory in its place whose files are empty or short: their bytes were still in memory.
//! Syncing would prevent it and cost seconds in front of a waiting user. Instead each directory notes the boot id of the
//! node under which it was written ([`Mark`]); under the same boot the page cache holds what was written. A directory that
//! `cpack-boot --cpack prefetch` synced is marked durable and trusted for ever.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use cpack_format::Digest;

/// One boot of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootId(String);

const SOURCE: &str = "/proc/sys/kernel/random/boot_id";

/// The length of a mark's text: that of a boot id, so that a mark is overwritten in one piece.
pub(super) const TEXT_LEN: usize = 36;

const DURABLE: &str = "durable";

impl BootId {
    /// The current boot. Without `/proc` boots cannot be told apart, and everything is trusted.
    pub fn current() -> Self {
        match cpack_fault::value("boot-id") {
            Some(id) => Self::new(id),
            None => Self::new(fs::read_to_string(SOURCE).unwrap_or_default().trim()),
        }
    }

    /// The id; empty if it is unknown.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The boot with this id.
    pub fn new(id: &str) -> Self {
        Self(id.chars().take(TEXT_LEN).collect())
    }
}

/// What a directory notes about when it was written: the start of its state or lease file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mark {
    /// Under this boot.
    Boot(BootId),
    /// Synced to disk.
    Durable,
}

impl Mark {
    pub(super) fn is_trusted_by(&self, boot: &BootId) -> bool {
        match self {
            Self::Boot(written) => written == boot,
            Self::Durable => true,
        }
    }

    /// The mark with this text.
    fn parse(text: &str) -> Self {
        match text.trim_end() {
            DURABLE => Self::Durable,
            id => Self::Boot(BootId::new(id)),
        }
    }

    /// The bytes of a mark: always [`TEXT_LEN`].
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let text = match self {
            Self::Boot(BootId(id)) => id,
            Self::Durable => DURABLE,
        };
        format!("{text:<TEXT_LEN$}").into_bytes()
    }

    /// Overwrites the mark of a file that other processes may have open and locked.
    pub(super) fn overwrite(&self, path: &Path) -> io::Result<()> {
        File::options().write(true).open(path)?.write_all_at(&self.to_bytes(), 0)
    }
}

/// A state or lease file: its mark, then a line with the size of a layer, then one with the archive that it was extracted
/// from, or spaces once its content was checked.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) mark: Mark,
    /// The digest of the archive, in hexadecimal digits.
    pub(super) archive: Option<String>,
}

impl State {
    /// More than the longest state.
    pub(super) const MAX: usize = 256;

    /// Reads an open file.
    pub(super) fn read(file: &File) -> io::Result<Self> {
        let mut bytes = [0; Self::MAX];
        let len = file.read_at(&mut bytes, 0)?;
        let bytes = bytes.get(..len.max(TEXT_LEN)).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines();
        let mark = lines.next().filter(|_| len >= TEXT_LEN).map(Mark::parse).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Self { mark, archive: lines.nth(1).filter(|line| !line.trim().is_empty()).map(str::to_owned) })
    }

    /// The bytes of a layer's state.
    pub(super) fn of_layer(boot: &BootId, size: u64, archive: Option<Digest>) -> Vec<u8> {
        let archive = archive.map(|digest| format!("{digest}\n")).unwrap_or_default();
        [Mark::Boot(boot.clone()).to_bytes(), format!("\n{size}\n{archive}").into_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_back_and_overwritten() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("mark");
        let boot = BootId::current();
        let other = BootId::new("another");
        fs::write(&path, [Mark::Boot(other.clone()).to_bytes(), b"\n17".to_vec()].concat()).expect("writes");
        let read = || State::read(&File::open(&path).expect("opens")).expect("reads").mark;
        assert!(read().is_trusted_by(&other) && !read().is_trusted_by(&boot));
        Mark::Boot(boot.clone()).overwrite(&path).expect("overwrites");
        assert!(read().is_trusted_by(&boot) && !read().is_trusted_by(&other));
        Mark::Durable.overwrite(&path).expect("overwrites");
        assert!(read().is_trusted_by(&other));
        assert!(fs::read(&path).expect("reads").ends_with(b"\n17"));
    }

    #[test]
    fn empty_mark_is_no_mark() {
        let file = tempfile::tempfile().expect("a file");
        assert!(State::read(&file).is_err());
    }
}
