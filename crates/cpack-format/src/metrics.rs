//! Words of a line of `CPACK_METRICS` that both sides must agree on.

/// In place of the kind of start, in the line of the server of a lazy start.
pub const SERVER: &str = "server";

/// The same for what fills behind it.
pub const FILLER: &str = "filler";

/// Whether a line with this word is of a process that became Python.
pub fn is_start(word: &str) -> bool {
    word != SERVER && word != FILLER
}
