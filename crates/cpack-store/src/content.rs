//! An object's bytes, which the stores on the network read in parts and send.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::{Source, Watcher};

/// An opened [`Source`].
#[derive(Debug)]
pub(super) enum Content<'a> {
    Bytes(&'a [u8]),
    File(File, u64, Option<Watcher<'a>>),
}

impl<'a> Content<'a> {
    /// Opens the source. Its length is fixed from here on.
    pub(super) fn open(source: Source<'a>) -> io::Result<Self> {
        match source {
            Source::Bytes(bytes) => Ok(Self::Bytes(bytes)),
            Source::File(path) => Self::file(path, None),
            Source::Watched(path, watcher) => Self::file(path, Some(watcher)),
        }
    }

    fn file(path: &Path, watcher: Option<Watcher<'a>>) -> io::Result<Self> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Ok(Self::File(file, len, watcher))
    }

    /// Length in bytes.
    pub(super) const fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, len, _) => *len,
        }
    }

    /// The `len` bytes from `offset`, fewer if the content ends before.
    pub(super) fn part(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let end = self.len().min(offset.saturating_add(len));
        let start = offset.min(end);
        match self {
            Self::Bytes(bytes) => Ok(bytes.get(start as usize..end as usize).unwrap_or_default().to_vec()),
            Self::File(file, _, watcher) => {
                let mut part = vec![0; (end - start) as usize];
                file.read_exact_at(&mut part, start)?;
                if let Some(Watcher(progress)) = watcher {
                    progress(part.len() as u64);
                }
                Ok(part)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_the_source() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let bytes: Vec<u8> = (0..100).collect();
        std::fs::write(file.path(), &bytes).expect("writes");
        for source in [Source::Bytes(&bytes), Source::File(file.path())] {
            let content = Content::open(source).expect("opens");
            assert_eq!(content.len(), 100);
            for (offset, len, expected) in [(0, 100, 0..100), (40, 10, 40..50), (90, 50, 90..100), (200, 1, 100..100)] {
                assert_eq!(content.part(offset, len).expect("reads"), bytes[expected]);
            }
        }
    }
}
