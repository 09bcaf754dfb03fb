//! Events with a beginning and a duration, as Chrome's trace format has them: Perfetto and `chrome://tracing` open the file.
//!
//! A process calls [`record`] once, [`span`] for what takes time, and [`write()`] at its end. Without a call of `record` a
//! span costs one load from memory. [`sums`] counts the events of each kind and adds up their time, which needs no file.
//!
//! **The file** is a JSON array with one event per line and without its closing bracket, as the format allows, so that the
//! processes of a node append to one file. Each appends all its events in one write. Events have the names of files, layers
//! and objects, and never values of settings or variables.
//!
//! The format: "Trace Event Format", complete events (`"ph": "X"`), times in microseconds since 1970.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

static RECORDER: OnceLock<Recorder> = OnceLock::new();

#[derive(Debug)]
struct Recorder {
    program: Mutex<&'static str>,
    path: Option<PathBuf>,
    /// The same moment by both clocks.
    origin: (Instant, Duration),
    events: Mutex<Vec<Event>>,
    sums: Mutex<BTreeMap<&'static str, Sum>>,
}

/// All events of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// Number of events.
    pub count: u64,
    /// Their time, of all threads together, without that of the events within them.
    pub time: Duration,
}

thread_local! {
    /// Time of the events that ended on this thread within the one that is open.
    static WITHIN: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

#[derive(Debug, Serialize)]
struct Event {
    name: String,
    cat: &'static str,
    ph: &'static str,
    ts: f64,
    dur: f64,
    pid: u32,
    tid: u32,
    args: Arguments,
}

#[derive(Debug, Default, Serialize)]
struct Arguments {
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
}

/// Starts to record the events of this process, which [`write()`] appends to `path`. Without a path only [`sums`] has them.
/// Only the first call counts.
pub fn record(program: &'static str, path: Option<&Path>) {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    RECORDER.get_or_init(|| Recorder {
        program: Mutex::new(program),
        path: path.map(Path::to_owned),
        origin: (Instant::now(), since),
        events: Mutex::default(),
        sums: Mutex::default(),
    });
}

/// Forgets the events so far, which are those of another process: this one was forked from it, and is called `program`.
pub fn forked(program: &'static str) {
    if let Some(recorder) = RECORDER.get() {
        *recorder.program.lock().unwrap_or_else(PoisonError::into_inner) = program;
        recorder.events.lock().unwrap_or_else(PoisonError::into_inner).clear();
        recorder.sums.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The sums of each kind of event, without the events of [`ended`].
pub fn sums() -> BTreeMap<&'static str, Sum> {
    let sums = |recorder: &Recorder| recorder.sums.lock().unwrap_or_else(PoisonError::into_inner).clone();
    RECORDER.get().map(sums).unwrap_or_default()
}

/// An event that ends when this is dropped.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Span(Option<Open>);

#[derive(Debug)]
struct Open {
    recorder: &'static Recorder,
    category: &'static str,
    name: String,
    bytes: Option<u64>,
    since: Instant,
    /// [`WITHIN`] when this began.
    before: Duration,
}

/// Begins an event. Calls `name` only if there is a file for it.
pub fn span(category: &'static str, name: impl FnOnce() -> String) -> Span {
    Span(RECORDER.get().map(|recorder| {
        let name = if recorder.path.is_some() { name() } else { String::new() };
        let before = WITHIN.replace(Duration::ZERO);
        Open { recorder, category, name, bytes: None, since: Instant::now(), before }
    }))
}

/// Records an event that began at `since` and ends now.
pub fn ended(category: &'static str, name: impl FnOnce() -> String, since: Instant) {
    if let Some(recorder) = RECORDER.get().filter(|recorder| recorder.path.is_some()) {
        recorder.push(category, name(), None, since, since.elapsed());
    }
}

impl Recorder {
    fn push(&self, category: &'static str, name: String, bytes: Option<u64>, since: Instant, took: Duration) {
        let micros = |duration: Duration| duration.as_nanos() as f64 / 1e3;
        let (origin, since_epoch) = self.origin;
        let before = micros(origin.saturating_duration_since(since));
        let ts = micros(since_epoch) + micros(since.saturating_duration_since(origin)) - before;
        let (args, dur) = (Arguments { bytes, name: None }, micros(took));
        let event = Event { name, cat: category, ph: "X", ts, dur, pid: std::process::id(), tid: thread(), args };
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}

impl Span {
    /// Notes the bytes that the event is about.
    pub fn of(mut self, bytes: u64) -> Self {
        if let Some(open) = &mut self.0 {
            open.bytes = Some(bytes);
        }
        self
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(Open { recorder, category, name, bytes, since, before }) = self.0.take() else { return };
        let took = since.elapsed();
        let own = took.saturating_sub(WITHIN.replace(before + took));
        let mut sums = recorder.sums.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = sums.entry(category).or_default();
        (sum.count, sum.time) = (sum.count + 1, sum.time + own);
        drop(sums);
        if recorder.path.is_some() {
            recorder.push(category, name, bytes, since, took);
        }
    }
}

/// A small number for this thread, in the order of first events.
fn thread() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    thread_local!(static NUMBER: u32 = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

/// Appends the recorded events to the file, if there is one.
pub fn write() -> io::Result<()> {
    let Some((recorder, path)) = RECORDER.get().and_then(|r| Some((r, r.path.as_ref()?))) else { return Ok(()) };
    let events = std::mem::take(&mut *recorder.events.lock().unwrap_or_else(PoisonError::into_inner));
    let program = *recorder.program.lock().unwrap_or_else(PoisonError::into_inner);
    let name = Arguments { name: Some(program), ..Arguments::default() };
    let process = Event {
        name: "process_name".into(),
        cat: "",
        ph: "M",
        ts: 0.0,
        dur: 0.0,
        pid: std::process::id(),
        tid: 0,
        args: name,
    };
    let mut file = File::options().append(true).create(true).open(path)?;
    let mut text = Vec::new();
    if file.metadata()?.len() == 0 {
        text.extend_from_slice(b"[\n");
    }
    for event in std::iter::once(&process).chain(&events) {
        serde_json::to_writer(&mut text, event)?;
        text.extend_from_slice(b",\n");
    }
    file.write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_become_lines_of_an_array() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("trace");
        drop(span("decode", || panic!("nothing is recorded yet")));
        record("test", Some(&path));
        let outer = span("decode", || "a \"layer\"".into()).of(7);
        drop(outer);
        std::thread::spawn(|| drop(span("write", || "b".into()))).join().expect("ends");
        ended("plan", || "c".into(), Instant::now());
        write().expect("writes");
        write().expect("appends");
        let text = std::fs::read_to_string(&path).expect("reads");
        let array = format!("{}]", text.trim_end().trim_end_matches(','));
        let events: Vec<serde_json::Value> = serde_json::from_str(&array).expect("JSON");
        let names: Vec<_> = events.iter().map(|e| e["name"].as_str().expect("a name")).collect();
        assert_eq!(names, ["process_name", "a \"layer\"", "b", "c", "process_name"]);
        assert_eq!((&events[1]["args"]["bytes"], &events[1]["cat"]), (&7.into(), &"decode".into()));
        assert_ne!(events[1]["tid"], events[2]["tid"]);
        assert!(events[1]["ts"].as_f64() <= events[2]["ts"].as_f64());
        let (before, start) = (sums(), Instant::now());
        assert!(before.keys().eq(["decode", "write"].iter()), "what was told afterwards is not added up: {before:?}");
        let outer = span("outer", || "d".into());
        let inner = span("inner", || "e".into());
        std::thread::sleep(Duration::from_millis(20));
        drop(inner);
        drop(outer);
        let (after, took) = (sums(), start.elapsed());
        assert_eq!((after["decode"].count, after["inner"].count), (1, 1));
        assert!(after["inner"].time >= Duration::from_millis(20));
        assert!(after["inner"].time + after["outer"].time <= took, "counted twice: {after:?} of {took:?}");
    }
}
