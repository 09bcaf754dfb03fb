//! The two programs together, as a person and an executor use them: real environments, real interpreters, real processes.

mod equality;
mod input;
mod programs;
mod publication;
