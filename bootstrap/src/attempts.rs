//! One attempt to build in a cache: whether it settles the start, or the next cache is tried.

use std::sync::Once;

use cpack_node::node::Attempts;

use crate::error::BootError;
use crate::message::say;

/// The outcome of building in the last cache; `None` if the next one may do better.
pub(crate) fn settle<T>(attempts: &mut Attempts<'_>, outcome: Result<T, BootError>) -> Result<Option<T>, BootError> {
    match outcome {
        Ok(built) => {
            tell_if_not_as_chosen(attempts);
            Ok(Some(built))
        }
        Err(BootError::Build(error)) => {
            attempts.failed(error)?;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Says once why the environment is not in the place that `CPACK_CACHE_DIR` names.
fn tell_if_not_as_chosen(attempts: &Attempts<'_>) {
    static TOLD: Once = Once::new();
    if let Some(why) = attempts.not_as_chosen() {
        TOLD.call_once(|| say(&why));
    }
}
