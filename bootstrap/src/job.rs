//! Finding the job: appended to the executable or to a script that starts it, else `CPACK_JOB`, else `cpack-job.json` in the
//! working directory.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use cpack_format::exit::Exit;
use cpack_format::job::{self, Job};
use cpack_format::launcher::{BOOT_NAME, LauncherError, TRAILER_SIZE, Trailer};
use cpack_format::manifest::{DocumentError, MAX_JSON};
use cpack_store::{FileOrObject, ObjectUri, ObjectUriError, StoreError, StoreOptions, open};

use crate::settings::Settings;
use crate::sys;

/// This process's executable, even if its path was replaced meanwhile.
const SELF: &str = "/proc/self/exe";
#[derive(Debug, Clone)]
pub(crate) struct FoundJob {
    pub(crate) job: Job,
    /// The bytes of the manifest that a launcher carries. The caller must compare them with the digest in the job.
    pub(crate) manifest: Option<Vec<u8>>,
    pub(crate) origin: Origin,
    /// The absolute path of this executable, if the launcher is a script that starts it.
    pub(crate) boot: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Appended to this executable, to another, or to a script that starts one.
    Launcher(PathBuf),
    File(PathBuf),
    /// A launcher or a job file in a store, by its URI.
    Store(String),
    /// The text of `CPACK_JOB`.
    Variable,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launcher(path) | Self::File(path) => write!(f, "{}", path.display()),
            Self::Store(uri) => f.write_str(uri),
            Self::Variable => f.write_str("CPACK_JOB"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum FindError {
    #[error(
        "no job: this executable carries none, CPACK_JOB is not set and there is no cpack-job.json in {0}; \
         make a launcher with cluster-pack launcher, or see cpack-boot --cpack help"
    )]
    None(String),
    #[error("cannot read the job {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{place}: {source}")]
    Launcher { place: Origin, source: LauncherError },
    #[error("the job of {origin} cannot be used: {source}")]
    Job { origin: Origin, source: DocumentError },
    #[error("{0} holds no job: expected a launcher or a cpack-job.json")]
    NoJob(Origin),
    #[error("CPACK_JOB: {0}")]
    Uri(#[from] ObjectUriError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FindError {
    /// The exit code of a start that ends with this error.
    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::None(_) | Self::Uri(_) => Exit::Usage,
            Self::Store(error) => error.exit(),
            Self::Read { .. } | Self::Launcher { .. } | Self::Job { .. } | Self::NoJob(_) => Exit::Artifact,
        }
    }
}

/// Finds the job of this process.
pub(crate) fn find(settings: &Settings) -> Result<FoundJob, FindError> {
    if let Some(found) = own()? {
        return Ok(found);
    }
    if let Some(value) = &settings.job {
        return from_variable(value);
    }
    let path = Path::new(job::FILE_NAME);
    if path.exists() {
        return from_path(path);
    }
    let cwd = std::env::current_dir().map_or_else(|_| "the working directory".into(), |d| d.display().to_string());
    Err(FindError::None(cwd))
}

/// The job appended to this executable; `None` if the file carries none, or cannot be read.
///
/// `/proc/self/exe` first: it is this very file even if its path was replaced or a script's `#!` line started it.
pub(crate) fn own() -> Result<Option<FoundJob>, FindError> {
    let executed = sys::executed_path();
    let shown = executed.clone().unwrap_or_else(|| SELF.into());
    for path in [Some(SELF.into()), executed].into_iter().flatten() {
        if let Ok(file) = File::open(&path)
            && let Some(found) = from_launcher(&file, &shown)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The job in the file at `path`: a launcher or a JSON file.
pub(crate) fn from_path(path: &Path) -> Result<FoundJob, FindError> {
    let failed = |source| FindError::Read { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    if let Some(found) = from_launcher(&file, path)? {
        return Ok(found);
    }
    let size = file.metadata().map_err(failed)?.len();
    from_json(size, || fs::read(path).map_err(failed), Origin::File(path.into()))
}

fn from_json(
    size: u64,
    read: impl FnOnce() -> Result<Vec<u8>, FindError>,
    origin: Origin,
) -> Result<FoundJob, FindError> {
    if size > MAX_JSON {
        return Err(FindError::NoJob(origin));
    }
    let bytes = read()?;
    if bytes.starts_with(b"\x7fELF") {
        return Err(FindError::NoJob(origin));
    }
    Ok(FoundJob { job: parse(&bytes, &origin)?, manifest: None, origin, boot: None })
}

/// The job in a store: a launcher, of which only the job is read, or a JSON file.
fn from_object(object: &ObjectUri) -> Result<FoundJob, FindError> {
    let store = open(&object.store, &StoreOptions::of_process(BTreeMap::new()))?;
    let missing = || object.not_found("there is no such job: check CPACK_JOB");
    let size = store.stat(&object.key)?.ok_or_else(missing)?.size;
    let origin = Origin::Store(object.to_string());
    let read = |offset, buffer: &mut [u8]| Ok(store.read_range(&object.key, offset, buffer)?);
    if let Some(found) = appended(&read, size, &origin)? {
        return Ok(found);
    }
    from_json(size, || Ok(store.read(&object.key, MAX_JSON)?), origin)
}

fn from_variable(value: &OsStr) -> Result<FoundJob, FindError> {
    let bytes = value.as_bytes().trim_ascii_start();
    if bytes.first() == Some(&b'{') {
        let origin = Origin::Variable;
        return Ok(FoundJob { job: parse(bytes, &origin)?, manifest: None, origin, boot: None });
    }
    match FileOrObject::read(value)? {
        FileOrObject::File(path) => from_path(&path),
        FileOrObject::Object(object) => from_object(&object),
    }
}

/// The job appended to an open file; `None` if it is no launcher.
fn from_launcher(file: &File, path: &Path) -> Result<Option<FoundJob>, FindError> {
    let failed = |source| FindError::Read { path: path.into(), source };
    let size = file.metadata().map_err(failed)?.len();
    let read = |offset, buffer: &mut [u8]| file.read_exact_at(buffer, offset).map_err(failed);
    appended(&read, size, &Origin::Launcher(path.into()))
}

/// Reads a range of something that may be a launcher.
type Read<'r> = &'r dyn Fn(u64, &mut [u8]) -> Result<(), FindError>;

/// The job at the end of `size` bytes; `None` if they are no launcher.
fn appended(read: Read<'_>, size: u64, origin: &Origin) -> Result<Option<FoundJob>, FindError> {
    let damaged = |source| FindError::Launcher { place: origin.clone(), source };
    let Some(at) = size.checked_sub(TRAILER_SIZE as u64) else { return Ok(None) };
    let mut tail = [0; TRAILER_SIZE];
    read(at, &mut tail)?;
    let Some(trailer) = Trailer::read(&tail, size).map_err(damaged)? else { return Ok(None) };
    let mut bytes = vec![0; usize::try_from(trailer.size).unwrap_or(usize::MAX)];
    read(trailer.start, &mut bytes)?;
    let files = trailer.open(&bytes).map_err(damaged)?;
    let job = files.file(job::FILE_NAME).ok_or_else(|| FindError::NoJob(origin.clone()))?;
    let manifest = files.file(job::MANIFEST_NAME).map(<[u8]>::to_vec);
    let boot = files.file(BOOT_NAME).and_then(|_| std::path::absolute(sys::executed_path()?).ok());
    Ok(Some(FoundJob { job: parse(job, origin)?, manifest, origin: origin.clone(), boot }))
}

fn parse(bytes: &[u8], origin: &Origin) -> Result<Job, FindError> {
    Job::parse(bytes).map_err(|source| FindError::Job { origin: origin.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cpack_format::launcher::appendix;

    const JOB: &str = r#"{"format":1,"environment":"d40a0c0abbbdc0ac7e6d3941483b5572514440ed6499f914f4a7144772d6cb0d",
        "store":"file:/s","interpreter":{"path":"/usr/bin/python3.11","version":"3.11.7","soabi":"s"}}"#;

    fn with_job(value: &str) -> Result<FoundJob, FindError> {
        find(&Settings::read(|name| (name == "CPACK_JOB").then(|| value.into())).expect("settings"))
    }

    #[test]
    fn job_comes_as_text_as_path_and_as_launcher() {
        let directory = tempfile::tempdir().expect("a directory");
        let plain = directory.path().join("job.json");
        fs::write(&plain, JOB).expect("writes");
        let launcher = directory.path().join("launcher");
        let elf = [&b"\x7fELF"[..], &[0; 996]].concat();
        let files = [(job::FILE_NAME, JOB.as_bytes()), (job::MANIFEST_NAME, b"{}")];
        fs::write(&launcher, [elf.clone(), appendix(1000, &files)].concat()).expect("writes");
        let paths = [plain.display().to_string(), format!("file:{}", plain.display()), launcher.display().to_string()];
        for value in [&paths[..], &[JOB.to_owned()]].concat() {
            let found = with_job(&value).expect(&value);
            assert_eq!(found.job.store, "file:/s");
            assert_eq!(found.manifest.is_some(), value == paths[2], "{value}");
        }
        fs::write(&launcher, elf).expect("writes");
        assert!(matches!(with_job(&paths[2]), Err(FindError::NoJob(_))));
    }

    #[test]
    fn files_without_a_job_are_refused_in_one_line() {
        for (value, words) in [
            ("{}", "format"),
            ("/nowhere/job.json", "/nowhere/job.json"),
            ("hdfs://user:secret@nn/job.json", "hdfs:"),
            (r#"{"format":99}"#, "upgrade"),
        ] {
            let text = with_job(value).expect_err(value).to_string();
            assert!(text.contains(words) && !text.contains("secret") && !text.contains('\n'), "{text}");
        }
    }
}
