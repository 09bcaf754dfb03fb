//! What an extraction may use, and what it did.

use crate::plan::PlanError;

/// Largest central directory, in bytes: 250,000 entries with names of 80 bytes.
const MAX_DIRECTORY: u64 = 32 << 20;

/// What an extraction may use, and what an archive may claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Threads that decode and write.
    pub threads: usize,
    /// Ranges of layers that threads of their own fetch at once while others decode. 0 where reading costs nothing: the
    /// threads that decode then read as well.
    pub fetches: usize,
    /// Bytes for all buffers, mapped pages among them.
    pub memory: u64,
    /// The program that ends if a local archive is cut short while it is extracted: its name, for the line that it says then.
    /// `None` where it must not end for that; archives are then read instead of mapped.
    pub mapped_by: Option<&'static str>,
    /// Content of one archive, in bytes.
    pub max_unpacked: u64,
    /// Entries of one archive, and directories.
    pub max_entries: u64,
    /// Content over archive size, for archives of more than 1 GiB unpacked.
    pub max_ratio: u64,
}

impl Default for Limits {
    /// One thread. 16 threads with these limits stay below 200 MiB resident.
    fn default() -> Self {
        Self {
            threads: 1,
            fetches: 0,
            memory: 160 << 20,
            mapped_by: None,
            max_unpacked: 1 << 40,
            max_entries: 250_000,
            max_ratio: 250,
        }
    }
}

impl Limits {
    /// How many workers fit if each needs `each` bytes.
    pub(crate) fn workers(&self, each: u64) -> usize {
        let fitting = usize::try_from(self.memory / each.max(1)).unwrap_or(usize::MAX);
        self.threads.min(fitting).max(1)
    }
}

/// Refuses a central directory of more than [`MAX_DIRECTORY`].
pub(crate) fn check_directory_size(size: u64) -> Result<(), PlanError> {
    PlanError::within("bytes of central directory", size, MAX_DIRECTORY)
}

/// What an extraction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Files, links and directory entries.
    pub files: u64,
    /// Archive bytes read.
    pub packed: u64,
    /// Bytes of content written.
    pub unpacked: u64,
}
