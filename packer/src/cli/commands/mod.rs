//! The commands, a file each.

pub(super) mod bench;
pub(super) mod info;
pub(super) mod kubernetes;
pub(super) mod launcher;
pub(super) mod made;
pub(super) mod package;
pub(super) mod pex;
pub(super) mod prune;
pub(super) mod run;
pub(super) mod skein;
pub(super) mod spark;
pub(super) mod upload;
