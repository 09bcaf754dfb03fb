//! The page: a report as one HTML file that needs nothing else, no script and no network.
//!
//! Everything is laid out in parts of the width, so that it is read on a narrow screen as on a wide one; the treemap is
//! drawn twice, for either shape. Colours come from variables that follow the reader's preference for light or dark.

mod html;
mod sections;
mod treemap;
mod waterfall;

use super::report::Report;
pub(crate) use html::seconds;

/// The style sheet.
const STYLE: &str = include_str!("style.css");

/// The page of a report.
pub fn page(report: &Report) -> String {
    let title = html::escape(&format!("First run of {}", report.environment.name));
    let sections = [
        sections::heading(report),
        sections::figures(report),
        sections::modes(report),
        waterfall::section(report),
        sections::phases(report),
        treemap::section(report),
        sections::layers(report),
        sections::method(report),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{}</main>\n</body>\n</html>\n",
        sections.concat()
    )
}
