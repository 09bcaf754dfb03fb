//! The command line of `cpack-bench`, which is that of `cluster-pack bench`.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum as _;
use cluster_pack::cli::{Bench, CommandError, Context, Form, Instead, Measure, absolute, show_error};
use cluster_pack::launcher;
use cluster_pack::manifest::requirement_name;
use cpack_discover::{Distribution, Environment, normalise};
use cpack_store::Scheme;

use crate::creation::Packer;
use crate::error::BenchError;
use crate::measure::{Subject, measure};
use crate::scratch::Scratch;
use crate::{compare, page, simulation, table};

/// Runs `cpack-bench` with these arguments and returns its exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (context, bench) = match cluster_pack::cli::bench(arguments) {
        Ok(parsed) => parsed,
        Err(code) => return code,
    };
    match run(&context, &bench) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            show_error(&error);
            ExitCode::from(error.exit().code())
        }
    }
}

fn run(context: &Context, bench: &Bench) -> Result<(), BenchError> {
    match &bench.instead {
        Some(Instead::Simulate(arguments)) => simulation::run(context, arguments),
        Some(Instead::Compare(arguments)) => compare::run(context, arguments),
        None => measured(context, &bench.measure),
    }
}

fn measured(context: &Context, arguments: &Measure) -> Result<(), BenchError> {
    let html = arguments.html.as_deref().map(page::writable).transpose()?;
    let directory = match &arguments.scratch {
        Some(path) => absolute(path)?,
        None => context.cache.root().join("bench"),
    };
    let mut scratch = Scratch::new(&directory)?;
    if arguments.keep {
        scratch.keep();
        context.voice.say(format!("nodes and containers stay in {}", scratch.path().display()));
    }
    let environment = context.environment()?;
    let stores = RunStores::new(context, &scratch, usize::from(arguments.runs))?;
    let subject = Subject {
        name: context.name(&environment)?,
        packer: packer(context, &environment)?,
        boot: boot(context)?,
        stores: stores.uris.clone(),
        store_kind: stores.scheme.name().to_owned(),
        command: command(&environment, &arguments.arguments)?,
        runs: arguments.runs.into(),
        containers: arguments.containers.into(),
        formats: arguments.mode.iter().filter_map(Form::to_possible_value).collect(),
        environment: &environment,
    };
    let report = measure(&subject, &mut scratch, &|line| context.voice.say(line))?;
    if let Some(path) = &html {
        fs::write(path, page::page(&report)).map_err(CommandError::io("write", path))?;
        context.voice.say(format!("wrote {}", path.display()));
    }
    context.voice.answer(table::render(&report), &report);
    Ok(())
}

/// The `cluster-pack` that started this program, otherwise the one on `PATH`.
fn program() -> PathBuf {
    std::env::var_os("CPACK_BENCH_PACKER").map_or_else(|| PathBuf::from("cluster-pack"), PathBuf::from)
}

/// `cluster-pack` with the flags that were given here.
fn packer(context: &Context, environment: &Environment) -> Result<Packer, CommandError> {
    let program = program();
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
    absolute(&launcher::find_boot(context.common.boot.as_deref(), Some(&program()))?)
}

/// A store for each run, erased when the value is dropped.
struct RunStores<'a> {
    context: &'a Context,
    uris: Vec<String>,
    scheme: Scheme,
}

impl<'a> RunStores<'a> {
    fn new(context: &'a Context, scratch: &Scratch, runs: usize) -> Result<Self, CommandError> {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let base = match &context.common.store {
            Some(_) => context.store()?.uri().join(&format!("bench-{}-{time:x}", std::process::id())),
            None => scratch.path().join("store").display().to_string(),
        };
        let uris = (0..runs).map(|run| format!("{base}-{run}")).collect();
        let scheme = context.open_store(&base)?.uri().scheme;
        Ok(Self { context, uris, scheme })
    }
}

impl Drop for RunStores<'_> {
    fn drop(&mut self) {
        for uri in &self.uris {
            let Ok(store) = self.context.open_store(uri) else { continue };
            if let Err(error) = store.erase() {
                self.context.voice.warn(format!("{uri} could not be removed: {error}"));
            }
        }
    }
}

/// The arguments of Python that were given, otherwise an import of the largest distribution that no other requires.
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
