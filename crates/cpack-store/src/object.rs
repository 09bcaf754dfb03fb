//! One object by its own URI, as users name packages, launchers and PEX files at paths of their choice.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::{Key, NameError, StoreError, StoreErrorKind, StoreUri, UriError, redact};

/// An object anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectUri {
    /// The directory that holds it, as a store.
    pub store: StoreUri,
    /// Its name there.
    pub key: Key,
}

/// A text that names no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum ObjectUriError {
    #[error(transparent)]
    Uri(#[from] UriError),
    #[error("{0} has a query: name the object alone, and give the credentials by the environment")]
    Query(String),
    #[error("{uri}: {source}")]
    Name { uri: String, source: NameError },
}

/// A file as people name it: a path, or the URI of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileOrObject {
    /// A path, or a `file:` URI.
    File(PathBuf),
    /// Another URI.
    Object(ObjectUri),
}

impl FileOrObject {
    /// Tells a path from a URI. `file:/p` and `file:///p` are paths, whatever bytes they have.
    pub fn read(text: &OsStr) -> Result<Self, ObjectUriError> {
        if let Some(path) = text.as_bytes().strip_prefix(b"file:") {
            let path = path.strip_prefix(b"//").unwrap_or(path);
            return Ok(Self::File(OsStr::from_bytes(path).into()));
        }
        match text.to_str() {
            Some(uri) if uri.contains("://") => uri.parse().map(Self::Object),
            _ => Ok(Self::File(text.into())),
        }
    }
}

impl ObjectUri {
    /// The file at `path`, which should be absolute, as an object.
    pub fn of_file(path: &Path) -> Result<Self, ObjectUriError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Self::new(StoreUri::directory(path.parent().unwrap_or(Path::new("/"))), &name)
    }

    /// The error for a missing object. `reason` says what to check.
    pub fn not_found(&self, reason: &str) -> StoreError {
        let (kind, operation) = (StoreErrorKind::NotFound, "cannot read");
        StoreError { kind, operation, location: self.to_string(), reason: reason.to_owned() }
    }

    fn new(store: StoreUri, name: &str) -> Result<Self, ObjectUriError> {
        let key = Key::beside(name).map_err(|source| ObjectUriError::Name { uri: store.join(name), source })?;
        Ok(Self { store, key })
    }
}

impl FromStr for ObjectUri {
    type Err = ObjectUriError;

    fn from_str(text: &str) -> Result<Self, ObjectUriError> {
        if text.contains('?') {
            return Err(ObjectUriError::Query(redact(text)));
        }
        let (directory, name) = text.rsplit_once('/').unwrap_or(("", text));
        Self::new(directory.parse()?, name)
    }
}

impl fmt::Display for ObjectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.store.join(self.key.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uri_is_a_directory_and_a_name() {
        for (uri, store, name) in [
            ("hdfs:///user/me/envs/a.pex", "hdfs:///user/me/envs", "a.pex"),
            ("s3a://bucket/a.pex", "s3://bucket", "a.pex"),
            ("s3://bucket/p/a.pex.zip", "s3://bucket/p", "a.pex.zip"),
        ] {
            let FileOrObject::Object(object) = FileOrObject::read(uri.as_ref()).expect(uri) else { panic!("{uri}") };
            assert_eq!((object.store.to_string().as_str(), object.key.as_str()), (store, name), "{uri}");
        }
        let object = ObjectUri::of_file(Path::new("/tmp/envs/a")).expect("a file");
        assert_eq!(object.to_string(), "file:/tmp/envs/a");
    }

    #[test]
    fn what_names_no_object_is_said() {
        for (bad, needle) in [
            ("s3://bucket", "bucket"),
            ("s3://bucket/p/", "cannot be the name"),
            ("ftp://b/x", "unknown scheme"),
            ("hdfs://me:secret@nn/p/x", "credentials"),
            ("s3://bucket/a?X-Amz-Signature=secret", "has a query"),
        ] {
            let text = FileOrObject::read(bad.as_ref()).expect_err(bad).to_string();
            assert!(text.contains(needle) && !text.contains("secret"), "{text}");
        }
        assert!(ObjectUri::of_file(Path::new("/")).is_err());
    }

    #[test]
    fn paths_keep_their_bytes() {
        for (text, path) in [(&b"file:/a b"[..], &b"/a b"[..]), (b"file:///\xff", b"/\xff"), (b"./x:y", b"./x:y")] {
            let found = FileOrObject::read(OsStr::from_bytes(text));
            assert_eq!(found, Ok(FileOrObject::File(OsStr::from_bytes(path).into())));
        }
    }
}
