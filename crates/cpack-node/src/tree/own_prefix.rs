//! Files of a tree that hold the tree's own path.
//!
//! Layers of conda packages hold placeholders ([`cpack_format::prefix`]). Such a file is no link to its layer's: it is written
//! anew, with the path at which Python will find the tree.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use cpack_format::manifest::Manifest;
use cpack_format::prefix::{Mode, TooLong, replace};

/// The files that hold the path of a tree.
#[derive(Debug, Default)]
pub(crate) struct OwnPrefix<'a> {
    /// The path of the tree, once it is in its place.
    prefix: &'a [u8],
    /// How each file holds it, and what its layer has instead.
    files: HashMap<&'a Path, (Mode, &'a str)>,
}

impl<'a> OwnPrefix<'a> {
    /// Those of the tree of `manifest` that will be at `place`.
    pub(crate) fn of(manifest: &'a Manifest, place: &'a Path) -> Self {
        let prefixes = manifest.layers.iter().flat_map(|layer| &layer.prefixes);
        let files = prefixes.flat_map(|prefixes| {
            prefixes.files().map(|(path, mode)| (Path::new(path), (mode, prefixes.placeholder.as_str())))
        });
        Self { prefix: place.as_os_str().as_bytes(), files: files.collect() }
    }

    /// How the file at `path` holds the tree's path; `None` if it does not.
    pub(crate) fn at(&self, path: &Path) -> Option<Held<'a>> {
        // Most trees have no such file, and most directories of the others neither.
        let (mode, placeholder) = if self.files.is_empty() { None } else { self.files.get(path) }?;
        Some(Held { mode: *mode, placeholder, prefix: self.prefix })
    }
}

/// How one file holds the path of its tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held<'a> {
    mode: Mode,
    placeholder: &'a str,
    prefix: &'a [u8],
}

impl Held<'_> {
    /// The file in the tree, made from that of its layer.
    pub(crate) fn mend(&self, bytes: &[u8]) -> Result<Vec<u8>, TooLong> {
        replace(self.mode, bytes, self.placeholder.as_bytes(), self.prefix)
    }
}
