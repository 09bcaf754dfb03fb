//! Launchers: the boot executable with a job and its manifest appended.
//!
//! The executable itself is found once per run: `--boot` or `CPACK_BOOT`, else beside `cluster-pack`, else where a build
//! from source leaves it. It must be an executable for the executors' platform, which need not be the client's.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cpack_artifact::fault::point;
use cpack_artifact::job::{self, Job};
use cpack_artifact::launcher::{STORES_MARK, TRAILER_SIZE, Trailer, appendix};
use cpack_artifact::manifest::{DocumentError, Manifest};

/// The name of the boot executable.
pub const BOOT: &str = "cpack-boot";

/// Where `cargo build --config bootstrap/static.toml` leaves it, seen from the directory of `cluster-pack`.
const BUILT: [&str; 3] = [
    "../x86_64-unknown-linux-gnu/boot/cpack-boot",
    "../x86_64-unknown-linux-gnu/release/cpack-boot",
    "../x86_64-unknown-linux-gnu/debug/cpack-boot",
];

/// Writing a launcher takes a second: whoever began this long ago is dead.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Why a launcher could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LauncherError {
    /// The boot executable is nowhere.
    #[error("cpack-boot not found (looked at {looked}): pass --boot PATH or set CPACK_BOOT")]
    NoBoot {
        /// The places, separated by commas.
        looked: String,
    },
    /// What was found is no boot executable.
    #[error("{path} is no cpack-boot executable: {reason}", path = path.display())]
    NotBoot {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What was taken for a launcher is none, or is not whole.
    #[error("{path} cannot be used as a launcher: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The boot executable cannot open the store.
    #[error(
        "{path} opens no {scheme}: stores: build it with the features hdfs and s3 (see \"Building the executable that is \
         shipped\"), or name another with --boot", path = path.display()
    )]
    NoStore {
        /// The file.
        path: PathBuf,
        /// What the store's URI starts with.
        scheme: &'static str,
    },
    /// The executable or the launcher cannot be read or written.
    #[error("cannot {verb} {path}: {source}", path = path.display())]
    Io {
        /// `read` or `write`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Finds the boot executable: `named` if given, else the usual places around `program`, the running `cluster-pack`.
pub fn find_boot(named: Option<&Path>, program: Option<&Path>) -> Result<PathBuf, LauncherError> {
    let beside = program.and_then(Path::parent);
    let candidates: Vec<PathBuf> = match (named, beside) {
        (Some(path), _) => vec![path.to_owned()],
        (None, Some(directory)) => {
            let built = BUILT.iter().map(|place| directory.join(place));
            built.chain([directory.join(BOOT), directory.join("../libexec").join(BOOT)]).collect()
        }
        (None, None) => Vec::new(),
    };
    let looked = || candidates.iter().map(|c| c.display().to_string()).collect::<Vec<_>>().join(", ");
    candidates.iter().find(|c| c.is_file()).cloned().ok_or_else(|| LauncherError::NoBoot { looked: looked() })
}

/// The bytes of a boot executable, checked to be one without a job.
pub fn read_boot(path: &Path) -> Result<Vec<u8>, LauncherError> {
    let bytes = fs::read(path).map_err(|source| LauncherError::Io { verb: "read", path: path.to_owned(), source })?;
    let wrong = |reason| LauncherError::NotBoot { path: path.to_owned(), reason };
    if !bytes.starts_with(b"\x7fELF") {
        return Err(wrong("it is no ELF executable"));
    }
    let tail = bytes.get(bytes.len().saturating_sub(TRAILER_SIZE)..).unwrap_or_default();
    match Trailer::read(tail, bytes.len() as u64) {
        Ok(None) => Ok(bytes),
        _ => Err(wrong("it is a launcher, which has a job already; name the plain executable")),
    }
}

/// Whether a boot executable opens stores whose URIs start with `scheme`. One that does not say is believed to.
pub fn opens(boot: &[u8], scheme: &str) -> bool {
    let mark = STORES_MARK.as_bytes();
    let Some(at) = boot.windows(mark.len()).position(|window| window == mark) else { return true };
    let rest = boot.get(at + mark.len()..).unwrap_or_default();
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.split(|byte| *byte == b' ').any(|word| word == scheme.as_bytes())
}

/// The launcher of `job` in the environment of `manifest`.
pub fn build(boot: &[u8], job: &Job, manifest: &Manifest) -> Vec<u8> {
    assemble(boot, job, &manifest.to_bytes())
}

fn assemble(boot: &[u8], job: &Job, manifest: &[u8]) -> Vec<u8> {
    let files: [(&str, &[u8]); 2] = [(job::FILE_NAME, &job.to_bytes()), (job::MANIFEST_NAME, manifest)];
    [boot, &appendix(boot.len() as u64, &files)].concat()
}

/// A launcher taken apart: how code inside a booted environment makes another job of the same environment, overlays and
/// payloads, where there is nothing to pack and no virtual environment.
#[derive(Debug, Clone)]
pub struct Opened {
    boot: Vec<u8>,
    manifest: Vec<u8>,
    /// The job that it carries.
    pub job: Job,
}

impl Opened {
    /// Takes the launcher at `path` apart.
    pub fn read(path: &Path) -> Result<Self, LauncherError> {
        let bytes =
            fs::read(path).map_err(|source| LauncherError::Io { verb: "read", path: path.to_owned(), source })?;
        let damaged = |reason| LauncherError::Damaged { path: path.to_owned(), reason };
        let tail = bytes.get(bytes.len().saturating_sub(TRAILER_SIZE)..).unwrap_or_default();
        let trailer = Trailer::read(tail, bytes.len() as u64)
            .map_err(|e| damaged(e.to_string()))?
            .ok_or_else(|| damaged("it carries no job".into()))?;
        let start = usize::try_from(trailer.start).unwrap_or(usize::MAX);
        let appended = bytes.get(start..bytes.len() - TRAILER_SIZE).unwrap_or_default();
        let files = trailer.open(appended).map_err(|e| damaged(e.to_string()))?;
        let file = |name| files.file(name).ok_or_else(|| damaged(format!("it has no {name}")));
        let job = Job::parse(file(job::FILE_NAME)?).map_err(|e| damaged(e.to_string()))?;
        let manifest = file(job::MANIFEST_NAME)?.to_vec();
        Ok(Self { boot: bytes.get(..start).unwrap_or_default().to_vec(), manifest, job })
    }

    /// What the environment is made of.
    pub fn manifest(&self) -> Result<Manifest, DocumentError> {
        Manifest::parse(&self.manifest)
    }

    /// The same launcher with another job.
    pub fn with_job(&self, job: &Job) -> Vec<u8> {
        assemble(&self.boot, job, &self.manifest)
    }
}

/// Writes a launcher to `path`: readable and executable by its owner only, replaced in one step.
///
/// False: the file was there already with the same bytes, and was left alone, since YARN and make judge by its time.
pub fn write(path: &Path, launcher: &[u8]) -> Result<bool, LauncherError> {
    if fs::read(path).is_ok_and(|found| found == launcher) {
        return Ok(false);
    }
    let failed = |source| LauncherError::Io { verb: "write", path: path.to_owned(), source };
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(failed)?;
    let temporary = directory.join(format!(".{}-{}", BOOT, std::process::id()));
    sweep(directory, &temporary);
    let result = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(&temporary)
        .and_then(|mut file| io::Write::write_all(&mut file, launcher))
        .and_then(|()| point("launcher.written"))
        .and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result.map(|()| true).map_err(failed)
}

/// Removes what writers left that were killed: a process of the same number, as all first ones of containers are, or any
/// that began long ago.
fn sweep(directory: &Path, own: &Path) {
    let prefix = format!(".{BOOT}-");
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let is_temporary = entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes());
        let age = || entry.metadata().and_then(|m| m.modified()).ok().and_then(|time| time.elapsed().ok());
        if is_temporary && (entry.path() == own || age().is_some_and(|age| age > ABANDONED)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_are_named_when_nothing_is_found() {
        let error = find_boot(None, Some(Path::new("/nowhere/bin/cluster-pack"))).expect_err("nothing there");
        assert!(error.to_string().contains("/nowhere/bin/cpack-boot"), "{error}");
    }

    #[test]
    fn a_script_or_a_launcher_is_no_boot() {
        let directory = tempfile::tempdir().expect("a directory");
        let script = directory.path().join("script");
        fs::write(&script, "#!/bin/sh\n").expect("writes");
        assert!(read_boot(&script).expect_err("no ELF").to_string().contains("ELF"));
        let launcher = directory.path().join("launcher");
        let elf = [&b"\x7fELF"[..], &[0; 500]].concat();
        fs::write(&launcher, [&elf[..], &appendix(elf.len() as u64, &[("a", b"b")])].concat()).expect("writes");
        assert!(read_boot(&launcher).expect_err("a launcher").to_string().contains("launcher"));
    }

    #[test]
    fn what_a_killed_writer_of_the_same_number_left_is_no_obstacle() {
        let directory = tempfile::tempdir().expect("a directory");
        let left = directory.path().join(format!(".{BOOT}-{}", std::process::id()));
        let old = directory.path().join(format!(".{BOOT}-0"));
        fs::write(&left, b"torn").expect("writes");
        fs::write(&old, b"torn").expect("writes");
        let time = std::time::SystemTime::now() - 2 * ABANDONED;
        let times = fs::FileTimes::new().set_modified(time);
        fs::File::open(&old).and_then(|file| file.set_times(times)).expect("sets the time");
        assert!(write(&directory.path().join("env-python"), b"one").expect("writes"));
        assert_eq!(fs::read_dir(directory.path()).expect("reads").count(), 1);
    }

    #[test]
    fn a_launcher_is_taken_apart_and_given_another_job() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("env-python");
        let digest = "d40a0c0abbbdc0ac7e6d3941483b5572514440ed6499f914f4a7144772d6cb0d";
        let json = format!(
            r#"{{"format":1,"environment":"{digest}","store":"file:/s","interpreter":{{"path":"","version":"3.11.7","soabi":"s"}}}}"#
        );
        let job = Job::parse(json.as_bytes()).expect("a job");
        fs::write(&path, assemble(b"\x7fELF boot", &job, b"{}")).expect("writes");
        let opened = Opened::read(&path).expect("opens");
        assert_eq!(opened.job, job);
        let other = Job { entry: job::Entry::Module("m".into()), ..job };
        fs::write(&path, opened.with_job(&other)).expect("writes");
        assert_eq!(Opened::read(&path).expect("opens").job, other);
        fs::write(&path, "#!/bin/sh").expect("writes");
        assert!(Opened::read(&path).expect_err("no launcher").to_string().contains("no job"));
    }

    #[test]
    fn what_a_boot_opens_is_read_from_its_bytes() {
        let boot = b"\x7fELF...cpack-boot opens: file hdfs viewfs\n...s3";
        for (scheme, expected) in [("file", true), ("viewfs", true), ("s3", false), ("hdf", false)] {
            assert_eq!(opens(boot, scheme), expected, "{scheme}");
        }
        assert!(opens(b"\x7fELF", "s3"), "an older one that does not say");
    }

    #[test]
    fn an_unchanged_launcher_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("env-python");
        assert!(write(&path, b"one").expect("writes"));
        assert!(!write(&path, b"one").expect("looks"));
        assert!(write(&path, b"two").expect("writes"));
        assert_eq!(fs::read_dir(directory.path()).expect("reads").count(), 1);
    }
}
