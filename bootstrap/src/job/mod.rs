//! The job: where it is found, and what it names.

mod find;

pub use find::{FindError, Found, Origin, find, from_path, own};
