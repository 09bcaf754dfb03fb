//! Measures an environment and makes the report.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::builder::PossibleValue;
use cluster_pack::launcher::Launcher;
use cpack_discover::Environment;

use crate::creation::{self, Packer};
use crate::error::BenchError;
use crate::imports::{self, Imported};
use crate::report::{
    Creation, EnvironmentFacts, FORMAT, Layer, Machine, Method, Mode, Report, Starts, Together, Waterfall,
};
use crate::scratch::{self, Scratch};
use crate::spread::Spread;
use crate::starts::{self, Sample, Shipped, WORK};
use crate::traced::{self, Python, Traced};
use crate::{child, memory, trace};

/// The part of the free disk space that is not used.
const RESERVE: f64 = 0.05;

/// Memory of a container's process without its environment.
const PROCESS: u64 = 128 << 20;

/// What to measure, and how.
#[derive(Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) name: String,
    pub(crate) packer: Packer,
    pub(crate) boot: PathBuf,
    /// The URI of an empty store for each run.
    pub(crate) stores: Vec<String>,
    /// `file`, `s3`, `hdfs` or `viewfs`.
    pub(crate) store_kind: String,
    /// The arguments of Python.
    pub(crate) command: Vec<OsString>,
    pub(crate) runs: usize,
    /// Containers that start at once.
    pub(crate) containers: usize,
    /// Formats to measure beside layers, as `pack --format` names them.
    pub(crate) formats: Vec<PossibleValue>,
}

struct Measurement<'a> {
    subject: &'a Subject<'a>,
    scratch: &'a mut Scratch,
    say: &'a dyn Fn(&str),
    shipped: Shipped,
    layers: Vec<Layer>,
    removing: bool,
}

/// Measures creation and starts. Calls `say` with progress messages.
pub(crate) fn measure(subject: &Subject<'_>, scratch: &mut Scratch, say: &dyn Fn(&str)) -> Result<Report, BenchError> {
    let before = load();
    let launcher = scratch.fresh("launcher")?.join("env-python");
    say(&format!("packing {} from nothing, {} times", subject.name, subject.stores.len()));
    let creation = creation::measure(&subject.packer, &subject.stores, || scratch.fresh("client"), &launcher)?;
    let layers = layers_of(&launcher)?;
    let shipped = Shipped { launcher, arguments: subject.command.clone() };
    let removing = must_remove(subject, scratch, &layers)?;
    let mut measurement = Measurement { subject, scratch, say, shipped, layers, removing };
    // Before the many starts of layers, so that an error comes early.
    let formats = subject.formats.iter().map(|format| measurement.format(format.get_name()));
    let formats = formats.collect::<Result<Vec<_>, _>>()?;
    let starts = measurement.starts()?;
    let modes = measurement.modes(&creation, &starts.cold.seconds, formats);
    Ok(Report {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        machine: machine([before, load()]),
        environment: measurement.facts(starts.modules),
        store: subject.store_kind.clone(),
        command: subject.command.iter().map(|argument| argument.to_string_lossy().into_owned()).collect(),
        method: method(subject, measurement.removing),
        creation,
        modes,
        cold: starts.cold,
        lazy: starts.lazy,
        second: starts.second,
        warm: starts.warm,
        together: starts.together,
        waterfall: starts.waterfall,
        lazy_waterfall: starts.lazy_waterfall,
    })
}

struct AllStarts {
    cold: Starts,
    lazy: Option<Starts>,
    second: Starts,
    warm: Starts,
    together: Together,
    waterfall: Waterfall,
    lazy_waterfall: Option<Waterfall>,
    modules: u64,
}

impl Measurement<'_> {
    fn starts(&mut self) -> Result<AllStarts, BenchError> {
        let (mut cold, mut second, mut warm, mut bare) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut imported, mut lazy) = (Vec::new(), Vec::new());
        for run in 0..self.subject.runs {
            (self.say)(&format!("starting on a fresh node, {} of {}", run + 1, self.subject.runs));
            let (node, container) = (self.scratch.fresh("node")?, self.container()?);
            self.settle();
            cold.push(self.expect("cold", &node, &container)?);
            let other = self.container()?;
            second.push(self.expect("warm", &node, &other)?);
            warm.push(self.expect("warm", &node, &other)?);
            let nothing = [OsString::from("-c"), OsString::new()];
            bare.push(self.shipped.start_with(&node, &other, &nothing, |_| {})?);
            if run + 1 == self.subject.runs {
                imported = self.imports(&node, &other)?;
            }
            self.leave(&node);
            lazy.extend(self.lazy_start()?);
        }
        let together = self.together()?;
        let interpreter = Spread::of(bare.iter().map(Sample::python)).median;
        let [cold, second, warm] = [cold, second, warm].map(|samples| starts::summary(&samples, interpreter));
        let lazy = (!lazy.is_empty()).then(|| starts::summary(&lazy, interpreter));
        let lazy_waterfall = match &lazy {
            Some(_) => self.lazy_waterfall(&Python { imported: &[], interpreter })?,
            None => None,
        };
        let waterfall = self.waterfall(&Python { imported: &imported, interpreter }, warm.python())?;
        let modules = imported.len() as u64;
        Ok(AllStarts { cold, lazy, second, warm, together, waterfall, lazy_waterfall, modules })
    }

    /// A lazy start on a fresh node; `None` if this machine allows none. Bytes are those that its server fetched.
    fn lazy_start(&mut self) -> Result<Option<Sample>, BenchError> {
        let (node, container) = (self.scratch.fresh("node")?, self.container()?);
        self.settle();
        let lazily = |command: &mut Command| _ = command.env("CPACK_START", "lazy");
        let mut sample = self.shipped.start_with(&node, &container, &self.subject.command, lazily)?;
        let is_lazy = sample.metrics.start == "lazy";
        if is_lazy {
            sample.metrics.bytes.fetched = starts::served(&container)?;
        }
        self.leave(&node);
        Ok(is_lazy.then_some(sample))
    }

    /// Writes dirty pages to disk and touches the memory that a cold start needs.
    fn settle(&self) {
        nix::unistd::sync();
        let unpacked: u64 = self.layers.iter().map(|layer| layer.unpacked).sum();
        let processes = self.subject.containers as u64 * PROCESS;
        memory::touch(&self.subject.environment.python.executable, unpacked + unpacked / 4 + processes);
    }

    fn container(&mut self) -> Result<PathBuf, BenchError> {
        let container = self.scratch.fresh("container")?;
        self.shipped.localize(&container)?;
        Ok(container)
    }

    fn expect(&self, start: &str, node: &Path, container: &Path) -> Result<Sample, BenchError> {
        let sample = self.shipped.start(node, container)?;
        starts::require(&sample, start).map(|()| sample)
    }

    /// Called after the last start on `node`: removes it if the disk is too small for all nodes.
    fn leave(&self, node: &Path) {
        if self.removing {
            scratch::remove(node);
        }
    }

    /// Runs the command once more and records which modules of each layer it imports.
    fn imports(&mut self, node: &Path, container: &Path) -> Result<Vec<Imported>, BenchError> {
        let profiled = |command: &mut Command| _ = command.env("PYTHONPROFILEIMPORTTIME", "1");
        let sample = self.shipped.start_with(node, container, &self.subject.command, profiled)?;
        let imported = imports::parse(&sample.cost.stderr);
        let used = imports::by_distribution(self.subject.environment, &imported);
        for layer in &mut self.layers {
            let found = used.get(&layer.name).copied().unwrap_or_default();
            layer.modules = found.modules;
            layer.imported = found.bytes;
            layer.import_seconds = found.own_us as f64 / 1e6;
        }
        Ok(imported)
    }

    fn together(&mut self) -> Result<Together, BenchError> {
        let (count, mut crowds) = (self.subject.containers, Vec::new());
        for run in 0..self.subject.runs {
            (self.say)(&format!("{count} containers at once on a fresh node, {} of {}", run + 1, self.subject.runs));
            let node = self.scratch.fresh("node")?;
            let containers = (0..count).map(|_| self.container()).collect::<Result<Vec<_>, _>>()?;
            self.settle();
            crowds.push(starts::crowd(&self.shipped, &node, &containers)?);
            self.leave(&node);
        }
        Ok(starts::together(count, &crowds))
    }

    /// Traces every step of one more cold start.
    fn waterfall(&mut self, python: &Python<'_>, warm: f64) -> Result<Waterfall, BenchError> {
        (self.say)("starting on a fresh node once more, every step traced");
        let (sample, traced) = self.traced(|_| {})?;
        starts::require(&sample, "cold")?;
        let events = trace::read(&traced.text()?)?;
        let by_layer = trace::work_by_layer(&events, WORK);
        for layer in &mut self.layers {
            // The name of the layer in the boot's trace.
            let title = format!("layer {} {}", layer.name, layer.version);
            let work = by_layer.get(title.trim_end());
            layer.work = work.into_iter().flatten().map(|(kind, seconds)| (kind.clone(), *seconds)).collect();
        }
        self.leave(&traced.node);
        Ok(traced.cold(&events, python, warm))
    }

    /// Traces a lazy start; `None` if this machine allows none.
    fn lazy_waterfall(&mut self, python: &Python<'_>) -> Result<Option<Waterfall>, BenchError> {
        (self.say)("starting lazily once more, every step traced");
        let (sample, traced) = self.traced(|command| _ = command.env("CPACK_START", "lazy"))?;
        if sample.metrics.start != "lazy" {
            return Ok(None);
        }
        starts::wait_for_those_behind(&traced.container)?;
        self.leave(&traced.node);
        Ok(Some(traced.lazy(&trace::by_process(&traced.text()?)?, python, sample.python())))
    }

    /// A start on a fresh node that writes a trace.
    fn traced(&mut self, change: impl FnOnce(&mut Command)) -> Result<(Sample, Traced), BenchError> {
        let (node, container) = (self.scratch.fresh("node")?, self.container()?);
        let file = container.join("trace");
        self.settle();
        let traced = |command: &mut Command| change(command.env("CPACK_TRACE", &file));
        let origin = traced::now();
        let sample = self.shipped.start_with(&node, &container, &self.subject.command, traced)?;
        let traced = Traced { node, container, origin, seconds: sample.cost.seconds };
        Ok((sample, traced))
    }

    /// Layers, then the other formats.
    fn modes(&self, creation: &Creation, first: &Spread, formats: Vec<Mode>) -> Vec<Mode> {
        let size = self.layers.iter().map(|layer| layer.packed).sum();
        let layers = Mode { name: "layers".into(), creation: creation.seconds.clone(), first: first.clone(), size };
        std::iter::once(layers).chain(formats).collect()
    }

    fn format(&mut self, format: &str) -> Result<Mode, BenchError> {
        (self.say)(&format!("packing and starting it as {format}, {} times", self.subject.runs));
        let (mut creation, mut first, mut size) = (Vec::new(), Vec::new(), 0);
        for _ in 0..self.subject.runs {
            let (client, node, container) =
                (self.scratch.fresh("client")?, self.scratch.fresh("node")?, self.scratch.fresh("container")?);
            let output = client.join("environment.pex");
            nix::unistd::sync();
            let made = child::run(&mut self.subject.packer.pex(format, &client.join("client-cache"), &output))?;
            creation.push(made.seconds);
            size = size_of(&output);
            let mut start = child::command(&self.subject.boot);
            starts::on_node(&mut start, &node, &container);
            start.args(["--cpack", "exec"]).arg(&output).args(&self.subject.command);
            self.settle();
            first.push(child::run(&mut start)?.seconds);
            self.leave(&node);
            self.leave(&client);
        }
        Ok(Mode { name: format.into(), creation: Spread::of(creation), first: Spread::of(first), size })
    }

    fn facts(&self, modules: u64) -> EnvironmentFacts {
        let mut layers = self.layers.clone();
        layers.sort_by_key(|layer| std::cmp::Reverse(layer.unpacked));
        EnvironmentFacts {
            name: self.subject.name.clone(),
            python: self.subject.environment.python.version.clone(),
            files: layers.iter().map(|layer| layer.files).sum(),
            unpacked: layers.iter().map(|layer| layer.unpacked).sum(),
            packed: layers.iter().map(|layer| layer.packed).sum(),
            layers,
            modules,
        }
    }
}

/// The layers and overlays of a launcher.
fn layers_of(launcher: &Path) -> Result<Vec<Layer>, BenchError> {
    let unexpected = |reason: String| BenchError::Unexpected { what: "the launcher", reason };
    let opened = Launcher::read(launcher, None).map_err(|e| unexpected(e.to_string()))?;
    let manifest = opened.manifest().map_err(|e| unexpected(e.to_string()))?;
    let manifest = manifest.ok_or_else(|| unexpected("it has no manifest".into()))?;
    let layer = |layer: &cpack_format::manifest::Layer| Layer {
        name: layer.name.clone(),
        version: layer.version.clone(),
        files: layer.archive.files,
        unpacked: layer.archive.unpacked,
        packed: layer.archive.size,
        ..Layer::default()
    };
    Ok(manifest.layers.iter().chain(&opened.job.overlays).map(layer).collect())
}

/// Whether the disk is too small for all nodes, so that each must be removed before the next is made.
fn must_remove(subject: &Subject<'_>, scratch: &Scratch, layers: &[Layer]) -> Result<bool, BenchError> {
    let one: u64 = layers.iter().map(|layer| layer.unpacked).sum();
    let free = (scratch.free() as f64 * (1.0 - RESERVE)) as u64;
    // Cold and lazy starts, crowds, and two traced starts; a PEX and its node for each run of each other format.
    let nodes = 3 * subject.runs + 2 + 2 * subject.runs * subject.formats.len();
    if one > free {
        let path = scratch.path().to_owned();
        return Err(BenchError::Room { path, free: free >> 20, needed: one >> 20 });
    }
    Ok(one.saturating_mul(nodes as u64) > free)
}

fn method(subject: &Subject<'_>, removed_between: bool) -> Method {
    let local = subject.store_kind == "file";
    let bytes = if local { "; the store's bytes in page cache" } else { "" };
    Method {
        runs: subject.runs,
        cold: format!("an empty node cache in a fresh directory, memory at hand{bytes}"),
        warm: "the environment is in the node cache, its files in page cache".into(),
        removed_between,
    }
}

fn machine(load: [f64; 2]) -> Machine {
    let field = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':').map(str::trim));
        line.unwrap_or("unknown").to_owned()
    };
    let kib = field("/proc/meminfo", "MemTotal").split(' ').next().and_then(|n| n.parse::<u64>().ok());
    Machine {
        cpu: field("/proc/cpuinfo", "model name"),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory: kib.unwrap_or(0) << 10,
        load,
    }
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// The size of a file, or of all files of a directory.
fn size_of(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    if !metadata.is_dir() {
        return metadata.len();
    }
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| size_of(&entry.path())).sum()
}
