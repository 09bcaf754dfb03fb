//! Shows a report as one HTML file without scripts or network.
//!
//! All widths are parts of the screen's width, so that the page is readable on narrow screens; the treemap is drawn twice,
//! once for each shape. Colours are variables that follow the reader's preference for light or dark.

mod html;
mod sections;
mod treemap;
mod waterfall;

use std::fs;
use std::path::{Path, PathBuf};

use cluster_pack::cli::{CommandError, absolute};

use crate::error::BenchError;
use crate::report::Report;
pub(crate) use html::{escape, seconds, section, table};
pub(crate) use sections::with_spread;

const STYLE: &str = include_str!("style.css");

pub(crate) fn page(report: &Report) -> String {
    let sections = [
        sections::heading(report),
        sections::figures(report),
        sections::modes(report),
        waterfall::sections(report),
        sections::phases(report),
        treemap::section(report),
        sections::layers(report),
        sections::method(report),
    ];
    document(&format!("First run of {}", report.environment.name), &sections.concat())
}

/// A page with this title, which is text, and this content, which is HTML.
pub(crate) fn document(title: &str, content: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{content}</main>\n</body>\n</html>\n"
    )
}

/// Creates the file, so that a wrong path is reported before the measurement, which takes minutes.
pub(crate) fn writable(path: &Path) -> Result<PathBuf, BenchError> {
    let path = absolute(path)?;
    fs::OpenOptions::new().append(true).create(true).open(&path).map_err(CommandError::io("write", &path))?;
    Ok(path)
}
