//! Publishing to S3, HDFS and other clouds, and starting on nodes that have nothing but a job: both programs as they are shipped, real
//! servers, and a network that does what networks do.

#![expect(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests report by panicking and printing")]

mod clouds;
mod faults;
mod input;
mod lazy;
mod publishing;
mod secrets;
mod starting;
