//! Files as packed, judged by the interpreters that will read them: every CPython from 3.9 on that this machine has.

#![expect(clippy::expect_used, reason = "helpers of tests")]

mod byte_code;
mod compile;
mod python;
mod script;
mod transform;
