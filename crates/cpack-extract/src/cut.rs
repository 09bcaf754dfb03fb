//! A file that is cut into parts, each a frame of its own: any thread decodes one, and whoever is last checks the whole.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use cpack_format::content::Kind;
use cpack_format::digest::{PartHash, merge_parts, part_hash};

use super::decode::SPARE;
use super::error::ExtractError;
use super::plan::PlannedFile;
use super::run::{Check, Run, Worker, lock, memory, room};
use super::tree::Cursor;

/// A file whose parts are decoded by several threads.
#[derive(Debug)]
pub(super) struct CutFile {
    file: Mutex<Option<Arc<File>>>,
    sums: Mutex<Vec<Sum>>,
    left: AtomicU32,
}

/// What checks one part.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    hash: PartHash,
    crc32: u32,
}

impl CutFile {
    /// Nothing of its `count` parts is there yet.
    pub(super) fn new(count: u32) -> Self {
        let sums = Mutex::new(vec![Sum::default(); count as usize]);
        Self { file: Mutex::new(None), sums, left: AtomicU32::new(count) }
    }
}

impl Run<'_> {
    /// One part of a cut file.
    pub(super) fn part(
        &self,
        worker: &mut Worker,
        index: u32,
        part: u32,
        bytes: &mut [u8],
    ) -> Result<(), ExtractError> {
        let file = self.file(index)?;
        let no_parts = || self.damaged_file(file, "has no parts");
        let parts = file.parts.ok_or_else(no_parts)?;
        let cut = self.cut.get(parts.index as usize).ok_or_else(no_parts)?;
        let (offset, size) = file.part(part);
        let len = bytes.len() - SPARE;
        let content = room(&mut worker.output, memory(size));
        let ends = part + 1 == parts.count;
        worker.codec.decode(file.method, bytes, len, ends, content).map_err(|e| self.damaged_file(file, &e))?;
        let event = cpack_events::span("verify", || file.path.to_string()).of(size);
        let sum = match self.check {
            Check::Layer { .. } => Sum { hash: part_hash(offset, content), crc32: 0 },
            Check::Crc => Sum { crc32: libdeflater::crc32(content), ..Sum::default() },
        };
        drop(event);
        if let Some(slot) = lock(&cut.sums).get_mut(part as usize) {
            *slot = sum;
        }
        let _event = cpack_events::span("write", || file.path.to_string()).of(size);
        let out = self.cut_file(cut, &mut worker.cursor, file)?;
        out.write_all_at(content, offset).map_err(|e| self.unwritable(file, e))?;
        if cut.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            *lock(&cut.file) = None;
            self.check_cut(worker, index, file, &lock(&cut.sums))?;
        }
        Ok(())
    }

    /// The file of a cut entry, created by whoever comes first.
    fn cut_file(&self, cut: &CutFile, cursor: &mut Cursor, file: &PlannedFile) -> Result<Arc<File>, ExtractError> {
        let mut slot = lock(&cut.file);
        if let Some(open) = &*slot {
            return Ok(Arc::clone(open));
        }
        let created = self.tree().create(cursor, file, file.kind == Kind::Executable);
        let created = Arc::new(created.map_err(|e| self.unwritable(file, e))?);
        *slot = Some(Arc::clone(&created));
        Ok(created)
    }

    fn check_cut(&self, worker: &mut Worker, index: u32, file: &PlannedFile, sums: &[Sum]) -> Result<(), ExtractError> {
        if matches!(self.check, Check::Layer { .. }) {
            let hashes: Vec<PartHash> = sums.iter().map(|sum| sum.hash).collect();
            let digest = merge_parts(&hashes).ok_or_else(|| self.damaged_file(file, "has a single part"))?;
            worker.digests.push((index, digest));
            return Ok(());
        }
        let mut crc = crc32fast::Hasher::new();
        for (part, sum) in (0..).zip(sums) {
            crc.combine(&crc32fast::Hasher::new_with_initial_len(sum.crc32, file.part(part).1));
        }
        let found = crc.finalize();
        if found == file.crc32 { Ok(()) } else { Err(self.wrong_crc(file, found)) }
    }
}
