//! What a command costs.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use cpack_test::programs::text;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;

/// The number of incompressible bytes to fetch, unless `CPACK_SPEED_MIB` is set.
pub(crate) fn size() -> u64 {
    std::env::var("CPACK_SPEED_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(2048) << 20
}

pub(crate) const ROUNDS: usize = 3;

/// Wall and CPU seconds of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
}

impl Cost {
    pub(crate) fn without(self, start_up: Self) -> Self {
        Self { wall: self.wall - start_up.wall, cpu: self.cpu - start_up.cpu }
    }
}

fn cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("usage");
    (usage.user_time().num_microseconds() + usage.system_time().num_microseconds()) as f64 / 1e6
}

/// Touches the memory that a sample may use.
pub(crate) fn settle() {
    const PAGE: usize = 4096;
    let mut memory = vec![0_u8; (size() + (2 << 30)) as usize];
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    std::hint::black_box(memory);
}

/// [`timed`] after [`settle`], for commands that move many bytes.
pub(crate) fn settled(command: &mut Command) -> Cost {
    settle();
    timed(command)
}

pub(crate) fn timed(command: &mut Command) -> Cost {
    let (start, before) = (Instant::now(), cpu());
    let output = command.output().expect("starts");
    let wall = start.elapsed().as_secs_f64();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    Cost { wall, cpu: cpu() - before }
}

/// The peak memory of a start before `exec`, in MiB: reads the kernel's maximum every millisecond.
pub(crate) fn most_memory(command: &mut Command) -> u64 {
    let program = fs::canonicalize(command.get_program()).expect("a program");
    let mut child = command.spawn().expect("starts");
    let mut most: Option<u64> = None;
    while child.try_wait().expect("waits").is_none() {
        let process = PathBuf::from(format!("/proc/{}", child.id()));
        let is_boot = fs::read_link(process.join("exe")).is_ok_and(|exe| exe == program);
        if is_boot && let Ok(status) = fs::read_to_string(process.join("status")) {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|text| text.trim().parse().ok());
            most = most.max(kib);
        } else if most.is_some() {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(child.wait().expect("ends").success(), "{command:?}");
    most.expect("a look at the boot") / 1024
}

pub(crate) fn median(costs: Vec<Cost>) -> Cost {
    middle(costs, |cost| cost.wall)
}

/// The sample with the median of its wall seconds.
pub(crate) fn middle<T: Copy>(mut samples: Vec<T>, wall: impl Fn(&T) -> f64) -> T {
    samples.sort_by(|a, b| wall(a).total_cmp(&wall(b)));
    samples[samples.len() / 2]
}

pub(crate) fn show(what: &str, cost: Cost) {
    println!("{what:<44} {:>8.2} s wall {:>8.2} s CPU", cost.wall, cost.cpu);
}
