//! Parses and sums a file of `CPACK_TRACE`, which has an event for each step of a program ([`cpack_events`]).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::BenchError;

/// An event that took time. Times are in microseconds, `ts` since 1970.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Event {
    /// The file, layer or object.
    pub(crate) name: String,
    /// The kind of work.
    pub(crate) cat: String,
    /// `X` for an event that took time.
    pub(crate) ph: String,
    pub(crate) ts: f64,
    pub(crate) dur: f64,
    pub(crate) pid: u32,
    pub(crate) tid: u32,
    #[serde(default)]
    pub(crate) args: Arguments,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub(crate) struct Arguments {
    pub(crate) bytes: Option<u64>,
    /// What a process is called.
    name: Option<String>,
}

impl Event {
    pub(crate) fn bytes(&self) -> u64 {
        self.args.bytes.unwrap_or(0)
    }
}

/// Something that a thread did, from and to in seconds since the start of the process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bar {
    pub(crate) kind: String,
    pub(crate) from: f64,
    pub(crate) to: f64,
    /// The file, layer, object or module, if it is a single one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) name: String,
}

/// The bars of one thread, or steps that follow each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lane {
    pub(crate) name: String,
    /// In order, without overlap.
    pub(crate) bars: Vec<Bar>,
}

/// Parses a file, a JSON array without its closing bracket, and returns the events that took time.
pub(crate) fn read(text: &str) -> Result<Vec<Event>, BenchError> {
    Ok(parse(text)?.into_iter().filter(|event| event.ph == "X").collect())
}

/// The events that took time by the name of their process, of a file that several wrote to.
pub(crate) fn by_process(text: &str) -> Result<BTreeMap<String, Vec<Event>>, BenchError> {
    let (told, names): (Vec<_>, Vec<_>) = parse(text)?.into_iter().partition(|event| event.ph == "X");
    let names: BTreeMap<u32, String> =
        names.into_iter().filter_map(|event| Some((event.pid, event.args.name?))).collect();
    let mut found: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for event in told {
        if let Some(name) = names.get(&event.pid) {
            found.entry(name.clone()).or_default().push(event);
        }
    }
    Ok(found)
}

fn parse(text: &str) -> Result<Vec<Event>, BenchError> {
    let array = format!("{}]", text.trim_end().trim_end_matches(','));
    serde_json::from_str(&array)
        .map_err(|e| BenchError::Unexpected { what: "a file of CPACK_TRACE", reason: e.to_string() })
}

/// A part of an event during which its thread had no inner event open.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stretch<'a> {
    kind: &'a str,
    /// The outermost event that is open.
    outer: &'a str,
    from: f64,
    to: f64,
}

/// The innermost open event of each thread at any time, of events of these kinds.
fn stretches<'a>(events: &'a [Event], kinds: &[&str]) -> BTreeMap<u32, Vec<Stretch<'a>>> {
    let mut by_thread: BTreeMap<u32, Vec<&Event>> = BTreeMap::new();
    let wanted = events.iter().filter(|event| kinds.contains(&event.cat.as_str()));
    wanted.for_each(|event| by_thread.entry(event.tid).or_default().push(event));
    let cut = |mut events: Vec<&'a Event>| {
        // Outer events first.
        events.sort_by(|a, b| a.ts.total_cmp(&b.ts).then(b.dur.total_cmp(&a.dur)));
        let mut found = Vec::new();
        let mut open: Vec<&Event> = Vec::new();
        let mut at = f64::MIN;
        for event in events {
            close(&mut open, &mut at, event.ts, &mut found);
            emit(&open, at, event.ts, &mut found);
            at = at.max(event.ts);
            open.push(event);
        }
        close(&mut open, &mut at, f64::MAX, &mut found);
        found
    };
    by_thread.into_iter().map(|(thread, events)| (thread, cut(events))).collect()
}

/// Pops the events that are over at `now`.
fn close<'a>(open: &mut Vec<&'a Event>, at: &mut f64, now: f64, found: &mut Vec<Stretch<'a>>) {
    while let Some(end) = open.last().map(|event| event.ts + event.dur).filter(|end| *end <= now) {
        emit(open, *at, end, found);
        *at = at.max(end);
        open.pop();
    }
}

fn emit<'a>(open: &[&'a Event], from: f64, to: f64, found: &mut Vec<Stretch<'a>>) {
    if let (Some(inner), Some(outer), true) = (open.last(), open.first(), to > from) {
        found.push(Stretch { kind: &inner.cat, outer: &outer.name, from, to });
    }
}

/// Seconds of all threads by kind of work. The time of an inner event is not counted for the outer one.
pub(crate) fn work(events: &[Event], kinds: &[&str]) -> BTreeMap<String, f64> {
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for stretch in stretches(events, kinds).into_values().flatten() {
        *sums.entry(stretch.kind.to_owned()).or_default() += (stretch.to - stretch.from) / 1e6;
    }
    sums
}

/// Like [`work`], by layer: the outermost event is named `<layer> at <offset>`.
pub(crate) fn work_by_layer(events: &[Event], kinds: &[&str]) -> BTreeMap<String, BTreeMap<String, f64>> {
    let mut sums: BTreeMap<String, BTreeMap<String, f64>> = BTreeMap::new();
    for stretch in stretches(events, kinds).into_values().flatten() {
        let layer = stretch.outer.rsplit_once(" at ").map_or(stretch.outer, |(layer, _)| layer);
        let kinds = sums.entry(layer.to_owned()).or_default();
        *kinds.entry(stretch.kind.to_owned()).or_default() += (stretch.to - stretch.from) / 1e6;
    }
    sums
}

/// Seconds during which at least one thread had an event of this kind open.
pub(crate) fn elapsed(events: &[Event], kind: &str) -> f64 {
    let mut spans: Vec<(f64, f64)> = events.iter().filter(|e| e.cat == kind).map(|e| (e.ts, e.ts + e.dur)).collect();
    spans.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut end = f64::MIN;
    let mut sum = 0.0;
    for (from, to) in spans {
        sum += (to - from.max(end)).max(0.0);
        end = end.max(to);
    }
    sum / 1e6
}

/// The time that is drawn: from `origin` (microseconds since 1970) on. `seconds` are divided into `slots` equal parts, and each
/// part has only the kind of work that took most of it, so that the size does not depend on the number of events.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    pub(crate) origin: f64,
    pub(crate) seconds: f64,
    pub(crate) slots: usize,
}

/// A lane for each thread that did something then, `name` with a number.
pub(crate) fn lanes(events: &[Event], kinds: &[&str], scale: Scale, name: &str) -> Vec<Lane> {
    let drawn = stretches(events, kinds).into_values().map(|stretches| merged(&stretches, scale));
    let used = drawn.filter(|bars| !bars.is_empty()).enumerate();
    used.map(|(number, bars)| Lane { name: format!("{name} {}", number + 1), bars }).collect()
}

fn merged(stretches: &[Stretch<'_>], Scale { origin, seconds, slots }: Scale) -> Vec<Bar> {
    let slot = seconds / slots.max(1) as f64;
    let mut told: Vec<BTreeMap<&str, f64>> = vec![BTreeMap::new(); slots];
    for stretch in stretches {
        let (from, to) = ((stretch.from - origin) / 1e6, (stretch.to - origin) / 1e6);
        let last = ((to / slot) as usize).min(slots.saturating_sub(1));
        for index in (from / slot).max(0.0) as usize..=last {
            let (start, end) = (index as f64 * slot, (index + 1) as f64 * slot);
            if let Some(kinds) = told.get_mut(index) {
                *kinds.entry(stretch.kind).or_default() += (to.min(end) - from.max(start)).max(0.0);
            }
        }
    }
    let mut bars: Vec<Bar> = Vec::new();
    for (index, kinds) in told.iter().enumerate() {
        let busy: f64 = kinds.values().sum();
        let Some((kind, _)) = kinds.iter().max_by(|a, b| a.1.total_cmp(b.1)).filter(|_| busy > slot * 0.3) else {
            continue;
        };
        let (from, to) = (index as f64 * slot, (index + 1) as f64 * slot);
        match bars.last_mut().filter(|bar| bar.kind == *kind && (from - bar.to).abs() < slot * 0.01) {
            Some(bar) => bar.to = to,
            None => bars.push(Bar { kind: (*kind).to_owned(), from, to, name: String::new() }),
        }
    }
    bars
}

/// The events of one kind, as bars whose kind is the event's name.
pub(crate) fn sequence(events: &[Event], kind: &str, origin: f64) -> Vec<Bar> {
    let at = |ts: f64| (ts - origin) / 1e6;
    let bar = |event: &Event| Bar {
        kind: event.name.clone(),
        from: at(event.ts),
        to: at(event.ts + event.dur),
        name: String::new(),
    };
    events.iter().filter(|event| event.cat == kind).map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(cat: &str, name: &str, ts: f64, dur: f64, tid: u32) -> Event {
        Event { name: name.into(), cat: cat.into(), ph: "X".into(), ts, dur, pid: 1, tid, args: Arguments::default() }
    }

    /// Two pieces of a layer on two threads, the first with two writes within.
    fn events() -> Vec<Event> {
        vec![
            event("write", "f", 2e6, 1e6, 1),
            event("write", "g", 4e6, 2e6, 1),
            event("decode", "numpy 2 at 0", 1e6, 6e6, 1),
            event("decode", "numpy 2 at 9", 2e6, 3e6, 2),
            event("boot", "extract", 0.0, 9e6, 1),
        ]
    }

    const KINDS: &[&str] = &["decode", "write"];

    #[test]
    fn trace_work_counts_inner_events_once() {
        let found = work(&events(), KINDS);
        assert_eq!(found, BTreeMap::from([("decode".into(), 6.0), ("write".into(), 3.0)]));
        assert_eq!(work_by_layer(&events(), KINDS)["numpy 2"], found);
    }

    #[test]
    fn trace_elapsed_counts_overlaps_once() {
        assert_eq!(elapsed(&events(), "decode"), 6.0);
        assert_eq!(elapsed(&events(), "nothing"), 0.0);
    }

    #[test]
    fn trace_lanes_have_the_largest_kind_of_each_slot() {
        let lanes = lanes(&events(), KINDS, Scale { origin: 0.0, seconds: 8.0, slots: 8 }, "thread");
        let told = |lane: usize| {
            let text = |bar: &Bar| format!("{} {}-{}", bar.kind, bar.from, bar.to);
            lanes[lane].bars.iter().map(text).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(told(0), "decode 1-2, write 2-3, decode 3-4, write 4-6, decode 6-7");
        assert_eq!(told(1), "decode 2-5");
        assert_eq!(sequence(&events(), "boot", 0.0)[0].to, 9.0);
    }

    #[test]
    fn trace_file_has_no_closing_bracket() {
        let text = "[\n{\"name\":\"process_name\",\"cat\":\"\",\"ph\":\"M\",\"ts\":0,\"dur\":0,\"pid\":1,\"tid\":0,\"args\":{\"name\":\"packer\"}},\n\
            {\"name\":\"a\",\"cat\":\"write\",\"ph\":\"X\",\"ts\":1.5,\"dur\":2,\"pid\":1,\"tid\":3,\"args\":{}},\n";
        assert_eq!(read(text).expect("reads"), [event("write", "a", 1.5, 2.0, 3)]);
        assert!(read("no").is_err());
        let processes = by_process(text).expect("reads");
        assert_eq!(processes, BTreeMap::from([("packer".into(), vec![event("write", "a", 1.5, 2.0, 3)])]));
    }
}
