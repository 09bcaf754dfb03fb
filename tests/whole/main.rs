//! The two programs together, as a person and an executor use them: real environments, real interpreters, real processes.

#![expect(clippy::expect_used, reason = "tests report by panicking")]

mod archives;
mod archives_of_others;
mod bench;
#[cfg(feature = "index")]
mod conda;
#[cfg(feature = "index")]
mod conda_archives;
#[cfg(feature = "index")]
mod conda_files;
mod doctor;
#[cfg(feature = "index")]
mod editables;
mod environments;
mod equality;
#[cfg(feature = "index")]
mod from_index;
mod input;
mod lazy;
mod publication;
#[cfg(feature = "index")]
mod readme;
#[cfg(feature = "index")]
mod shipped;
mod traces;
mod wheelhouses;
