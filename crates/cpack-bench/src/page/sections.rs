//! The sections of the page that are text and tables.

use cluster_pack::cli::{bytes, count};

use super::html::{escape, percent, seconds, section, table};
use crate::report::{Report, phase_rows};
use crate::spread::Spread;

/// The number of layers in the table.
const LISTED: usize = 15;

pub(crate) fn heading(report: &Report) -> String {
    let environment = &report.environment;
    let files = usize::try_from(environment.files).unwrap_or(usize::MAX);
    let command = report.command.iter().map(|a| escape(a)).collect::<Vec<_>>().join(" ");
    format!(
        "<header>\n<p class=\"kicker\">cluster-pack bench</p>\n<h1>First run of {}</h1>\n<p>Python {}, {}, {}, {}, {} store. \
         The command: <code>python {command}</code></p>\n</header>\n",
        escape(&environment.name),
        escape(&environment.python),
        count(environment.layers.len(), "layer"),
        count(files, "file"),
        bytes(environment.unpacked),
        escape(&report.store),
    )
}

pub(crate) fn figures(report: &Report) -> String {
    let spread = |of: &Spread| match of.values.len() {
        0 | 1 => "one run".to_owned(),
        _ => format!("{} to {}", seconds(of.min), seconds(of.max)),
    };
    let size = &report.environment;
    let together = &report.together;
    let crowd = format!("{} containers at once", together.containers);
    let figures = [
        ("First run, cold", seconds(report.cold.seconds.median), spread(&report.cold.seconds)),
        ("Second container", seconds(report.second.seconds.median), spread(&report.second.seconds)),
        ("Warm start", seconds(report.warm.seconds.median), spread(&report.warm.seconds)),
        (&crowd, seconds(together.last.median), format!("the last, cold; {}", spread(&together.last))),
        (
            "Creation",
            seconds(report.creation.seconds.median),
            format!("unchanged: {}", seconds(report.creation.again.median)),
        ),
        ("Size", bytes(size.packed), format!("{} unpacked", bytes(size.unpacked))),
    ];
    let tile = |(name, value, more): &(&str, String, String)| {
        format!(
            "<div><dt>{}</dt><dd>{}</dd><dd class=\"more\">{}</dd></div>\n",
            escape(name),
            escape(value),
            escape(more)
        )
    };
    format!("<dl class=\"figures\">\n{}</dl>\n", figures.iter().map(tile).collect::<String>())
}

pub(crate) fn modes(report: &Report) -> String {
    let row = |mode: &crate::report::Mode| {
        vec![escape(&mode.name), with_spread(&mode.creation), with_spread(&mode.first), bytes(mode.size)]
    };
    let rows: Vec<_> = report.modes.iter().map(row).collect();
    let note = match report.method.runs {
        1 => "One run, from nothing.".to_owned(),
        runs => format!("Medians of {runs} runs, each from nothing, with the smallest and the largest."),
    };
    section("Ways to ship it", &note, &table(&["Mode", "Creation", "1st Exec", "Size"], &rows))
}

pub(crate) fn phases(report: &Report) -> String {
    let kinds = [&report.cold, &report.second, &report.warm];
    let cell = |spread: Option<&Spread>| spread.map_or_else(|| "–".into(), with_spread);
    let mut rows: Vec<Vec<String>> = Vec::new();
    for (name, label, cells) in phase_rows(report) {
        rows.push(std::iter::once(label).chain(cells.map(cell)).collect());
        if name == "extract" {
            rows.extend(report.cold.work.iter().map(|(kind, spread)| {
                vec![
                    format!("<span class=\"sub\">{} (all threads)</span>", escape(kind)),
                    with_spread(spread),
                    "–".into(),
                    "–".into(),
                ]
            }));
        }
    }
    rows.push(std::iter::once("<b>all</b>".to_owned()).chain(kinds.iter().map(|k| with_spread(&k.seconds))).collect());
    let starts = table(&["Phase of a start", "Cold", "Second container", "Warm"], &rows);
    let note =
        "Medians, with the smallest and the largest. Phases of a start follow each other; threads work side by side.";
    section("Phase by phase", note, &[starts, creation(report)].concat())
}

fn creation(report: &Report) -> String {
    let creation = &report.creation;
    let row = |what: String, of: &Spread| vec![what, with_spread(of)];
    let elapsed = creation.phases.iter().map(|(name, of)| row(format!("{}, elapsed", escape(name)), of));
    let threads = creation.work.iter().map(|(name, of)| row(format!("{}, all threads", escape(name)), of));
    let all = [row("<b>all</b>".into(), &creation.seconds), row("all, nothing changed".into(), &creation.again)];
    table(&["Phase of the creation", "From nothing"], &elapsed.chain(threads).chain(all).collect::<Vec<_>>())
}

pub(crate) fn layers(report: &Report) -> String {
    let layers = &report.environment.layers;
    let row = |layer: &crate::report::Layer| {
        let work: f64 = layer.work.iter().map(|(_, seconds)| seconds).sum();
        vec![
            format!("{} <small>{}</small>", escape(&layer.name), escape(&layer.version)),
            bytes(layer.unpacked),
            bytes(layer.packed),
            layer.files.to_string(),
            seconds(work),
            layer.modules.to_string(),
            format!("{:.1} %", percent(layer.imported as f64, layer.unpacked as f64)),
            seconds(layer.import_seconds),
        ]
    };
    let rows: Vec<_> = layers.iter().take(LISTED).map(row).collect();
    let heads = ["Layer", "Unpacked", "Packed", "Files", "Thread time", "Modules", "Imported", "Import time"];
    let modules: u64 = layers.iter().map(|layer| layer.modules).sum();
    let note = format!(
        "The {} largest of {}. The run had {} modules in the end, {modules} of them from here, the others of the standard library. \
         Import times are profiled, which slows them down.",
        rows.len(),
        layers.len(),
        report.environment.modules,
    );
    section("The largest layers", &note, &table(&heads, &rows))
}

pub(crate) fn method(report: &Report) -> String {
    let (method, machine) = (&report.method, &report.machine);
    let removed = if method.removed_between {
        " The disk was too small for all of them: directories were removed between the runs, which slows ext4 down."
    } else {
        ""
    };
    format!(
        "<footer>\n<p>Medians of {} runs. Cold: {}. Warm: {}. A second container has its own directory and launcher on a node that has the \
         environment. Interpreter start is that of <code>-c ''</code>, warm.{removed}</p>\n<p>{}, {} cores, {} of memory; load {} before, {} after. \
         cluster-pack {}.</p>\n</footer>\n",
        method.runs,
        escape(&method.cold),
        escape(&method.warm),
        escape(&machine.cpu),
        machine.cores,
        bytes(machine.memory),
        machine.load[0],
        machine.load[1],
        escape(&report.version),
    )
}

/// The median, then the smallest and the largest.
pub(crate) fn with_spread(spread: &Spread) -> String {
    if spread.values.len() < 2 {
        return seconds(spread.median);
    }
    format!("{} <small>{} – {}</small>", seconds(spread.median), seconds(spread.min), seconds(spread.max))
}
