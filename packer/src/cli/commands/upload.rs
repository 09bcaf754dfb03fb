//! `cluster-pack upload` and `cluster-pack pack`.

use cpack_store::{Key, Scheme, Source, Written};

use super::prepare::{Remote, trace_of};
use crate::cli::arguments::{Format, JobArguments, Pack, Upload};
use crate::cli::context::{Context, absolute, record_of};
use crate::cli::error::CommandError;
use crate::cli::output::bytes;
use crate::cli::report::SubmissionReport;
use crate::environment_archive::ArchiveForm;
use crate::launcher::Launcher;
use crate::publish::{publish_launcher, publish_name};
use crate::submit::JobRequest;

/// Publishes an environment under its name and prints the URI of what lies there.
pub(in crate::cli) fn upload(context: &Context, arguments: &Upload) -> Result<(), CommandError> {
    check_values(&arguments.job)?;
    let of_artifact =
        arguments.artifact.as_deref().map(|path| context.of_artifact(path, &arguments.job)).transpose()?;
    let (context, job) = of_artifact.as_ref().map_or((context, &arguments.job), |(context, job)| (context, job));
    let store = context.store()?;
    if matches!(store.uri().scheme, Scheme::Http | Scheme::Https) {
        // Before packing, which may take minutes.
        return Err(CommandError::Usage(format!(
            "--store {}: a store behind a web server can only be read: name the store itself, by file:, hdfs:, s3:, gs: or abfss:",
            store.uri()
        )));
    }
    let boot = context.boot(store.as_ref())?;
    let environment = context.environment()?;
    let name = context.name(&environment)?;
    let touches = if arguments.trace.trace { None } else { trace_of(job)? };
    let record = job.start.trace_file.as_deref();
    let job = context.job(job, name.clone());
    let mut submission = context.submit(&environment, store.as_ref(), &job, arguments.repair)?;
    let mut launcher = Launcher::new(boot, submission.job.clone(), &submission.manifest);
    let touches = match touches {
        None if arguments.trace.trace => Some(context.traced_run(&launcher, &arguments.trace.traced, record)?),
        known => known,
    };
    if let Some(touches) = touches {
        context.add_trace(&touches, &submission.manifest, &mut submission.job);
        launcher.job.clone_from(&submission.job);
    }
    let (digest, mut shipped) = publish_launcher(store.as_ref(), &launcher, arguments.repair)?;
    let record = record_of(&submission.manifest, submission.id, Some(digest));
    // With --package the launcher lies there: a second mutable copy under the name is not needed.
    let under_name = arguments.package.is_none().then(|| launcher.named());
    let mut named = publish_name(store.as_ref(), &name, &record, under_name.as_deref())?;
    if named != Written::Kept {
        // A concurrent `prune` that listed names before `publish_name` wrote this one may have removed the launcher that
        // it names: send it again if so.
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
    let mut report = SubmissionReport::new(&submission, store.uri(), uri.clone(), shipped, named);
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

/// Refuses values of variables.
fn check_values(arguments: &JobArguments) -> Result<(), CommandError> {
    let Some(written) = arguments.environ.iter().find(|e| e.contains('=')) else { return Ok(()) };
    let name = written.split('=').next().unwrap_or_default();
    Err(CommandError::Usage(format!(
        "--env {name}=…: values never go into a store; pass `--env {name}` and let the executor supply it, or make a launcher"
    )))
}

/// Packs an environment into a directory store of its own, or a file.
pub(in crate::cli) fn pack(context: &Context, arguments: &Pack) -> Result<(), CommandError> {
    let format = arguments.format.unwrap_or_else(|| Format::of(&arguments.output));
    let job = JobArguments::default();
    let of_artifact = arguments.artifact.as_deref().map(|path| context.of_artifact(path, &job)).transpose()?;
    let context = of_artifact.as_ref().map_or(context, |(context, _)| context);
    match format {
        Format::Layers => pack_layers(context, arguments),
        Format::Pex | Format::PexPacked | Format::PexLoose => super::pex::pack(context, arguments, format),
        Format::Wheelhouse => super::pex::pack_wheelhouse(context, arguments),
        Format::TarGz => super::environment_archive::pack(context, arguments, ArchiveForm::TarGz),
        Format::TarZst => super::environment_archive::pack(context, arguments, ArchiveForm::TarZst),
        Format::Zip => super::environment_archive::pack(context, arguments, ArchiveForm::Zip),
    }
}

fn pack_layers(context: &Context, arguments: &Pack) -> Result<(), CommandError> {
    let directory = absolute(&arguments.output)?;
    if directory.is_file() {
        return Err(CommandError::Usage(format!("--output {} is a file: name a directory", directory.display())));
    }
    let store = context.open_store(&directory.to_string_lossy())?;
    let environment = context.environment()?;
    let name = context.name(&environment)?;
    let job = JobRequest { name: name.clone(), ..JobRequest::default() };
    let submission = context.submit(&environment, store.as_ref(), &job, false)?;
    let record = record_of(&submission.manifest, submission.id, None);
    let named = publish_name(store.as_ref(), &name, &record, None)?;
    let uri = store.uri().join(Key::environment(&submission.id).as_str());
    let report = SubmissionReport::new(&submission, store.uri(), uri.clone(), Written::Kept, named);
    context.voice.say(format!(
        "packed {} into {} in {:.2} s",
        bytes(report.unpacked_bytes),
        bytes(report.packed_bytes),
        report.seconds
    ));
    context.voice.answer(uri, &report);
    Ok(())
}
