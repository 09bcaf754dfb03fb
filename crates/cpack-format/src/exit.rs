//! Exit codes of both programs: an executor's log may show nothing else.
//!
//! The codes stay clear of 0–2 (Python's own), 64–78 (`sysexits.h`) and 126–165 (shell and signals).

/// Why a program ended before Python ran. [`Exit::MEANINGS`] says what each code stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "`MEANINGS` says it")]
pub enum Exit {
    Usage = 80,
    Environment = 81,
    Interpreter = 82,
    Artifact = 83,
    NotFound = 84,
    Denied = 85,
    Unavailable = 86,
    Disk = 87,
    Stopped = 88,
    Internal = 89,
}

impl Exit {
    /// Every code, in order, with one line for `--help` and docs/troubleshooting.md.
    pub const MEANINGS: [(Self, &str); 10] = [
        (Self::Usage, "the command line or a setting is wrong"),
        (Self::Environment, "the environment cannot be packed"),
        (Self::Interpreter, "no interpreter of the right version, ABI, platform or glibc"),
        (Self::Artifact, "a job, manifest, layer or PEX is damaged, hostile or of a newer format"),
        (Self::NotFound, "the store has no such object"),
        (Self::Denied, "the store refuses: permission, credentials, expired token"),
        (Self::Unavailable, "the store does not answer"),
        (Self::Disk, "the node cache or a local file cannot be read or written"),
        (Self::Stopped, "stopped by a signal, or the caller went away"),
        (Self::Internal, "a fault of cluster-pack itself"),
    ];

    /// The number that the process ends with.
    pub const fn code(self) -> u8 {
        self as u8
    }
}
