//! What will be done to an archive, as a value: nothing is written before it exists.
//!
//! A plan is made from the central directory alone. Every path is safe and unique, and no file stands where another needs
//! a directory; entries lie one behind the other without overlapping; no device, no absurd size. Permissions are
//! reduced to one bit, so set-uid bits have no way through. Only what is inside the data (a link's target, the bytes
//! themselves) is checked later, before it takes effect.

mod directories;
mod draft;
mod error;
mod model;
mod plan_layer;
mod plan_zip;

pub(crate) use draft::WHOLE;
pub(crate) use error::PlanError;
pub(crate) use model::{Plan, PlannedFile, Span, Unit};
pub(crate) use plan_layer::{Layout, plan_layer};
pub(crate) use plan_zip::{cut_entries, plan_zip};
