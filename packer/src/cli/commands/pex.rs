//! `cluster-pack pack --format pex` and `wheelhouse`.

use std::path::Path;
use std::time::Instant;

use cpack_pex::info::{InheritPath, PexInfo};
use serde::Serialize;

use crate::cli::arguments::{Format, Pack, PexArguments};
use crate::cli::context::{Context, absolute};
use crate::cli::error::CommandError;
use crate::cli::output::bytes;
use crate::pex::{Layout, PexOptions, Shape, Start, write_pex, write_wheelhouse};
use crate::submit::total_size;
use cpack_discover::add_sources;

/// Deflate level of wheels: as pip and setuptools write them.
const WHEEL_LEVEL: u32 = 6;

/// Users of the Python library choose between speed and size by this variable.
const OPTIMIZATION: &str = "C_PACK_LAYOUT_OPTIMIZATION";

/// What `pack --format pex --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    path: String,
    bytes: u64,
    pex_hash: Option<String>,
    seconds: f64,
    distributions: Vec<String>,
}

pub(in crate::cli) fn pack(context: &Context, arguments: &Pack, format: Format) -> Result<(), CommandError> {
    let start = Instant::now();
    let output = absolute(&arguments.output)?;
    let optimization = std::env::var(OPTIMIZATION).ok().filter(|name| !name.is_empty());
    let options = PexOptions {
        shape: shape(format, &output, optimization.as_deref())?,
        start: start_of(&arguments.pex),
        settings: settings(&arguments.pex)?,
        no_byte_code: arguments.pex.no_byte_code,
    };
    let mut environment = context.distributions()?;
    for directory in &arguments.pex.sources_directory {
        let directory = absolute(directory)?;
        add_sources(&mut environment, &directory).map_err(CommandError::io("read", &directory))?;
    }
    let bar = context.voice.bar(total_size(&environment), "packing");
    let written = write_pex(&environment, &options, &output, &context.cache, &|bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let written = written?;
    written.warnings.iter().for_each(|warning| context.voice.warn(warning));
    let report = Report {
        path: written.path.display().to_string(),
        bytes: written.size,
        pex_hash: written.info.pex_hash,
        seconds: start.elapsed().as_secs_f64(),
        distributions: written.info.distributions.into_keys().collect(),
    };
    context.voice.say(format!("wrote {} in {:.2} s", bytes(report.bytes), report.seconds));
    context.voice.answer(report.path.clone(), &report);
    Ok(())
}

/// What `pack --format wheelhouse --json` prints.
#[derive(Debug, Serialize)]
struct WheelhouseReport {
    path: String,
    bytes: u64,
    seconds: f64,
    wheels: Vec<String>,
}

pub(in crate::cli) fn pack_wheelhouse(context: &Context, arguments: &Pack) -> Result<(), CommandError> {
    let start = Instant::now();
    let output = absolute(&arguments.output)?;
    let environment = context.distributions()?;
    let bar = context.voice.bar(total_size(&environment), "packing");
    let level = context.common.level.and_then(|level| u32::try_from(level).ok()).unwrap_or(WHEEL_LEVEL).min(9);
    let written = write_wheelhouse(&environment, level, &output, &|bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let written = written?;
    written.warnings.iter().for_each(|warning| context.voice.warn(warning));
    let (path, seconds) = (output.display().to_string(), start.elapsed().as_secs_f64());
    let report = WheelhouseReport { path: path.clone(), bytes: written.size, seconds, wheels: written.wheels };
    context.voice.say(format!("wrote {} in {seconds:.2} s", bytes(report.bytes)));
    context.voice.answer(path, &report);
    Ok(())
}

/// The layout of the PEX. With `--format pex` it depends on [`OPTIMIZATION`], then on the name of the output.
fn shape(format: Format, output: &Path, optimization: Option<&str>) -> Result<Shape, CommandError> {
    let zipped = output.extension().is_some_and(|extension| extension == "zip");
    let of = |layout| Shape { layout, zipped, ..Shape::default() };
    match (format, optimization) {
        (Format::PexPacked, _) => Ok(of(Layout::Packed)),
        (Format::PexLoose, _) => Ok(of(Layout::Loose)),
        (_, Some(name)) => Shape::of_optimization(name).ok_or_else(|| {
            CommandError::Usage(format!(
                "{OPTIMIZATION}={name}: expected SLOW_FAST_SMALL, FAST_MID_BIG, MID_SLOW_SMALL or DISABLED"
            ))
        }),
        _ if zipped => Ok(of(Layout::Packed)),
        _ => Ok(Shape::default()),
    }
}

fn start_of(arguments: &PexArguments) -> Start {
    match (&arguments.entry_point, &arguments.script) {
        (Some(entry_point), _) => Start::EntryPoint(entry_point.clone()),
        (_, Some(script)) => Start::Script(script.clone()),
        _ => Start::Interpreter,
    }
}

/// PEX-INFO as the flags have it; all other settings are the defaults of upstream's `pex`.
fn settings(arguments: &PexArguments) -> Result<PexInfo, CommandError> {
    let mut settings = PexInfo {
        inherit_path: match arguments.inherit_path.as_deref() {
            Some("prefer") => InheritPath::Prefer,
            Some("fallback") => InheritPath::Fallback,
            _ => InheritPath::False,
        },
        interpreter_constraints: arguments.interpreter_constraint.clone(),
        inject_args: arguments.inject_args.clone(),
        venv: arguments.venv_mode,
        ..PexInfo::new()
    };
    for assignment in &arguments.inject_env {
        let (name, value) = assignment
            .split_once('=')
            .ok_or_else(|| CommandError::Usage(format!("--inject-env {assignment}: expected NAME=VALUE")))?;
        settings.inject_env.insert(name.into(), value.into());
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pex_shape_follows_format_name_and_variable() {
        for (format, output, optimization, expected) in [
            (Format::Pex, "my.pex", None, Some((Layout::Zipapp, false))),
            (Format::Pex, "my.pex.zip", None, Some((Layout::Packed, true))),
            (Format::PexPacked, "my.pex", Some("FAST_MID_BIG"), Some((Layout::Packed, false))),
            (Format::PexLoose, "my.pex.zip", None, Some((Layout::Loose, true))),
            (Format::Pex, "my.pex", Some("FAST_MID_BIG"), Some((Layout::Loose, true))),
            (Format::Pex, "my.pex", Some("DISABLED"), Some((Layout::Zipapp, false))),
            (Format::Pex, "my.pex", Some("QUICK"), None),
        ] {
            let found = shape(format, Path::new(output), optimization).ok().map(|shape| (shape.layout, shape.zipped));
            assert_eq!(found, expected, "{format:?} {output} {optimization:?}");
        }
    }
}
