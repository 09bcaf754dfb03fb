//! Waterfalls: one start from left to right, with lanes for `cpack-boot`, for the threads that work for it, and for Python.

use std::fmt::Write as _;

use super::html::{self, escape, percent, seconds};
use crate::report::{Report, Waterfall};
use crate::trace::{Bar, Lane};

/// Kinds of bars with their own colour, and their names in the legend. All other kinds are phases of `cpack-boot`.
const KINDS: [(&str, &str); 10] = [
    ("demand", "fetch, waited for"),
    ("ahead", "fetch ahead"),
    ("fetch", "fetch"),
    ("verify", "verify"),
    ("decode", "decode"),
    ("write", "write"),
    ("interpreter", "interpreter start"),
    ("command", "command"),
    ("import", "import"),
    ("trace", "writing the trace itself"),
];

/// The least width of a bar with a word in it, in percent of the whole.
const LABELLED: f64 = 5.0;

pub(crate) fn sections(report: &Report) -> String {
    let threads = "Threads show what took most of each instant. Hover a bar for its time.";
    let note = format!("One traced cold start, left to right. {threads}");
    let cold = section("Where the first run goes", "cold", &note, &report.waterfall);
    let note = format!(
        "One traced lazy start: Python runs while its files are served, and the environment is built behind it with what is left \
         of processors and disk. {threads}"
    );
    let lazy = report.lazy_waterfall.as_ref();
    cold + &lazy.map_or_else(String::new, |fall| section("Where a lazy first run goes", "lazy", &note, fall))
}

fn section(title: &str, start: &str, note: &str, fall: &Waterfall) -> String {
    let lanes: String = fall.lanes.iter().map(|l| lane(l, fall.seconds)).collect();
    let body = format!(
        "{}<div class=\"waterfall\" role=\"img\" aria-label=\"One {start} start in {}\">\n{lanes}{}</div>\n",
        legend(fall),
        seconds(fall.seconds),
        axis(fall.seconds)
    );
    html::section(title, note, &body)
}

fn legend(fall: &Waterfall) -> String {
    let used = |kind: &str| fall.lanes.iter().flat_map(|l| &l.bars).any(|bar| bar.kind == kind);
    let phases = "<li><i class=\"phase\"></i>phase of the boot</li>".to_owned();
    let kinds = KINDS.iter().filter(|(kind, _)| used(kind));
    let items = kinds.map(|(kind, text)| format!("<li><i class=\"{kind}\"></i>{text}</li>"));
    format!("<ul class=\"legend\">{}{}</ul>\n", phases, items.collect::<String>())
}

fn lane(lane: &Lane, whole: f64) -> String {
    let mut bars = String::new();
    for (index, bar) in lane.bars.iter().enumerate() {
        bars.push_str(&drawn(bar, whole, index));
    }
    format!(
        "<div class=\"lane\"><span class=\"name\">{}</span><div class=\"track\">{bars}</div></div>\n",
        escape(&lane.name)
    )
}

fn drawn(bar: &Bar, whole: f64, index: usize) -> String {
    let (from, width) = (percent(bar.from, whole).max(0.0), percent(bar.to - bar.from, whole));
    let own = KINDS.iter().any(|(kind, _)| *kind == bar.kind);
    let class = if own { bar.kind.clone() } else { format!("phase shade{}", index % 2) };
    let what = if bar.name.is_empty() { bar.kind.clone() } else { format!("{} {}", bar.kind, bar.name) };
    let title = format!("{what}: {} from {}", seconds(bar.to - bar.from), seconds(bar.from));
    let mut text = String::new();
    if width >= LABELLED && (!own || !bar.name.is_empty() || matches!(bar.kind.as_str(), "interpreter" | "command")) {
        let label = if bar.name.is_empty() { &bar.kind } else { &bar.name };
        let _ = write!(text, "<b>{}</b>", escape(label));
    }
    format!(
        "<i class=\"{}\" style=\"left:{from:.3}%;width:{width:.3}%\" title=\"{}\">{text}</i>",
        escape(&class),
        escape(&title)
    )
}

/// At most six marks, at round times.
fn axis(whole: f64) -> String {
    let raw = whole / 5.0;
    let power = 10f64.powf(raw.max(1e-6).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|f| f * power).find(|step| *step >= raw).unwrap_or(power * 10.0);
    let mut marks = String::new();
    let mut at = 0.0;
    while at <= whole {
        let _ = write!(marks, "<span style=\"left:{:.3}%\">{}</span>", percent(at, whole), tick(at, step));
        at += step;
    }
    format!("<div class=\"lane axis\"><span class=\"name\"></span><div class=\"track\">{marks}</div></div>\n")
}

fn tick(at: f64, step: f64) -> String {
    if step < 0.1 { format!("{:.0} ms", at * 1e3) } else { format!("{at:.*} s", usize::from(step < 1.0)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waterfall_axis_has_few_round_marks() {
        for (whole, expected) in [
            (2.3, ["0.0 s", "0.5 s", "1.0 s", "1.5 s", "2.0 s"].as_slice()),
            (2.01, &["0.0 s", "0.5 s", "1.0 s", "1.5 s", "2.0 s"]),
            (0.04, &["0 ms", "10 ms", "20 ms", "30 ms", "40 ms"]),
        ] {
            let found = axis(whole);
            let marks: Vec<&str> = found.split("%\">").skip(1).filter_map(|part| part.split('<').next()).collect();
            assert_eq!(marks, expected, "{whole}");
        }
    }

    #[test]
    fn waterfall_bar_is_as_wide_as_its_time() {
        let bar = Bar { kind: "import".into(), from: 1.0, to: 2.0, name: "<numpy>".into() };
        let found = drawn(&bar, 4.0, 0);
        assert!(found.contains("left:25.000%;width:25.000%") && found.contains("<b>&lt;numpy&gt;</b>"), "{found}");
    }
}
