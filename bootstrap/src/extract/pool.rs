//! The workers: one pool for all archives of an extraction.
//!
//! A worker takes the next span of an archive that was started, and starts another archive where there is none. So the
//! archives are worked on in their order, all workers share a large one, and nobody waits for an archive to end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
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

/// What the workers work on.
pub(super) trait Jobs<'a>: Sync {
    /// Starts the next archive. None where there is none left; it is asked again by other workers.
    fn start(&self) -> Option<Result<Run<'a>, ExtractError>>;

    /// This many bytes of content of an archive were written.
    fn progress(&self, run: &Run<'a>, bytes: u64);

    /// An archive is complete.
    fn done(&self, run: &Run<'a>) -> Result<(), ExtractError>;
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
}

#[derive(Default)]
struct State<'a> {
    /// Archives with spans to be taken, and the next span of each.
    ready: VecDeque<(Arc<Run<'a>>, usize)>,
    /// Workers that are starting an archive.
    starting: usize,
    /// Files of archives in work.
    planned: usize,
    /// There is no other archive to start.
    exhausted: bool,
    errors: Vec<ExtractError>,
}

/// What a worker does next.
enum Step<'a> {
    Span(Arc<Run<'a>>, usize),
    Start,
    End,
}

/// Lets `threads` workers, the caller's thread among them, do `jobs`. The archive bytes read.
pub(super) fn work<'a>(jobs: &dyn Jobs<'a>, threads: usize, large: u64, cancel: &AtomicBool) -> Result<u64, Failure> {
    let pool = Pool {
        jobs,
        cancel,
        failed: AtomicBool::new(false),
        packed: AtomicU64::new(0),
        state: Mutex::default(),
        changed: Condvar::new(),
        budget: Arc::new(Budget::new(large)),
    };
    thread::scope(|scope| {
        let worker =
            |_| thread::Builder::new().stack_size(STACK).name("extract".into()).spawn_scoped(scope, || pool.work());
        // Where no more threads can be had, those that there are do.
        let others: Vec<_> = (1..threads).map_while(|i| worker(i).ok()).collect();
        pool.work();
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
    fn work(&self) {
        let guard = Guard(self);
        if let Err(error) = self.work_until_end() {
            self.fail(error);
        }
        std::mem::forget(guard);
    }

    fn work_until_end(&self) -> Result<(), ExtractError> {
        let out_of_memory = |source| ExtractError::Caller { archive: "the workers".into(), source };
        let mut worker = Worker::new(Arc::clone(&self.budget)).map_err(|e| out_of_memory(e.into()))?;
        loop {
            match self.next() {
                Step::Span(run, span) => self.span(&mut worker, &run, span)?,
                Step::Start => {
                    let started = self.jobs.start();
                    self.add(&mut worker, started)?;
                }
                Step::End if self.cancel.load(Ordering::Relaxed) => return Err(ExtractError::Stopped),
                Step::End => return Ok(()),
            }
        }
    }

    fn stopped(&self) -> bool {
        self.cancel.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed)
    }

    fn fail(&self, error: ExtractError) {
        self.failed.store(true, Ordering::Relaxed);
        lock(&self.state).errors.push(error);
        self.changed.notify_all();
    }

    fn next(&self) -> Step<'a> {
        let mut state = lock(&self.state);
        loop {
            if self.stopped() {
                return Step::End;
            }
            if let Some((run, span)) = state.ready.front_mut() {
                let step = Step::Span(Arc::clone(run), *span);
                *span += 1;
                if *span == run.plan.spans.len() {
                    state.ready.pop_front();
                }
                return step;
            }
            if !state.exhausted && (state.planned < MAX_PLANNED || state.planned == 0) {
                state.starting += 1;
                return Step::Start;
            }
            if state.exhausted && state.starting == 0 {
                return Step::End;
            }
            state = self.changed.wait_timeout(state, GLANCE).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes in what [`Jobs::start`] gave.
    fn add(&self, worker: &mut Worker, started: Option<Result<Run<'a>, ExtractError>>) -> Result<(), ExtractError> {
        let mut state = lock(&self.state);
        state.starting -= 1;
        self.changed.notify_all();
        let Some(run) = started.transpose()?.map(Arc::new) else {
            state.exhausted = true;
            return Ok(());
        };
        state.planned += run.plan.files.len();
        if !run.is_empty() {
            state.ready.push_back((run, 0));
            return Ok(());
        }
        drop(state);
        self.complete(worker, &run)
    }

    fn span(&self, worker: &mut Worker, run: &Arc<Run<'a>>, span: usize) -> Result<(), ExtractError> {
        let (packed, unpacked, streams) = run.weight(span);
        if !streams {
            worker.large.release();
        }
        let last = run.span(worker, span, &|| self.stopped())?;
        self.packed.fetch_add(packed, Ordering::Relaxed);
        self.jobs.progress(run, unpacked);
        if last { self.complete(worker, run) } else { Ok(()) }
    }

    fn complete(&self, worker: &mut Worker, run: &Run<'a>) -> Result<(), ExtractError> {
        run.complete(worker)?;
        self.jobs.done(run)?;
        let mut state = lock(&self.state);
        state.planned -= run.plan.files.len();
        self.changed.notify_all();
        Ok(())
    }
}

/// Stops the others when a worker panics, so that nobody waits for it.
struct Guard<'g, 'p, 'a>(&'g Pool<'p, 'a>);

impl Drop for Guard<'_, '_, '_> {
    fn drop(&mut self) {
        self.0.failed.store(true, Ordering::Relaxed);
        self.0.changed.notify_all();
    }
}
