//! Extracts any zip: a PEX, a wheel, an archive that `zip -r` made.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use cpack_format::zip::{Entry, LOCAL_HEADER_SIZE, MAX_TAIL, local_header_len, read_directory, read_end};

use crate::error::{ExtractError, Failure, refused, zip_error};
use crate::limits::{Limits, Stats, check_directory_size};
use crate::lock::lock;
use crate::plan::{WHOLE, cut_entries, plan_zip};
use crate::pool::{Crew, Jobs, work};
use crate::run::Run;
use crate::source::PieceSource;

/// A zip that [`extract_zip`] extracts.
#[derive(Debug)]
pub struct ZipTask<'a> {
    /// What it is called in messages.
    pub name: String,
    /// Where its bytes come from.
    pub source: Box<dyn PieceSource + 'a>,
    /// Length of the archive.
    pub size: u64,
    /// An empty directory that no other process uses.
    pub into: OwnedFd,
    /// Whether symbolic links are made. Else they are files that hold their target, as Python's `zipfile` extracts them.
    pub links: bool,
}

/// The path below the directory at which an entry is extracted; `None` leaves it out.
pub type Select<'s> = &'s dyn Fn(&Entry) -> Option<Vec<u8>>;

/// Extracts every entry under its own name.
pub fn everything(entry: &Entry) -> Option<Vec<u8>> {
    Some(entry.name.to_vec())
}

/// Extracts the entries for which `select` returns a path, each checked against its CRC-32.
pub fn extract_zip(
    task: ZipTask<'_>,
    select: Select<'_>,
    limits: &Limits,
    cancel: &AtomicBool,
) -> Result<Stats, Failure> {
    let run = start_zip(task, select, limits)?;
    let each = run.plan.spans.iter().map(|span| u64::from(span.len)).max().unwrap_or(0) + 3 * WHOLE;
    let threads = limits.workers(each);
    let large = limits.memory.saturating_sub(each * threads as u64);
    work(&ZipJob(Mutex::new(Some(run))), Crew { threads, fetchers: 0, fetched: 0, large }, cancel)
}

struct ZipJob<'a>(Mutex<Option<Run<'a>>>);

impl<'a> Jobs<'a> for ZipJob<'a> {
    fn start(&self) -> Option<Result<Run<'a>, ExtractError>> {
        lock(&self.0).take().map(Ok)
    }

    fn progress(&self, _run: &Run<'a>, _bytes: u64) {}

    fn done(&self, _run: &Run<'a>) -> Result<(), ExtractError> {
        Ok(())
    }
}

/// Reads the directory of a zip and plans its extraction.
fn start_zip<'a>(task: ZipTask<'a>, select: Select<'_>, limits: &Limits) -> Result<Run<'a>, ExtractError> {
    let ZipTask { name, source, size, into, links } = task;
    let unreadable = |source| ExtractError::Read { archive: name.clone(), source };
    let mut tail = vec![0; usize::try_from(size).unwrap_or(usize::MAX).min(MAX_TAIL)];
    source.read(size - tail.len() as u64, &mut tail).map_err(unreadable)?;
    let end = read_end(&tail, size).map_err(|e| zip_error(&name, e))?;
    check_directory_size(end.directory_size).map_err(|e| refused(&name, e))?;
    let mut directory = vec![0; usize::try_from(end.directory_size).unwrap_or(usize::MAX)];
    source.read(end.directory_offset, &mut directory).map_err(unreadable)?;
    let mut entries = read_directory(&directory, &end).map_err(|e| zip_error(&name, e))?;
    drop(directory);
    for entry in entries.iter_mut().filter(|entry| !links && entry.is_link()) {
        entry.mode = 0o100_000 | entry.mode & 0o777;
    }
    let mut data = HashMap::new();
    let header_len = |entry: &Entry| {
        let mut header = vec![0; LOCAL_HEADER_SIZE + entry.name.len()];
        source.read(entry.header_offset, &mut header).map_err(unreadable)?;
        local_header_len(&header, entry).map_err(|e| zip_error(&name, e))
    };
    for entry in cut_entries(&entries).filter(|entry| select(entry).is_some()) {
        data.insert(entry.header_offset, entry.header_offset + header_len(entry)? as u64);
    }
    // A name that is damaged in the directory may be left out by mistake: the local header must have the same.
    for entry in entries.iter().filter(|entry| select(entry).is_none()) {
        header_len(entry)?;
    }
    let plan = plan_zip(entries, end.directory_offset, &data, select, limits).map_err(|e| refused(&name, e))?;
    Ok(Run::new(0, name, plan, source, into, None, limits.mapped_by))
}
