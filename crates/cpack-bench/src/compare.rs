//! `cluster-pack bench compare`: sets two reports of `bench --json` side by side, each number with its ratio.

use std::fs;

use cluster_pack::cli::{CommandError, Compare, Context, bytes, table};
use serde::Serialize;

use crate::error::BenchError;
use crate::page::{self, escape, section, with_spread};
use crate::report::{Report, Starts, phase_rows};
use crate::spread::Spread;
use crate::table::shown;

/// What follows a ratio whose two ranges, smallest to largest, have values in common.
const NEAR: &str = "~";

/// What `bench compare --json` prints, and what the table and the page show.
#[derive(Debug, Serialize)]
struct Comparison {
    /// What each report measured: A, then B.
    of: [String; 2],
    parts: Vec<Part>,
}

#[derive(Debug, Serialize)]
struct Part {
    title: &'static str,
    rows: Vec<Row>,
}

/// A number of both reports. None where the report has no such phase.
#[derive(Debug, Serialize)]
struct Row {
    what: String,
    unit: Unit,
    a: Option<Spread>,
    b: Option<Spread>,
    /// B's median by A's.
    ratio: Option<f64>,
    /// Whether the two ranges have values in common: then the ratio says little.
    overlap: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Unit {
    Seconds,
    Bytes,
}

pub(crate) fn run(context: &Context, arguments: &Compare) -> Result<(), BenchError> {
    let reports = [Report::read(&arguments.a)?, Report::read(&arguments.b)?];
    let [a, b] = &reports;
    if let Some(difference) = difference(a, b) {
        let paths = format!("{} and {}", arguments.a.display(), arguments.b.display());
        return Err(CommandError::Usage(format!("{paths} cannot be compared: {difference}")).into());
    }
    let comparison = Comparison { of: [about(a), about(b)], parts: parts(a, b) };
    if let Some(path) = arguments.html.as_deref().map(page::writable).transpose()? {
        fs::write(&path, html(a, &comparison)).map_err(CommandError::io("write", &path))?;
        context.voice.say(format!("wrote {}", path.display()));
    }
    context.voice.answer(text(&comparison), &comparison);
    Ok(())
}

/// What makes two reports measure different things, in words.
fn difference(a: &Report, b: &Report) -> Option<String> {
    let facts = |report: &Report| {
        let modes: Vec<&str> = report.modes.iter().map(|mode| mode.name.as_str()).collect();
        let lazy = if report.lazy.is_some() { "measured" } else { "not measured" };
        [
            ("format", report.format.to_string()),
            ("command", report.command.join(" ")),
            ("store", report.store.clone()),
            ("modes", modes.join(", ")),
            ("containers at once", report.together.containers.to_string()),
            ("lazy starts", lazy.to_owned()),
        ]
    };
    let mut pairs = facts(a).into_iter().zip(facts(b));
    let ((what, first), (_, second)) = pairs.find(|(first, second)| first != second)?;
    Some(format!("the first has {what}: {first}; the second has {what}: {second}"))
}

fn about(report: &Report) -> String {
    let (environment, machine) = (&report.environment, &report.machine);
    format!(
        "{} {}, {} files, {}; {}, {} cores, load {} to {}; {} runs",
        environment.name,
        bytes(environment.unpacked),
        environment.files,
        report.version,
        machine.cpu,
        machine.cores,
        machine.load[0],
        machine.load[1],
        report.method.runs,
    )
}

impl Row {
    fn seconds(what: impl Into<String>, a: &Spread, b: &Spread) -> Self {
        Self::new(what.into(), Unit::Seconds, Some(a.clone()), Some(b.clone()))
    }

    fn bytes(what: impl Into<String>, a: u64, b: u64) -> Self {
        let [a, b] = [a, b].map(|size| Some(Spread::of([size as f64])));
        Self::new(what.into(), Unit::Bytes, a, b)
    }

    fn new(what: String, unit: Unit, a: Option<Spread>, b: Option<Spread>) -> Self {
        let both = a.as_ref().zip(b.as_ref());
        let ratio = both.filter(|(a, _)| a.median > 0.0).map(|(a, b)| b.median / a.median);
        let overlap = unit == Unit::Seconds && both.is_some_and(|(a, b)| a.min <= b.max && b.min <= a.max);
        Self { what, unit, a, b, ratio, overlap }
    }

    fn ratio(&self) -> String {
        let near = if self.overlap { NEAR } else { "" };
        self.ratio.map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}{near}"))
    }

    /// A's number, B's and the ratio, with seconds as `spread` shows them.
    fn cells(&self, spread: impl Fn(&Spread) -> String) -> [String; 3] {
        let cell = |value: &Option<Spread>| match (value, self.unit) {
            (None, _) => "–".into(),
            (Some(value), Unit::Seconds) => spread(value),
            (Some(value), Unit::Bytes) => bytes(value.median as u64),
        };
        [cell(&self.a), cell(&self.b), self.ratio()]
    }
}

/// Rows of the pairs that have a name in either list, in the order of the first.
fn named(prefix: &str, a: &[(String, Spread)], b: &[(String, Spread)]) -> Vec<Row> {
    let of = |list: &[(String, Spread)], name: &str| list.iter().find(|(n, _)| n == name).map(|(_, s)| s.clone());
    let only_b = b.iter().filter(|(name, _)| of(a, name).is_none());
    let names = a.iter().chain(only_b).map(|(name, _)| name);
    names.map(|name| Row::new(format!("{prefix}{name}"), Unit::Seconds, of(a, name), of(b, name))).collect()
}

fn parts(a: &Report, b: &Report) -> Vec<Part> {
    let creation = {
        let (a, b) = (&a.creation, &b.creation);
        let all = Row::seconds("from nothing, all", &a.seconds, &b.seconds);
        let rest = [
            Row::seconds("nothing changed", &a.again, &b.again),
            Row::seconds("CPU", &a.cpu, &b.cpu),
            Row::bytes("sent", a.sent, b.sent),
        ];
        [all].into_iter().chain(named("elapsed: ", &a.phases, &b.phases)).chain(rest).collect()
    };
    let modes = a.modes.iter().zip(&b.modes).flat_map(|(a, b)| {
        [
            Row::seconds(format!("{}: creation", a.name), &a.creation, &b.creation),
            Row::seconds(format!("{}: first run", a.name), &a.first, &b.first),
            Row::bytes(format!("{}: size", a.name), a.size, b.size),
        ]
    });
    vec![
        Part { title: "Ways to ship it", rows: modes.collect() },
        Part { title: "Starts", rows: starts(a, b) },
        Part { title: "Phases of a cold start", rows: phases(a, b) },
        Part { title: "Creation", rows: creation },
    ]
}

fn starts(a: &Report, b: &Report) -> Vec<Row> {
    let of = |name: &str, a: &Starts, b: &Starts| {
        [
            Row::seconds(format!("{name}: until Python"), &a.boot, &b.boot),
            Row::seconds(format!("{name}: until the end"), &a.seconds, &b.seconds),
            Row::seconds(format!("{name}: CPU"), &a.cpu, &b.cpu),
            Row::bytes(format!("{name}: fetched"), a.fetched, b.fetched),
        ]
    };
    let mut rows = Vec::from(of("cold", &a.cold, &b.cold));
    if let (Some(a), Some(b)) = (&a.lazy, &b.lazy) {
        rows.extend(of("lazy", a, b));
    }
    rows.extend(of("second container", &a.second, &b.second));
    rows.extend(of("warm", &a.warm, &b.warm));
    let name = format!("{} at once", a.together.containers);
    let (a, b) = (&a.together, &b.together);
    rows.extend([
        Row::seconds(format!("{name}: until the last Python"), &a.boot, &b.boot),
        Row::seconds(format!("{name}: until the last end"), &a.last, &b.last),
        Row::seconds(format!("{name}: CPU"), &a.cpu, &b.cpu),
    ]);
    rows
}

fn phases(a: &Report, b: &Report) -> Vec<Row> {
    let cold = |report: &Report| -> Vec<(String, Spread)> {
        let rows = phase_rows(report).into_iter();
        rows.filter_map(|(_, label, [cold, ..])| cold.map(|spread| (label, spread.clone()))).collect()
    };
    let mut rows = named("", &cold(a), &cold(b));
    rows.extend(named("all threads: ", &a.cold.work, &b.cold.work));
    rows
}

fn note() -> String {
    format!(
        "Medians with the smallest and the largest. {NEAR} after a ratio: the two ranges overlap, so that it says little."
    )
}

fn text(comparison: &Comparison) -> String {
    let [a, b] = &comparison.of;
    let mut parts = vec![format!("A: {a}\nB: {b}")];
    for part in &comparison.parts {
        let mut rows = vec![[part.title, "A", "B", "B / A"].map(str::to_owned).to_vec()];
        rows.extend(part.rows.iter().map(|row| std::iter::once(row.what.clone()).chain(row.cells(shown)).collect()));
        parts.push(table(&rows, &[1, 2, 3]));
    }
    parts.push(note());
    parts.join("\n\n")
}

fn html(report: &Report, comparison: &Comparison) -> String {
    let title = format!("Two measurements of {}", report.environment.name);
    let [a, b] = comparison.of.each_ref().map(|text| escape(text));
    let command = escape(&report.command.join(" "));
    let heading = format!(
        "<header>\n<p class=\"kicker\">cluster-pack bench compare</p>\n<h1>{}</h1>\n<p>A: {a}</p>\n<p>B: {b}</p>\n\
         <p>The command: <code>python {command}</code></p>\n<p class=\"note\">{}</p>\n</header>\n",
        escape(&title),
        note(),
    );
    let sections = comparison.parts.iter().map(|part| {
        let row = |row: &Row| std::iter::once(escape(&row.what)).chain(row.cells(with_spread)).collect();
        let rows: Vec<Vec<String>> = part.rows.iter().map(row).collect();
        section(part.title, "", &page::table(&["", "A", "B", "B / A"], &rows))
    });
    page::document(&title, &std::iter::once(heading).chain(sections).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_says_where_its_ratio_means_little() {
        let spread = |values: [f64; 3]| Spread::of(values);
        for (a, b, ratio) in [
            ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0], "2.50"),
            ([1.0, 2.0, 3.0], [3.0, 4.0, 6.0], "2.00~"),
            ([0.0, 0.0, 0.0], [3.0, 4.0, 6.0], "–"),
        ] {
            assert_eq!(Row::seconds("x", &spread(a), &spread(b)).ratio(), ratio);
        }
        assert_eq!(Row::bytes("x", 200, 100).cells(shown), ["200 B", "100 B", "0.50"]);
        let rows = named("", &[("a".into(), spread([1.0; 3]))], &[("b".into(), spread([1.0; 3]))]);
        assert_eq!(rows.iter().map(|row| row.ratio()).collect::<Vec<_>>(), ["–", "–"]);
    }
}
