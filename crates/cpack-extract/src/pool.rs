//! The workers: one pool for all archives of an extraction.
//!
//! A worker takes the next span of an archive that was started, and starts another archive where there is none. So the
//! archives are worked on in their order, all workers share a large one, and nobody waits for an archive to end.
//!
//! Where reading takes time, *fetchers* do this, as many as there shall be reads in flight, and hand what they read to
//! the workers, who only decode. What was fetched and not yet decoded has a budget in bytes: when decoding is slower
//! than the network, fetchers wait, and the other way round. The time is that of the slower of the two.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use super::error::{ExtractError, Failure};
use super::run::{Run, Worker, lock};
use super::stream::Budget;

/// Stack of a worker: decoders keep their tables on the heap.
const STACK: usize = 512 << 10;

/// How often a worker that waits for others looks whether it should stop.
const GLANCE: Duration = Duration::from_millis(50);

/// Files of archives in work beyond which no other is started: about 16 MiB of plans.
const MAX_PLANNED: usize = 50_000;

/// Buffers kept for fetching that nobody uses at the moment: they are not counted, and cost page faults where new.
const MAX_FREE: usize = 8;

/// What the workers work on.
pub(super) trait Jobs<'a>: Sync {
    /// Starts the next archive. None where there is none left; it is asked again by other workers.
    fn start(&self) -> Option<Result<Run<'a>, ExtractError>>;

    /// This many bytes of content of an archive were written.
    fn progress(&self, run: &Run<'a>, bytes: u64);

    /// An archive is complete.
    fn done(&self, run: &Run<'a>) -> Result<(), ExtractError>;
}

/// Who works, with how much memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Crew {
    /// Threads that decode, the caller's among them.
    pub(super) threads: usize,
    /// Threads that fetch. None: those that decode read themselves.
    pub(super) fetchers: usize,
    /// Bytes that may be fetched and not yet decoded.
    pub(super) fetched: u64,
    /// Bytes for buffers of large entries.
    pub(super) large: u64,
}

/// The workers' common state.
struct Pool<'p, 'a> {
    jobs: &'p dyn Jobs<'a>,
    cancel: &'p AtomicBool,
    failed: AtomicBool,
    packed: AtomicU64,
    state: Mutex<State<'a>>,
    changed: Condvar,
    budget: Arc<Budget>,
    /// [`Crew::fetched`].
    fetched: u64,
}

#[derive(Default)]
struct State<'a> {
    /// Archives with spans to be taken, and the next span of each.
    ready: VecDeque<(Arc<Run<'a>>, usize)>,
    /// Spans of the first of them that were left for a worker with more memory.
    passed: VecDeque<usize>,
    /// Workers that are starting an archive.
    starting: usize,
    /// Files of archives in work.
    planned: usize,
    /// There is no other archive to start.
    exhausted: bool,
    /// Fetchers at work.
    fetchers: usize,
    /// Spans that were fetched, to be decoded.
    fetched: VecDeque<Fetched<'a>>,
    /// Bytes that are being fetched, and of what was fetched.
    in_flight: u64,
    /// Buffers to be used again.
    free: Vec<Vec<u8>>,
    errors: Vec<ExtractError>,
}

/// A span with its bytes.
struct Fetched<'a> {
    run: Arc<Run<'a>>,
    span: usize,
    buffer: Vec<u8>,
}

/// What a worker does next.
enum Step<'a> {
    Span(Arc<Run<'a>>, usize),
    Start,
    End,
}

/// Lets a crew do `jobs`. The archive bytes read.
pub(super) fn work<'a>(jobs: &dyn Jobs<'a>, crew: Crew, cancel: &AtomicBool) -> Result<u64, Failure> {
    let pool = Pool {
        jobs,
        cancel,
        failed: AtomicBool::new(false),
        packed: AtomicU64::new(0),
        state: Mutex::default(),
        changed: Condvar::new(),
        budget: Arc::new(Budget::new(crew.large)),
        fetched: crew.fetched,
    };
    let shared = &pool;
    thread::scope(|scope| {
        let thread = |name: &str| thread::Builder::new().stack_size(STACK).name(name.into());
        // Where no more threads can be had, those that there are do.
        lock(&pool.state).fetchers = crew.fetchers;
        let mut others = Vec::new();
        for left in (0..crew.fetchers).rev() {
            let Ok(fetcher) = thread("fetch").spawn_scoped(scope, || shared.run(Pool::fetch_until_end)) else {
                lock(&pool.state).fetchers -= left + 1;
                break;
            };
            others.push(fetcher);
        }
        let decode = if others.is_empty() { Pool::work_until_end } else { Pool::decode_until_end };
        let workers = 1..crew.threads;
        others.extend(workers.map_while(|_| thread("extract").spawn_scoped(scope, move || shared.run(decode)).ok()));
        pool.run(decode);
        for other in others {
            if other.join().is_err() {
                pool.fail(ExtractError::Panicked);
            }
        }
    });
    let errors = std::mem::take(&mut lock(&pool.state).errors);
    Failure::of(errors).map_or_else(|| Ok(pool.packed.into_inner()), Err)
}

impl<'a> Pool<'_, 'a> {
    fn run(&self, until_end: impl FnOnce(&Self) -> Result<(), ExtractError>) {
        let guard = Guard(self);
        if let Err(error) = until_end(self) {
            self.fail(error);
        }
        std::mem::forget(guard);
    }

    /// Reads and decodes.
    fn work_until_end(&self) -> Result<(), ExtractError> {
        let mut worker = self.worker()?;
        let mut buffer = Vec::new();
        loop {
            match self.next(Some(&worker)) {
                Step::Span(run, span) => {
                    run.read(span, &mut buffer)?;
                    self.decode(&mut worker, &run, span, &mut buffer)?;
                }
                Step::Start => self.add(self.jobs.start())?,
                Step::End => return self.end(),
            }
        }
    }

    /// Reads for others to decode.
    fn fetch_until_end(&self) -> Result<(), ExtractError> {
        loop {
            match self.next(None) {
                Step::Span(run, span) => {
                    let mut buffer = lock(&self.state).free.pop().unwrap_or_default();
                    run.read(span, &mut buffer)?;
                    lock(&self.state).fetched.push_back(Fetched { run, span, buffer });
                    self.changed.notify_all();
                }
                Step::Start => self.add(self.jobs.start())?,
                Step::End => break,
            }
        }
        lock(&self.state).fetchers -= 1;
        self.changed.notify_all();
        self.end()
    }

    /// Decodes what others read.
    fn decode_until_end(&self) -> Result<(), ExtractError> {
        let mut worker = self.worker()?;
        while let Some(Fetched { run, span, mut buffer }) = self.next_fetched() {
            self.decode(&mut worker, &run, span, &mut buffer)?;
            let mut state = lock(&self.state);
            state.in_flight -= run.span_len(span);
            if state.free.len() < MAX_FREE {
                state.free.push(buffer);
            }
            self.changed.notify_all();
        }
        self.end()
    }

    fn worker(&self) -> Result<Worker, ExtractError> {
        let failed = |e: std::io::Error| ExtractError::Caller { archive: "the workers".into(), source: e.into() };
        Worker::new(Arc::clone(&self.budget)).map_err(failed)
    }

    fn stopped(&self) -> bool {
        self.cancel.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed)
    }

    fn end(&self) -> Result<(), ExtractError> {
        if self.cancel.load(Ordering::Relaxed) { Err(ExtractError::Stopped) } else { Ok(()) }
    }

    fn fail(&self, error: ExtractError) {
        self.failed.store(true, Ordering::Relaxed);
        lock(&self.state).errors.push(error);
        self.changed.notify_all();
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State<'a>>) -> MutexGuard<'s, State<'a>> {
        self.changed.wait_timeout(state, GLANCE).unwrap_or_else(PoisonError::into_inner).0
    }

    /// What to do next: a worker takes the span that suits it, a fetcher the next one if the budget has room for it.
    fn next(&self, worker: Option<&Worker>) -> Step<'a> {
        let fetching = worker.is_none();
        let suits = |run: &Run<'a>, span| worker.is_none_or(|worker| run.suits(worker, span));
        let mut state = lock(&self.state);
        loop {
            if self.stopped() {
                return Step::End;
            }
            let waiting = state.ready.front().map(|(run, span)| run.span_len(*span));
            let has_room = |len| !fetching || state.in_flight == 0 || state.in_flight + len <= self.fetched;
            match waiting {
                Some(len) if has_room(len) => {
                    if let Some(step) = state.take(if fetching { len } else { 0 }, &suits) {
                        return step;
                    }
                }
                Some(_) => {}
                None if !state.exhausted && state.planned < MAX_PLANNED => {
                    state.starting += 1;
                    return Step::Start;
                }
                None if state.exhausted && state.starting == 0 => return Step::End,
                None => {}
            }
            state = self.wait(state);
        }
    }

    fn next_fetched(&self) -> Option<Fetched<'a>> {
        let mut state = lock(&self.state);
        loop {
            if self.stopped() {
                return None;
            }
            if let Some(fetched) = state.fetched.pop_front() {
                return Some(fetched);
            }
            if state.fetchers == 0 {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// Takes in what [`Jobs::start`] gave.
    fn add(&self, started: Option<Result<Run<'a>, ExtractError>>) -> Result<(), ExtractError> {
        let mut state = lock(&self.state);
        state.starting -= 1;
        self.changed.notify_all();
        let Some(run) = started.transpose()?.map(Arc::new) else {
            state.exhausted = true;
            return Ok(());
        };
        state.planned += run.plan.files.len();
        self.packed.fetch_add(run.read_before(), Ordering::Relaxed);
        if !run.is_empty() {
            state.ready.push_back((run, 0));
            return Ok(());
        }
        drop(state);
        self.complete(&run)
    }

    fn decode(
        &self,
        worker: &mut Worker,
        run: &Arc<Run<'a>>,
        span: usize,
        buffer: &mut [u8],
    ) -> Result<(), ExtractError> {
        let (packed, unpacked, streams) = run.weight(span);
        if !streams {
            worker.large.release();
        }
        let last = run.decode(worker, span, buffer, &|| self.stopped())?;
        self.packed.fetch_add(packed, Ordering::Relaxed);
        self.jobs.progress(run, unpacked);
        if last { self.complete(run) } else { Ok(()) }
    }

    fn complete(&self, run: &Run<'a>) -> Result<(), ExtractError> {
        run.complete()?;
        self.jobs.done(run)?;
        let mut state = lock(&self.state);
        state.planned -= run.plan.files.len();
        self.changed.notify_all();
        Ok(())
    }
}

impl<'a> State<'a> {
    /// Takes the next span that `suits`, or the first where none does, with `len` bytes of the budget.
    fn take(&mut self, len: u64, suits: Suits<'_, 'a>) -> Option<Step<'a>> {
        let (run, next) = self.ready.front_mut()?;
        let spans = run.plan.spans.len();
        let mut found = self.passed.iter().position(|span| suits(run, *span)).and_then(|at| self.passed.remove(at));
        while found.is_none() && *next < spans {
            if suits(run, *next) {
                found = Some(*next);
            } else {
                self.passed.push_back(*next);
            }
            *next += 1;
        }
        let step = Step::Span(Arc::clone(run), found.or_else(|| self.passed.pop_front())?);
        if *next == spans && self.passed.is_empty() {
            self.ready.pop_front();
        }
        self.in_flight += len;
        Some(step)
    }
}

/// Whether the worker that asks can decode a span at full speed.
type Suits<'s, 'a> = &'s dyn Fn(&Run<'a>, usize) -> bool;

/// Stops the others when a worker panics, so that nobody waits for it.
struct Guard<'g, 'p, 'a>(&'g Pool<'p, 'a>);

impl Drop for Guard<'_, '_, '_> {
    fn drop(&mut self) {
        self.0.failed.store(true, Ordering::Relaxed);
        self.0.changed.notify_all();
    }
}
