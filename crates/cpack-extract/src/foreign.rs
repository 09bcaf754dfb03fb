//! Any zip: a PEX, a wheel, what somebody made with `zip -r`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use cpack_format::zip::{Entry, LOCAL_HEADER_SIZE, MAX_TAIL, local_header_len, read_directory, read_end};
use cpack_store::StoreError;

use super::error::{ExtractError, Failure, refused, zip_error};
use super::plan::{WHOLE, cut_entries, plan_zip};
use super::pool::{Crew, Jobs, work};
use super::run::{Check, Run, lock};
use super::source::{FileSource, PieceSource};
use super::{Limits, Stats, Totals, check_directory_size};

/// A zip that need not be a layer: a PEX, a wheel, anything.
#[derive(Debug)]
pub struct ZipTask<'a> {
    /// What it is called in messages.
    pub name: String,
    /// Where its bytes come from.
    pub source: Box<dyn PieceSource + 'a>,
    /// Its length.
    pub size: u64,
    /// An empty directory that nobody else uses.
    pub into: OwnedFd,
    /// Whether symbolic links are made. Else they are files that hold their target, as Python's `zipfile` extracts them.
    pub links: bool,
}

/// The path below the directory at which an entry is extracted; none where it is not wanted.
pub type Select<'s> = &'s dyn Fn(&Entry) -> Option<Vec<u8>>;

/// Extracts every entry under its own name.
pub fn everything(entry: &Entry) -> Option<Vec<u8>> {
    Some(entry.name.to_vec())
}

/// Extracts the entries that `select` wants, each checked against its CRC-32.
pub fn extract_zip(
    task: ZipTask<'_>,
    select: Select<'_>,
    limits: &Limits,
    cancel: &AtomicBool,
) -> Result<Stats, Failure> {
    let run = start_zip(task, select, limits)?;
    let each = run.plan.spans.iter().map(|span| u64::from(span.len)).max().unwrap_or(0) + 2 * WHOLE;
    let threads = limits.workers(each);
    let large = limits.memory.saturating_sub(each * threads as u64);
    let jobs = ZipJob { run: Mutex::new(Some(run)), totals: Totals::default() };
    let packed = work(&jobs, Crew { threads, fetchers: 0, fetched: 0, large }, cancel)?;
    Ok(jobs.totals.stats(packed))
}

struct ZipJob<'a> {
    run: Mutex<Option<Run<'a>>>,
    totals: Totals,
}

impl<'a> Jobs<'a> for ZipJob<'a> {
    fn start(&self) -> Option<Result<Run<'a>, ExtractError>> {
        lock(&self.run).take().map(Ok)
    }

    fn progress(&self, _run: &Run<'a>, _bytes: u64) {}

    fn done(&self, run: &Run<'a>) -> Result<(), ExtractError> {
        self.totals.add(Stats::of(run));
        Ok(())
    }
}

/// Reads the directory of a zip and plans.
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
    // What is left out is so by its name: one that was damaged in the directory would be missed by nobody.
    for entry in entries.iter().filter(|entry| select(entry).is_none()) {
        header_len(entry)?;
    }
    let plan = plan_zip(entries, end.directory_offset, &data, select, limits).map_err(|e| refused(&name, e))?;
    Ok(Run::new(0, name, plan, source, into, Check::Crc))
}

/// Extracts the zip `file` into the directory `into`, which must be empty and is made where it is missing.
pub fn unzip(file: &Path, into: &Path, limits: &Limits, cancel: &AtomicBool) -> Result<Stats, Failure> {
    let name = file.display().to_string();
    let unreadable = |source: StoreError| ExtractError::Read { archive: name.clone(), source };
    let (source, size) = FileSource::open(file).map_err(unreadable)?;
    let unwritable = |source| ExtractError::Write { archive: name.clone(), path: into.display().to_string(), source };
    let into = empty_directory(into).map_err(unwritable)?;
    extract_zip(ZipTask { name, source: Box::new(source), size, into, links: true }, &everything, limits, cancel)
}

fn empty_directory(path: &Path) -> io::Result<OwnedFd> {
    fs::create_dir_all(path)?;
    if fs::read_dir(path)?.next().is_some() {
        return Err(io::ErrorKind::DirectoryNotEmpty.into());
    }
    Ok(File::open(path)?.into())
}
