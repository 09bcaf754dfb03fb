//! The job: where it is found, and what it names.

mod find;

pub(crate) use find::{FindError, FoundJob, Origin, find, from_path, own};
