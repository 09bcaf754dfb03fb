//! The node cache: environments kept on an executor's node for the next container.
//!
//! ```text
//! <place>/cpack-<uid>/                 0700, made and checked by descriptor
//!     layers/<content digest>/files/   a layer's files, read-only: all of them, if the directory is there
//!     layers/<content digest>/state    under which boot of the node it was written, and its size
//!     environments/<key>/              a tree of hard links, named by environment id and interpreter
//!     environments/<key>/.cpack/       its lease (also: under which boot it was written), manifest and store
//!     jobs/<key>-<digest>/             what a job with overlays starts from: links to a tree, and where its overlays are
//!     pieces/<digest>                  of archives: what servers of lazy starts share until the layers are built
//!     served/<key>/                    empty: where an environment is mounted that is served before it is built
//!     private/<unique>/                copies for CPACK_WRITABLE, removed after their process ended
//!     staging/<unique>/                what a process is building, and its trash; locked by it
//!     user/                            XDG_CACHE_HOME of programs that have no other; its files go by the age of their last use
//!     locks/                           empty files that save work
//!     checked/<key>                    the outcome of checking an environment in another cache, of an image
//! ```
//!
//! **Complete means renamed into place.** A process builds under `staging/` and renames without replacing ([`commit`]); a
//! process that loses the race discards its copy. One that is killed at any instruction leaves a staging directory whose
//! lock is free and that no other process reads; [`mod@clean`] removes it.
//!
//! **Locks only save work**: they never make anything correct. A process that waits for a builder watches its progress and
//! does the work itself when there is none ([`claims`]).
//!
//! **A cache in a container's image** can be read, but its directories cannot be moved ([`image`]).
//!
//! **After a power loss** a directory that was renamed may hold files whose bytes were never written. The boot id tells
//! ([`boot_id`]): a layer that was written under another boot is verified by content once before it is used, so that no
//! start waits for a sync.

mod boot_id;
mod claims;
mod clean;
mod commit;
mod content;
mod environments;
mod flock;
mod image;
mod jobs;
mod layers;
mod lease;
mod named;
mod own_directory;
mod pieces;
mod places;
mod records;
mod remove;
mod staging;
mod unused;

pub use boot_id::BootId;
pub use claims::{Claimed, Watched};
pub use clean::{Cleaned, Cleaning, RECENT, clean};
pub use commit::Committed;
pub use content::{content_of, file_digest};
pub use environments::{Environment, Lookup};
pub use image::Verdict;
pub use layers::{LayerState, StagedLayer, Wanted, seal_directories, size_of};
pub use lease::Lease;
pub use own_directory::{Cache, PlaceError, free_at};
pub use places::{Place, PlaceKind, Places, places, unusable};
pub use records::lease_tree;
pub use records::{Description, RECORDS, read_description, read_manifest};
pub(crate) use records::{LEASE, write_records};
pub use remove::remove_tree;
pub use staging::{Staging, remove_own_staging};
