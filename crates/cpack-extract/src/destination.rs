//! Writing below one directory, by descriptors.
//!
//! No write leaves the directory: it is private to the extraction, paths are safe, links are made after all files, and
//! every open is exclusive and refuses a link as the last component.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use cpack_fault::point;
use cpack_format::SafePath;
use cpack_format::content::Kind;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::symlinkat;

use crate::plan::PlannedFile;

/// The directory that an archive is extracted to. Those below it are made when the first file needs them.
#[derive(Debug)]
pub(crate) struct Destination<'a> {
    pub(crate) root: BorrowedFd<'a>,
    /// Tells the destinations of one extraction apart.
    pub(crate) serial: u64,
    pub(crate) directories: &'a [SafePath],
}

/// The directory that a worker wrote to last: neighbours in an archive are mostly neighbours on disk.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    place: Option<(u64, u32)>,
    directory: Option<OwnedFd>,
}

impl Destination<'_> {
    /// Creates the regular file for `file`, whose mode lets no later open write to it.
    pub(crate) fn create(&self, cursor: &mut Cursor, file: &PlannedFile) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let directory = self.enter(cursor, file.directory)?;
        let mode = if file.kind == Kind::Executable { 0o555 } else { 0o444 };
        let created = openat(directory, file.file_name(), flags, Mode::from_bits_truncate(mode))?;
        point("layer.file")?;
        Ok(created.into())
    }

    pub(crate) fn link(&self, cursor: &mut Cursor, file: &PlannedFile, target: &[u8]) -> io::Result<()> {
        let directory = self.enter(cursor, file.directory)?;
        Ok(symlinkat(target, directory, file.file_name())?)
    }

    /// Makes the directory `path` and those above it. An existing one is kept.
    pub(crate) fn make(&self, path: &SafePath) -> io::Result<()> {
        let mkdir = |path: &SafePath| mkdirat(self.root, path.as_bytes(), Mode::from_bits_truncate(0o755));
        // Upwards until one can be made, then down again: mostly the first attempt succeeds.
        let mut missing = Vec::new();
        let mut next = Some(path.clone());
        while let Some(path) = next {
            match mkdir(&path) {
                Ok(()) | Err(Errno::EEXIST) => break,
                Err(Errno::ENOENT) => {
                    next = path.parent();
                    missing.push(path);
                }
                Err(e) => return Err(e.into()),
            }
        }
        for path in missing.iter().rev() {
            match mkdir(path) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// The descriptor of a directory; `None` is the root.
    fn enter<'c>(&'c self, cursor: &'c mut Cursor, directory: Option<u32>) -> io::Result<BorrowedFd<'c>> {
        let Some(index) = directory else { return Ok(self.root) };
        if cursor.place != Some((self.serial, index)) || cursor.directory.is_none() {
            let path = self.directories.get(index as usize).ok_or(io::ErrorKind::NotFound)?;
            cursor.place = None;
            cursor.directory = Some(self.open(path)?);
            cursor.place = Some((self.serial, index));
        }
        Ok(cursor.directory.as_ref().map_or(self.root, AsFd::as_fd))
    }

    fn open(&self, path: &SafePath) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(self.root, path.as_bytes(), flags, Mode::empty()) {
            Err(Errno::ENOENT) => {
                self.make(path)?;
                Ok(openat(self.root, path.as_bytes(), flags, Mode::empty())?)
            }
            result => Ok(result?),
        }
    }
}
