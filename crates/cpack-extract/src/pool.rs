//! The workers: one pool for all archives of an extraction.
//!
//! A worker stays with its archive, and takes span after span of it. Then it takes up an archive that no worker is at, or starts
//! another one. When there is none left, it helps with the archive that has most spans left. So workers rarely meet in a file, the
//! archives are taken up in their order, and no worker waits for an archive to end.
//!
//! Where reading takes time, *fetchers* read, archive after archive, one for each read in flight, and hand the bytes to the workers, which only
//! decode. The bytes that are fetched and not yet decoded have a budget: when decoding is slower than the network,
//! fetchers wait, and the other way round. The time is that of the slower of the two.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::error::{ExtractError, Failure};
use crate::large::Budget;
use crate::limits::Stats;
use crate::lock::lock;
use crate::run::Run;
use crate::worker::Worker;

/// Stack of a worker: decoders keep their tables on the heap.
const STACK: usize = 512 << 10;

/// How often a waiting worker checks whether it should stop.
const GLANCE: Duration = Duration::from_millis(50);

/// No other archive is started while those in work have this many files: about 16 MiB of plans.
const MAX_PLANNED: usize = 50_000;

/// Unused buffers that are kept for fetchers. They are not part of the budget; new ones cost page faults.
const MAX_FREE: usize = 8;

/// What the workers work on.
pub(crate) trait Jobs<'a>: Sync {
    /// Starts the next archive; `None` if there is none left. Other workers call it again after that.
    fn start(&self) -> Option<Result<Run<'a>, ExtractError>>;

    /// `bytes` of content of an archive were written.
    fn progress(&self, run: &Run<'a>, bytes: u64);

    /// An archive is complete.
    fn done(&self, run: &Run<'a>) -> Result<(), ExtractError>;
}

/// How many threads work, with how much memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crew {
    /// Threads that decode, the caller's among them.
    pub(crate) threads: usize,
    /// Threads that fetch. 0: those that decode read themselves.
    pub(crate) fetchers: usize,
    /// Bytes that may be fetched and not yet decoded.
    pub(crate) fetched: u64,
    /// Bytes for buffers of large entries.
    pub(crate) large: u64,
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
    /// Archives with spans to be taken.
    ready: Vec<Ready<'a>>,
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
    /// Sums over the complete archives.
    done: Stats,
    errors: Vec<ExtractError>,
}

/// An archive with spans to be taken.
struct Ready<'a> {
    run: Arc<Run<'a>>,
    /// The next span.
    next: usize,
    /// Spans before it that are left for a worker with more memory.
    passed: VecDeque<usize>,
    /// Workers that took its spans, and no other archive's since.
    workers: usize,
}

/// A span with its bytes.
struct Fetched<'a> {
    run: Arc<Run<'a>>,
    span: usize,
    buffer: Vec<u8>,
}

/// What [`State`] has for a worker or fetcher.
enum Choice<'a> {
    Span(Arc<Run<'a>>, usize),
    /// Nothing but another archive.
    Other,
    /// Nothing until others are further.
    Later,
}

/// What a worker does next.
enum Step<'a> {
    Span(Arc<Run<'a>>, usize),
    Start,
    End,
}

/// Does `jobs` with the threads of `crew`.
pub(crate) fn work<'a>(jobs: &dyn Jobs<'a>, crew: Crew, cancel: &AtomicBool) -> Result<Stats, Failure> {
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
        // If no more threads can be started, those that run do all the work.
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
    let State { done, errors, .. } = std::mem::take(&mut *lock(&pool.state));
    match Failure::of(errors) {
        Some(failure) => Err(failure),
        None => Ok(Stats { packed: pool.packed.into_inner(), ..done }),
    }
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
        let mut at = None;
        loop {
            match self.next_to_work(&worker, &mut at) {
                Step::Span(run, span) => {
                    let mut window = run.window(span);
                    let bytes = match &mut window {
                        Some(window) => window.bytes(),
                        None => {
                            run.read(span, &mut buffer)?;
                            &mut buffer
                        }
                    };
                    self.decode(&mut worker, &run, span, bytes)?;
                }
                Step::Start => self.add(self.jobs.start())?,
                Step::End => return self.end(),
            }
        }
    }

    /// Reads for others to decode.
    fn fetch_until_end(&self) -> Result<(), ExtractError> {
        loop {
            match self.next_to_fetch() {
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

    /// What a worker does next, which took its last span of the archive with the serial number `at`.
    fn next_to_work(&self, worker: &Worker, at: &mut Option<u64>) -> Step<'a> {
        self.next(|state| match state.choose(*at) {
            Some(index) => state.take(index, at, &|run, span| run.suits(worker, span)),
            None => Choice::Other,
        })
    }

    /// What a fetcher does next: the next span, if the budget has room for it.
    fn next_to_fetch(&self) -> Step<'a> {
        self.next(|state| {
            let Some(Ready { run, next, .. }) = state.ready.first() else { return Choice::Other };
            let len = run.span_len(*next);
            if state.in_flight > 0 && state.in_flight + len > self.fetched {
                return Choice::Later;
            }
            state.in_flight += len;
            state.take(0, &mut None, &|_, _| true)
        })
    }

    fn next(&self, mut choose: impl FnMut(&mut State<'a>) -> Choice<'a>) -> Step<'a> {
        let mut state = lock(&self.state);
        loop {
            if self.stopped() {
                return Step::End;
            }
            match choose(&mut state) {
                Choice::Span(run, span) => return Step::Span(run, span),
                Choice::Other if state.may_start() => {
                    state.starting += 1;
                    return Step::Start;
                }
                Choice::Other if state.exhausted && state.starting == 0 => return Step::End,
                Choice::Other | Choice::Later => {}
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

    /// Queues the archive that [`Jobs::start`] returned.
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
        if !run.plan.spans.is_empty() {
            state.ready.push(Ready::new(run));
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
        state.done.files += run.plan.files.len() as u64;
        state.done.unpacked += run.plan.unpacked;
        self.changed.notify_all();
        Ok(())
    }
}

impl<'a> State<'a> {
    /// Whether another archive may be started.
    fn may_start(&self) -> bool {
        !self.exhausted && self.planned < MAX_PLANNED
    }

    /// The archive of which a worker takes its next span. That is the one that it is `at`, or else one without workers. If there is
    /// neither, and no other archive can be started, it is the one with most spans left.
    fn choose(&self, at: Option<u64>) -> Option<usize> {
        let position = |is: &dyn Fn(&Ready<'a>) -> bool| self.ready.iter().position(is);
        let longest = || (0..self.ready.len()).max_by_key(|index| self.ready.get(*index).map(Ready::left));
        position(&|ready| Some(ready.run.serial) == at)
            .or_else(|| position(&|ready| ready.workers == 0))
            .or_else(|| if self.may_start() { None } else { longest() })
    }

    /// Takes the next span of an archive that `suits`, or else the first one. `at` is the archive that the worker was at.
    fn take(&mut self, index: usize, at: &mut Option<u64>, suits: Suits<'_, 'a>) -> Choice<'a> {
        let Some(ready) = self.ready.get_mut(index) else { return Choice::Other };
        let serial = ready.run.serial;
        let before = at.replace(serial);
        ready.workers += usize::from(before != Some(serial));
        let Some(span) = ready.take(suits) else { return Choice::Other };
        let run = Arc::clone(&ready.run);
        if ready.left() == 0 {
            self.ready.remove(index);
        }
        if let Some(ready) =
            self.ready.iter_mut().find(|ready| Some(ready.run.serial) == before && before != Some(serial))
        {
            ready.workers -= 1;
        }
        Choice::Span(run, span)
    }
}

impl<'a> Ready<'a> {
    fn new(run: Arc<Run<'a>>) -> Self {
        Self { run, next: 0, passed: VecDeque::new(), workers: 0 }
    }

    /// Spans to be taken.
    fn left(&self) -> usize {
        self.run.plan.spans.len() - self.next + self.passed.len()
    }

    /// The next span that `suits`, or else the first one.
    fn take(&mut self, suits: Suits<'_, 'a>) -> Option<usize> {
        let suitable = self.passed.iter().position(|span| suits(&self.run, *span));
        let mut found = suitable.and_then(|at| self.passed.remove(at));
        while found.is_none() && self.next < self.run.plan.spans.len() {
            if suits(&self.run, self.next) {
                found = Some(self.next);
            } else {
                self.passed.push_back(self.next);
            }
            self.next += 1;
        }
        found.or_else(|| self.passed.pop_front())
    }
}

/// Whether the asking worker can decode a span at full speed.
type Suits<'s, 'a> = &'s dyn Fn(&Run<'a>, usize) -> bool;

/// Stops the other workers when one panics, so that they do not wait for it.
struct Guard<'g, 'p, 'a>(&'g Pool<'p, 'a>);

impl Drop for Guard<'_, '_, '_> {
    fn drop(&mut self) {
        self.0.failed.store(true, Ordering::Relaxed);
        self.0.changed.notify_all();
    }
}
