//! Carries out a plan: reads what must be read, on all cores, and returns the entries of a layer.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use cpack_discover::record::{self, Row, Shipped};
use cpack_discover::{CondaPackage, Environment, FileKind, FileStat, Placeholder, PythonKind, Suspect, elf};
use cpack_format::SafePath;
use cpack_format::content::Kind;
use cpack_format::prefix::{Mode, Prefixes};
use rayon::prelude::*;

use super::compile::Compilers;
use super::conda::{self, Restored};
use super::facts::Facts;
use super::plan::{Action, FilePlan, Rules, plan};
use super::pyc::Source;
use super::script::{self, Interpreters, Script};
use super::{direct_url, prefix_text};
use crate::archive::{Body, Entry};
use crate::error::PackError;

/// Largest file in `bin/` that may be a script that installers wrote; theirs have some hundred bytes.
const MAX_SCRIPT: u64 = 1 << 20;

/// The installed files that become one layer.
#[derive(Debug, Clone, Default)]
pub struct LayerFiles<'a> {
    /// In the order of their paths.
    pub files: Cow<'a, [FileStat]>,
    /// The `.dist-info` directory, if the files are those of a distribution or of an editable project.
    pub info: Option<Cow<'a, SafePath>>,
    /// Files in other layers that `RECORD` lists, too: its rows of them say what is there.
    pub shared: Vec<FileStat>,
    /// Files that may differ from what RECORD says, so that they must be read.
    pub suspects: &'a [Suspect],
    /// The conda package that the files are.
    pub package: Option<&'a CondaPackage>,
    /// Whether the root of the files is on the path, as an overlay's is. Else only sources below the interpreter's library get
    /// byte-code.
    pub is_overlay: bool,
}

/// Makes the entries of layers of one environment.
#[derive(Debug)]
pub struct Transformer<'a> {
    environment: &'a Environment,
    compilers: &'a Compilers,
    prefixes: Vec<Vec<u8>>,
    interpreters: Interpreters,
    /// Whether text that names the environment's path is looked for: not in the prefix of a system, which all name.
    mends_text: bool,
    modules: Option<SafePath>,
}

/// The entry that a plan gives, with what `RECORD` will say of it, and what the user may want to know. Neither for RECORD, which
/// is made of the products of all other files.
/// Then the placeholder that it holds.
type Product = (Option<(Entry, Shipped)>, Option<Note>, Option<Placeholder>);

/// What packing learned of one file.
#[derive(Debug)]
enum Note {
    Modified,
    NotCompiled,
    LeftOut(String),
    /// A script that names another Python: which.
    Stranger(String),
    /// It names the environment's path, which is another one where it is booted.
    Prefix,
}

/// The rows of a RECORD, and what they say of the installed files.
struct Listed<'a> {
    /// Rows with a hash, by the file that they describe.
    rows: BTreeMap<SafePath, &'a Row>,
    suspects: HashSet<&'a SafePath>,
}

/// The ways in which scripts and `RECORD` may spell the path of the environment in `prefix`: as the user named it, and with
/// links resolved.
pub fn spellings(prefix: &Path) -> Vec<Vec<u8>> {
    let real = prefix.canonicalize().ok().filter(|real| real != prefix);
    [Some(prefix.to_owned()), real].into_iter().flatten().map(|path| path.as_os_str().as_bytes().to_vec()).collect()
}

impl<'a> Transformer<'a> {
    /// Layers of `environment`. `compilers` run its interpreter; their limit is best the number of threads.
    pub fn new(environment: &'a Environment, compilers: &'a Compilers) -> Self {
        // `lib/python3.11`
        let modules = environment.site_packages.parent();
        let prefixes = spellings(&environment.prefix);
        let interpreters = Interpreters::of(&prefixes);
        let mends_text = environment.python.kind != PythonKind::System;
        Self { environment, compilers, prefixes, interpreters, mends_text, modules }
    }

    /// Makes the entries of a layer, in the order of their paths.
    ///
    /// Uses all threads of the rayon pool that it is called in. The result holds all byte-code, and no other large file.
    pub fn transform(&self, layer: &LayerFiles<'_>) -> Result<(Vec<Entry>, Facts), PackError> {
        let modules = self.modules.as_ref().filter(|_| !layer.is_overlay);
        let cache_tag = &self.environment.python.cache_tag;
        let is_unknown = self.environment.is_whole_conda() && layer.is_unowned();
        let placeholders = layer.package.map(|package| &package.placeholders);
        let rules = Rules { info: layer.info.as_deref(), modules, cache_tag, placeholders, is_unknown };
        let plans = plan(&layer.files, rules);
        let record = plans.iter().find(|plan| plan.action == Action::Record);
        // `None` inside: that of an overlay is its root.
        let base = layer.info.as_deref().map(SafePath::parent).or(layer.package.map(|_| None));
        let rows = match layer.package {
            Some(package) => rows_of(&package.suspects),
            None => record.map(|record| self.parse_record(record.from)).transpose()?.unwrap_or_default(),
        };
        let listed = self.listed(&rows, base.as_ref().map(Option::as_ref), layer);
        let products: Result<Vec<Product>, PackError> =
            plans.par_iter().with_max_len(1).map(|plan| self.produce(plan, &listed, layer.package)).collect();

        let mut facts = self.library_facts(&layer.files);
        let mut entries = Vec::with_capacity(plans.len());
        let mut shipped = BTreeMap::new();
        for (plan, (product, note, held)) in plans.iter().zip(products?) {
            let path = &plan.from.path;
            if let Some(Placeholder { placeholder, mode, .. }) = &held {
                Prefixes::add(&mut facts.prefixes, placeholder, *mode, path.to_string());
            }
            match note {
                Some(Note::Modified) => facts.modified.push(path.to_string()),
                Some(Note::NotCompiled) => facts.not_compiled.push(path.to_string()),
                Some(Note::LeftOut(why)) => facts.left_out.push(format!("{path}: {why}")),
                Some(Note::Stranger(python)) => facts.strangers.push(format!("{path} (#!{python})")),
                Some(Note::Prefix) => facts.prefixed.push(path.to_string()),
                None => {}
            }
            if let Some((entry, what)) = product {
                shipped.insert(entry.path.clone(), what);
                entries.push(entry);
            }
        }
        if let (Some(record), Some(base)) = (record, base) {
            for plan in plan(&layer.shared, Rules { info: None, ..rules }) {
                if !matches!(plan.action, Action::ByteCode { .. }) {
                    shipped.extend(self.produce(&plan, &listed, None)?.0.map(|(entry, what)| (entry.path, what)));
                }
            }
            shipped.insert(record.path.clone(), Shipped::Unhashed);
            let text = record::rewrite(&rows, base.as_ref(), &self.prefixes, &shipped);
            entries.push(made(record, text));
        }
        entries.extend(layer.package.into_iter().flat_map(records));
        entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let Facts { modified, not_compiled, left_out, strangers, prefixed, .. } = &mut facts;
        for notes in [modified, not_compiled, left_out, strangers, prefixed] {
            notes.sort_unstable();
        }
        Ok((entries, facts))
    }

    fn library_facts(&self, files: &[FileStat]) -> Facts {
        let needs = elf::layer_needs(files.iter().map(|file| {
            let is_executable = file.kind == FileKind::Executable;
            (&file.path, is_executable, self.environment.source(file))
        }));
        Facts { run_paths: needs.run_paths, glibc: needs.glibc, ..Facts::default() }
    }

    fn listed<'r>(&self, rows: &'r [Row], base: Option<Option<&SafePath>>, layer: &'r LayerFiles<'_>) -> Listed<'r> {
        let described = rows.iter().filter(|row| row.hash.is_some());
        let located = |row: &'r Row| Some((record::locate(&row.path, base?, &self.prefixes)?, row));
        let shared = layer.shared.iter().map(|file| &file.path);
        let suspects = layer.suspects.iter().map(|suspect| &suspect.path).chain(shared).collect();
        Listed { rows: described.filter_map(located).collect(), suspects }
    }

    fn produce(
        &self,
        plan: &FilePlan<'_>,
        listed: &Listed<'_>,
        package: Option<&CondaPackage>,
    ) -> Result<Product, PackError> {
        match plan.action {
            Action::Restored(was) => self.restored(plan, was, package),
            Action::Copy => self.copy(plan, listed),
            Action::Script => {
                let (copied, note, _) = self.copy(plan, listed)?;
                let product = match self.script(plan.from)? {
                    Script::Ours(text) => (Some(rewritten(plan, text)), note, None),
                    Script::Stranger(python) => (copied, Some(Note::Stranger(python)), None),
                    Script::Other => (copied, note, None),
                };
                self.mend(plan, product)
            }
            Action::Text => {
                let product = self.copy(plan, listed)?;
                self.mend(plan, product)
            }
            Action::ByteCode { installed } => self.byte_code(plan, installed),
            Action::DirectUrl => Ok(match direct_url::reduce(&self.read(plan.from)?) {
                Ok(text) => (Some(rewritten(plan, text)), None, None),
                Err(error) => (None, Some(Note::LeftOut(error.to_string())), None),
            }),
            Action::Record => Ok((None, None, None)),
        }
    }

    /// The file as it is. It is read only where stat data says that `RECORD` may be wrong about it.
    fn copy(&self, plan: &FilePlan<'_>, listed: &Listed<'_>) -> Result<Product, PackError> {
        let from = plan.from;
        let (kind, body) = match &from.kind {
            FileKind::Link(target) => (Kind::Link, Body::Bytes(target.to_vec())),
            kind => (kind.content_kind(), Body::File { path: self.environment.source(from), size: from.size }),
        };
        let entry = Entry { path: plan.path.clone(), kind, body };
        let row = listed.rows.get(&from.path).filter(|_| kind != Kind::Link);
        if let Some((row, hash)) = row.and_then(|row| Some((row, row.hash.as_deref()?)))
            && (listed.suspects.contains(&from.path) || row.size.is_some_and(|size| size != from.size))
        {
            let bytes = self.read(from)?;
            if record::matches(hash, &bytes) != Some(true) {
                return Ok((Some((entry, Shipped::changed(&bytes))), Some(Note::Modified), None));
            }
        }
        Ok((Some((entry, Shipped::Kept)), None, None))
    }

    fn script(&self, from: &FileStat) -> Result<Script, PackError> {
        if from.size > MAX_SCRIPT {
            return Ok(Script::Other);
        }
        let path = self.environment.source(from);
        let read = || {
            let mut file = File::open(&path)?;
            let mut text = Vec::new();
            (&mut file).take(2).read_to_end(&mut text)?;
            if text == b"#!" {
                file.read_to_end(&mut text)?;
            }
            Ok(text)
        };
        let text = read().map_err(|source| PackError::Read { path: path.clone(), source })?;
        Ok(script::relocate(&text, &self.interpreters.at(&path, &self.environment.python.base_executable)))
    }

    /// Makes the environment's path relative in what the file has become so far.
    fn mend(&self, plan: &FilePlan<'_>, (mut product, mut note, _): Product) -> Result<Product, PackError> {
        if !self.mends_text || plan.from.size > MAX_SCRIPT {
            return Ok((product, note, None));
        }
        let bytes = match &product {
            Some((Entry { body: Body::Bytes(bytes), .. }, _)) => bytes.clone(),
            _ => self.read(plan.from)?,
        };
        let mended = prefix_text::mend(&plan.from.path, &bytes, &self.prefixes);
        if mended.names_prefix && self.environment.is_whole_conda() {
            let text = conda::with_own_placeholder(mended.text.as_ref().unwrap_or(&bytes), &self.prefixes);
            return Ok((Some(rewritten(plan, text)), note, Some(conda::own())));
        }
        if let Some(text) = mended.text {
            product = Some(rewritten(plan, text));
        }
        if mended.names_prefix && note.is_none() {
            note = Some(Note::Prefix);
        }
        Ok((product, note, None))
    }

    /// A file of a conda package, as it was built. A script for the environment's Python finds that beside itself.
    fn restored(
        &self,
        plan: &FilePlan<'_>,
        was: &Placeholder,
        package: Option<&CondaPackage>,
    ) -> Result<Product, PackError> {
        let path = self.environment.source(plan.from);
        let installed = self.read(plan.from)?;
        let unpacked = package.and_then(|package| package.unpacked.as_ref());
        let cached = unpacked.map(|unpacked| unpacked.join(plan.from.path.as_path()));
        let read_cached = || fs::read(cached.as_ref()?).ok();
        let Restored { bytes, is_original } = conda::restored(&installed, was, &self.prefixes, read_cached);
        let note = (!is_original).then_some(Note::Modified);
        if plan.from.path.as_bytes().starts_with(b"bin/") && was.mode == Mode::Text {
            let interpreters = self.interpreters.at(&path, &self.environment.python.base_executable);
            let short = self.prefixes.first().and_then(|prefix| conda::with_short_path(&installed, prefix));
            if let Script::Ours(text) = script::relocate(short.as_ref().unwrap_or(&installed), &interpreters) {
                let text = conda::restored_script(&text, &was.placeholder, &self.prefixes);
                let held = conda::holds(&text, &was.placeholder).then(|| was.clone());
                return Ok((Some(rewritten(plan, text)), None, held));
            }
        }
        let held = conda::holds(&bytes, &was.placeholder).then(|| was.clone());
        if is_original && bytes.len() as u64 > MAX_SCRIPT && was.mode == Mode::Binary {
            let make = conda::restore_later(&path, was, &self.prefixes, cached);
            let entry = Entry { body: Body::Made { size_hint: plan.from.size, make }, ..made(plan, Vec::new()) };
            return Ok((Some((entry, Shipped::Unhashed)), note, held));
        }
        Ok((Some(rewritten(plan, bytes)), note, held))
    }

    fn byte_code(&self, plan: &FilePlan<'_>, installed: Option<&FileStat>) -> Result<Product, PackError> {
        let from = plan.from;
        let bytes = self.read(from)?;
        let source = Source { bytes: &bytes, modified: from.mtime_ns.div_euclid(1_000_000_000) };
        let installed = installed.and_then(|pyc| fs::read(self.environment.source(pyc)).ok());
        let failed = |source| PackError::Compile { path: self.environment.source(from), source };
        let made = self.compilers.byte_code(source, installed.as_deref(), from.path.as_bytes()).map_err(failed)?;
        let Some(pyc) = made else { return Ok((None, Some(Note::NotCompiled), None)) };
        let entry = Entry { path: plan.path.clone(), kind: Kind::File, body: Body::Bytes(pyc) };
        Ok((Some((entry, Shipped::Unhashed)), None, None))
    }

    fn parse_record(&self, file: &FileStat) -> Result<Vec<Row>, PackError> {
        let failed = |source| PackError::Record { path: self.environment.source(file), source };
        record::parse(&self.read(file)?).map_err(failed)
    }

    fn read(&self, file: &FileStat) -> Result<Vec<u8>, PackError> {
        let path = self.environment.source(file);
        fs::read(&path).map_err(|source| PackError::Read { path, source })
    }
}

impl LayerFiles<'_> {
    /// Whether no distribution and no package owns the files.
    fn is_unowned(&self) -> bool {
        self.info.is_none() && self.package.is_none() && !self.is_overlay
    }
}

/// Rows that say of each suspect what was installed.
fn rows_of(suspects: &[Suspect]) -> Vec<Row> {
    let row = |s: &Suspect| Row { path: s.path.as_bytes().to_vec(), hash: Some(s.hash.clone()), size: None };
    suspects.iter().map(row).collect()
}

/// The record of a conda package. That of Python stands beside an empty history, by which conda knows its environments.
fn records(package: &CondaPackage) -> Vec<Entry> {
    let entry = |path, bytes| Entry { path, kind: Kind::File, body: Body::Bytes(bytes) };
    let history = SafePath::new(b"conda-meta/history").ok().filter(|_| package.name == "python");
    let record = entry(package.record.clone(), package.record_bytes.clone());
    history.map(|path| entry(path, Vec::new())).into_iter().chain([record]).collect()
}

fn rewritten(plan: &FilePlan<'_>, bytes: Vec<u8>) -> (Entry, Shipped) {
    let shipped = Shipped::changed(&bytes);
    (made(plan, bytes), shipped)
}

fn made(plan: &FilePlan<'_>, bytes: Vec<u8>) -> Entry {
    Entry { path: plan.path.clone(), kind: plan.from.kind.content_kind(), body: Body::Bytes(bytes) }
}
