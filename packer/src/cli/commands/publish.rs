//! `cluster-pack publish`: a file laid at a URI, with what it needs.
//!
//! A PEX stands alone. A launcher starts from the store that its job names, so a copy elsewhere would depend on a place that
//! its readers need not see. It is published as if it had been made there: its layers, manifest and overlays are copied
//! into the store of the destination (`--store`, else `.cluster-pack` beside it), and its job names that one.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use cpack_format::launcher::is_launcher;
use cpack_format::manifest::{Layer, MAX_JSON, Manifest};
use cpack_store::{Key, Source, Store, Watcher, Written, cluster_properties};
use serde::Serialize;
use serde_json::{Map, Value};

use super::package::{fill, lay, of_record};
use super::prepare::Remote;
use crate::cli::arguments::Publish;
use crate::cli::context::{Context, absolute, record_of};
use crate::cli::error::CommandError;
use crate::cli::output::bytes;
use crate::launcher::{BOOT, Launcher};
use crate::publish::{PublishError, Publisher, publish_launcher, publish_manifest, publish_name};

/// What `publish --json` prints.
#[derive(Debug, Default, Serialize)]
struct Report {
    uri: String,
    unchanged: bool,
    /// Of a launcher: what builders ship, which never changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    launcher: Option<String>,
    /// The executable that goes with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    /// The store that it needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<String>,
}

/// Lays a file at a URI.
pub(in crate::cli) fn publish(context: &Context, arguments: &Publish) -> Result<(), CommandError> {
    let metadata = serde_json::from_str(&arguments.metadata)
        .map_err(|error| CommandError::Usage(format!("--metadata is no JSON object: {error}")))?;
    let file = File::open(&arguments.file).map_err(CommandError::io("read", &arguments.file))?;
    let size = file.metadata().map_err(CommandError::io("read", &arguments.file))?.len();
    // `Launcher::read` refuses a damaged one.
    let report = if is_launcher(size, |bytes, at| file.read_exact_at(bytes, at)) {
        publish_whole(context, arguments, metadata)?
    } else {
        let written = lay(context, &arguments.uri, Source::File(&arguments.file), metadata, arguments.force)?;
        Report { uri: arguments.uri.clone(), unchanged: written == Written::Kept, ..Report::default() }
    };
    context.voice.answer(report.uri.clone(), &report);
    Ok(())
}

/// Publishes a launcher with what it needs.
fn publish_whole(context: &Context, arguments: &Publish, given: Map<String, Value>) -> Result<Report, CommandError> {
    let mut common = context.common.clone();
    fill(&mut common, &arguments.uri)?;
    let mut launcher = read(context, &arguments.file)?;
    let target = common.store.unwrap_or_default();
    let named = context.full_uri(launcher.job.store.parse()?)?;
    let target = context.full_uri(target.parse()?)?;
    let is_seen = named.as_directory().is_none() || target.as_directory().is_some();
    let mut remote = None;
    let mut written = Written::Kept;
    let mut metadata = Map::new();
    if !(arguments.keep_store && is_seen) {
        let store = context.open_uri(target)?;
        let from = context.open_uri(named)?;
        let manifest = transfer(context, from.as_ref(), store.as_ref(), &mut launcher, arguments)?;
        let (digest, sent) = publish_launcher(store.as_ref(), &launcher, arguments.force)?;
        let record = record_of(&manifest, launcher.job.environment, Some(digest));
        // So that no prune takes what the file needs.
        let name = common.name.unwrap_or_default();
        let named = publish_name(store.as_ref(), &name, &record, None)?;
        written = sent.and(named);
        if named != Written::Kept {
            // A prune that looked before the name was there may have taken what it names.
            written = written.and(publish_launcher(store.as_ref(), &launcher, false)?.1);
        }
        metadata = of_record(&record);
        remote = Some(Remote::new(store.uri(), digest, &launcher)?);
    } else if let Some(manifest) = launcher.manifest().map_err(|error| document(&arguments.file, error))? {
        metadata = of_record(&record_of(&manifest, launcher.job.environment, None));
    }
    metadata.extend(given);
    let whole = launcher.whole();
    let laid = lay(context, &arguments.uri, Source::Bytes(&whole), metadata, arguments.force)?;
    if let Written::Sent(both) = written.and(laid) {
        context.voice.say(format!("sent launcher and metadata ({})", bytes(both)));
    }
    let (launcher_uri, boot) = remote.map(|remote| (remote.launcher, remote.boot)).unzip();
    Ok(Report {
        uri: arguments.uri.clone(),
        unchanged: laid == Written::Kept,
        launcher: launcher_uri,
        boot,
        store: Some(launcher.job.store),
    })
}

/// Takes the launcher apart. One from a store has no executable: there the client's own stands in.
fn read(context: &Context, path: &Path) -> Result<Launcher, CommandError> {
    let path = absolute(path)?;
    let own = context.boot_path();
    let boot = if path.with_file_name(BOOT).is_file() { None } else { own.as_deref().ok() };
    Ok(Launcher::read(&path, boot)?)
}

/// Copies what the launcher needs into `store`, and makes its job name that.
fn transfer(
    context: &Context,
    from: &dyn Store,
    store: &dyn Store,
    launcher: &mut Launcher,
    arguments: &Publish,
) -> Result<Manifest, CommandError> {
    let lacks = |error: &dyn std::fmt::Display| {
        CommandError::NotFound(format!(
            "{} needs the store {}, which is gone or no longer whole ({error}): upload the environment again, or publish the \
             file from where its store is",
            arguments.file.display(),
            from.uri(),
        ))
    };
    let manifest = match launcher.manifest().map_err(|error| document(&arguments.file, error))? {
        Some(manifest) => manifest,
        None => {
            let key = Key::environment(&launcher.job.environment);
            let bytes = from.read(&key, MAX_JSON).map_err(|error| match error.is_not_found() {
                true => lacks(&error),
                false => error.into(),
            })?;
            Manifest::parse(&bytes).map_err(|error| document(Path::new(&from.uri().join(key.as_str())), error))?
        }
    };
    let unwatched = |_| {};
    let repair = arguments.force;
    let publisher = Publisher { store, cache: &context.cache, repair, sending: Watcher(&unwatched) };
    let layers: Vec<&Layer> = manifest.layers.iter().chain(&launcher.job.overlays).collect();
    let sent = publisher.transfer(from, &layers).map_err(|error| match error {
        PublishError::Store(error) if error.is_not_found() => lacks(&error),
        error => error.into(),
    })?;
    publish_manifest(store, &manifest, repair)?;
    if from.uri() != store.uri() {
        launcher.job.store = store.uri().to_string();
        launcher.job.cluster = cluster_properties(store.uri(), &context.store_options())?;
    }
    let count = layers.len();
    context.voice.say(format!("copied what was missing of {count} layers ({}) to {}", bytes(sent), store.uri()));
    Ok(manifest)
}

fn document(what: &Path, error: cpack_format::manifest::DocumentError) -> CommandError {
    CommandError::Document { what: what.display().to_string(), error }
}
