//! Compiles sources with the environment's own interpreter, in worker processes.
//!
//! All threads share [`Compilers`]. Each call takes an idle worker, or starts one if there are fewer than the limit, or waits
//! for one. So as many processes compile as threads ask, and none is started for an environment with valid byte-code.
//!
//! A worker runs `compile.py` with `-I -S -B` (Python runs no code of the user's or the environment's site, and writes no
//! file) and with warnings off. It sends the magic number of its byte-code (4 bytes). Then it answers each source with a byte:
//! 0 and marshalled code, or 1 and a message in UTF-8. Sources and answers have their length before them (`u32`,
//! little-endian). One request is on its way at a time, so no pipe can fill up on both sides. A worker ends when its standard
//! input does, so it also ends when this process is killed.
//!
//! Measured, CPython 3.11: 7.7 MB of sources (410 modules) a second and core, 97 % of it within `compile()`; a worker starts
//! in 14 ms and grows to 70 MB.

use std::fs::File;
use std::io::{self, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cpack_discover::PythonInfo;

use super::pyc::{self, Magic, Source};

/// The program that workers run.
const SCRIPT: &str = include_str!("compile.py");

/// Bytes of a dead worker's standard error that are shown.
const LAST_WORDS: usize = 500;

/// Longest answer that is accepted. The largest modules of known packages marshal to some 10 MB.
const MAX_ANSWER: u64 = 1 << 30;

/// How long a worker may take to end after its standard input was closed.
const PATIENCE: Duration = Duration::from_secs(2);

/// A worker's answer to a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiled {
    /// Its code, marshalled as the interpreter does: not yet canonical.
    Code(Vec<u8>),
    /// Why this interpreter does not accept it.
    Refused(String),
}

/// Why the interpreter could not compile.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum CompileError {
    #[error("cannot start {python} to compile byte-code", python = .python.display())]
    Start { python: PathBuf, source: io::Error },
    #[error("{python} makes byte-code {found}, expected {expected}", python = .python.display())]
    OtherVersion { python: PathBuf, found: Magic, expected: Magic },
    /// A worker ended, or sent an answer that breaks the protocol. `said` is empty, or `: ` and the end of its standard error.
    #[error("{python} failed while compiling byte-code ({status}){said}", python = .python.display())]
    Died { python: PathBuf, status: String, said: String },
}

/// Worker processes of one interpreter.
#[derive(Debug)]
pub struct Compilers {
    python: PathBuf,
    magic: Magic,
    limit: usize,
    pool: Mutex<Pool>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Vec<Worker>,
    /// Workers that exist or are being started, idle ones included.
    count: usize,
}

impl Compilers {
    /// Workers of an environment's interpreter, one for each thread of the rayon pool that this is called in.
    pub fn of(python: &PythonInfo) -> Self {
        Self::new(&python.executable, Magic(python.magic), rayon::current_num_threads())
    }

    /// Workers that run `python`, whose byte-code has this `magic` number, at most `limit` (at least one) at a time. None is
    /// started yet.
    pub fn new(python: impl Into<PathBuf>, magic: Magic, limit: usize) -> Self {
        Self { python: python.into(), magic, limit: limit.max(1), pool: Mutex::default(), freed: Condvar::new() }
    }

    /// The unchecked-hash `.pyc` of a module, whose code will say that it comes from `name`: made from the `installed` one if
    /// that is valid, else compiled. `None` if the interpreter refuses the source.
    pub fn byte_code(
        &self,
        source: Source<'_>,
        installed: Option<&[u8]>,
        name: &[u8],
    ) -> Result<Option<Vec<u8>>, CompileError> {
        let shipped = |code: &[u8]| pyc::unchecked(self.magic, source.bytes, code, name).ok();
        // An installed one that cannot be used, for whatever reason, is as good as none.
        let valid = installed.and_then(|pyc| pyc::valid_code(pyc, self.magic, source).ok());
        if let Some(made) = valid.and_then(shipped) {
            return Ok(Some(made));
        }
        Ok(match self.compile(source.bytes)? {
            Compiled::Code(code) => shipped(&code),
            Compiled::Refused(_) => None,
        })
    }

    /// Compiles the source of a module. Its code says that it comes from `<source>`. Blocks while all workers are busy.
    ///
    /// An error is about the interpreter; the next call starts another worker.
    pub fn compile(&self, source: &[u8]) -> Result<Compiled, CompileError> {
        let mut worker = match self.take() {
            Some(worker) => worker,
            None => self.start().inspect_err(|_| self.forget())?,
        };
        match worker.compile(source) {
            Ok(done) => {
                self.lock().idle.push(worker);
                self.freed.notify_one();
                Ok(done)
            }
            Err(_) => {
                self.forget();
                Err(worker.died(&self.python))
            }
        }
    }

    /// Takes an idle worker. `None` tells the caller to start one.
    fn take(&self) -> Option<Worker> {
        let mut pool = self.lock();
        loop {
            if let Some(worker) = pool.idle.pop() {
                return Some(worker);
            }
            if pool.count < self.limit {
                pool.count += 1;
                return None;
            }
            pool = self.freed.wait(pool).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets another worker take the place of one that died.
    fn forget(&self) {
        self.lock().count -= 1;
        self.freed.notify_one();
    }

    fn start(&self) -> Result<Worker, CompileError> {
        let failed = |source| CompileError::Start { python: self.python.clone(), source };
        let stderr = tempfile::tempfile().map_err(failed)?;
        let mut child = Command::new(&self.python)
            .args(["-I", "-S", "-B", "-W", "ignore", "-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone().map_err(failed)?)
            .spawn()
            .map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        let mut worker = Worker { child, stdin: Some(stdin), stdout: BufReader::new(stdout), stderr };
        let mut found = Magic([0; 4]);
        match worker.stdout.read_exact(&mut found.0) {
            Err(_) => Err(worker.died(&self.python)),
            Ok(()) if found == self.magic => Ok(worker),
            Ok(()) => Err(CompileError::OtherVersion { python: self.python.clone(), found, expected: self.magic }),
        }
    }

    /// The pool is consistent after every step, so a panic of another thread does not matter.
    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Compilers {
    fn drop(&mut self) {
        // All workers see the end of their input before `Worker::drop` waits for the first.
        let pool = self.pool.get_mut().unwrap_or_else(PoisonError::into_inner);
        pool.idle.iter_mut().for_each(|worker| worker.stdin = None);
    }
}

/// A process that compiles sources.
#[derive(Debug)]
struct Worker {
    child: Child,
    /// Closed to end the process.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    stderr: File,
}

impl Worker {
    fn compile(&mut self, source: &[u8]) -> io::Result<Compiled> {
        let Ok(length) = u32::try_from(source.len()) else {
            return Ok(Compiled::Refused("the source has more than 4 GiB".into()));
        };
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        stdin.write_all(&length.to_le_bytes())?;
        stdin.write_all(source)?;
        let mut answer = self.receive()?;
        match answer.first() {
            Some(0) => Ok(Compiled::Code(answer.split_off(1))),
            Some(1) => Ok(Compiled::Refused(String::from_utf8_lossy(&answer.split_off(1)).into_owned())),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stdout.read_exact(&mut length)?;
        let length = u64::from(u32::from_le_bytes(length));
        if length > MAX_ANSWER {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = Vec::new();
        let found = (&mut self.stdout).take(length).read_to_end(&mut bytes)?;
        if found as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Ends the process and returns why it failed.
    fn died(mut self, python: &Path) -> CompileError {
        let status = self.end();
        let mut said = Vec::new();
        let read = self.stderr.seek(SeekFrom::Start(0)).and_then(|_| self.stderr.read_to_end(&mut said));
        let text = String::from_utf8_lossy(said.get(said.len().saturating_sub(LAST_WORDS)..).unwrap_or_default());
        let said = if read.is_err() || text.trim().is_empty() { String::new() } else { format!(": {}", text.trim()) };
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        CompileError::Died { python: python.into(), status, said }
    }

    /// Closes standard input, at which the process ends by itself; kills it if it has not after [`PATIENCE`].
    fn end(&mut self) -> io::Result<ExitStatus> {
        self.stdin = None;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.child.kill()?;
        self.child.wait()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // The worker has answered every request: how it ends does not matter.
        let _ = self.end();
    }
}
