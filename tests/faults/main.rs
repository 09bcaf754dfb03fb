//! Damages and attacks environments on purpose, and checks that nothing is torn, lost or let in.
//!
//! | module | part |
//! | --- | --- |
//! | `kills` | SIGKILL at random instants and at every named step, then a check of every byte |
//! | `lazy` | SIGKILL and SIGSTOP of the processes of a lazy start at every named step |
//! | `archives` | archives that other tools wrote: kills, errors and full disks at any step |
//! | `disks` | full, read-only, without links, locks, inodes or room for names: the next place, or one line |
//! | `images` | caches that came with a container's image: overlayfs, read-only, moves refused |
//! | `crowds` | 64 starts, shared layers, holders that stand still, other users, prepared caches |
//! | `power` | every change of a start replayed with data lost, under another boot of the node |
//! | `hostile` | archives and documents that mean harm, and mutants of them |
//! | `secrets` | planted credentials, payloads of other digests, jobs that aim outside the cache |
//! | `integrity` | flipped bits and truncations of everything that is shipped: refused before anything runs |
//!
//! `CPACK_FAULT_ROUNDS` of 1,000 and more makes a soak test. `CPACK_FAULT_SEED` repeats a run: each part prints its seed and its
//! time. The tested programs have fail points (feature `faults`); the shipped ones do not.

#![expect(clippy::expect_used, clippy::panic, reason = "tests report by panicking")]

mod archives;
mod crowds;
mod disks;
mod hostile;
mod images;
mod inspect;
mod integrity;
mod kills;
mod lazy;
mod power;
mod random;
mod secrets;
mod site;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use cpack_test::programs::{as_from_a_shell, root, target};

/// `cpack-boot` with fail points.
fn boot() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| programs().join("cpack-boot-faults"))
}

/// `cluster-pack` with fail points and without network stores.
fn cluster_pack() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| programs().join("cluster-pack-faults"))
}

/// The directory of both programs, which are built once and together: what they share is compiled once.
fn programs() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut command = Command::new(env!("CARGO"));
        command.args([
            "build",
            "--quiet",
            "--no-default-features",
            "--features",
            "cpack-boot/faults,cluster-pack/faults",
        ]);
        command.args([
            "-p",
            "cpack-boot",
            "-p",
            "cluster-pack",
            "--bin",
            "cpack-boot-faults",
            "--bin",
            "cluster-pack-faults",
        ]);
        let status = as_from_a_shell(command.current_dir(root())).status();
        assert!(status.expect("cargo runs").success(), "cannot build the programs with fail points");
        target().join("debug")
    })
}
