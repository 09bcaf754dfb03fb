//! The names of objects in a store: the layout, in one place.

use std::fmt;

use crate::Digest;

/// The name of an object, relative to the store, in a form of the layout.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

/// The directories of the layout.
pub const DIRECTORIES: [&str; 7] = ["layers", "contents", "environments", "overlays", "launchers", "boot", "names"];

/// The directory of writers' temporary files, beside the directories of the layout.
pub const TEMPORARY: &str = "tmp";

/// The end of the keys of notes.
const IN_USE: &str = ".used";

/// Longest name under `names/`, in bytes: a file name, with room for a suffix.
const MAX_NAME: usize = 200;

/// A name that cannot be used under `names/`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot be the name of an environment or a file in a store: use letters, digits, '.', '_', '-', '+', '=' and '@', not starting with '.'"
)]
pub struct NameError(String);

impl Key {
    /// The archive of a layer.
    pub fn layer(archive: &Digest) -> Self {
        Self::sharded("layers", archive)
    }

    /// The archive of an overlay.
    pub fn overlay(archive: &Digest) -> Self {
        Self::sharded("overlays", archive)
    }

    /// The record that names the archive of a content.
    pub fn content(content: &Digest) -> Self {
        Self(format!("contents/{content}.json"))
    }

    /// A manifest.
    pub fn environment(id: &Digest) -> Self {
        Self(format!("environments/{id}.json"))
    }

    /// An immutable launcher.
    pub fn launcher(digest: &Digest) -> Self {
        Self(format!("launchers/{digest}"))
    }

    /// An immutable copy of the boot.
    pub fn boot(digest: &Digest) -> Self {
        Self(format!("boot/{digest}"))
    }

    /// The note that an object is in use, beside it and renewed now and then.
    #[must_use]
    pub fn in_use(&self) -> Self {
        Self(format!("{self}{IN_USE}"))
    }

    /// The object of this note, if it is one.
    pub fn noted(&self) -> Option<Self> {
        self.0.strip_suffix(IN_USE).map(|object| Self(object.to_owned()))
    }

    /// A file of a mutable name: with the suffix `json` the record itself, without one the artifact that users run.
    pub fn name(name: &str, suffix: &str) -> Result<Self, NameError> {
        let ok = |b: u8| b.is_ascii_alphanumeric() || b"._-+=@".contains(&b);
        if name.is_empty() || name.len() > MAX_NAME || name.starts_with('.') || !name.bytes().all(ok) {
            return Err(NameError(name.chars().take(80).collect()));
        }
        let dot = if suffix.is_empty() { "" } else { "." };
        Ok(Self(format!("names/{name}{dot}{suffix}")))
    }

    /// A file in a directory of the user's choice, outside the layout. Its name keeps the rules of names.
    pub fn beside(file: &str) -> Result<Self, NameError> {
        Self::name(file, "").map(|key| Self(key.0.trim_start_matches("names/").to_owned()))
    }

    /// The path at which a writer keeps the object until it is whole: in [`TEMPORARY`], or for a file outside the layout hidden
    /// beside it, since the user wants no other directory there.
    pub fn temporary(&self, unique: &str) -> String {
        if self.0.contains('/') { format!("{TEMPORARY}/{unique}") } else { format!(".cpack-{unique}") }
    }

    /// The key of a listed path. `None` if it is outside the layout's directories or temporary.
    pub fn from_listing(path: &str) -> Option<Self> {
        let (directory, rest) = path.split_once('/')?;
        let plain = rest.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
        (DIRECTORIES.contains(&directory) && plain).then(|| Self(path.to_owned()))
    }

    fn sharded(directory: &str, digest: &Digest) -> Self {
        let hex = digest.to_hex();
        let shard: String = hex.chars().take(2).collect();
        Self(format!("{directory}/{shard}/{hex}.zip"))
    }

    /// The path relative to the store.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_directory() {
        for bad in ["", ".", "..", "a/b", "../x", ".hidden", "a b", "a\n", &"x".repeat(201)] {
            assert!(Key::name(bad, "json").is_err(), "{bad:?}");
        }
        assert_eq!(Key::beside("names.pex").map(|k| k.to_string()), Ok("names.pex".into()));
        assert!(Key::beside("a/b").is_err());
    }

    #[test]
    fn temporary_files_are_hidden_beside_what_users_placed() {
        let temporary = |key: Result<Key, NameError>| key.map(|key| key.temporary("1-2"));
        assert_eq!(temporary(Key::beside("my.pex")), Ok(".cpack-1-2".into()));
        assert_eq!(temporary(Key::name("my", "json")), Ok("tmp/1-2".into()));
    }

    #[test]
    fn names_are_files_of_their_directory() {
        assert_eq!(Key::name("my-env_1.0", "json").map(|k| k.to_string()), Ok("names/my-env_1.0.json".into()));
    }

    #[test]
    fn listings_leave_out_what_is_temporary() {
        assert!(Key::from_listing("layers/ab/.tmp-1").is_none());
        assert!(Key::from_listing("other/x").is_none());
        assert!(Key::from_listing("names/a.json").is_some());
    }
}
