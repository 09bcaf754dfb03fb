//! The commands, one file each; `prepare` is what several of them share.

pub(super) mod bench;
pub(super) mod child;
pub(super) mod doctor;
pub(super) mod environment_archive;
pub(super) mod info;
pub(super) mod kubernetes;
pub(super) mod launcher;
pub(super) mod package;
pub(super) mod pex;
pub(super) mod prepare;
pub(super) mod prune;
pub(super) mod publish;
pub(super) mod run;
pub(super) mod share;
pub(super) mod skein;
pub(super) mod spark;
pub(super) mod trace;
pub(super) mod upload;
