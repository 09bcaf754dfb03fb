//! Environments from requirements: `-r requirements.txt`, and `--add` to an environment that is there.
//!
//! uv does the work if it is on `PATH`, else the interpreter's pip. The result is an ordinary virtual environment in the
//! client's cache (see `kept`), which discovery reads like any other.
//!
//! # When an environment is reused
//!
//! [`prepare()`] resolves the requirements each time (`uv pip compile`, or pip's dry run): only that tells whether a requirements
//! file, one that it includes, or the index has changed. The environment's key is the digest of the resolution (every project
//! with its version or URL), the digests that the files name, the tool, the interpreter, the platform, and the options that say where packages come from,
//! without credentials. An environment with the same key is used as it is, so its files keep their stat data and nothing is
//! packed again. If the resolution has the directory of a local project, that project is installed again in the same
//! environment: neither tool can tell whether its sources changed. The stat of a local archive is part of the key.
//!
//! conda's files (`environment.yml` and lock files) are another matter: `conda_files`.
//!
//! # Another platform
//!
//! With `--python-platform`, wheels of that platform are installed into an environment of this machine's interpreter, which
//! compiles byte-code but never runs the installed code. pip takes wheels only. uv builds projects that have no wheel; a
//! project that was so built for this machine is refused.

mod conda_files;
mod error;
mod hashes;
mod kept;
mod local;
mod platform;
mod prepare;
mod prepared;
mod request;
mod run;
#[cfg(test)]
mod tests;
mod tools;

pub(crate) use conda_files::environment_name;
pub(crate) use error::RequirementsError;
pub(crate) use prepare::{additions, prepare};
pub(crate) use request::{Machine, Options, Request};
