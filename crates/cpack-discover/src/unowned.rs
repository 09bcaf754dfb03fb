//! Files that no package owns are packed, since programs write what they need beside their modules: models, caches. So is
//! what they forget there. Spark's workers on a laptop, for one, keep every job's files in `pyspark/work` below
//! `SPARK_HOME`: gigabytes that each executor would extract.

use std::collections::HashMap;

use cpack_format::human;

use super::model::{FileStat, Finding, FindingKind};
use super::prefix_files::below;

/// More bytes than this are told of.
const MUCH: u64 = 100 << 20;

/// What is said of `files` that no package owns, if they are large.
pub(super) fn much(files: &[FileStat]) -> Option<Finding> {
    let all: u64 = files.iter().map(|file| file.size).sum();
    if all <= MUCH {
        return None;
    }
    let mut folder = Vec::new();
    while let Some(next) = heaviest(files, &folder, all / 2) {
        folder = next;
    }
    let place = match String::from_utf8_lossy(&folder) {
        place if place.is_empty() => String::new(),
        place => format!(", most of it in {place}"),
    };
    let message = format!(
        "files that no package installed are packed, {}{place}: delete what the job does not need",
        human::bytes(all)
    );
    Some(Finding::new(FindingKind::Unowned, message))
}

/// The folder in `folder` that has more than `least` bytes of the files.
fn heaviest(files: &[FileStat], folder: &[u8], least: u64) -> Option<Vec<u8>> {
    let mut sizes: HashMap<&[u8], u64> = HashMap::new();
    for file in files {
        let path = file.path.as_bytes();
        let rest = if folder.is_empty() { Some(path) } else { below(path, folder) };
        let end = rest.and_then(|rest| Some(path.len() - rest.len() + rest.iter().position(|b| *b == b'/')?));
        if let Some(next) = end.and_then(|end| path.get(..end)) {
            *sizes.entry(next).or_default() += file.size;
        }
    }
    sizes.into_iter().find(|(_, size)| *size > least).map(|(next, _)| next.to_vec())
}
