//! Turns files as installed into files as packed.

pub mod compile;
pub mod direct_url;
pub mod marshal;
pub mod pyc;
pub mod record;
pub mod script;
