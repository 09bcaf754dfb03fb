//! Makes a packed Python environment appear on a node, and becomes its interpreter.
//!
//! `cpack-boot` stands where an executor expects Python. It finds its job, finds the environment in the node cache or
//! builds it there, merges the path, and executes the environment's interpreter: same process, same descriptors.
//!
//! | module | does |
//! | --- | --- |
//! | `settings` | every environment variable, read once |
//! | `job` | finds the job |
//! | `interpreter` | finds the node's interpreter, by `stat` alone when warm |
//! | `path`, `entry`, `exec` | `PYTHONPATH`, what runs, and running it |
//! | `home` | a place for what programs cache |
//! | `start` | the start as a whole, from arguments to Python |
//! | `boot` | the start of a job |
//! | `artifact` | what a path or URI names |
//! | `archive` | starting an archive of an environment |
//! | `processes` | a process beside this one, and what the two say to each other |
//! | `attempts` | whether one attempt to build settles the start |
//! | `command` | `--cpack info`, `status`, `verify` … |
//! | `pex` | starting a PEX file |
//! | `local_layer` | layers that a start makes from local files |
//! | `watch`, `error`, `message` | stopping, failing, telling |
//! | `sys` | the few unsafe calls |
//! | `no_dlopen` | keeps the static executable safe on nodes with another C library |
//!
//! **Standard output belongs to Python**: nothing is written there before `exec`. Standard error gets one line, and only
//! when something is wrong. Standard input is never read.

mod archive;
mod artifact;
mod attempts;
mod boot;
mod command;
mod entry;
mod error;
mod exec;
mod home;
mod interpreter;
mod job;
mod local_layer;
mod message;
#[cfg(all(feature = "hdfs", target_env = "gnu", target_feature = "crt-static"))]
mod no_dlopen;
mod path;
mod pex;
mod processes;
mod settings;
mod start;
mod sys;
mod watch;

pub use start::main;
