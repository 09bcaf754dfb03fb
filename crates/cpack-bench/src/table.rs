//! Shows a report on the terminal.

use crate::page::seconds;
use crate::report::{Report, Starts, phase_rows};
use crate::spread::Spread;
use cluster_pack::cli::{bytes, count, table};

/// The table of modes that users of cluster-pack know, then where the time went.
pub(crate) fn render(report: &Report) -> String {
    let (machine, method) = (&report.machine, &report.method);
    let about = format!(
        "{}: {}, {}, {} files; python {}\nmedians of {} (smallest to largest); {} cores; load {} before, {} after",
        report.environment.name,
        count(report.environment.layers.len(), "layer"),
        bytes(report.environment.unpacked),
        report.environment.files,
        report.command.join(" "),
        count(method.runs, "run"),
        machine.cores,
        machine.load[0],
        machine.load[1],
    );
    let removed = if method.removed_between { "; directories were removed between runs, for want of disk" } else { "" };
    let meaning = format!("cold: {}{removed}\nwarm: {}", method.cold, method.warm);
    [about, modes(report), starts(report), phases(report), creation(report), meaning].join("\n\n")
}

fn modes(report: &Report) -> String {
    let mut rows = vec![["Mode", "Creation", "1st Exec", "Size"].map(str::to_owned).to_vec()];
    rows.extend(report.modes.iter().map(|m| vec![m.name.clone(), shown(&m.creation), shown(&m.first), bytes(m.size)]));
    table(&rows, &[1, 2, 3])
}

fn starts(report: &Report) -> String {
    let mut rows = vec![["Start", "until Python", "until the end", "CPU", "Fetched"].map(str::to_owned).to_vec()];
    let lazy = report.lazy.as_ref().map(|lazy| ("lazy", lazy));
    let others = [("second container", &report.second), ("warm", &report.warm)];
    let kinds = std::iter::once(("cold", &report.cold)).chain(lazy).chain(others);
    rows.extend(kinds.map(|(name, s): (&str, &Starts)| {
        vec![name.to_owned(), shown(&s.boot), shown(&s.seconds), shown(&s.cpu), bytes(s.fetched)]
    }));
    let crowd = &report.together;
    let name = format!("{} at once, the last", crowd.containers);
    rows.push(vec![name, shown(&crowd.boot), shown(&crowd.last), shown(&crowd.cpu), bytes(crowd.fetched)]);
    table(&rows, &[1, 2, 3, 4])
}

fn phases(report: &Report) -> String {
    let mut rows = vec![["Phase of a start", "cold", "second container", "warm"].map(str::to_owned).to_vec()];
    let cell = |spread: Option<&Spread>| spread.map_or_else(|| "–".into(), shown);
    for (name, label, cells) in phase_rows(report) {
        rows.push(std::iter::once(label).chain(cells.map(cell)).collect());
        if name == "extract" {
            let work = report.cold.work.iter();
            rows.extend(work.map(|(kind, s)| vec![format!("  {kind}, all threads"), shown(s), "–".into(), "–".into()]));
        }
    }
    table(&rows, &[1, 2, 3])
}

fn creation(report: &Report) -> String {
    let creation = &report.creation;
    let mut rows = vec![["Creation", ""].map(str::to_owned).to_vec()];
    rows.extend(creation.phases.iter().map(|(name, s)| vec![format!("{name}, elapsed"), shown(s)]));
    rows.push(vec!["from nothing, all".into(), shown(&creation.seconds)]);
    rows.push(vec!["nothing changed".into(), shown(&creation.again)]);
    rows.push(vec!["sent".into(), bytes(creation.sent)]);
    table(&rows, &[1])
}

/// The median, then the smallest and the largest value in the median's unit.
pub(crate) fn shown(spread: &Spread) -> String {
    let median = seconds(spread.median);
    if spread.values.len() < 2 {
        return median;
    }
    let (scale, decimals) = match median.rsplit_once(' ') {
        Some((number, unit)) => {
            (if unit == "ms" { 1e3 } else { 1.0 }, number.split_once('.').map_or(0, |(_, d)| d.len()))
        }
        None => (1e3, 1),
    };
    format!("{median} [{:.decimals$}–{:.decimals$}]", spread.min * scale, spread.max * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_spread_has_the_unit_of_its_median() {
        for (values, text) in [
            (vec![1.234], "1.23 s"),
            (vec![0.0031, 0.0052, 0.0042], "4.2 ms [3.1–5.2]"),
            (vec![0.09, 0.2, 12.0], "0.20 s [0.09–12.00]"),
            (vec![0.0, 0.0], "0 [0.0–0.0]"),
        ] {
            assert_eq!(shown(&Spread::of(values)), text);
        }
    }
}
