//! `unzip`: any zip archive, extracted on all cores with all checks.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cpack_extract::{FileSource, Limits, ZipTask, everything, extract_zip};
use cpack_format::human::bytes;
use cpack_node::building::BuildError;
use serde_json::json;

use super::{Report, usage};
use crate::error::BootError;
use crate::settings::Settings;
use crate::watch::watch;

pub(super) fn run(settings: &Settings, arguments: &[OsString]) -> Result<Report, BootError> {
    let (archive, directory) = match arguments {
        [archive, flag, directory] if flag == "-d" => (PathBuf::from(archive), PathBuf::from(directory)),
        [flag, directory, archive] if flag == "-d" => (PathBuf::from(archive), PathBuf::from(directory)),
        _ => return Err(usage("unzip takes ARCHIVE -d DIRECTORY")),
    };
    let started = Instant::now();
    let into = empty_directory(&directory)?;
    let (source, length) = FileSource::open(&archive)?;
    let task =
        ZipTask { name: archive.display().to_string(), source: Box::new(source), size: length, into, links: true };
    let (stop, _watching) = watch(&[]);
    let limits = Limits { threads: settings.threads(), ..Limits::default() };
    let stats = extract_zip(task, &everything, &limits, stop.flag())
        .map_err(|failure| BootError::Build(BuildError::Extract(Box::new(failure))))?;
    let seconds = started.elapsed().as_secs_f64();
    let text = format!("{} files, {} in {seconds:.3} s\n", stats.files, bytes(stats.unpacked));
    let json = json!({ "files": stats.files, "packed": stats.packed, "unpacked": stats.unpacked, "seconds": seconds });
    Ok(Report { text, json })
}

/// Opens `path`, made if it is missing. Refuses one with files, so that none is overwritten.
fn empty_directory(path: &Path) -> Result<OwnedFd, BootError> {
    let failed = |source| BootError::Io { path: path.into(), source };
    fs::create_dir_all(path).map_err(failed)?;
    if fs::read_dir(path).map_err(failed)?.next().is_some() {
        return Err(usage(&format!("{} is not empty", path.display())));
    }
    Ok(File::open(path).map_err(failed)?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unzip_refuses_a_directory_that_is_not_empty() {
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("mine"), b"x").expect("writes");
        let error = empty_directory(directory.path()).expect_err("refuses");
        assert!(error.to_string().contains("is not empty"), "{error}");
        assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 1);
    }
}
