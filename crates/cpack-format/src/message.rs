//! Errors as one line of bounded length, with their causes and without control characters.

use std::error::Error;
use std::fmt::Write as _;

/// The longest line on standard error, in bytes: the process that should read it may not read yet.
const MAX_LINE: usize = 3000;

/// The messages of the error and its causes, without those that an earlier message contains.
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
