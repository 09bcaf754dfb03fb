//! Extraction as tests call it: of layers that are there, and of a zip into a directory.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use cpack_extract::{
    CallerError, Failure, FileSource, LayerTask, Layers, Limits, Stats, ZipTask, everything, extract_layers,
    extract_zip,
};

use crate::archives::open_directory;

struct Listed<'l, 'a> {
    tasks: Mutex<std::vec::IntoIter<LayerTask<'a>>>,
    on_done: &'l (dyn Fn(usize) -> Result<(), CallerError> + Sync),
}

impl<'a> Layers<'a> for Listed<'_, 'a> {
    fn next(&self) -> Option<Result<LayerTask<'a>, CallerError>> {
        self.tasks.lock().expect("no panic").next().map(Ok)
    }

    fn done(&self, id: usize, _unpacked: u64) -> Result<(), CallerError> {
        (self.on_done)(id)
    }
}

/// Extracts `tasks` in their order and calls `on_done` with the number of each that is complete.
pub fn extract_tasks<'a>(
    tasks: Vec<LayerTask<'a>>,
    limits: &Limits,
    cancel: &AtomicBool,
    on_done: &(dyn Fn(usize) -> Result<(), CallerError> + Sync),
) -> Result<Stats, Failure> {
    extract_layers(&Listed { tasks: Mutex::new(tasks.into_iter()), on_done }, limits, cancel)
}

/// Extracts the zip `file` into the directory `into`, which is made where it is missing.
pub fn unzip(file: &Path, into: &Path, limits: &Limits, cancel: &AtomicBool) -> Result<Stats, Failure> {
    let (source, size) = FileSource::open(file).expect("opens");
    fs::create_dir_all(into).expect("a directory");
    let (name, into) = (file.display().to_string(), open_directory(into));
    extract_zip(ZipTask { name, source: Box::new(source), size, into, links: true }, &everything, limits, cancel)
}
