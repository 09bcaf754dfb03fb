//! Errors as one line: with their causes, without control characters, bounded.

use std::error::Error;
use std::fmt::Write as _;

/// Longest line on standard error, in bytes: its reader may not be reading yet.
const MAX_LINE: usize = 3000;

/// The error and its causes, each that says something new.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            let _ = write!(text, ": {cause}");
        }
        source = error.source();
    }
    text
}

/// The text without control characters, cut to [`MAX_LINE`].
pub fn one_line(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if plain.len() <= MAX_LINE {
        return plain;
    }
    let end = (0..=MAX_LINE).rev().find(|at| plain.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", plain.get(..end).unwrap_or_default())
}
