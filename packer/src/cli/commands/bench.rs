//! `cluster-pack bench`: what the first run costs here and where it goes.

mod cluster;
mod table;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use cpack_artifact::store::Scheme;

use super::CommandError;
use super::context::{Context, absolute};
use crate::bench::creation::Packer;
use crate::bench::scratch::Scratch;
use crate::bench::{Subject, measure, page};
use crate::cli::bench_arguments::{Bench, Form, Instead, Measure};
use crate::discover::{Distribution, Environment, normalise};
use crate::launcher;
use crate::manifest::requirement_name;

/// Measures, or simulates.
pub(super) fn bench(context: &Context, arguments: &Bench) -> Result<(), CommandError> {
    match &arguments.instead {
        Some(Instead::Simulate(arguments)) => cluster::simulation(context, arguments),
        None => measured(context, &arguments.measure),
    }
}

fn measured(context: &Context, arguments: &Measure) -> Result<(), CommandError> {
    let html = arguments.html.as_deref().map(writable).transpose()?;
    let place = match &arguments.scratch {
        Some(path) => absolute(path)?,
        None => context.cache.root().join("bench"),
    };
    let mut scratch = Scratch::new(&place)?;
    if arguments.keep {
        scratch.keep();
        context.voice.say(format!("nodes and containers stay in {}", scratch.path().display()));
    }
    let environment = context.environment()?;
    let places = Places::new(context, &scratch, usize::from(arguments.runs))?;
    let subject = Subject {
        name: context.name(&environment)?,
        packer: packer(context, &environment)?,
        boot: boot(context)?,
        stores: places.stores.clone(),
        store_kind: places.scheme.name().to_owned(),
        command: command(&environment, &arguments.arguments)?,
        runs: arguments.runs.into(),
        containers: arguments.containers.into(),
        formats: arguments.mode.iter().copied().map(Form::name).collect(),
        environment: &environment,
    };
    let report = measure(&subject, &mut scratch, &|line| context.voice.say(line))?;
    if let Some(path) = &html {
        fs::write(path, page::page(&report)).map_err(failed("write", path))?;
        context.voice.say(format!("wrote {}", path.display()));
    }
    context.voice.answer(table::render(&report), &report);
    Ok(())
}

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CommandError {
    let path = path.to_owned();
    move |source| CommandError::Io { verb, path, source }
}

/// A file that can be written, found out before minutes are spent.
fn writable(path: &Path) -> Result<PathBuf, CommandError> {
    let path = absolute(path)?;
    fs::OpenOptions::new().append(true).create(true).open(&path).map_err(failed("write", &path))?;
    Ok(path)
}

/// The program that runs, told of what was chosen here.
fn packer(context: &Context, environment: &Environment) -> Result<Packer, CommandError> {
    let program = std::env::current_exe().map_err(failed("find", Path::new("cluster-pack")))?;
    let common = &context.common;
    let mut arguments: Vec<OsString> = vec!["--venv".into(), environment.prefix.clone().into()];
    let mut add = |flag: &str, value: OsString| arguments.extend([OsString::from(flag), value]);
    add("--name", context.name(environment)?.into());
    add("--boot", boot(context)?.into());
    common.only.iter().for_each(|name| add("--only", name.into()));
    common.ignore.iter().for_each(|name| add("--ignore", name.into()));
    common.level.iter().for_each(|level| add("--level", level.to_string().into()));
    common.replication.iter().for_each(|copies| add("--replication", copies.to_string().into()));
    if common.with_python {
        arguments.push("--with-python".into());
    }
    if common.with_dependencies {
        arguments.push("--with-dependencies".into());
    }
    Ok(Packer { program, arguments })
}

fn boot(context: &Context) -> Result<PathBuf, CommandError> {
    let program = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
    absolute(&launcher::find_boot(context.common.boot.as_deref(), program.as_deref())?)
}

/// Places in the store that are removed at the end.
struct Places<'a> {
    context: &'a Context,
    stores: Vec<String>,
    scheme: Scheme,
}

impl<'a> Places<'a> {
    fn new(context: &'a Context, scratch: &Scratch, runs: usize) -> Result<Self, CommandError> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let base = match &context.common.store {
            Some(_) => context.store()?.uri().join(&format!("bench-{}-{time:x}", std::process::id())),
            None => scratch.path().join("store").display().to_string(),
        };
        let stores: Vec<String> = (0..runs).map(|run| format!("{base}-{run}")).collect();
        let scheme = context.open_store(&base)?.uri().scheme;
        Ok(Self { context, stores, scheme })
    }
}

impl Drop for Places<'_> {
    fn drop(&mut self) {
        for place in &self.stores {
            let Ok(store) = self.context.open_store(place) else { continue };
            if let Err(error) = store.erase() {
                self.context.voice.warn(format!("{place} could not be removed: {error}"));
            }
        }
    }
}

/// The arguments of Python: as given, else the import of the largest distribution that no other needs.
fn command(environment: &Environment, given: &[OsString]) -> Result<Vec<OsString>, CommandError> {
    if !given.is_empty() {
        return Ok(given.to_vec());
    }
    let needed = |name: &str| {
        let all = environment.distributions.iter().flat_map(|d| &d.requires);
        all.into_iter().any(|requirement| normalise(requirement_name(requirement)) == name)
    };
    let size = |d: &&Distribution| d.files.iter().map(|f| f.size).sum::<u64>();
    let candidates = environment.distributions.iter().filter(|d| d.import_names.iter().any(|n| !n.starts_with('_')));
    let chosen = candidates.filter(|d| !needed(&d.name)).max_by_key(size);
    let module = chosen.and_then(|d| {
        let same = d.import_names.iter().find(|n| n.eq_ignore_ascii_case(&d.name.replace('-', "_")));
        same.or_else(|| d.import_names.iter().find(|n| !n.starts_with('_')))
    });
    let module = module.ok_or_else(|| {
        CommandError::Usage("nothing in the environment can be imported: name a command, e.g. -- -c 'pass'".into())
    })?;
    Ok(vec!["-c".into(), format!("import {module}").into()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::arguments::{Cli, Command};
    use clap::Parser as _;

    #[test]
    fn what_follows_the_dashes_is_pythons() {
        let line =
            ["cluster-pack", "bench", "--runs", "2", "--mode", "pex,pex-loose", "--", "-c", "import x", "--json"];
        let cli = Cli::try_parse_from(line).expect("parses");
        let Command::Bench(bench) = cli.command else { panic!("another command") };
        assert_eq!((bench.measure.runs, bench.measure.mode), (2, vec![Form::Pex, Form::PexLoose]));
        assert_eq!(bench.measure.arguments, ["-c", "import x", "--json"]);
        let cli = Cli::try_parse_from(["cluster-pack", "bench", "simulate", "a.json", "--nodes", "7"]).expect("parses");
        let Command::Bench(bench) = cli.command else { panic!("another command") };
        let Some(Instead::Simulate(simulate)) = bench.instead else { panic!("measures") };
        assert_eq!((simulate.nodes, simulate.reports), (7, vec![PathBuf::from("a.json")]));
    }
}
