//! `cluster-pack info`: the contents of an environment or artifact, the largest layers, and what changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use cpack_discover::{Editable, Environment};
use cpack_format::Digest;
use cpack_format::job::{self, Job};
use cpack_format::launcher::{Appended, LauncherError};
use cpack_format::manifest::{LayerKind, MAX_JSON, Manifest};
use cpack_pex::info::InheritPath;
use cpack_pex::{self, Pex};
use cpack_store::{Key, Store};
use cpack_unpack::Archive;
use serde::Serialize;

use crate::cli::arguments::{Info, JobArguments};
use crate::cli::context::Context;
use crate::cli::error::CommandError;
use crate::cli::output::{bytes, count, table};
use crate::publish::read_name;
use crate::unpack_archive::{UnpackArchiveError, unpack_wheels};

/// Begins the layout of a wheelhouse.
const WHEELHOUSE: &str = "wheelhouse";

/// What `info --json` prints: an environment, a launcher, a manifest or a PEX.
#[derive(Debug, Default, Serialize)]
struct Content {
    what: String,
    python: String,
    platform: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<String>,
    packed_bytes: Option<u64>,
    unpacked_bytes: u64,
    parts: Vec<Part>,
    entry_points: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    editables: Vec<Project>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pex: Option<PexFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Changes>,
}

/// Facts of PEX-INFO.
#[derive(Debug, Serialize)]
struct PexFacts {
    layout: String,
    starts: String,
    pex_hash: Option<String>,
    requirements: Vec<String>,
    interpreter_constraints: Vec<String>,
    /// Settings that differ from their defaults.
    settings: Vec<String>,
}

/// A layer, or a distribution that may become one.
#[derive(Debug, Clone, Serialize)]
struct Part {
    name: String,
    version: String,
    kind: LayerKind,
    files: u64,
    unpacked_bytes: u64,
    packed_bytes: Option<u64>,
    #[serde(skip)]
    content: Option<Digest>,
}

#[derive(Debug, Clone, Serialize)]
struct Project {
    name: String,
    version: String,
    directory: String,
    /// The folder of each package and the file of each module, by the name to import.
    sources: BTreeMap<String, String>,
}

impl Project {
    fn new(editable: &Editable) -> Self {
        let shown = |path: &Path| path.display().to_string();
        Self {
            name: editable.display_name.clone(),
            version: editable.version.clone(),
            directory: shown(&editable.project_dir),
            sources: editable.sources.iter().map(|s| (s.name.clone(), shown(&s.path))).collect(),
        }
    }
}

/// The differences from another artifact.
#[derive(Debug, Serialize)]
struct Changes {
    against: String,
    added: Vec<String>,
    removed: Vec<String>,
    changed: Vec<String>,
    /// The packed size of layers that the other artifact lacks, if it is known.
    fetch_bytes: Option<u64>,
}

pub(in crate::cli) fn info(context: &Context, arguments: &Info) -> Result<(), CommandError> {
    let mut content = match &arguments.artifact {
        None => of_environment(&context.environment()?),
        Some(artifact) => load(context, artifact)?,
    };
    if let Some(against) = &arguments.against {
        content.changes = Some(compare(&content, &load(context, against)?));
    }
    context.voice.answer(render(&content, arguments.top), &content);
    Ok(())
}

fn of_environment(environment: &Environment) -> Content {
    let part = |name: &str, version: &str, kind, files: &[cpack_discover::FileStat]| Part {
        name: name.to_owned(),
        version: version.to_owned(),
        kind,
        files: files.len() as u64,
        unpacked_bytes: files.iter().map(|f| f.size).sum(),
        packed_bytes: None,
        content: None,
    };
    let distributions = environment.distributions.iter();
    let mut parts: Vec<Part> =
        distributions.map(|d| part(&d.name, &d.version, LayerKind::Distribution, &d.files)).collect();
    let packages = environment.packages.iter();
    parts.extend(packages.map(|p| part(&p.name, &p.version, LayerKind::Conda, &p.files)));
    parts.extend(environment.editables.iter().map(|e| part(&e.name, &e.version, LayerKind::Overlay, &e.files)));
    if !environment.unowned.is_empty() {
        parts.push(part("unowned", "", LayerKind::Unowned, &environment.unowned));
    }
    let entry_points = environment.entry_points().map(|e| e.name.clone());
    Content {
        what: environment.prefix.display().to_string(),
        python: environment.python.version.clone(),
        platform: environment.python.platform.clone(),
        unpacked_bytes: parts.iter().map(|p| p.unpacked_bytes).sum(),
        parts,
        entry_points: entry_points.collect(),
        editables: environment.editables.iter().map(Project::new).collect(),
        ..Content::default()
    }
}

/// Loads an archive, PEX, wheelhouse, launcher or manifest on disk, a manifest at a URI, or a name in the store, in this order.
fn load(context: &Context, artifact: &str) -> Result<Content, CommandError> {
    let path = Path::new(artifact);
    if let Some(archive) = Archive::open(path).map_err(UnpackArchiveError::from)? {
        return of_archive(context, artifact, &archive);
    }
    if cpack_pex::is_pex(path) {
        return of_pex(artifact, &cpack_pex::open(path).map_err(crate::pex::PexError::from)?);
    }
    if path.is_file() {
        let bytes = fs::read(path).map_err(CommandError::io("read", path))?;
        return from_file(context, artifact, &bytes);
    }
    if let Some((store, id)) = artifact.rsplit_once("/environments/") {
        let store = context.open_store(store)?;
        let id = id.trim_end_matches(".json").parse::<Digest>();
        let id = id.map_err(|e| CommandError::Usage(format!("{artifact}: {e}")))?;
        return from_store(store.as_ref(), &id, artifact);
    }
    let (store, name) = match artifact.rsplit_once("/names/") {
        Some((store, name)) => (context.open_store(store)?, name.trim_end_matches(".json")),
        None => (context.store()?, artifact),
    };
    match read_name(store.as_ref(), name)? {
        Some(record) => from_store(store.as_ref(), &record.environment, name),
        None => Err(CommandError::NotFound(format!(
            "{artifact:?} is neither a file nor a name in {}: name a launcher, a manifest or an uploaded name",
            store.uri()
        ))),
    }
}

/// What is in an archive: the environment that it becomes, or its wheels. Unpacks it, as an upload does.
fn of_archive(context: &Context, what: &str, archive: &Archive) -> Result<Content, CommandError> {
    if let Some(wheels) = unpack_wheels(archive, &context.cache)? {
        return of_pex(what, &cpack_pex::open(&wheels).map_err(crate::pex::PexError::from)?);
    }
    let (context, _) = context.of_artifact(&archive.path, &JobArguments::default())?;
    let size = fs::metadata(&archive.path).map_err(CommandError::io("read", &archive.path))?.len();
    let content = of_environment(&context.environment()?);
    Ok(Content { what: what.to_owned(), packed_bytes: Some(size), ..content })
}

fn of_pex(what: &str, pex: &Pex) -> Result<Content, CommandError> {
    let sizes = pex.sizes().map_err(crate::pex::PexError::from)?;
    let part = |(wheel, sizes): (Option<String>, cpack_pex::file::Sizes)| {
        let mut name = wheel.as_deref().unwrap_or_default().split('-').map(str::to_owned);
        Part {
            name: wheel.as_ref().and_then(|_| name.next()).unwrap_or_else(|| "code and runtime".into()),
            version: name.next().unwrap_or_default(),
            kind: if wheel.is_some() { LayerKind::Distribution } else { LayerKind::Unowned },
            files: sizes.files,
            unpacked_bytes: sizes.unpacked,
            packed_bytes: Some(sizes.packed),
            content: None,
        }
    };
    let platforms = pex.info.distributions.keys().filter_map(|wheel| Some(cpack_pex::tags::parts(wheel)?.2));
    let mut platforms: Vec<&str> = platforms.filter(|platform| *platform != "any").collect();
    platforms.sort_unstable();
    platforms.dedup();
    let parts: Vec<Part> = sizes.into_iter().map(part).collect();
    Ok(Content {
        what: what.to_owned(),
        python: pex.minor.clone().unwrap_or_else(|| "3".into()),
        platform: if platforms.is_empty() { "any".into() } else { platforms.join(", ") },
        packed_bytes: Some(parts.iter().filter_map(|p| p.packed_bytes).sum()),
        unpacked_bytes: parts.iter().map(|p| p.unpacked_bytes).sum(),
        parts,
        entry_points: pex.info.entry_point.iter().chain(&pex.info.script).cloned().collect(),
        pex: Some(pex_facts(pex)),
        ..Content::default()
    })
}

fn pex_facts(pex: &Pex) -> PexFacts {
    let info = &pex.info;
    let flag = |set: bool, text: &str| set.then(|| text.to_owned());
    let settings = [
        flag(info.venv, "runs as a virtual environment"),
        flag(info.deps_are_wheel_files, "holds wheel files"),
        flag(
            info.inherit_path != InheritPath::False,
            &format!("inherits the path: {:?}", info.inherit_path).to_lowercase(),
        ),
        flag(!info.merged_paths().is_empty(), &format!("merges {}", info.merged_paths().join(", "))),
        flag(!info.inject_args.is_empty(), &format!("puts {} before its arguments", info.inject_args.join(" "))),
        flag(
            !info.inject_env.is_empty(),
            &format!("sets {}", info.inject_env.keys().cloned().collect::<Vec<_>>().join(", ")),
        ),
        flag(info.ignore_errors, "starts without what is required"),
    ];
    let starts = match (&info.script, &info.entry_point) {
        (Some(script), _) => format!("script {script}"),
        (_, Some(entry)) => entry.clone(),
        _ => "python".into(),
    };
    PexFacts {
        layout: pex.layout().into(),
        starts,
        pex_hash: info.pex_hash.clone(),
        requirements: info.requirements.clone(),
        interpreter_constraints: info.interpreter_constraints.clone(),
        settings: settings.into_iter().flatten().collect(),
    }
}

fn from_file(context: &Context, what: &str, file: &[u8]) -> Result<Content, CommandError> {
    let document = |error| CommandError::Document { what: what.to_owned(), error };
    let damaged = |e: LauncherError| CommandError::Damaged(format!("{what}: {e}"));
    let Some(opened) = Appended::of(file).map_err(damaged)? else {
        return Ok(of_manifest(what, &Manifest::parse(file).map_err(document)?, None));
    };
    let job = opened.file(job::FILE_NAME);
    let job = job.ok_or_else(|| CommandError::Damaged(format!("{what}: it has no {}", job::FILE_NAME)))?;
    let job = Job::parse(job).map_err(document)?;
    let manifest = match opened.file(job::MANIFEST_NAME) {
        Some(bytes) => Manifest::parse(bytes).map_err(document)?,
        None => read_manifest(context.open_store(&job.store)?.as_ref(), &job.environment, what)?,
    };
    Ok(of_manifest(what, &manifest, Some(&job)))
}

fn from_store(store: &dyn Store, id: &Digest, what: &str) -> Result<Content, CommandError> {
    let manifest = read_manifest(store, id, what)?;
    let mut content = of_manifest(what, &manifest, None);
    content.store = Some(store.uri().to_string());
    Ok(content)
}

fn read_manifest(store: &dyn Store, id: &Digest, what: &str) -> Result<Manifest, CommandError> {
    let bytes = store.read(&Key::environment(id), MAX_JSON)?;
    Manifest::parse(&bytes).map_err(|error| CommandError::Document { what: what.to_owned(), error })
}

fn of_manifest(what: &str, manifest: &Manifest, job: Option<&Job>) -> Content {
    let overlays = job.map(|j| j.overlays.as_slice()).unwrap_or_default();
    let part = |layer: &cpack_format::manifest::Layer| Part {
        name: layer.name.clone(),
        version: layer.version.clone(),
        kind: layer.kind,
        files: layer.archive.files,
        unpacked_bytes: layer.archive.unpacked,
        packed_bytes: Some(layer.archive.size),
        content: Some(layer.content),
    };
    let parts: Vec<Part> = manifest.layers.iter().chain(overlays).map(part).collect();
    Content {
        what: what.to_owned(),
        python: manifest.python.version.clone(),
        platform: manifest.python.platform.clone(),
        environment: Some(manifest.id().to_hex()),
        store: job.map(|j| j.store.clone()),
        packed_bytes: Some(parts.iter().filter_map(|p| p.packed_bytes).sum()),
        unpacked_bytes: parts.iter().map(|p| p.unpacked_bytes).sum(),
        parts,
        entry_points: manifest.entry_points.iter().map(|e| e.name.clone()).collect(),
        ..Content::default()
    }
}

fn compare(here: &Content, there: &Content) -> Changes {
    let index = |content: &Content| -> BTreeMap<String, Part> {
        content.parts.iter().map(|p| (p.name.clone(), p.clone())).collect()
    };
    let (new, old) = (index(here), index(there));
    let label = |part: &Part| format!("{} {}", part.name, part.version).trim_end().to_owned();
    let differs = |a: &Part, b: &Part| match (a.content, b.content) {
        (Some(a), Some(b)) => a != b,
        _ => a.version != b.version,
    };
    let mut fresh: Vec<&Part> = Vec::new();
    let mut changed = Vec::new();
    for part in new.values() {
        match old.get(&part.name) {
            None => fresh.push(part),
            Some(before) if differs(part, before) => changed.push((part, before)),
            Some(_) => {}
        }
    }
    let fetched = fresh.iter().copied().chain(changed.iter().map(|(part, _)| *part));
    Changes {
        against: there.what.clone(),
        fetch_bytes: fetched.map(|p| p.packed_bytes).sum(),
        added: fresh.into_iter().map(label).collect(),
        removed: old.values().filter(|p| !new.contains_key(&p.name)).map(label).collect(),
        changed: changed
            .into_iter()
            .map(|(part, before)| match part.version == before.version {
                true => format!("{} (other files)", label(part)),
                false => format!("{} {} -> {}", part.name, before.version, part.version),
            })
            .collect(),
    }
}

fn render(content: &Content, top: usize) -> String {
    let mut facts = vec![vec!["Artifact".to_owned(), content.what.clone()]];
    facts.push(vec!["Python".into(), format!("{} on {}", content.python, content.platform)]);
    if let Some(id) = &content.environment {
        facts.push(vec!["Environment".into(), id.clone()]);
    }
    if let Some(pex) = &content.pex {
        let name = if pex.layout.starts_with(WHEELHOUSE) { "Form" } else { "PEX" };
        facts.push(vec![name.into(), format!("{}, starts {}", pex.layout, pex.starts)]);
        for (name, all) in [
            ("Requires", pex.requirements.join(", ")),
            ("Constraints", pex.interpreter_constraints.join(" or ")),
            ("Settings", pex.settings.join("; ")),
        ] {
            if !all.is_empty() {
                facts.push(vec![name.into(), all]);
            }
        }
    }
    if let Some(store) = &content.store {
        facts.push(vec!["Store".into(), store.clone()]);
    }
    let packed = content.packed_bytes.map(|b| format!(", {} packed", bytes(b))).unwrap_or_default();
    let files: u64 = content.parts.iter().map(|p| p.files).sum();
    facts.push(vec!["Size".into(), format!("{}{packed}, {files} files", bytes(content.unpacked_bytes))]);
    facts.push(vec!["Layers".into(), summary(&content.parts)]);
    let mut text = table(&facts, &[]);
    let mut largest: Vec<&Part> = content.parts.iter().collect();
    largest.sort_by_key(|p| std::cmp::Reverse(p.unpacked_bytes));
    let mut rows = vec![["Largest", "Version", "Files", "Size", "Packed"].map(str::to_owned).to_vec()];
    rows.extend(largest.iter().take(top).map(|p| {
        let packed = p.packed_bytes.map(bytes).unwrap_or_default();
        vec![p.name.clone(), p.version.clone(), p.files.to_string(), bytes(p.unpacked_bytes), packed]
    }));
    if rows.len() > 1 {
        text.push_str("\n\n");
        text.push_str(&table(&rows, &[2, 3, 4]));
    }
    if let Some(changes) = &content.changes {
        text.push_str("\n\n");
        text.push_str(&render_changes(changes));
    }
    text
}

fn render_changes(changes: &Changes) -> String {
    let mut lines = vec![format!("Against {}", changes.against)];
    for (sign, parts) in [("+", &changes.added), ("-", &changes.removed), ("~", &changes.changed)] {
        lines.extend(parts.iter().map(|p| format!("  {sign} {p}")));
    }
    match (lines.len(), changes.fetch_bytes) {
        (1, _) => lines.push("  nothing changed".into()),
        (_, Some(fetch)) => lines.push(format!("  {} to fetch", bytes(fetch))),
        _ => {}
    }
    lines.join("\n")
}

fn summary(parts: &[Part]) -> String {
    let of = |kind| parts.iter().filter(|p| p.kind == kind).count();
    let named = [
        (of(LayerKind::Distribution), "distribution"),
        (of(LayerKind::Conda), "conda package"),
        (of(LayerKind::Overlay), "editable project"),
        (of(LayerKind::Interpreter), "interpreter"),
        (of(LayerKind::Payload), "payload"),
    ];
    let mut words: Vec<String> = named.into_iter().filter(|(n, _)| *n > 0).map(|(n, noun)| count(n, noun)).collect();
    if of(LayerKind::Unowned) > 0 {
        words.push("files that no distribution owns".into());
    }
    words.join(", ")
}
