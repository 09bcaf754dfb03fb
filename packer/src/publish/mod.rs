//! From packed layers to layers in a store, sending only what the store lacks.
//!
//! The order makes a store trustworthy at every instant. [`Publisher::send`] puts the archive of a layer, then the record that
//! names it by its content. After all layers [`publish_manifest`] puts the manifest, then [`publish_name`] the name. So a
//! manifest that can be read implies layers that are whole.
//!
//! `prune` may remove layers at the same time: [`Publisher::recognise`] and [`Publisher::send`] refresh the age of a layer
//! before they rely on it, and [`publish_manifest`] looks at all layers again after it has put the manifest. It reports
//! [`PublishError::Vanished`] if one is gone, and [`submit`](crate::submit::submit) then sends it again. Two clients may
//! publish at once: they write the same bytes under the same keys.

mod error;
mod layers;
mod names;
mod transfer;

pub(crate) use error::PublishError;
pub(crate) use layers::{PublishedLayer, Publisher};
pub(crate) use names::{NameRecord, publish_launcher, publish_manifest, publish_name, read_name};
