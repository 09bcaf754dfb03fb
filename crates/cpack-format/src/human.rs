//! Sizes, durations and tables for people: both programs print them alike.

use std::time::Duration;

/// `bytes` in powers of 1024, two or three digits.
pub fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 999.5 || unit == "GiB" {
            let decimals = usize::from(unit != "B" && value < 99.5);
            return format!("{value:.decimals$} {unit}");
        }
        value /= 1024.0;
    }
    String::new()
}

/// `40 s`, `90 min`, `9 h`, `6 days`.
pub fn lasting(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86400),
    }
}

/// Rows in aligned columns, without a last line break; the columns with the indexes `right` are aligned to the right.
pub fn table(rows: &[Vec<String>], right: &[usize]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|s| s.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).enumerate().map(|(c, (cell, width))| {
            if right.contains(&c) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (value, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 KiB"),
            (150_000, "146 KiB"),
            (3 << 20, "3.0 MiB"),
            (20 << 30, "20.0 GiB"),
        ] {
            assert_eq!(bytes(value), shown);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a".to_owned(), "10".into()], vec!["long".into(), "7".into()]];
        assert_eq!(table(&rows, &[1]), "a     10\nlong   7");
        assert_eq!(table(&rows, &[]), "a     10\nlong  7");
        assert_eq!(table(&[], &[]), "");
    }
}
