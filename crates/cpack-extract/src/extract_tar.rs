//! Extracts any tar, compressed or not: what conda-pack, venv-pack2, `cluster-pack pack` and `tar` write.
//!
//! A tar has no directory, so nothing can be planned: each member is checked when its turn comes ([`crate::tar_members`]), and a tree
//! of which a later member is refused is left incomplete. One thread decodes, the caller's writes. Symbolic links are made
//! after all files, so that no file can be written through one.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use cpack_fault::point;
use cpack_format::SafePath;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use crate::decoded::{Ahead, Compression};
use crate::error::{ExtractError, Failure};
use crate::limits::{Limits, Stats};
use crate::plan::PlanError;
use crate::tar_members::{Member, MemberKind, Members, TarError};

/// Content above which [`Limits::max_ratio`] counts.
const RATIO_FROM: u64 = 1 << 30;

/// A tar that [`extract_tar`] extracts.
pub struct TarTask<'a> {
    /// What it is called in messages.
    pub name: String,
    /// The archive.
    pub file: File,
    /// How it is compressed.
    pub compression: Compression,
    /// An empty directory that no other process uses.
    pub into: OwnedFd,
    /// Whether the symbolic link at a path is left out where it leads out of the tree. Others are refused.
    pub leaves_out: &'a dyn Fn(&SafePath) -> bool,
    /// Whether there may be several files with this path, of which the last counts.
    pub may_repeat: &'a dyn Fn(&SafePath) -> bool,
}

impl std::fmt::Debug for TarTask<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TarTask").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Extracts every member. Files get the time that the archive has for them.
pub fn extract_tar(
    task: TarTask<'_>,
    limits: &Limits,
    cancel: &AtomicBool,
    progress: &dyn Fn(),
) -> Result<Stats, Failure> {
    let TarTask { name, file, compression, into, leaves_out, may_repeat } = task;
    let damaged = |source: io::Error| stream(&name, &source);
    let packed = file.metadata().map_err(damaged)?.len();
    let decoder = compression.decode(file).map_err(damaged)?;
    let extracted = std::thread::scope(|scope| {
        let mut work = Work {
            name: &name,
            root: into.as_fd(),
            limits,
            cancel,
            progress,
            leaves_out,
            may_repeat,
            directories: HashSet::new(),
            taken: HashMap::new(),
            links: Vec::new(),
            stats: Stats { packed, ..Stats::default() },
        };
        let mut members = Members::new(Ahead::start(scope, decoder));
        work.run(&mut members).map(|()| work.stats)
    });
    Ok(extracted?)
}

struct Work<'a> {
    name: &'a str,
    root: BorrowedFd<'a>,
    limits: &'a Limits,
    cancel: &'a AtomicBool,
    progress: &'a dyn Fn(),
    leaves_out: &'a dyn Fn(&SafePath) -> bool,
    may_repeat: &'a dyn Fn(&SafePath) -> bool,
    /// Those that were made.
    directories: HashSet<SafePath>,
    /// The paths of all other members, and whether each is a file.
    taken: HashMap<SafePath, bool>,
    links: Vec<(SafePath, Vec<u8>)>,
    stats: Stats,
}

impl Work<'_> {
    fn run(&mut self, members: &mut Members<Ahead>) -> Result<(), ExtractError> {
        while let Some(member) = members.next().map_err(|e| self.unreadable(e))? {
            self.check_limits(member.size)?;
            self.stats.files += 1;
            self.add(member, members)?;
        }
        let rest = members.rest(self.limits.max_unpacked).map_err(|e| self.unreadable(e))?;
        self.check_limits(rest)?;
        for (path, target) in std::mem::take(&mut self.links) {
            let made = symlinkat(target.as_slice(), self.root, path.as_path());
            made.map_err(|e| self.unwritable(&path, e.into()))?;
        }
        Ok(())
    }

    fn add(&mut self, member: Member, members: &mut Members<Ahead>) -> Result<(), ExtractError> {
        let path = &member.path;
        match member.kind {
            MemberKind::Directory => self.directory(path)?,
            MemberKind::File { executable } => {
                self.take(path, true)?;
                let written = self.file(&member, executable, members);
                written.map_err(|e| match e {
                    FileError::Read(e) => self.unreadable(e.into()),
                    FileError::Write(e) => self.unwritable(path, e),
                    FileError::Stopped => ExtractError::Stopped,
                })?;
            }
            MemberKind::Link(target) if !path.link_stays_inside(&target) => {
                if !(self.leaves_out)(path) {
                    let target = String::from_utf8_lossy(&target);
                    return Err(self.refused(path, format!("is a link that leads out of its directory, to {target:?}")));
                }
            }
            MemberKind::Link(target) => {
                self.take(path, false)?;
                self.links.push((member.path, target));
            }
            MemberKind::SameAs(target) => {
                if self.taken.get(&target) != Some(&true) {
                    return Err(self.refused(path, format!("is another name of {target}, which is no file before it")));
                }
                self.take(path, true)?;
                let linked = linkat(self.root, target.as_path(), self.root, path.as_path(), AtFlags::empty());
                linked.map_err(|e| self.unwritable(path, e.into()))?;
            }
        }
        Ok(())
    }

    /// Makes a directory and those above it.
    fn directory(&mut self, path: &SafePath) -> Result<(), ExtractError> {
        if self.directories.contains(path) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.directory(&parent)?;
        }
        if self.taken.contains_key(path) {
            return Err(self.refused(path, "is both a directory and something else".into()));
        }
        mkdirat(self.root, path.as_path(), Mode::from_bits_truncate(0o755))
            .map_err(|e| self.unwritable(path, e.into()))?;
        self.directories.insert(path.clone());
        Ok(())
    }

    /// Notes that a file or link takes this path, which must be free.
    fn take(&mut self, path: &SafePath, is_file: bool) -> Result<(), ExtractError> {
        if let Some(parent) = path.parent() {
            self.directory(&parent)?;
        }
        if self.directories.contains(path) {
            return Err(self.refused(path, "is both a directory and something else".into()));
        }
        match self.taken.insert(path.clone(), is_file) {
            None => Ok(()),
            Some(true) if is_file && (self.may_repeat)(path) => {
                let removed = unlinkat(self.root, path.as_path(), UnlinkatFlags::NoRemoveDir);
                removed.map_err(|e| self.unwritable(path, e.into()))
            }
            Some(_) => Err(self.refused(path, "is there twice".into())),
        }
    }

    /// Writes the content of a member to a new file.
    fn file(&self, member: &Member, executable: bool, members: &mut Members<Ahead>) -> Result<(), FileError> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = if executable { 0o555 } else { 0o444 };
        let created = openat(self.root, member.path.as_path(), flags, Mode::from_bits_truncate(mode));
        let mut out = File::from(created.map_err(|e: Errno| FileError::Write(e.into()))?);
        point("layer.file").map_err(FileError::Write)?;
        loop {
            if self.cancel.load(Ordering::Relaxed) {
                return Err(FileError::Stopped);
            }
            (self.progress)();
            let chunk = members.chunk().map_err(FileError::Read)?;
            if chunk.is_empty() {
                break;
            }
            out.write_all(chunk).map_err(FileError::Write)?;
            let length = chunk.len();
            members.consume(length);
        }
        // Byte-code is valid only beside a source of the right time.
        out.set_modified(member.modified).map_err(FileError::Write)
    }

    /// Counts content, of which an archive must not claim too much.
    fn check_limits(&mut self, more: u64) -> Result<(), ExtractError> {
        self.stats.unpacked = self.stats.unpacked.saturating_add(more);
        let Stats { files, packed, unpacked } = self.stats;
        let most = packed.saturating_mul(self.limits.max_ratio).max(RATIO_FROM).min(self.limits.max_unpacked);
        let paths = files + self.directories.len() as u64;
        PlanError::within("bytes of content", unpacked, most)
            .and_then(|()| PlanError::within("files and directories", paths, self.limits.max_entries))
            .map_err(|source| ExtractError::Refused { archive: self.name.into(), source })
    }

    fn refused(&self, path: &SafePath, reason: String) -> ExtractError {
        ExtractError::Member { archive: self.name.into(), member: path.to_string(), reason }
    }

    fn unreadable(&self, error: TarError) -> ExtractError {
        let archive = self.name.to_owned();
        match error {
            TarError::Stream(source) => stream(&archive, &source),
            TarError::Member { name, reason } => ExtractError::Member { archive, member: name, reason },
        }
    }

    fn unwritable(&self, path: &SafePath, source: io::Error) -> ExtractError {
        ExtractError::Write { archive: self.name.into(), path: path.to_string(), source }
    }
}

fn stream(archive: &str, error: &io::Error) -> ExtractError {
    let reason = match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ends before its end mark".to_owned(),
        _ => error.to_string(),
    };
    ExtractError::Stream { archive: archive.to_owned(), reason }
}

/// Why the content of a member was not written.
enum FileError {
    Read(io::Error),
    Write(io::Error),
    Stopped,
}
