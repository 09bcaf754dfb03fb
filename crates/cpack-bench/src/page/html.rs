//! Pieces of HTML, and figures as people read them.

/// Text as it may stand in an element or an attribute.
pub(super) fn escape(text: &str) -> String {
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

/// A part of a whole, in percent.
pub(super) fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { 100.0 * part / whole } else { 0.0 }
}

/// `12.3 s`, `0.45 s`, `3.1 ms`.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s <= 0.0 => "0".into(),
        s if s < 0.0995 => format!("{:.1} ms", s * 1e3),
        s if s < 9.95 => format!("{s:.2} s"),
        s => format!("{s:.1} s"),
    }
}

/// `12 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 999.5 {
            return if unit == "B" || value >= 9.95 {
                format!("{value:.0} {unit}")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

/// A table: the first column names things, the others are numbers. Cells are HTML already.
pub(super) fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
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

/// A section with a heading and a line that says what is seen.
pub(super) fn section(title: &str, note: &str, body: &str) -> String {
    format!("<section>\n<h2>{}</h2>\n<p class=\"note\">{}</p>\n{body}</section>\n", escape(title), escape(note))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_becomes_markup() {
        assert_eq!(escape("<a b='c' d=\"&\">"), "&lt;a b=&#39;c&#39; d=&quot;&amp;&quot;&gt;");
    }

    #[test]
    fn figures_are_short() {
        for (value, text) in [(0.0, "0"), (0.0031, "3.1 ms"), (0.4, "0.40 s"), (12.34, "12.3 s")] {
            assert_eq!(seconds(value), text);
        }
        for (value, text) in [(7, "7 B"), (5 << 10, "5.0 KiB"), (200 << 20, "200 MiB"), (6 << 30, "6.0 GiB")] {
            assert_eq!(bytes(value), text);
        }
    }
}
