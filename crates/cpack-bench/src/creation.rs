//! Measures packing and sending: runs `cluster-pack` with an empty client cache and an empty store.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cluster_pack::cli::CommandError;

use crate::child::{self, Cost};
use crate::error::BenchError;
use crate::report::Creation;
use crate::spread::Spread;
use crate::trace;

/// The kinds of work in the trace of `cluster-pack`.
const KINDS: &[&str] = &["discover", "pack", "compress", "write", "send"];

/// `cluster-pack` and the arguments that all its runs have.
#[derive(Debug, Clone)]
pub(crate) struct Packer {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

/// A publication from nothing, then one with nothing changed.
#[derive(Debug)]
struct Sample {
    first: Cost,
    again: Cost,
    events: Vec<trace::Event>,
}

impl Packer {
    /// Publishes the environment to `store` and writes a launcher to `launcher`.
    pub(crate) fn launcher(&self, store: &str, cache: &Path, launcher: &Path) -> Command {
        let mut command = self.command(cache);
        command.arg("--store").arg(store).args(["-q", "launcher", "-o"]).arg(launcher);
        command
    }

    /// Writes a PEX of this format to `output`.
    pub(crate) fn pex(&self, format: &str, cache: &Path, output: &Path) -> Command {
        let mut command = self.command(cache);
        command.args(["-q", "pack", "--format", format, "-o"]).arg(output);
        command
    }

    fn command(&self, cache: &Path) -> Command {
        let mut command = child::command(&self.program);
        command.args(&self.arguments).arg("--client-cache").arg(cache);
        command
    }

    fn sample(&self, store: &str, directory: &Path, launcher: &Path) -> Result<Sample, BenchError> {
        let (cache, file) = (directory.join("client-cache"), directory.join("trace"));
        nix::unistd::sync();
        let first = child::run(self.launcher(store, &cache, launcher).env("CPACK_TRACE", &file))?;
        let events = trace::read(&fs::read_to_string(&file).map_err(CommandError::io("read", &file))?)?;
        let again = child::run(&mut self.launcher(store, &cache, launcher))?;
        Ok(Sample { first, again, events })
    }
}

/// Publishes to each of `stores`, which are empty. `launcher` is for the last of them.
pub(crate) fn measure(
    packer: &Packer,
    stores: &[String],
    mut fresh: impl FnMut() -> Result<PathBuf, BenchError>,
    launcher: &Path,
) -> Result<Creation, BenchError> {
    let mut samples = Vec::new();
    for store in stores {
        samples.push(packer.sample(store, &fresh()?, launcher)?);
    }
    let elapsed = |kind: &str| Spread::of(samples.iter().map(|s| trace::elapsed(&s.events, kind)));
    let works: Vec<_> = samples.iter().map(|s| trace::work(&s.events, KINDS)).collect();
    let work = |kind: &str| Spread::of(works.iter().map(|work| work.get(kind).copied().unwrap_or(0.0)));
    let sent = samples.last().map_or(0, |s| s.events.iter().filter(|e| e.cat == "send").map(trace::Event::bytes).sum());
    Ok(Creation {
        seconds: Spread::of(samples.iter().map(|s| s.first.seconds)),
        again: Spread::of(samples.iter().map(|s| s.again.seconds)),
        cpu: Spread::of(samples.iter().map(|s| s.first.cpu)),
        phases: ["discover", "pack", "send"].map(|kind| (kind.to_owned(), elapsed(kind))).to_vec(),
        work: KINDS.iter().map(|kind| ((*kind).to_owned(), work(kind))).collect(),
        sent,
    })
}
