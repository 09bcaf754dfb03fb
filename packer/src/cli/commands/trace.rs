//! Traces: what a run reads first, from a file or from a run here.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cpack_format::job::Job;
use cpack_format::manifest::Manifest;
use cpack_format::message::with_causes;
use cpack_format::trace::{self, Touch, Traced};

use super::child::exit_of;
use crate::cli::context::{Context, absolute};
use crate::cli::error::CommandError;
use crate::cli::output::{bytes, count};
use crate::launcher::{self, Launcher};

/// Reads a file that starts have recorded.
pub(in crate::cli) fn read(path: &Path) -> Result<Vec<Touch>, CommandError> {
    let text = fs::read(path).map_err(CommandError::io("read", path))?;
    trace::parse(&text).map_err(|error| {
        CommandError::Usage(format!(
            "--trace-file {}: {}; record it again with env-python --cpack trace FILE",
            path.display(),
            with_causes(&error)
        ))
    })
}

impl Context {
    /// Gives `job` the trace, as far as the environment has its layers.
    pub(in crate::cli) fn add_trace(&self, touches: &[Touch], manifest: &Manifest, job: &mut Job) {
        let Traced { pieces, others } = trace::pieces(touches, &manifest.layers);
        if !others.is_empty() {
            self.voice.warn(format!(
                "the trace is of other versions of {}: these parts of it are left out; record it again",
                others.join(", ")
            ));
        }
        let needed: u64 = pieces.iter().map(|piece| piece.size(&manifest.layers)).sum();
        let all: u64 = manifest.layers.iter().map(|layer| layer.archive.size).sum();
        self.voice.say(format!(
            "the trace needs {} of {} first, in {}",
            bytes(needed),
            bytes(all),
            count(pieces.len(), "piece")
        ));
        job.trace = pieces;
    }

    /// Runs the launcher here with `arguments`, and returns what that read first. It is added to `kept`, if a file is named.
    pub(in crate::cli) fn traced_run(
        &self,
        launcher: &Launcher,
        arguments: &[std::ffi::OsString],
        kept: Option<&Path>,
    ) -> Result<Vec<Touch>, CommandError> {
        let directory = tempfile::tempdir().map_err(CommandError::io("write", std::env::temp_dir()))?;
        let path = directory.path().join("env-python");
        launcher::write(&path, &launcher.whole(), launcher.access())?;
        let record: PathBuf = kept.map_or_else(|| Ok(directory.path().join("trace")), absolute)?;
        let mut command = Command::new(&path);
        // Standard output is for the answer of this program.
        command.args(arguments).stdout(Stdio::from(io::stderr()));
        command.env("CPACK_RECORD", &record).env("CPACK_FILL", "off").env("CPACK_INTERPRETER", "1");
        let status = command.status().map_err(CommandError::io("run", &path))?;
        if !status.success() {
            return Err(CommandError::Usage(format!(
                "the traced run ended with code {}: nothing was published under the name; try it with cluster-pack run",
                exit_of(status)
            )));
        }
        let touches = if record.exists() { read(&record)? } else { Vec::new() };
        if touches.is_empty() {
            return Err(CommandError::Usage(
                "nothing was recorded, since the traced run was not lazy, as its line above says: record on a node that \
                 allows it with env-python --cpack trace FILE, and pass --trace-file FILE"
                    .into(),
            ));
        }
        Ok(touches)
    }
}
