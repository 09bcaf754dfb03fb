//! Makes a PEX or wheelhouse into a virtual environment, which is then packed into layers like any other.
//!
//! ```text
//! <cache>/pex-environments/<identity of the PEX>/   kept for the next submission of the same file
//! <cache>/pex-environments/.<…>                     being made
//! ```
//!
//! The module [`MAIN`] in it starts what the PEX starts, so that a launcher can start it with arguments and variables as the PEX
//! would.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cpack_pex::file::{Files, Source, ZipFile};
use cpack_pex::finish::finish;
use cpack_pex::info::{InheritPath, PexInfo};
use cpack_pex::places::{Order, Part, Places, parts, places};
use cpack_pex::resolve::{Machine, OTHERS, ResolverPython, resolve_all};
use cpack_pex::tags::Target;
use cpack_pex::{self, Pex, keep_youngest};
use rayon::prelude::*;
use serde::Deserialize;

use super::error::PexError;
use crate::cache::ClientCache;

/// The module that starts what the PEX starts.
pub(crate) const MAIN: &str = "_cpack_pex_main";

/// Changed when the same PEX is unpacked to other files.
const FORMAT: &[u8] = b"cluster-pack pex environment 2\n";

/// How many environments of PEX files are kept.
const KEPT: usize = 4;

/// The program that an interpreter runs to print an [`Answer`].
const PROBE: &str = "\
import os, sys, _imp, platform
s = _imp.extension_suffixes()[0].split('.')
try:
    g = os.confstr('CS_GNU_LIBC_VERSION') or ''
except (ValueError, OSError):
    g = ''
e = os.path.realpath(getattr(sys, '_base_executable', None) or sys.executable)
import json
print(json.dumps({'implementation': sys.implementation.name, 'version': '%d.%d.%d' % sys.version_info[:3],
    'minor': sys.version_info[1], 'soabi': s[1] if len(s) > 2 else '', 'glibc': g.replace('glibc ', ''), 'executable': e,
    'machine': platform.machine(), 'release': platform.release(), 'kernel': platform.version()}))
";

/// What an interpreter says of itself.
#[derive(Debug, Deserialize)]
struct Answer {
    implementation: String,
    version: String,
    minor: u32,
    soabi: String,
    glibc: String,
    executable: PathBuf,
    machine: String,
    release: String,
    kernel: String,
}

#[derive(Debug)]
pub(crate) struct Unpacked {
    pub prefix: PathBuf,
    /// Whether the PEX starts something other than Python: [`MAIN`] then does.
    pub has_entry: bool,
    /// Whether it has code that runs before its own start, which [`MAIN`] does not run.
    pub has_preamble: bool,
}

/// Makes the PEX or wheelhouse at `path` into an environment in `cache`, unless the cache has it. `search` is `PATH`, for an interpreter.
pub(crate) fn unpack(path: &Path, cache: &ClientCache, search: Option<&std::ffi::OsStr>) -> Result<Unpacked, PexError> {
    let pex = cpack_pex::open(path)?;
    let merged: Vec<PathBuf> = pex.info.merged_paths().into_iter().map(PathBuf::from).collect();
    let mut pexes = vec![pex];
    for path in merged {
        pexes.push(cpack_pex::open(&path)?);
    }
    let info = pexes.first().map(|pex| pex.info.clone()).unwrap_or_default();
    let has_preamble = pexes.first().is_some_and(|pex| pex.has_preamble);
    let has_entry = info.entry_point.is_some() || info.script.is_some();
    let mut hasher = blake3::Hasher::new();
    hasher.update(FORMAT);
    for pex in &pexes {
        hasher.update(pex.identity.as_bytes());
    }
    let all = cache.root().join("pex-environments");
    let prefix = all.join(hasher.finalize().to_hex().as_str());
    if !prefix.join("pyvenv.cfg").is_file() {
        let failed = |source| PexError::Io { action: "write", path: all.clone(), source };
        fs::create_dir_all(&all).map_err(failed)?;
        keep_youngest(&all, KEPT - 1);
        let staging = tempfile::Builder::new().prefix(".new").tempdir_in(&all).map_err(failed)?;
        let staged = staging.path().join("environment");
        Unpacking { pexes: &pexes, info: &info, staging: staging.path(), search }.run(&staged)?;
        match fs::rename(&staged, &prefix) {
            // Another process made the same environment meanwhile.
            Err(_) if prefix.join("pyvenv.cfg").is_file() => {}
            result => result.map_err(failed)?,
        }
    }
    Ok(Unpacked { prefix, has_entry, has_preamble })
}

struct Unpacking<'a> {
    pexes: &'a [Pex],
    info: &'a PexInfo,
    staging: &'a Path,
    search: Option<&'a std::ffi::OsStr>,
}

impl Unpacking<'_> {
    fn run(&self, prefix: &Path) -> Result<(), PexError> {
        let failed = |source| PexError::Io { action: "write", path: prefix.to_owned(), source };
        let unzip_whole = |index, archive: &ZipFile| {
            let outer = self.staging.join(format!("outer-{index}"));
            unzip(archive, &outer, &|name| Some(PathBuf::from(String::from_utf8_lossy(name).into_owned())))?;
            Ok::<_, PexError>(outer)
        };
        let source = Source::of(self.pexes, unzip_whole)?;
        let (python, resolved) = self.interpreter(&source.metadata)?;
        cpack_pex::verify(self.pexes, &source, &resolved)?;
        let Source { files, .. } = source;
        let minor = format!("3.{}", python.minor);
        let order = match (self.info.venv, self.info.inherit_path) {
            (true, _) => Order::Venv,
            (_, InheritPath::Fallback) => Order::Reversed,
            _ => Order::Usual,
        };
        let parts = parts(self.pexes, &resolved, order);
        let named = |source| cpack_pex::PexFileError::Name { path: self.path(), source };
        let places = places(self.pexes, &files, &parts, &minor).map_err(named)?;
        let all = self.staging.join("parts");
        for (files, places) in files.iter().zip(&places) {
            extract(files, places, &all)?;
        }
        for (index, part) in parts.iter().enumerate() {
            let root = all.join(index.to_string());
            self.finish(&root, part, &minor).and_then(|()| merge(&root, prefix)).map_err(failed)?;
        }
        self.furnish(prefix, &python, &minor).map_err(failed)
    }

    fn path(&self) -> PathBuf {
        self.pexes.first().map(|pex| pex.path.clone()).unwrap_or_default()
    }

    fn finish(&self, root: &Path, part: &Part, minor: &str) -> io::Result<()> {
        let is_wheel_file = self.pexes.get(part.pex).is_some_and(|pex| pex.info.deps_are_wheel_files);
        part.wheel.as_ref().map_or(Ok(()), |wheel| finish(root, wheel, is_wheel_file, minor))
    }

    /// Finds the first interpreter that meets the constraints and can use the wheels. Returns it with the wheels.
    fn interpreter(
        &self,
        metadata: &[BTreeMap<String, cpack_pex::file::Metadata>],
    ) -> Result<(Answer, Vec<Vec<String>>), PexError> {
        let named = self.pexes.first().and_then(|pex| pex.minor.clone());
        let names = named.into_iter().map(|minor| format!("python{minor}"));
        let others = (8..=15).map(|minor| format!("python3.{minor}"));
        let names = names.chain(["python3".into(), "python".into()]).chain(others);
        let directories: Vec<PathBuf> = self.search.map(std::env::split_paths).into_iter().flatten().collect();
        let (mut found, mut seen) = (Vec::new(), Vec::new());
        for path in names.flat_map(|name| directories.iter().map(move |directory| directory.join(&name))) {
            if seen.contains(&path) || !path.is_file() {
                continue;
            }
            seen.push(path.clone());
            let Some(answer) = ask(&path).filter(|answer| answer.implementation == "cpython") else { continue };
            match self.resolve(&answer, metadata) {
                Ok(Some(resolved)) => return Ok((answer, resolved)),
                Ok(None) => found.push(format!("{} is Python {}", path.display(), answer.version)),
                Err(reason) => found.push(format!("for {} {reason}", path.display())),
            }
        }
        // One line for all: of a wheelhouse the interpreter tells most for which a wheel is missing, not of another version.
        let is_wheelhouse = self.pexes.first().is_some_and(|pex| pex.wheelhouse.is_some());
        if let (Some(why), true) = (found.iter().min_by_key(|why| why.contains(OTHERS)).cloned(), is_wheelhouse) {
            found = vec![why];
        }
        found.truncate(3);
        let reason = if found.is_empty() { "there is none on PATH".to_owned() } else { found.join("; ") };
        Err(PexError::NoPython { path: self.path(), reason })
    }

    fn resolve(
        &self,
        answer: &Answer,
        metadata: &[BTreeMap<String, cpack_pex::file::Metadata>],
    ) -> Result<Option<Vec<Vec<String>>>, String> {
        let machine = Machine {
            machine: answer.machine.clone(),
            release: answer.release.clone(),
            version: answer.kernel.clone(),
        };
        let target = Target::new(answer.minor, &answer.soabi, &answer.machine, &answer.glibc);
        let interpreter = ResolverPython::new(&answer.version, target, &machine).ok_or("its version is odd")?;
        resolve_all(self.pexes, metadata, &interpreter).map_err(|error| error.to_string())
    }

    /// Adds what makes the files an environment, and the module that starts the PEX.
    fn furnish(&self, prefix: &Path, python: &Answer, minor: &str) -> io::Result<()> {
        let bin = prefix.join("bin");
        fs::create_dir_all(&bin)?;
        for name in ["python", "python3", &format!("python{minor}")] {
            symlink(&python.executable, bin.join(name))?;
        }
        let site = prefix.join(format!("lib/python{minor}/site-packages"));
        fs::create_dir_all(&site)?;
        if self.info.entry_point.is_some() || self.info.script.is_some() {
            fs::write(site.join(format!("{MAIN}.py")), main_module(self.info))?;
        }
        let home = python.executable.parent().unwrap_or(Path::new("/usr/bin"));
        let version = &python.version;
        let config = format!("home = {}\ninclude-system-site-packages = false\nversion = {version}\n", home.display());
        fs::write(prefix.join("pyvenv.cfg"), config)
    }
}

/// Runs [`PROBE`]. `None` if the interpreter fails.
fn ask(path: &Path) -> Option<Answer> {
    let output = Command::new(path).args(["-I", "-S", "-B", "-c", PROBE]).stdin(Stdio::null()).output().ok()?;
    serde_json::from_slice(&output.stdout).ok()
}

/// The text of the module that does what the PEX does when it is started.
fn main_module(info: &PexInfo) -> String {
    let json = |value: &serde_json::Value| serde_json::Value::from(value.to_string()).to_string();
    let settings = serde_json::json!({
        "environ": info.inject_env,
        "arguments": info.inject_args,
        "script": info.script,
        "entry": info.entry_point,
    });
    format!(
        "\"\"\"Starts what the PEX started from which this environment was made.\"\"\"\n\
         import functools, importlib, json, os, runpy, sys\n\
         pex = json.loads({})\n\
         if __name__ == '__main__':\n\
         \x20   for name, value in pex['environ'].items():\n\
         \x20       os.environ.setdefault(name, value)\n\
         \x20   sys.argv[1:1] = pex['arguments']\n\
         \x20   if pex['script']:\n\
         \x20       script = os.path.join(sys.prefix, 'bin', pex['script'])\n\
         \x20       os.execv(script, [script] + sys.argv[1:])\n\
         \x20   module, _, function = pex['entry'].partition(':')\n\
         \x20   if not function:\n\
         \x20       runpy.run_module(module, run_name='__main__', alter_sys=True)\n\
         \x20   else:\n\
         \x20       sys.exit(functools.reduce(getattr, function.split('.'), importlib.import_module(module))())\n",
        json(&settings)
    )
}

/// Extracts those of `files` that have a place, below `root`, in a directory for each part.
fn extract(files: &Files, places: &Places, root: &Path) -> Result<(), PexError> {
    for archive in &files.zips {
        unzip(archive, root, &|name| {
            let (part, path) = places.get(&*[&archive.prefix[..], name].concat())?;
            Some(Path::new(&part.to_string()).join(path.as_path()))
        })?;
    }
    files.plain.par_iter().try_for_each(|(name, source)| {
        let Some((part, path)) = places.get(name) else { return Ok(()) };
        let target = root.join(part.to_string()).join(path.as_path());
        let copied = fs::create_dir_all(target.parent().unwrap_or(root)).and_then(|()| fs::copy(source, &target));
        copied.map(|_| ()).map_err(|source| PexError::Io { action: "write", path: target, source })
    })
}

/// Extracts, on all cores, those entries of a zip for which `select` returns a path.
fn unzip(archive: &ZipFile, root: &Path, select: &(dyn Fn(&[u8]) -> Option<PathBuf> + Sync)) -> Result<(), PexError> {
    archive.entries.par_iter().try_for_each(|entry| {
        let Some(path) = select(&entry.name) else { return Ok(()) };
        let bytes = archive.read(entry)?;
        let target = root.join(path);
        let mode = if entry.mode & 0o100 != 0 { 0o755 } else { 0o644 };
        let written = fs::create_dir_all(target.parent().unwrap_or(root))
            .and_then(|()| fs::write(&target, bytes))
            .and_then(|()| fs::set_permissions(&target, Permissions::from_mode(mode)));
        written.map_err(|source| PexError::Io { action: "write", path: target, source })
    })
}

/// Moves the files below `from` to the same places below `to`.
fn merge(from: &Path, to: &Path) -> io::Result<()> {
    if !from.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() && target.is_dir() {
            merge(&entry.path(), &target)?;
        } else {
            fs::rename(entry.path(), target)?;
        }
    }
    Ok(())
}
