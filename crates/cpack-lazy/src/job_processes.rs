//! The processes of a job: those in its mount namespace, which is one of its user namespace.
//!
//! Numbers tell namespaces apart, and the kernel gives the number of one that is gone to the next. So this process holds the user
//! namespace open: no other one gets its number. The mount namespace must not be held, since the mount is to go with the job's last process.
//!
//! **A process in the middle of `execve`** of a served file waits for the server. Until it ends, a thread that reads the process's
//! namespaces waits, too, and so does one that traces it. So another thread looks at each process, and may be left behind.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::exit_of::{Held, PATIENCE};

/// How often processes are looked for again: each round may miss what was forked during it.
const ROUNDS: usize = 10;

/// Between two rounds: killed processes are gone by then.
const PAUSE: Duration = Duration::from_millis(5);

/// How long the kernel may take to tell a process's namespaces: it is in the middle of `execve` then.
const SILENCE: Duration = Duration::from_millis(250);

/// How long it may take to tell them of all processes that were silent.
const SILENCE_OF_ALL: Duration = Duration::from_millis(750);

/// The processes in one mount namespace.
#[derive(Debug)]
pub struct JobProcesses {
    /// The process whose end the caller of the job sees.
    main: Pid,
    namespaces: Namespaces,
    _held: File,
}

/// The numbers of a process's mount and user namespaces.
type Namespaces = [u64; 2];

impl JobProcesses {
    /// Those that share the namespace of the process `main`, which must not be in the middle of `execve`.
    pub fn with(main: Pid) -> io::Result<Self> {
        let held = File::open(process(main).join("ns/user"))?;
        Ok(Self { main, namespaces: namespaces(main)?, _held: held })
    }

    /// Ends them all. The main one ends with the exit code `code`, if the kernel lets this process see to it, else like the
    /// others by `SIGKILL`. Returns whether there was any.
    ///
    /// `let_go` closes the last descriptor of `/dev/fuse`: while it is open, processes that read wait. It is called after all of them
    /// were stopped or killed, so that none goes on with the error that the kernel answers then.
    pub fn end(&self, code: u8, let_go: impl FnOnce()) -> bool {
        let Found { seen, silent } = self.look_again(self.find());
        Self::signal(&seen, Signal::SIGSTOP);
        // It cannot be stopped before its `execve` fails. Others that are silent may be of another job.
        let is_silent = silent.contains(&self.main);
        if is_silent {
            Self::signal(&[self.main], Signal::SIGKILL);
        }
        // It may have begun an `execve` since it was found.
        let held = if seen.contains(&self.main) { Held::new(self.main, PATIENCE) } else { None };
        let others: Vec<Pid> = seen.iter().copied().filter(|pid| held.is_none() || *pid != self.main).collect();
        Self::signal(&others, Signal::SIGKILL);
        let_go();
        if let Some(held) = held {
            held.exit_with(code);
        }
        for _ in 0..ROUNDS {
            let left = self.find();
            if left.seen.is_empty() && left.silent.is_empty() {
                break;
            }
            Self::signal(&left.seen, Signal::SIGKILL);
            std::thread::sleep(PAUSE);
        }
        !seen.is_empty() || is_silent
    }

    fn signal(processes: &[Pid], signal: Signal) {
        for pid in processes {
            // It may have ended meanwhile.
            let _ = kill(*pid, signal);
        }
    }

    /// Asks again about those that are silent: on a machine that is busy the thread that asks may have waited for a processor, and a
    /// process of the job that is not stopped would go on with the kernel's error.
    fn look_again(&self, found: Found) -> Found {
        let until = Instant::now() + SILENCE_OF_ALL;
        let mut again = Found { seen: found.seen, silent: Vec::new() };
        for pid in found.silent {
            match Looker::start().look_at(pid, until.saturating_duration_since(Instant::now())) {
                Ok(namespaces) if namespaces == Some(self.namespaces) => again.seen.push(pid),
                Ok(_) => {}
                Err(_) => again.silent.push(pid),
            }
        }
        again
    }

    fn find(&self) -> Found {
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw));
        let (mut found, mut looker) = (Found::default(), Looker::start());
        for pid in pids {
            match looker.look_at(pid, SILENCE) {
                Ok(namespaces) if namespaces == Some(self.namespaces) => found.seen.push(pid),
                Ok(_) => {}
                Err(_) => {
                    looker = Looker::start();
                    found.silent.push(pid);
                }
            }
        }
        found
    }
}

/// Processes of a job.
#[derive(Debug, Default)]
struct Found {
    seen: Vec<Pid>,
    /// Those whose namespaces the kernel does not tell.
    silent: Vec<Pid>,
}

/// Asks the kernel for namespaces: a thread, or this one where there can be no other.
struct Looker(Option<(Sender<Pid>, Receiver<Option<Namespaces>>)>);

impl Looker {
    fn start() -> Self {
        let ((pids, asked), (answer, answers)) = (channel::<Pid>(), channel());
        let look = move || asked.into_iter().try_for_each(|pid| answer.send(namespaces(pid).ok()));
        Self(thread::Builder::new().spawn(look).ok().map(|_| (pids, answers)))
    }

    fn look_at(&self, pid: Pid, patience: Duration) -> Result<Option<Namespaces>, RecvTimeoutError> {
        let Some((pids, answers)) = &self.0 else { return Ok(namespaces(pid).ok()) };
        let _ = pids.send(pid);
        answers.recv_timeout(patience)
    }
}

fn process(pid: Pid) -> PathBuf {
    Path::new("/proc").join(pid.to_string())
}

fn namespaces(pid: Pid) -> io::Result<Namespaces> {
    let number = |name: &str| fs::metadata(process(pid).join("ns").join(name)).map(|found| found.ino());
    Ok([number("mnt")?, number("user")?])
}
