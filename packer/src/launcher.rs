//! Launchers: the boot executable with a job and its manifest appended, in one file or in two.
//!
//! `cluster-pack launcher` writes one file. A store keeps the executable apart from the jobs, each of which is a script that
//! starts it: a job that differs in one distribution then costs some kilobytes, and a node fetches the executable once.
//!
//! Each run looks for the executable once: `--boot` or `CPACK_BOOT`, else where a build from source leaves it, else beside
//! `cluster-pack`. It must be an executable for the executors' platform, which need not be the client's.

use std::cell::OnceCell;
use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cpack_fault::point;
use cpack_format::Digest;
use cpack_format::job::{self, Job};
use cpack_format::launcher::{Appended, BOOT_NAME, STORES_MARK, appendix};
use cpack_format::manifest::{DocumentError, Manifest};

/// The file name of the executable.
pub const BOOT: &str = "cpack-boot";

/// Where `cargo build --config bootstrap/static.toml` leaves the executable, seen from the directory of `cluster-pack`.
const BUILT: [&str; 3] = [
    "../x86_64-unknown-linux-gnu/boot/cpack-boot",
    "../x86_64-unknown-linux-gnu/release/cpack-boot",
    "../x86_64-unknown-linux-gnu/debug/cpack-boot",
];

/// Age of a temporary file at which its writer must be dead: writing a launcher takes a second.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Why a launcher could not be made.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum LauncherError {
    #[error("cpack-boot not found (looked at {looked}): pass --boot PATH or set CPACK_BOOT")]
    NoBoot { looked: String },
    #[error("{path} is no cpack-boot executable: {reason}", path = path.display())]
    NotBoot { path: PathBuf, reason: &'static str },
    #[error("{path} cannot be used as a launcher: {reason}", path = path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error(
        "{path} opens no {scheme}: stores: build it with --features network (see docs/install.md), or name another with --boot",
        path = path.display()
    )]
    NoStore { path: PathBuf, scheme: &'static str },
    #[error("cannot {verb} {path}: {source}", path = path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
}

/// Finds the executable: `named` if given, else in the usual places around `program`, the running `cluster-pack`.
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
    let looked = || match candidates.as_slice() {
        [] => "no place: without /proc this program cannot tell where it is itself".to_owned(),
        _ => candidates.iter().map(|c| c.display().to_string()).collect::<Vec<_>>().join(", "),
    };
    candidates.iter().find(|c| c.is_file()).cloned().ok_or_else(|| LauncherError::NoBoot { looked: looked() })
}

/// Reads an executable, and checks that it has no job.
pub fn read_boot(path: &Path) -> Result<Vec<u8>, LauncherError> {
    let bytes = fs::read(path).map_err(|source| LauncherError::Io { verb: "read", path: path.to_owned(), source })?;
    let wrong = |reason| LauncherError::NotBoot { path: path.to_owned(), reason };
    if !bytes.starts_with(b"\x7fELF") {
        return Err(wrong("it is no ELF executable"));
    }
    match Appended::of(&bytes) {
        Ok(None) => Ok(bytes),
        _ => Err(wrong("it is a launcher, which has a job already; name the plain executable")),
    }
}

/// Whether an executable opens stores whose URIs start with `scheme`. True for an older executable, which does not say.
pub fn opens(boot: &[u8], scheme: &str) -> bool {
    let mark = STORES_MARK.as_bytes();
    let Some(at) = memchr::memmem::find(boot, mark) else { return true };
    let rest = boot.get(at + mark.len()..).unwrap_or_default();
    let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.split(|byte| *byte == b' ').any(|word| word == scheme.as_bytes())
}

/// The script that stands for the executable in a store's launcher. It finds the executable by `CPACK_BOOT`, beside itself, or on
/// `PATH`.
///
/// `sh` reads a script line by line, so it never sees the zip behind the last `exit`. Some shells do not pass on variables whose
/// names a shell cannot have (`a.b`).
fn script(boot: &Digest) -> String {
    format!(
        r#"#!/bin/sh
# A job for cpack-boot, which is not in this file: CPACK_BOOT names it, or it lies beside this file, or it is on PATH.
case $0 in */*) d=${{0%/*}} ;; *) d=. ;; esac
for b in "${{CPACK_BOOT-}}" "$d/cpack-boot"; do
  if [ -f "$b" ] && [ -x "$b" ]; then exec "$b" --cpack exec "$0" "$@"; fi
done
if command -v cpack-boot >/dev/null 2>&1; then exec cpack-boot --cpack exec "$0" "$@"; fi
echo "$0: this job needs an executable cpack-boot: put boot/{boot} of its store beside it under that name, or set CPACK_BOOT" >&2
exit 80
"#
    )
}

/// A launcher in its parts: an executable, a job, and a manifest where the job brings its own.
#[derive(Debug, Clone)]
pub struct Launcher {
    boot: Vec<u8>,
    boot_digest: OnceCell<Digest>,
    manifest: Option<Vec<u8>>,
    /// What it starts.
    pub job: Job,
}

impl Launcher {
    /// The launcher of `job` in the environment of `manifest`.
    pub fn new(boot: Vec<u8>, job: Job, manifest: &Manifest) -> Self {
        Self { boot, boot_digest: OnceCell::new(), manifest: Some(manifest.to_bytes()), job }
    }

    /// Reads the launcher at `path`. Code inside a booted environment, where there is no virtual environment to pack, so makes
    /// another job of the same environment, overlays and payloads. `boot` is the executable of a launcher without one, if it is
    /// not in the launcher's directory.
    pub fn read(path: &Path, boot: Option<&Path>) -> Result<Self, LauncherError> {
        let mut bytes =
            fs::read(path).map_err(|source| LauncherError::Io { verb: "read", path: path.to_owned(), source })?;
        let damaged = |reason| LauncherError::Damaged { path: path.to_owned(), reason };
        let files = Appended::of(&bytes).map_err(|e| damaged(e.to_string()))?;
        let files = files.ok_or_else(|| damaged("it carries no job".into()))?;
        let file = files.file(job::FILE_NAME).ok_or_else(|| damaged(format!("it has no {}", job::FILE_NAME)))?;
        let job = Job::parse(file).map_err(|e| damaged(e.to_string()))?;
        let manifest = files.file(job::MANIFEST_NAME).map(<[u8]>::to_vec);
        let has_boot = files.file(BOOT_NAME).is_none();
        bytes.truncate(usize::try_from(files.start()).unwrap_or(usize::MAX));
        let boot = if has_boot { bytes } else { read_boot(boot.unwrap_or(&path.with_file_name(BOOT)))? };
        Ok(Self { boot, boot_digest: OnceCell::new(), manifest, job })
    }

    /// The environment's manifest, if the launcher carries it.
    pub fn manifest(&self) -> Result<Option<Manifest>, DocumentError> {
        self.manifest.as_deref().map(Manifest::parse).transpose()
    }

    /// The users that may read its file: only the owner if it carries values of variables.
    pub fn access(&self) -> Access {
        if self.job.environ.is_empty() { Access::Umask } else { Access::Owner }
    }

    /// The bytes of the executable.
    pub fn boot(&self) -> &[u8] {
        &self.boot
    }

    /// The digest of the executable, computed once.
    pub fn boot_digest(&self) -> &Digest {
        self.boot_digest.get_or_init(|| Digest::of(&self.boot))
    }

    /// The launcher as one file: the executable with the job appended.
    pub fn whole(&self) -> Vec<u8> {
        self.after(&self.boot, self.manifest.as_deref(), None)
    }

    /// The launcher without the executable, as a store keeps it for containers.
    pub fn stored(&self) -> Vec<u8> {
        self.without_boot(self.manifest.as_deref())
    }

    /// The launcher without executable and manifest, for a name: few starts read it, and the store has the manifest.
    pub fn named(&self) -> Vec<u8> {
        self.without_boot(None)
    }

    fn without_boot(&self, manifest: Option<&[u8]>) -> Vec<u8> {
        let boot = self.boot_digest();
        self.after(script(boot).as_bytes(), manifest, Some(&boot.to_hex()))
    }

    fn after(&self, start: &[u8], manifest: Option<&[u8]>, boot: Option<&str>) -> Vec<u8> {
        let job = self.job.to_bytes();
        let mut files: Vec<(&str, &[u8])> = vec![(job::FILE_NAME, &job)];
        files.extend(manifest.map(|bytes| (job::MANIFEST_NAME, bytes)));
        files.extend(boot.map(|hex| (BOOT_NAME, hex.as_bytes())));
        [start, &appendix(start.len() as u64, &files)].concat()
    }
}

/// The users that may read and start a launcher's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Every user that the umask allows: one user fills an image or a shared volume, and another uses it.
    Umask,
    /// Only its owner, because it carries values of variables, which may be secret.
    Owner,
}

impl Access {
    /// The mode of the file, before the umask.
    const fn mode(self) -> u32 {
        match self {
            Self::Umask => 0o777,
            Self::Owner => 0o700,
        }
    }
}

/// Writes a launcher to `path`, executable for `access`, and replaces a file there in one step.
///
/// Returns false if the file had the same bytes already. It is then not touched: YARN and make look at its time, and the user
/// may have changed its mode.
pub fn write(path: &Path, launcher: &[u8], access: Access) -> Result<bool, LauncherError> {
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
        .mode(access.mode())
        .open(&temporary)
        .and_then(|mut file| io::Write::write_all(&mut file, launcher))
        .and_then(|()| point("launcher.written"))
        .and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    result.map(|()| true).map_err(failed)
}

/// Removes the temporary files of killed writers: of one with this process's number (`own`), which first processes of containers
/// share, and all that are older than [`ABANDONED`].
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
        let error = find_boot(None, None).expect_err("nothing there");
        assert!(error.to_string().contains("looked at no place: without /proc"), "{error}");
    }

    #[test]
    fn script_or_a_launcher_is_no_boot() {
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
    fn launcher_is_written_although_a_killed_writer_left_a_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let left = directory.path().join(format!(".{BOOT}-{}", std::process::id()));
        let old = directory.path().join(format!(".{BOOT}-0"));
        fs::write(&left, b"torn").expect("writes");
        fs::write(&old, b"torn").expect("writes");
        let time = std::time::SystemTime::now() - 2 * ABANDONED;
        let times = fs::FileTimes::new().set_modified(time);
        fs::File::open(&old).and_then(|file| file.set_times(times)).expect("sets the time");
        assert!(write(&directory.path().join("env-python"), b"one", Access::Umask).expect("writes"));
        assert_eq!(fs::read_dir(directory.path()).expect("reads").count(), 1);
    }

    fn launcher() -> Launcher {
        let digest = "d40a0c0abbbdc0ac7e6d3941483b5572514440ed6499f914f4a7144772d6cb0d";
        let json = format!(
            r#"{{"format":1,"environment":"{digest}","store":"file:/s","interpreter":{{"path":"","version":"3.11.7","soabi":"s"}}}}"#
        );
        let job = Job::parse(json.as_bytes()).expect("a job");
        let boot = b"\x7fELF boot".to_vec();
        Launcher { boot, boot_digest: OnceCell::new(), manifest: Some(b"{}".to_vec()), job }
    }

    #[test]
    fn launcher_is_taken_apart_and_given_another_job() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("env-python");
        let made = launcher();
        fs::write(&path, made.whole()).expect("writes");
        let opened = Launcher::read(&path, None).expect("opens");
        assert_eq!((&opened.job, opened.boot()), (&made.job, made.boot()));
        let other = Launcher { job: Job { entry: job::Program::Module("m".into()), ..opened.job.clone() }, ..opened };
        fs::write(&path, other.whole()).expect("writes");
        assert_eq!(Launcher::read(&path, None).expect("opens").job, other.job);
        fs::write(&path, "#!/bin/sh").expect("writes");
        assert!(Launcher::read(&path, None).expect_err("no launcher").to_string().contains("no job"));
    }

    #[test]
    fn launcher_of_a_store_is_whole_again_with_its_executable() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("env-python");
        let made = launcher();
        fs::write(&path, made.stored()).expect("writes");
        let error = Launcher::read(&path, None).expect_err("no executable").to_string();
        assert!(error.contains("cannot read") && error.contains("/cpack-boot"), "{error}");
        fs::write(directory.path().join(BOOT), made.boot()).expect("writes");
        assert_eq!(Launcher::read(&path, None).expect("beside it").whole(), made.whole());
        fs::rename(directory.path().join(BOOT), directory.path().join("other")).expect("renames");
        let named = directory.path().join("other");
        assert_eq!(Launcher::read(&path, Some(&named)).expect("as named").whole(), made.whole());
        fs::write(&path, made.named()).expect("writes");
        let opened = Launcher::read(&path, Some(&named)).expect("without a manifest");
        assert!(opened.manifest().is_ok_and(|manifest| manifest.is_none()) && opened.job == made.job);
    }

    /// What `sh` makes of a launcher of a store, with stand-ins that say how they were called.
    #[test]
    fn the_script_starts_the_executable_or_says_what_is_missing() {
        let directory = tempfile::tempdir().expect("a directory");
        let stand_in = |name: &str| {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("makes");
            fs::write(&path, format!("#!/bin/sh\necho {name} \"$@\"\n")).expect("writes");
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("allows");
            path
        };
        let job = directory.path().join("job");
        write(&job, &launcher().stored(), Access::Umask).expect("writes");
        let run = |variables: &[(&str, &Path)], called: &str| {
            let mut command = std::process::Command::new("/bin/sh");
            command.args(["-c", &format!("{called} -c 'a b'")]).current_dir(directory.path()).env_clear();
            let output = command.envs(variables.iter().copied()).output().expect("runs");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        };
        let digest = launcher().boot_digest().to_hex();
        let nowhere = directory.path().join("nowhere");
        let (code, said, error) = run(&[("PATH", &nowhere)], "./job");
        assert!(
            code == Some(80) && said.is_empty() && error.lines().count() == 1 && error.contains(&digest),
            "{error}"
        );
        let ran = |name: &str, job: &str| (Some(0), format!("{name} --cpack exec {job} -c a b"), String::new());
        stand_in("bin/cpack-boot");
        let path = directory.path().join("bin");
        assert_eq!(run(&[("PATH", &path)], "./job"), ran("bin/cpack-boot", "./job"));
        stand_in("cpack-boot");
        assert_eq!(run(&[("PATH", &path)], "./job"), ran("cpack-boot", "./job"));
        assert_eq!(run(&[], "/bin/sh job"), ran("cpack-boot", "job"));
        let named = stand_in("named");
        assert_eq!(run(&[("CPACK_BOOT", &named)], "./job"), ran("named", "./job"));
        for nothing in [directory.path(), Path::new("/nowhere"), Path::new("")] {
            assert_eq!(run(&[("CPACK_BOOT", nothing)], "./job"), ran("cpack-boot", "./job"), "{}", nothing.display());
        }
        // As YARN lays files into a working directory.
        let container = directory.path().join("a container");
        fs::create_dir(&container).expect("creates");
        for name in ["job", BOOT] {
            std::os::unix::fs::symlink(directory.path().join(name), container.join(name)).expect("links");
        }
        assert_eq!(run(&[], "cd 'a container' && ./job"), ran("cpack-boot", "./job"));
    }

    #[test]
    fn stores_that_a_boot_opens_are_read_from_its_bytes() {
        let boot = b"\x7fELF...cpack-boot opens: file hdfs viewfs\n...s3";
        for (scheme, expected) in [("file", true), ("viewfs", true), ("s3", false), ("hdf", false)] {
            assert_eq!(opens(boot, scheme), expected, "{scheme}");
        }
        assert!(opens(b"\x7fELF", "s3"), "an older one that does not say");
    }

    #[test]
    fn the_umask_decides_who_starts_a_launcher_without_values() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().expect("a directory");
        let mode = |name: &str, access| {
            let path = directory.path().join(name);
            write(&path, b"one", access).expect("writes");
            fs::metadata(&path).expect("stat").permissions().mode() & 0o7777
        };
        // Read as the kernel applies it: a umask is of the process, and other tests run in this one.
        let file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o777).open(directory.path().join("by-umask"));
        let allowed = file.and_then(|file| file.metadata()).expect("creates").permissions().mode() & 0o777;
        assert_eq!((mode("open", Access::Umask), mode("closed", Access::Owner)), (allowed, 0o700 & allowed));
        let mut carrying = launcher();
        assert_eq!(carrying.access(), Access::Umask);
        carrying.job.pass = vec!["TOKEN".into()];
        assert_eq!(carrying.access(), Access::Umask, "names are no secrets");
        carrying.job.environ.insert("A".into(), "1".into());
        assert_eq!(carrying.access(), Access::Owner);
    }

    #[test]
    fn unchanged_launcher_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("env-python");
        assert!(write(&path, b"one", Access::Umask).expect("writes"));
        assert!(!write(&path, b"one", Access::Umask).expect("looks"));
        assert!(write(&path, b"two", Access::Umask).expect("writes"));
        assert_eq!(fs::read_dir(directory.path()).expect("reads").count(), 1);
    }
}
