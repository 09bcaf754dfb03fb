//! Pieces of HTML.

use std::time::Duration;

/// Escapes text for an element or an attribute.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

pub(crate) fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { 100.0 * part / whole } else { 0.0 }
}

/// `12.3 s`, `0.45 s`, `3.1 ms`, `0`.
pub(crate) fn seconds(seconds: f64) -> String {
    let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero());
    duration.map_or_else(|| "0".into(), cluster_pack::cli::seconds)
}

/// A table whose first column is text and whose other columns are numbers. Cells are HTML.
pub(crate) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let cell = |tag: &str, index: usize, text: &str| {
        let class = if index == 0 { "" } else { " class=\"number\"" };
        format!("<{tag}{class}>{text}</{tag}>")
    };
    let row = |cells: String| format!("<tr>{cells}</tr>\n");
    let head: String = heads.iter().enumerate().map(|(i, text)| cell("th", i, text)).collect();
    let body: String =
        rows.iter().map(|r| row(r.iter().enumerate().map(|(i, text)| cell("td", i, text)).collect())).collect();
    format!("<div class=\"scroll\"><table>\n<thead>{}</thead>\n<tbody>\n{body}</tbody>\n</table></div>\n", row(head))
}

/// A section with a heading and a note.
pub(crate) fn section(title: &str, note: &str, body: &str) -> String {
    format!("<section>\n<h2>{}</h2>\n<p class=\"note\">{}</p>\n{body}</section>\n", escape(title), escape(note))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_leaves_no_markup() {
        assert_eq!(escape("<a b='c' d=\"&\">"), "&lt;a b=&#39;c&#39; d=&quot;&amp;&quot;&gt;");
    }

    #[test]
    fn seconds_are_short() {
        for (value, text) in [(0.0, "0"), (0.0031, "3.1 ms"), (0.4, "0.40 s"), (12.34, "12.3 s")] {
            assert_eq!(seconds(value), text);
        }
    }
}
