//! `cluster-pack upload` and `cluster-pack pack`.

use cpack_store::{Key, Source, Written};
use serde::Serialize;

use super::made::Remote;
use crate::cli::arguments::{Format, Pack, Upload};
use crate::cli::context;
use crate::cli::context::Context;
use crate::cli::error::CommandError;
use crate::cli::output::bytes;
use crate::launcher::Launcher;
use crate::publish::{PublishedLayer, publish_launcher, publish_name};
use crate::submit::{JobRequest, Submission};

/// What `upload --json` and `pack --json` print.
#[derive(Debug, Serialize)]
struct Report {
    /// What a job fetches and runs as `./name`: by itself where it lies at a package, else beside `boot`.
    uri: String,
    /// What builders ship, which never changes: the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    launcher: Option<String>,
    /// The executable that goes with it, as `cpack-boot`.
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    /// The metadata under the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<String>,
    environment: String,
    /// Every distribution as `name==version`.
    packages: Vec<String>,
    store: String,
    unchanged: bool,
    /// Of layers, overlays and launchers, and of what lies under the name or at the package; manifests are not counted.
    sent_bytes: u64,
    packed_bytes: u64,
    unpacked_bytes: u64,
    seconds: f64,
    layers: Vec<LayerReport>,
}

/// One layer of a submission.
#[derive(Debug, Serialize)]
pub(super) struct LayerReport {
    kind: cpack_format::manifest::LayerKind,
    name: String,
    version: String,
    archive: String,
    packed_bytes: u64,
    unpacked_bytes: u64,
    sent: bool,
}

impl LayerReport {
    fn new(outcome: &PublishedLayer) -> Self {
        let layer = &outcome.layer;
        Self {
            kind: layer.kind,
            name: layer.name.clone(),
            version: layer.version.clone(),
            archive: layer.archive.digest.to_hex(),
            packed_bytes: layer.archive.size,
            unpacked_bytes: layer.archive.unpacked,
            sent: outcome.sent.is_some(),
        }
    }

    /// Those of the environment, then those of the job.
    pub(in crate::cli) fn all(submission: &Submission) -> Vec<Self> {
        submission.layers.iter().chain(&submission.overlays).map(Self::new).collect()
    }
}

impl Report {
    /// `shipped` and `named`: what was done to the launcher that builders ship, and under the name or at the package.
    fn new(submission: &Submission, store: String, uri: String, shipped: Written, named: Written) -> Self {
        let layers = LayerReport::all(submission);
        let sent: u64 = submission.layers.iter().chain(&submission.overlays).filter_map(|o| o.sent).sum();
        Self {
            uri,
            launcher: None,
            boot: None,
            metadata: None,
            environment: submission.id.to_hex(),
            packages: Vec::new(),
            store,
            unchanged: named == Written::Kept,
            sent_bytes: sent + shipped.and(named).bytes(),
            packed_bytes: layers.iter().map(|l| l.packed_bytes).sum(),
            unpacked_bytes: layers.iter().map(|l| l.unpacked_bytes).sum(),
            seconds: submission.elapsed.as_secs_f64(),
            layers,
        }
    }
}

/// Publishes an environment under its name and prints the URI of what lies there.
pub(in crate::cli) fn upload(context: &Context, arguments: &Upload) -> Result<(), CommandError> {
    if let Some(written) = arguments.job.environ.iter().find(|e| e.contains('=')) {
        let name = written.split('=').next().unwrap_or_default();
        return Err(CommandError::Usage(format!(
            "--env {name}=…: values never go into a store; pass `--env {name}` and let the executor supply it, or make a launcher"
        )));
    }
    let of_pex = arguments.pex.as_deref().map(|path| context.of_pex(path, &arguments.job)).transpose()?;
    let (context, job) = of_pex.as_ref().map_or((context, &arguments.job), |(context, job)| (context, job));
    let store = context.store()?;
    let boot = context.boot(store.as_ref())?;
    let environment = context.environment()?;
    let name = context.name(&environment)?;
    let job = context.job(job, name.clone());
    let submission = context.submit(&environment, store.as_ref(), &job, arguments.repair)?;
    let launcher = Launcher::new(boot, submission.job.clone(), &submission.manifest);
    let (digest, mut shipped) = publish_launcher(store.as_ref(), &launcher, arguments.repair)?;
    let record = context::name_record(&submission, Some(digest));
    // One mutable place is enough.
    let under_name = arguments.package.is_none().then(|| launcher.named());
    let mut named = publish_name(store.as_ref(), &name, &record, under_name.as_deref())?;
    if named != Written::Kept {
        // A prune that looked before the name was there may have taken what it names.
        shipped = shipped.and(publish_launcher(store.as_ref(), &launcher, false)?.1);
    }
    let place = |key: Key| store.uri().join(key.as_str());
    let mut uri = Key::name(&name, "").map(place).unwrap_or_default();
    if let Some(package) = &arguments.package {
        let metadata = super::package::of_record(&record);
        let whole = launcher.whole();
        let laid = super::package::lay(context, package, Source::Bytes(&whole), metadata, arguments.repair)?;
        named = named.and(laid);
        uri.clone_from(package);
    }
    if let Written::Sent(both) = shipped.and(named) {
        context.voice.say(format!("sent launcher and metadata ({})", bytes(both)));
    }
    let mut report = Report::new(&submission, store.uri().to_string(), uri.clone(), shipped, named);
    report.packages.clone_from(&record.package_installed);
    let remote = Remote::new(store.uri(), digest, &launcher)?;
    (report.launcher, report.boot) = (Some(remote.launcher), Some(remote.boot));
    report.metadata = Key::name(&name, "json").ok().map(|key| store.uri().join(key.as_str()));
    if context.common.store.is_none() {
        context.voice.say("no --store was named: this directory is seen by this machine only");
    }
    context.voice.answer(uri, &report);
    Ok(())
}

/// Packs an environment into a directory store of its own.
pub(in crate::cli) fn pack(context: &Context, arguments: &Pack) -> Result<(), CommandError> {
    match arguments.format {
        Format::Layers => pack_layers(context, arguments),
        Format::Pex | Format::PexPacked | Format::PexLoose => super::pex::pack(context, arguments),
    }
}

fn pack_layers(context: &Context, arguments: &Pack) -> Result<(), CommandError> {
    let directory = context::absolute(&arguments.output)?;
    if directory.is_file() {
        return Err(CommandError::Usage(format!("--output {} is a file: name a directory", directory.display())));
    }
    let store = context.open_store(&directory.to_string_lossy())?;
    let environment = context.environment()?;
    let name = context.name(&environment)?;
    let job = JobRequest { name: name.clone(), ..JobRequest::default() };
    let submission = context.submit(&environment, store.as_ref(), &job, false)?;
    let record = context::name_record(&submission, None);
    let named = publish_name(store.as_ref(), &name, &record, None)?;
    let uri = store.uri().join(Key::environment(&submission.id).as_str());
    let report = Report::new(&submission, store.uri().to_string(), uri.clone(), Written::Kept, named);
    context.voice.say(format!(
        "packed {} into {} in {:.2} s",
        bytes(report.unpacked_bytes),
        bytes(report.packed_bytes),
        report.seconds
    ));
    context.voice.answer(uri, &report);
    Ok(())
}
