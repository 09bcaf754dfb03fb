//! A distribution as upstream's installed-wheel chroot, or as a wheel again.
//!
//! | in the environment | in the chroot | in the wheel |
//! | --- | --- | --- |
//! | `lib/pythonX.Y/site-packages/…` | `…` | `…` |
//! | `bin/…` | `.prefix/bin/…`, scripts with the first line `#!python` | `NAME-VERSION.data/scripts/…`, the same; those of entry points are left out |
//! | anything else | `.prefix/data/…` | `NAME-VERSION.data/data/…` |
//! | byte-code | `__pycache__/…`: unchecked-hash, in no hash and not in RECORD | left out |
//! | `RECORD` | true for the chroot, paths relative to it | true for the wheel |
//! | `INSTALLER`, `REQUESTED`, `uv_*.json` | left out: about one installation | left out, `direct_url.json` too |
//!
//! `.layout.json` tells the runtime about it. A distribution without `.dist-info` (conda, old setuptools) gets one. Links
//! become the files that they lead to, since wheels have none.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::sync::Arc;

use cpack_discover::record::{self, Row, Shipped};
use cpack_discover::{Distribution, Environment, FileKind, FileStat};
use cpack_format::SafePath;
use cpack_format::content::Kind;
use cpack_layer::archive::{Body, Entry};
use cpack_layer::content::compile::Compilers;
use cpack_layer::content::direct_url;
use cpack_layer::content::pyc::{self, Magic, Source};
use cpack_layer::content::script::{self, Script};
use cpack_layer::content::transform::spellings;

use super::error::PexError;
use super::hash;
use super::metadata::{self, Readable};

/// The directory of a chroot for everything but modules.
const STASH: &str = ".prefix";

/// What a distribution is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Chroot,
    Wheel,
}

/// A directory that stands for the chroot in paths of RECORD rows: their base cannot be empty.
const BASE: &str = "chroot";

/// Names at the root of a PEX that are not the user's.
const RESERVED: [&[u8]; 7] = [b".bootstrap", b".deps", b"PEX-INFO", b"PEX-LAYOUT", b"__main__.py", b"__pex__", b"pex"];

/// A distribution as it is written.
#[derive(Debug)]
pub(super) struct Chroot {
    /// The file name of its wheel.
    pub(super) wheel: String,
    /// Upstream's hash of its files.
    pub(super) fingerprint: String,
    /// Its files, with paths below the chroot.
    pub(super) entries: Vec<Entry>,
    /// Scripts that name a Python that is not the environment's, and which.
    pub(super) strangers: Vec<String>,
    /// Headers of its metadata that were left out.
    pub(super) left_out: Vec<String>,
}

/// Reads the files of distributions.
#[derive(Debug)]
pub(super) struct Files<'a> {
    environment: &'a Environment,
    prefixes: Vec<Vec<u8>>,
    interpreters: script::Interpreters,
    byte_code: Option<Arc<Compilers>>,
}

impl<'a> Files<'a> {
    /// Reads files of `environment`; modules get byte-code if there are `compilers`.
    pub(super) fn new(environment: &'a Environment, compilers: Option<Arc<Compilers>>) -> Self {
        let byte_code = compilers.filter(|_| Magic(environment.python.magic).layout().is_ok());
        let prefixes = spellings(&environment.prefix);
        let interpreters = script::Interpreters::of(&prefixes);
        Self { environment, prefixes, interpreters, byte_code }
    }

    fn read(&self, file: &FileStat) -> Result<Vec<u8>, PexError> {
        let path = self.environment.source(file);
        fs::read(&path).map_err(|source| PexError::Io { action: "read", path, source })
    }

    fn in_site<'p>(&self, path: &'p SafePath) -> Option<&'p [u8]> {
        path.as_bytes().strip_prefix(self.environment.site_packages.as_bytes())?.strip_prefix(b"/")
    }

    /// The file as an entry at `path`. `None` for a link that does not lead to a file.
    fn entry(&self, file: &FileStat, path: SafePath) -> Option<Entry> {
        let source = self.environment.source(file);
        let (kind, size) = match &file.kind {
            FileKind::File => (Kind::File, file.size),
            FileKind::Executable => (Kind::Executable, file.size),
            FileKind::Link(_) => (Kind::File, fs::metadata(&source).ok().filter(fs::Metadata::is_file)?.len()),
        };
        Some(Entry { path, kind, body: Body::File { path: source, size } })
    }

    /// The byte-code of the module `file`, which is at `path` in the chroot. It is made when the writer gets to it.
    fn byte_code(&self, file: &FileStat, path: &SafePath, compiled: &HashMap<&[u8], &FileStat>) -> Option<Entry> {
        let compilers = Arc::clone(self.byte_code.as_ref()?);
        let cache_tag = &self.environment.python.cache_tag;
        let (path, installed) = (pyc::cache_path(path, cache_tag)?, pyc::cache_path(&file.path, cache_tag)?);
        let installed = compiled.get(installed.as_bytes()).map(|file| self.environment.source(file));
        let source = self.environment.source(file);
        let (modified, name) = (file.mtime_ns.div_euclid(1_000_000_000), file.path.clone());
        let make = move || {
            let bytes = fs::read(&source).map_err(|e| e.to_string())?;
            let installed = installed.as_ref().and_then(|path| fs::read(path).ok());
            let module = Source { bytes: &bytes, modified };
            compilers.byte_code(module, installed.as_deref(), name.as_bytes()).map_err(|e| e.to_string())
        };
        Some(Entry { path, kind: Kind::File, body: Body::Made { size_hint: file.size, make: Arc::new(make) } })
    }
}

/// The byte-code files among `files`, by path.
fn compiled(files: &[FileStat]) -> HashMap<&[u8], &FileStat> {
    let byte_code = files.iter().filter(|file| hash::is_byte_code(file.path.as_bytes()));
    byte_code.map(|file| (file.path.as_bytes(), file)).collect()
}

/// Whether `path` is byte-code in a `__pycache__`.
fn is_cached(path: &SafePath) -> bool {
    hash::is_byte_code(path.as_bytes()) && path.components().any(|name| name == b"__pycache__")
}

/// The modules that belong to no distribution, and a warning about those that are left out.
pub(super) fn user_code(files: &Files<'_>) -> Result<(Vec<Entry>, Vec<String>), PexError> {
    let environment = files.environment;
    let unowned = environment.unowned.iter().map(|file| (file, files.in_site(&file.path)));
    let editable = environment.editables.iter().flat_map(|e| &e.files).map(|file| (file, Some(file.path.as_bytes())));
    let compiled = compiled(&environment.unowned);
    let (mut entries, mut left_out) = (Vec::new(), Vec::new());
    for (file, path) in unowned.chain(editable).filter(|(file, _)| !is_cached(&file.path)) {
        let reserved = |path: &[u8]| RESERVED.iter().any(|name| path.split(|b| *b == b'/').next() == Some(name));
        let path = path.filter(|path| !reserved(path)).and_then(|path| SafePath::new(path).ok());
        let entry = path.as_ref().and_then(|path| files.entry(file, path.clone()));
        let (Some(path), Some(entry)) = (path, entry) else {
            left_out.push(file.path.to_string());
            continue;
        };
        entries.extend(files.byte_code(file, &path, &compiled));
        entries.push(entry);
    }
    let warning = |first: &String| {
        format!("{} files that belong to no distribution have no place in a PEX: {first} …", left_out.len())
    };
    Ok((entries, left_out.first().map(warning).into_iter().collect()))
}

pub(super) fn of_distribution(files: &Files<'_>, distribution: &Distribution, form: Form) -> Result<Chroot, PexError> {
    let info = Info::of(files, distribution, form)?;
    let (entries, shipped) = (Vec::new(), BTreeMap::new());
    let mut making = Making { files, distribution, entries, shipped, strangers: Vec::new(), left_out: Vec::new() };
    let compiled = compiled(&distribution.files);
    let mut byte_code = Vec::new();
    for file in distribution.files.iter().filter(|file| !is_cached(&file.path)) {
        let Some(path) = making.add(file, &info)? else { continue };
        byte_code.extend(files.byte_code(file, &path, &compiled).filter(|_| files.in_site(&file.path).is_some()));
    }
    for (name, text) in &info.made {
        let mut text = text.clone();
        if *name == "METADATA" {
            let readable = metadata::readable(&text);
            making.left_out(readable.left_out);
            text = readable.text.unwrap_or(text);
        }
        making.put(safe(distribution, &format!("{}/{name}", info.directory))?, text);
    }
    making.put_record(&info)?;
    let Making { mut entries, strangers, left_out, .. } = making;
    if form == Form::Wheel {
        return Ok(Chroot { wheel: info.wheel, fingerprint: String::new(), entries, strangers, left_out });
    }
    let fingerprint = hash::sha256(&entries)?;
    let layout = format!(
        r#"{{"fingerprint":"{fingerprint}","record_relpath":{record},"root_is_purelib":{pure},"stash_dir":"{STASH}","sys_path_entries":["."]}}"#,
        record = serde_json::Value::from(format!("{}/RECORD", info.directory)),
        pure = info.is_pure,
    );
    entries.push(bytes_entry(safe(distribution, ".layout.json")?, layout.into_bytes()));
    entries.append(&mut byte_code);
    Ok(Chroot { wheel: info.wheel, fingerprint, entries, strangers, left_out })
}

fn bytes_entry(path: SafePath, bytes: Vec<u8>) -> Entry {
    Entry { path, kind: Kind::File, body: Body::Bytes(bytes) }
}

fn safe(distribution: &Distribution, path: &str) -> Result<SafePath, PexError> {
    SafePath::new(path.as_bytes())
        .map_err(|e| PexError::Distribution { distribution: distribution.display_name.clone(), reason: e.to_string() })
}

/// A distribution's metadata, as the chroot has it.
#[derive(Debug)]
struct Info {
    form: Form,
    directory: String,
    /// Where scripts and data files are.
    scripts: String,
    data: String,
    /// The file name of its wheel.
    wheel: String,
    is_pure: bool,
    record: Option<Vec<Row>>,
    /// The files whose rows have a hash. All others get one.
    hashed: HashSet<SafePath>,
    /// Metadata files that the distribution lacks: name and text.
    made: Vec<(&'static str, Vec<u8>)>,
}

impl Info {
    fn of(files: &Files<'_>, distribution: &Distribution, form: Form) -> Result<Self, PexError> {
        let name = distribution.info.components().next_back().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        let find = |name: &str| {
            let path = format!("{}/{name}", distribution.info);
            distribution.files.iter().find(|file| file.path.as_bytes() == path.as_bytes())
        };
        let text = |name| find(name).map(|file| files.read(file)).transpose();
        let escaped = distribution.display_name.replace(['-', '.', ' '], "_");
        let (directory, has_wheel) = match name.strip_suffix(".dist-info") {
            Some(_) => (name.clone(), text("WHEEL")?),
            None => (format!("{escaped}-{}.dist-info", distribution.version), None),
        };
        let mut made = Vec::new();
        if !name.ends_with(".dist-info") {
            let as_file = distribution.files.iter().find(|file| file.path == distribution.info);
            let metadata = match as_file {
                Some(file) => Some(files.read(file)?),
                None => text("PKG-INFO")?,
            };
            let least = format!(
                "Metadata-Version: 2.1\nName: {}\nVersion: {}\n",
                distribution.display_name, distribution.version
            );
            made.push(("METADATA", metadata.unwrap_or_else(|| least.into_bytes())));
            made.extend(text("entry_points.txt")?.map(|text| ("entry_points.txt", text)));
            made.extend(text("top_level.txt")?.map(|text| ("top_level.txt", text)));
        }
        let is_native = distribution.files.iter().any(|file| file.path.as_bytes().ends_with(b".so"));
        let tags = if distribution.tags.is_empty() {
            vec![own_tag(files.environment, is_native)]
        } else {
            distribution.tags.clone()
        };
        let wheel_text = has_wheel.as_deref().map(String::from_utf8_lossy);
        let is_pure = match &wheel_text {
            Some(text) => text.lines().any(|line| line.to_ascii_lowercase().replace(' ', "") == "root-is-purelib:true"),
            None => !is_native,
        };
        if wheel_text.is_none() {
            let tags: String = tags.iter().map(|tag| format!("Tag: {tag}\n")).collect();
            let text = format!("Wheel-Version: 1.0\nGenerator: cluster-pack\nRoot-Is-Purelib: {is_pure}\n{tags}");
            made.push(("WHEEL", text.into_bytes()));
        }
        let record = text("RECORD")?.and_then(|bytes| record::parse(&bytes).ok());
        let rows = record.iter().flatten().filter(|row| row.hash.is_some());
        let site = &files.environment.site_packages;
        let hashed = rows.filter_map(|row| record::locate(&row.path, Some(site), &files.prefixes)).collect();
        let stem = directory.strip_suffix(".dist-info").unwrap_or(&directory);
        let wheel = format!("{stem}-{}.whl", compressed_tags(&tags));
        let [scripts, data] = match form {
            Form::Chroot => ["bin", "data"].map(|name| format!("{STASH}/{name}")),
            Form::Wheel => ["scripts", "data"].map(|name| format!("{stem}.data/{name}")),
        };
        Ok(Self { form, directory, scripts, data, wheel, is_pure, record, hashed, made })
    }
}

/// The tag of a distribution without tags: for this interpreter if it has libraries, else for any.
fn own_tag(environment: &Environment, is_native: bool) -> String {
    let python = &environment.python;
    let cp = format!("cp{}", python.tag.replace('.', ""));
    if is_native { format!("{cp}-{cp}-{}", python.platform.replace(['-', '.'], "_")) } else { "py3-none-any".into() }
}

/// `py2-none-any` and `py3-none-any` as `py2.py3-none-any`: PEP 425's compressed tag set.
fn compressed_tags(tags: &[String]) -> String {
    let mut parts: [Vec<&str>; 3] = Default::default();
    for tag in tags {
        for (part, text) in parts.iter_mut().zip(tag.splitn(3, '-')) {
            for one in text.split('.').filter(|one| !one.is_empty()) {
                if !part.contains(&one) {
                    part.push(one);
                }
            }
        }
    }
    parts.map(|part| part.join(".")).join("-")
}

struct Making<'a> {
    files: &'a Files<'a>,
    distribution: &'a Distribution,
    entries: Vec<Entry>,
    /// By path below [`BASE`].
    shipped: BTreeMap<SafePath, Shipped>,
    strangers: Vec<String>,
    left_out: Vec<String>,
}

impl Making<'_> {
    /// Adds a file. Returns its path in the chroot, if it may be a module.
    fn add(&mut self, file: &FileStat, info: &Info) -> Result<Option<SafePath>, PexError> {
        let in_site = self.files.in_site(&file.path).map(|path| String::from_utf8_lossy(path).into_owned());
        if let Some(name) = in_site.as_ref().and_then(|path| path.strip_prefix(&format!("{}/", info.directory))) {
            match name {
                "RECORD" | "INSTALLER" | "REQUESTED" | "uv_build.json" | "uv_cache.json" => return Ok(None),
                "direct_url.json" if info.form == Form::Wheel => return Ok(None),
                "METADATA" => {
                    let Readable { text, left_out } = metadata::readable(&self.files.read(file)?);
                    self.left_out(left_out);
                    if let Some(text) = text {
                        self.put(safe(self.distribution, &format!("{}/{name}", info.directory))?, text);
                        return Ok(None);
                    }
                }
                "direct_url.json" => {
                    let path = safe(self.distribution, &format!("{}/{name}", info.directory))?;
                    let text = direct_url::reduce(&self.files.read(file)?);
                    text.into_iter().for_each(|text| self.put(path.clone(), text));
                    return Ok(None);
                }
                _ => {}
            }
        } else if file.path.as_bytes().starts_with(self.distribution.info.as_bytes())
            && !self.distribution.info.as_bytes().ends_with(b".dist-info")
        {
            // `Info::made` replaces the old forms of metadata.
            return Ok(None);
        }
        let text = file.path.to_string();
        let path = match (in_site, text.strip_prefix("bin/")) {
            (Some(path), _) => safe(self.distribution, &path)?,
            // An installer makes it.
            (None, Some(name)) if info.form == Form::Wheel && self.is_entry_point(name) => return Ok(None),
            (None, Some(name)) => return self.add_script(file, &format!("{}/{name}", info.scripts)),
            (None, None) => safe(self.distribution, &format!("{}/{text}", info.data))?,
        };
        let Some(entry) = self.files.entry(file, path.clone()) else { return Ok(None) };
        let is_listed = info.hashed.contains(&file.path) && !matches!(file.kind, FileKind::Link(_));
        let is_suspect = self.distribution.suspects.iter().any(|suspect| suspect.path == file.path);
        let shipped = if is_listed && !is_suspect { Shipped::Kept } else { Shipped::changed(&self.files.read(file)?) };
        self.ship(&path, shipped);
        self.entries.push(entry);
        Ok(Some(path))
    }

    fn is_entry_point(&self, script: &str) -> bool {
        self.distribution.entry_points.iter().any(|entry| entry.name == script)
    }

    fn add_script(&mut self, file: &FileStat, path: &str) -> Result<Option<SafePath>, PexError> {
        let path = safe(self.distribution, path)?;
        let bytes = self.files.read(file)?;
        let environment = self.files.environment;
        let interpreters = self.files.interpreters.at(&environment.source(file), &environment.python.base_executable);
        let bytes = match script::as_in_wheel(&bytes, &interpreters) {
            Ok(script) => script,
            Err(Script::Stranger(python)) => {
                self.strangers.push(format!("{} (#!{python})", file.path));
                bytes
            }
            Err(_) => bytes,
        };
        self.ship(&path, Shipped::changed(&bytes));
        self.entries.push(Entry { path, kind: Kind::Executable, body: Body::Bytes(bytes) });
        Ok(None)
    }

    fn left_out(&mut self, headers: Vec<String>) {
        let Distribution { display_name, version, .. } = self.distribution;
        self.left_out.extend(headers.into_iter().map(|header| format!("{display_name} {version}: {header}")));
    }

    fn put(&mut self, path: SafePath, bytes: Vec<u8>) {
        self.ship(&path, Shipped::changed(&bytes));
        self.entries.push(bytes_entry(path, bytes));
    }

    fn ship(&mut self, path: &SafePath, shipped: Shipped) {
        let path = SafePath::new(&[BASE.as_bytes(), b"/", path.as_bytes()].concat());
        self.shipped.extend(path.ok().map(|path| (path, shipped)));
    }

    /// Adds the RECORD of all files that were added.
    fn put_record(&mut self, info: &Info) -> Result<(), PexError> {
        let site = &self.files.environment.site_packages;
        let base = safe(self.distribution, BASE)?;
        let rows = info.record.iter().flatten().filter_map(|row| {
            let path = record::locate(&row.path, Some(site), &self.files.prefixes)?;
            let path = match self.files.in_site(&path) {
                Some(path) => path.to_vec(),
                None => format!("{}/{path}", info.data).into_bytes(),
            };
            Some(Row { path, ..row.clone() })
        });
        let rows: Vec<Row> = rows.collect();
        let path = safe(self.distribution, &format!("{}/RECORD", info.directory))?;
        self.ship(&path, Shipped::Unhashed);
        let text = record::rewrite(&rows, Some(&base), &[], &self.shipped);
        self.entries.push(bytes_entry(path, text));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compressed_as_wheel_names_have_them() {
        for (tags, name) in [
            (&["py3-none-any"][..], "py3-none-any"),
            (&["py2-none-any", "py3-none-any"], "py2.py3-none-any"),
            (
                &["cp311-cp311-manylinux_2_17_x86_64", "cp311-cp311-manylinux2014_x86_64"],
                "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64",
            ),
        ] {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            assert_eq!(compressed_tags(&tags), name);
        }
    }
}
