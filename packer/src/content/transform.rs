//! Carries out a plan: reads what must be read, on all cores, and gives the entries of a layer.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use cpack_artifact::SafePath;
use cpack_artifact::content::Kind;
use rayon::prelude::*;

use super::compile::{CompileError, Compiled, Compilers};
use super::plan::{Action, Installed, Planned, Rules, plan};
use super::pyc::{self, Source};
use super::record::{self, RecordError, Row, Shipped};
use super::{direct_url, script};
use crate::layer::{Body, Entry};

/// Largest file in `bin/` that may be a script that installers wrote; theirs have some hundred bytes.
const MAX_SCRIPT: u64 = 1 << 20;

/// The environment that the files are from.
#[derive(Debug)]
pub struct Transformer<'a> {
    /// The ways in which its path may be spelt in scripts and in `RECORD`: as named, with links resolved.
    pub prefixes: Vec<Vec<u8>>,
    /// How sources get byte-code; without it they travel alone.
    pub byte_code: Option<ByteCode<'a>>,
}

/// How sources get byte-code.
#[derive(Debug)]
pub struct ByteCode<'a> {
    /// Compile those for which the environment has none that is valid. Their limit is best the number of threads.
    pub compilers: &'a Compilers,
    /// The interpreter's cache tag: `cpython-311`.
    pub tag: &'a str,
    /// The directory whose sources get byte-code, `None` for all: `lib/python3.11`.
    pub modules: Option<SafePath>,
}

/// The files of a layer.
#[derive(Debug, Default)]
pub struct Transformed {
    /// What is packed, in the order of paths.
    pub entries: Vec<Entry>,
    /// What the user may want to know, in the order of paths.
    pub remarks: Vec<Remark>,
    /// How many sources kept the byte-code that they had.
    pub reused: usize,
    /// How many sources were compiled.
    pub compiled: usize,
}

/// Something about one file that does not stand in the way of packing the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The installed file.
    pub path: SafePath,
    /// What about it.
    pub about: About,
}

/// What a [`Remark`] says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// It is not what its distribution installed; it is packed as it is.
    Modified,
    /// It travels without byte-code: why.
    NoByteCode(String),
    /// It is left out: why.
    LeftOut(String),
}

/// Why a layer's files cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TransformError {
    /// An installed file cannot be read.
    #[error("cannot read {path}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The list of files is damaged.
    #[error("cannot understand {path}: reinstall the distribution", path = path.display())]
    Record {
        /// The `RECORD`.
        path: PathBuf,
        /// What is wrong with it.
        source: RecordError,
    },
    /// The interpreter fails, which is worse than a source that it refuses.
    #[error("cannot compile {path}", path = path.display())]
    Compile {
        /// The source.
        path: PathBuf,
        /// Why.
        source: CompileError,
    },
}

/// What became of one planned file.
#[derive(Debug, Default)]
struct Outcome {
    /// The file, and what `RECORD` is to say of it.
    entry: Option<(Entry, Shipped)>,
    about: Option<About>,
    reused: bool,
    compiled: bool,
}

impl Transformer<'_> {
    /// Makes the files of a layer from the installed `files`. `info` is the `.dist-info` directory of the distribution that
    /// they are; the files that nobody owns have none.
    ///
    /// Call it within a rayon pool: it uses all its threads. The result holds all byte-code, and no other large file.
    pub fn transform(&self, info: Option<&SafePath>, files: &[Installed]) -> Result<Transformed, TransformError> {
        self.transform_beside(info, files, &[])
    }

    /// The same for a distribution whose `RECORD` also lists the files `shared`, which are in other layers: its rows of
    /// them say what is there.
    pub fn transform_beside(
        &self,
        info: Option<&SafePath>,
        files: &[Installed],
        shared: &[Installed],
    ) -> Result<Transformed, TransformError> {
        let byte_code = self.byte_code.as_ref().map(|byte_code| (byte_code.modules.as_ref(), byte_code.tag));
        let planned = plan(files, Rules { info, byte_code });
        let record = planned.iter().find(|planned| planned.action == Action::Record);
        // `None` inside: that of an overlay is its root.
        let base = info.map(SafePath::parent);
        let rows = match record {
            Some(record) => parse_record(&record.from.place)?,
            None => Vec::new(),
        };
        let listed = self.listed(&rows, base.as_ref());
        let outcomes: Result<Vec<Outcome>, TransformError> =
            planned.par_iter().with_max_len(1).map(|planned| self.produce(planned, &listed)).collect();

        let mut all = Transformed::default();
        let mut shipped = BTreeMap::new();
        for (planned, outcome) in planned.iter().zip(outcomes?) {
            all.reused += usize::from(outcome.reused);
            all.compiled += usize::from(outcome.compiled);
            all.remarks.extend(outcome.about.map(|about| Remark { path: planned.from.path.clone(), about }));
            if let Some((entry, what)) = outcome.entry {
                shipped.insert(entry.path.clone(), what);
                all.entries.push(entry);
            }
        }
        if let (Some(record), Some(base)) = (record, base) {
            for planned in plan(shared, Rules { info: None, byte_code: None }) {
                shipped.extend(self.produce(&planned, &listed)?.entry.map(|(entry, what)| (entry.path, what)));
            }
            shipped.insert(record.path.clone(), Shipped::Unhashed);
            let text = record::rewrite(&rows, base.as_ref(), &self.prefixes, &shipped);
            all.entries.push(made(record, text));
        }
        all.entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        all.remarks.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(all)
    }

    /// Rows by where they lead, as far as they say what their file is.
    fn listed<'r>(&self, rows: &'r [Row], base: Option<&Option<SafePath>>) -> BTreeMap<SafePath, &'r Row> {
        let Some(base) = base else { return BTreeMap::new() };
        let described = rows.iter().filter(|row| row.hash.is_some());
        described.filter_map(|row| Some((record::locate(&row.path, base.as_ref(), &self.prefixes)?, row))).collect()
    }

    fn produce(&self, planned: &Planned<'_>, listed: &BTreeMap<SafePath, &Row>) -> Result<Outcome, TransformError> {
        match planned.action {
            Action::Copy => self.copy(planned, listed),
            Action::Script => {
                let mut outcome = self.copy(planned, listed)?;
                if let Some(text) = self.script(planned.from)? {
                    outcome.entry = Some(rewritten(planned, text));
                }
                Ok(outcome)
            }
            Action::ByteCode { installed } => self.byte_code(planned, installed),
            Action::DirectUrl => Ok(match direct_url::reduce(&read(&planned.from.place)?) {
                Ok(text) => Outcome { entry: Some(rewritten(planned, text)), ..Outcome::default() },
                Err(error) => Outcome { about: Some(About::LeftOut(error.to_string())), ..Outcome::default() },
            }),
            // It is made of the outcome of all others.
            Action::Record => Ok(Outcome::default()),
        }
    }

    /// The file as it is. It is read only where stat data says that `RECORD` may be wrong about it.
    fn copy(&self, planned: &Planned<'_>, listed: &BTreeMap<SafePath, &Row>) -> Result<Outcome, TransformError> {
        let from = planned.from;
        let mut outcome = Outcome { entry: Some((copied(planned), Shipped::Kept)), ..Outcome::default() };
        let row = listed.get(&from.path).filter(|_| from.target.is_empty());
        let Some((row, hash)) = row.and_then(|row| Some((row, row.hash.as_deref()?))) else { return Ok(outcome) };
        if from.suspect || row.size.is_some_and(|size| size != from.size) {
            let bytes = read(&from.place)?;
            if record::matches(hash, &bytes) != Some(true) {
                outcome.about = Some(About::Modified);
                outcome.entry = Some((copied(planned), Shipped::changed(&bytes)));
            }
        }
        Ok(outcome)
    }

    fn script(&self, from: &Installed) -> Result<Option<Vec<u8>>, TransformError> {
        let failed = |source| TransformError::Read { path: from.place.clone(), source };
        if from.size > MAX_SCRIPT {
            return Ok(None);
        }
        let mut file = File::open(&from.place).map_err(failed)?;
        let mut text = Vec::new();
        (&mut file).take(2).read_to_end(&mut text).map_err(failed)?;
        if text != b"#!" {
            return Ok(None);
        }
        file.read_to_end(&mut text).map_err(failed)?;
        Ok(script::relocate(&text, &self.prefixes))
    }

    fn byte_code(&self, planned: &Planned<'_>, installed: Option<&Installed>) -> Result<Outcome, TransformError> {
        let Some(ByteCode { compilers, .. }) = &self.byte_code else { return Ok(Outcome::default()) };
        let (magic, from) = (compilers.magic(), planned.from);
        let bytes = read(&from.place)?;
        let source = Source { bytes: &bytes, modified: from.modified };
        let path = from.path.as_bytes();
        if let Some(installed) = installed {
            // One that is there but cannot be used, for whatever reason, is as good as none.
            let old = fs::read(&installed.place).unwrap_or_default();
            let code = pyc::valid_code(&old, magic, source);
            if let Ok(new) = code.and_then(|code| pyc::unchecked(magic, &bytes, code, path)) {
                return Ok(Outcome { reused: true, ..Outcome::of_byte_code(planned, new) });
            }
        }
        let failed = |source| TransformError::Compile { path: from.place.clone(), source };
        let why = match compilers.compile(&bytes).map_err(failed)? {
            Compiled::Refused(why) => why,
            Compiled::Code(code) => match pyc::unchecked(magic, &bytes, &code, path) {
                Ok(new) => return Ok(Outcome { compiled: true, ..Outcome::of_byte_code(planned, new) }),
                Err(error) => error.to_string(),
            },
        };
        Ok(Outcome { about: Some(About::NoByteCode(why)), ..Outcome::default() })
    }
}

impl Outcome {
    fn of_byte_code(planned: &Planned<'_>, pyc: Vec<u8>) -> Self {
        let entry = Entry { path: planned.path.clone(), kind: Kind::File, body: Body::Bytes(pyc) };
        Self { entry: Some((entry, Shipped::Unhashed)), ..Self::default() }
    }
}

fn parse_record(path: &Path) -> Result<Vec<Row>, TransformError> {
    record::parse(&read(path)?).map_err(|source| TransformError::Record { path: path.to_owned(), source })
}

fn rewritten(planned: &Planned<'_>, bytes: Vec<u8>) -> (Entry, Shipped) {
    let shipped = Shipped::changed(&bytes);
    (made(planned, bytes), shipped)
}

fn made(planned: &Planned<'_>, bytes: Vec<u8>) -> Entry {
    Entry { path: planned.path.clone(), kind: planned.from.kind, body: Body::Bytes(bytes) }
}

fn copied(planned: &Planned<'_>) -> Entry {
    let from = planned.from;
    let body = match from.kind {
        Kind::Link | Kind::Directory => Body::Bytes(from.target.clone()),
        Kind::File | Kind::Executable => Body::File { path: from.place.clone(), size: from.size },
    };
    Entry { path: planned.path.clone(), kind: from.kind, body }
}

fn read(path: &Path) -> Result<Vec<u8>, TransformError> {
    fs::read(path).map_err(|source| TransformError::Read { path: path.to_owned(), source })
}
