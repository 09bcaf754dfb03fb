//! Which directories the paths of an archive need, and whether the paths contradict each other.

use std::collections::HashMap;

use cpack_format::SafePath;
use cpack_format::content::Kind;

use super::error::PlanError;
use super::model::{PlannedFile, index};

/// The directories that `files` need, at most `limit`, parents first. Sets [`PlannedFile::directory`] of each file.
pub(super) fn directories(files: &mut [PlannedFile], limit: u64) -> Result<Vec<SafePath>, PlanError> {
    let mut needed = Directories { known: HashMap::new(), limit };
    let mut places = vec![None; files.len()];
    for file in by_path(files)? {
        let path = path_of(files, file);
        let place = if kind_of(files, file) == Some(Kind::Directory) {
            needed.add(path)?;
            None
        } else {
            needed.add_parent(path)?
        };
        if let Some(slot) = places.get_mut(file as usize) {
            *slot = place;
        }
    }
    let is_file = |file: &&PlannedFile| file.kind != Kind::Directory;
    if let Some(file) = files.iter().filter(is_file).find(|file| needed.known.contains_key(file.path.as_bytes())) {
        return Err(PlanError::FileAndDirectory(file.path.to_string()));
    }
    let mut found: Vec<(u32, &[u8])> = needed.known.iter().map(|(path, at)| (*at, *path)).collect();
    found.sort_unstable();
    let made = found.iter().map(|(_, path)| SafePath::new(path)).collect::<Result<Vec<_>, _>>()?;
    for (file, place) in files.iter_mut().zip(places) {
        file.directory = place;
    }
    Ok(made)
}

/// The indexes of `files` in the order of their paths, which must be unique; only directories may come twice.
fn by_path(files: &[PlannedFile]) -> Result<Vec<u32>, PlanError> {
    let mut order: Vec<u32> = (0..index(files.len())).collect();
    order.sort_by(|a, b| path_of(files, *a).cmp(path_of(files, *b)));
    let twice = order.array_windows().find(|[a, b]| {
        let both_directories = [a, b].iter().all(|i| kind_of(files, **i) == Some(Kind::Directory));
        path_of(files, *a) == path_of(files, *b) && !both_directories
    });
    match twice {
        Some([a, _]) => Err(PlanError::Twice(String::from_utf8_lossy(path_of(files, *a)).into_owned())),
        None => Ok(order),
    }
}

fn path_of(files: &[PlannedFile], file: u32) -> &[u8] {
    files.get(file as usize).map(|file| file.path.as_bytes()).unwrap_or_default()
}

fn kind_of(files: &[PlannedFile], file: u32) -> Option<Kind> {
    files.get(file as usize).map(|file| file.kind)
}

struct Directories<'a> {
    known: HashMap<&'a [u8], u32>,
    limit: u64,
}

impl<'a> Directories<'a> {
    /// The index of the directory that `path` is in; `None` for the root.
    fn add_parent(&mut self, path: &'a [u8]) -> Result<Option<u32>, PlanError> {
        let cut = path.iter().rposition(|byte| *byte == b'/');
        cut.and_then(|cut| path.get(..cut)).map(|parent| self.add(parent)).transpose()
    }

    /// The index of the directory `path`. Adds it, and those above it, where they are new.
    fn add(&mut self, path: &'a [u8]) -> Result<u32, PlanError> {
        if let Some(known) = self.known.get(path) {
            return Ok(*known);
        }
        // Top down and without recursion: a hostile path has 1,500 components.
        let cuts = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([path.len()]);
        for directory in cuts.filter_map(|cut| path.get(..cut)) {
            let next = index(self.known.len());
            self.known.entry(directory).or_insert(next);
        }
        PlanError::within("directories", self.known.len() as u64, self.limit)?;
        Ok(self.known.get(path).copied().unwrap_or_default())
    }
}
