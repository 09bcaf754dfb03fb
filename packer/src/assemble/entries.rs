//! What is packed of a list of files: scripts made relocatable, byte-code of one form, `RECORD` made true.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cpack_artifact::SafePath;
use rayon::prelude::*;

use crate::cache::Facts;
use crate::content::compile::{Compiled, Compilers};
use crate::content::pyc::{self, Magic, Source};
use crate::content::record::{self, Shipped};
use crate::content::{direct_url, script};
use crate::discover::{Distribution, Environment, FileKind, FileStat};
use crate::layer::{Body, Entry, LayerError};

/// Makes the entries of layers of one environment.
#[derive(Debug)]
pub struct Packer<'a> {
    /// The environment.
    pub environment: &'a Environment,
    /// Compiles what has no byte-code.
    pub compilers: &'a Compilers,
}

type Made = Result<(Vec<Entry>, Facts), LayerError>;

impl Packer<'_> {
    /// The entries of a distribution.
    pub(super) fn distribution(&self, distribution: &Distribution) -> Made {
        let (mut entries, mut facts) = self.files(&distribution.files)?;
        let info = distribution.info.as_bytes();
        let at = |name: &[u8]| [info, b"/", name].concat();
        self.modified(distribution, &mut facts);
        let mut changed = BTreeMap::new();
        for entry in &mut entries {
            if entry.path.as_bytes() == at(b"direct_url.json") {
                let bytes = self.read_entry(entry)?;
                // One that cannot be read says nothing to anybody: it is packed as it is.
                if let Ok(reduced) = direct_url::reduce(&bytes) {
                    entry.body = Body::Bytes(reduced);
                }
            }
            if let Body::Bytes(bytes) = &entry.body
                && entry.kind != cpack_artifact::content::Kind::Link
            {
                let byte_code = entry.path.as_bytes().ends_with(b".pyc");
                changed.insert(entry.path.clone(), if byte_code { Shipped::Unhashed } else { Shipped::changed(bytes) });
            }
        }
        let record = at(b"RECORD");
        let Some(slot) = entries.iter().position(|e| *e.path.as_bytes() == *record) else {
            return Ok((entries, facts));
        };
        let shipped = entries.iter().map(|entry| {
            let kept = if entry.path.as_bytes() == record { Shipped::Unhashed } else { Shipped::Kept };
            (entry.path.clone(), changed.remove(&entry.path).unwrap_or(kept))
        });
        let shipped: BTreeMap<SafePath, Shipped> = shipped.collect();
        if let Some(entry) = entries.get_mut(slot) {
            let bytes = self.read_entry(entry)?;
            // A RECORD that cannot be read was reported by discovery; it is packed as it is.
            if let Ok(rows) = record::parse(&bytes) {
                let base = &self.environment.site_packages;
                entry.body = Body::Bytes(record::rewrite(&rows, base, &self.prefixes(), &shipped));
            }
        }
        Ok((entries, facts))
    }

    /// The entries of files that have no metadata of their own.
    pub(super) fn files(&self, files: &[FileStat]) -> Made {
        let packed: Vec<Packed> =
            files.par_iter().with_max_len(16).map(|file| self.file(file)).collect::<Result<_, _>>()?;
        let mut facts = Facts::default();
        let mut entries: BTreeMap<SafePath, Entry> = BTreeMap::new();
        for Packed { entry, byte_code } in packed {
            match byte_code {
                ByteCode::Made(code) => drop(entries.insert(code.path.clone(), code)),
                ByteCode::Refused => facts.not_compiled.push(entry.path.to_string()),
                ByteCode::None => {}
            }
            // Byte-code made from its source wins over what was found beside it.
            entries.entry(entry.path.clone()).or_insert(entry);
        }
        facts.run_paths.sort_unstable();
        facts.run_paths.dedup();
        Ok((entries.into_values().collect(), facts))
    }

    fn file(&self, file: &FileStat) -> Result<Packed, LayerError> {
        let source = self.environment.source(file);
        let kind = file.kind.content_kind();
        let path = file.path.clone();
        let mut packed =
            Packed { entry: Entry { path, kind, body: Body::Bytes(Vec::new()) }, byte_code: ByteCode::None };
        packed.entry.body = match &file.kind {
            FileKind::Link(target) => Body::Bytes(target.to_vec()),
            _ if is_script(file) => self.script(&source, file.size)?,
            _ => Body::File { path: source.clone(), size: file.size },
        };
        if file.path.as_bytes().ends_with(b".py") && !matches!(file.kind, FileKind::Link(_)) {
            packed.byte_code = self.byte_code(file, &source)?;
        }
        Ok(packed)
    }

    fn script(&self, source: &Path, size: u64) -> Result<Body, LayerError> {
        /// Scripts that installers write are a few hundred bytes; larger files are programs.
        const LARGEST: u64 = 1 << 20;
        if size > LARGEST {
            return Ok(Body::File { path: source.to_owned(), size });
        }
        let bytes = read(source)?;
        let changed = script::relocate(&bytes, &self.prefixes());
        Ok(changed.map_or_else(|| Body::File { path: source.to_owned(), size }, Body::Bytes))
    }

    /// The `.pyc` of a module: what is in `__pycache__` if it is valid, else compiled.
    fn byte_code(&self, file: &FileStat, path: &Path) -> Result<ByteCode, LayerError> {
        let magic = Magic(self.environment.python.magic);
        let bytes = read(path)?;
        let name = path.file_stem().map(std::ffi::OsStr::as_bytes).unwrap_or_default();
        let cached = [name, b".", self.environment.python.cache_tag.as_bytes(), b".pyc"].concat();
        let cached = Path::new("__pycache__").join(std::ffi::OsStr::from_bytes(&cached));
        let found = path.parent().and_then(|dir| fs::read(dir.join(&cached)).ok());
        let source = Source { bytes: &bytes, modified: file.mtime_ns.div_euclid(1_000_000_000) };
        let refused = |reason: String| LayerError::Make { path: file.path.to_string(), reason };
        let compiled;
        let code = match found.as_deref().map(|pyc| pyc::valid_code(pyc, magic, source)) {
            Some(Ok(code)) => code,
            _ => match self.compilers.compile(&bytes).map_err(|e| refused(e.to_string()))? {
                Compiled::Code(code) => {
                    compiled = code;
                    &compiled
                }
                Compiled::Refused(_) => return Ok(ByteCode::Refused),
            },
        };
        let place = file.path.parent().map(|p| p.as_path().to_owned()).unwrap_or_default().join(&cached);
        let place = SafePath::new(place.as_os_str().as_bytes()).map_err(|e| refused(e.to_string()))?;
        let body = pyc::unchecked(magic, &bytes, code, file.path.as_bytes()).map_err(|e| refused(e.to_string()))?;
        let kind = cpack_artifact::content::Kind::File;
        Ok(ByteCode::Made(Entry { path: place, kind, body: Body::Bytes(body) }))
    }

    /// Which files differ from what was installed, as far as stat data raise a doubt.
    fn modified(&self, distribution: &Distribution, facts: &mut Facts) {
        let differs = |suspect: &&crate::discover::Suspect| {
            suspect.certain
                || fs::read(self.environment.prefix.join(&suspect.path))
                    .is_ok_and(|bytes| record::matches(&suspect.hash, &bytes) == Some(false))
        };
        facts.modified = distribution.suspects.par_iter().filter(differs).map(|s| s.path.to_string()).collect();
    }

    fn read_entry(&self, entry: &Entry) -> Result<Vec<u8>, LayerError> {
        match &entry.body {
            Body::Bytes(bytes) => Ok(bytes.clone()),
            Body::File { path, .. } => read(path),
            Body::Made { make, .. } => {
                make().map_err(|reason| LayerError::Make { path: entry.path.to_string(), reason })
            }
        }
    }

    /// The environment's prefix, as files in it may name it.
    fn prefixes(&self) -> Vec<Vec<u8>> {
        let prefix = &self.environment.prefix;
        let mut prefixes: Vec<PathBuf> = vec![prefix.clone()];
        prefixes.extend(prefix.canonicalize().ok().filter(|real| real != prefix));
        prefixes.into_iter().map(|p| p.as_os_str().as_bytes().to_vec()).collect()
    }
}

/// A file and what comes with it.
struct Packed {
    entry: Entry,
    byte_code: ByteCode,
}

enum ByteCode {
    None,
    Made(Entry),
    Refused,
}

fn is_script(file: &FileStat) -> bool {
    file.path.parent().is_some_and(|parent| parent.as_bytes() == b"bin") && !matches!(file.kind, FileKind::Link(_))
}

fn read(path: &Path) -> Result<Vec<u8>, LayerError> {
    fs::read(path).map_err(|source| LayerError::Read { path: path.to_owned(), source })
}
