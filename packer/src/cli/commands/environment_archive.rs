//! `cluster-pack pack --format tar.gz`, `tar.zst` and `zip`.

use std::time::Instant;

use serde::Serialize;

use crate::cli::arguments::Pack;
use crate::cli::context::{Context, absolute};
use crate::cli::error::CommandError;
use crate::cli::output::bytes;
use crate::cli::report::warn_of;
use crate::environment_archive::{ArchiveForm, ArchiveOptions, write_archive};
use crate::submit::total_size;

/// What `pack --format tar.gz --json` prints.
#[derive(Debug, Serialize)]
struct Report {
    path: String,
    bytes: u64,
    seconds: f64,
    /// The interpreter that each node must have; `null` if it is in the archive.
    node_python: Option<String>,
    /// How many files of a conda environment `bin/conda-unpack` writes.
    placeholders: usize,
}

pub(in crate::cli) fn pack(context: &Context, arguments: &Pack, form: ArchiveForm) -> Result<(), CommandError> {
    let start = Instant::now();
    let output = absolute(&arguments.output)?;
    let environment = context.environment()?;
    let options = ArchiveOptions { form, level: context.common.level, with_python: context.common.with_python };
    let bar = context.voice.bar(total_size(&environment), "packing");
    let written = write_archive(&environment, &options, &output, &|bytes| bar.inc(bytes));
    bar.finish_and_clear();
    let written = written?;
    warn_of(context.voice, written.facts.iter().map(|(what, facts)| (what.clone(), facts)), &environment.prefix);
    for link in &written.left_out {
        context.voice.warn(format!(
            "packed without the link {link}: a zip has none, and it leads to no file of the environment"
        ));
    }
    let report = Report {
        path: output.display().to_string(),
        bytes: written.size,
        seconds: start.elapsed().as_secs_f64(),
        placeholders: written.placeholders,
        node_python: written.node_python.map(|path| path.display().to_string()),
    };
    context.voice.say(format!("wrote {} in {:.2} s", bytes(report.bytes), report.seconds));
    if let Some(python) = &report.node_python {
        context.voice.say(format!("each node needs {python}: an environment of a uv-managed Python brings its own"));
    }
    if environment.is_whole_conda() {
        context.say_of_conda(&environment, written.placeholders);
    }
    if form != ArchiveForm::TarZst {
        let name = output.file_name().unwrap_or_default().to_string_lossy();
        context
            .voice
            .say(format!("Spark: --archives {name}#environment --conf spark.pyspark.python=./environment/bin/python"));
    }
    context.voice.answer(report.path.clone(), &report);
    Ok(())
}
