//! Fail points: steps at which tests kill, stop or refuse something. Without the feature `faults` they are empty functions.
//!
//! `CPACK_FAULTS` lists faults, separated by commas, each `<step>=<action>` or `<step>=<action>@<n>` for the n-th passing
//! of the step alone. Actions: `kill` (SIGKILL), `stop` (SIGSTOP), `sleep<milliseconds>`, and `E<number>`, which makes the
//! step fail with that `errno`. Two names are values instead of steps, which [`value`] returns: `boot-id` replaces the boot
//! id, and `flock=lie` makes locks exclude no other process. With `CPACK_FAULT_LOG` each step that is passed is appended to
//! that file, one a line.

/// Every step. A test checks that some program passes each.
pub const STEPS: &[&str] = &[
    // Locks (`flock(2)`) and links, which file systems refuse.
    "flock",
    "linkat",
    // A directory of the cache is moved out of its place: overlayfs refuses it for directories of an image.
    "move",
    // The node cache.
    "cache.created",
    "staging.created",
    "layer.claimed",
    "layer.staged",
    "layer.file",
    "layer.extracted",
    "layer.sealed",
    "layer.state",
    "layer.published",
    "layer.checked",
    "layer.trusted",
    "layer.discarded",
    "tree.claimed",
    "tree.directories",
    "tree.group",
    "tree.records",
    "tree.sealed",
    "tree.renamed",
    "tree.closed",
    "tree.exchanged",
    "job.filled",
    "job.renamed",
    "job.closed",
    "job.exchanged",
    "private.created",
    "private.filled",
    "clean.abandoned",
    "clean.looked",
    "clean.unused",
    "clean.layer",
    "clean.environment",
    "clean.job",
    "clean.removed",
    "boot.exec",
    // A lazy start: the process that becomes Python, the guard, the witness, the server.
    "lazy.greeted",
    "lazy.mounted",
    "lazy.served",
    "guard.witnessed",
    "guard.device",
    "guard.guarded",
    "guard.ended",
    "witness.device",
    "server.listed",
    "server.device",
    "server.guarded",
    "server.served",
    "server.piece",
    "server.ended",
    // The packer and directory stores.
    "store.filled",
    "store.synced",
    "store.renamed",
    "publish.packed",
    "publish.sent",
    "publish.manifest",
    "publish.name",
    "launcher.written",
    "client.recorded",
];

#[cfg(feature = "faults")]
pub use on::{point, value};

/// Passes a step. A test decides whether and how it fails.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub const fn point(_step: &'static str) -> std::io::Result<()> {
    Ok(())
}

/// The value that a test puts in the place of the program's own, if any.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub const fn value(_name: &'static str) -> Option<&'static str> {
    None
}

#[cfg(feature = "faults")]
mod on {
    use std::fs::File;
    use std::io::{self, Write as _};
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use nix::sys::signal::{Signal, raise};

    /// What a test wants to happen at one step.
    #[derive(Debug)]
    struct Fault {
        step: String,
        action: String,
        /// The one passing that it is for. `None` means all of them.
        at: Option<u64>,
        passed: AtomicU64,
    }

    #[derive(Debug)]
    struct Faults {
        list: Vec<Fault>,
        log: Option<PathBuf>,
    }

    fn faults() -> &'static Faults {
        static FAULTS: OnceLock<Faults> = OnceLock::new();
        FAULTS.get_or_init(|| {
            let text = std::env::var("CPACK_FAULTS").unwrap_or_default();
            Faults {
                list: text.split(',').filter_map(parse).collect(),
                log: std::env::var_os("CPACK_FAULT_LOG").map(Into::into),
            }
        })
    }

    fn parse(text: &str) -> Option<Fault> {
        let (step, action) = text.split_once('=')?;
        let (action, at) = action.split_once('@').map_or((action, None), |(action, at)| (action, at.parse().ok()));
        Some(Fault { step: step.into(), action: action.into(), at, passed: AtomicU64::new(0) })
    }

    /// Passes a step. A test decides whether and how it fails.
    pub fn point(step: &'static str) -> io::Result<()> {
        let faults = faults();
        if let Some(path) = &faults.log {
            File::options().append(true).create(true).open(path)?.write_all(format!("{step}\n").as_bytes())?;
        }
        for fault in faults.list.iter().filter(|fault| fault.step == step) {
            let passed = fault.passed.fetch_add(1, Ordering::Relaxed) + 1;
            if fault.at.is_none_or(|at| at == passed) {
                act(&fault.action)?;
            }
        }
        Ok(())
    }

    fn act(action: &str) -> io::Result<()> {
        match action {
            "kill" => raise(Signal::SIGKILL)?,
            "stop" => raise(Signal::SIGSTOP)?,
            _ => {
                let number = |prefix| action.strip_prefix(prefix).and_then(|text: &str| text.parse::<u32>().ok());
                if let Some(milliseconds) = number("sleep") {
                    std::thread::sleep(Duration::from_millis(milliseconds.into()));
                } else if let Some(errno) = number("E") {
                    return Err(io::Error::from_raw_os_error(errno.cast_signed()));
                }
            }
        }
        Ok(())
    }

    /// The value that a test puts in the place of the program's own, if any.
    pub fn value(name: &'static str) -> Option<&'static str> {
        faults().list.iter().find(|fault| fault.step == name).map(|fault| fault.action.as_str())
    }
}
