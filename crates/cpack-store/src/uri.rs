//! Store URIs: which kind of store, and where.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The kind of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// A directory.
    File,
    /// A name node or a name service.
    Hdfs,
    /// HDFS through a client-side mount table.
    ViewFs,
    /// A bucket, also written `s3a:`.
    S3,
}

impl Scheme {
    /// The scheme of its URIs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Hdfs => "hdfs",
            Self::ViewFs => "viewfs",
            Self::S3 => "s3",
        }
    }
}

/// A store's URI, without credentials and without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoreUri {
    /// The kind of the store.
    pub scheme: Scheme,
    /// Host and port, nameservice, or bucket. Empty for directories and for the default file system.
    pub authority: String,
    /// The path, absolute for all but S3 (a prefix without leading slash).
    pub path: String,
}

/// A text that is no store URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum UriError {
    #[error("{uri:?} has the unknown scheme {scheme:?}: use file:, hdfs:, viewfs:, s3: or a path")]
    Scheme { uri: String, scheme: String },
    #[error("{0:?} names no bucket: write s3://BUCKET/PREFIX")]
    Bucket(String),
    #[error("{0:?} contains credentials: put them into the environment or the credentials file instead")]
    Credentials(String),
    #[error("{0:?} is no store: {1}")]
    Path(String, &'static str),
}

impl StoreUri {
    /// The URI of a directory, which should be absolute.
    pub fn directory(path: &Path) -> Self {
        let path = path.to_string_lossy().trim_end_matches('/').to_owned();
        Self { scheme: Scheme::File, authority: String::new(), path: if path.is_empty() { "/".into() } else { path } }
    }

    /// The directory of a `file:` store.
    pub fn as_directory(&self) -> Option<PathBuf> {
        (self.scheme == Scheme::File).then(|| PathBuf::from(&self.path))
    }

    /// The URI of something inside the store.
    pub fn join(&self, relative: &str) -> String {
        format!("{self}/{relative}")
    }
}

impl FromStr for StoreUri {
    type Err = UriError;

    /// Parses a URI. Any other text is a path. Relative paths stay relative: the programs make them absolute.
    fn from_str(text: &str) -> Result<Self, UriError> {
        let shown = || redact(text);
        if text.is_empty() || text.contains('\0') {
            return Err(UriError::Path(shown(), "it is empty or contains a NUL byte"));
        }
        let Some((scheme, rest)) = text.split_once(':').filter(|(s, _)| is_scheme(s)) else {
            return Ok(Self::directory(Path::new(text)));
        };
        let scheme = match scheme {
            "file" => Scheme::File,
            "hdfs" => Scheme::Hdfs,
            "viewfs" => Scheme::ViewFs,
            "s3" | "s3a" | "s3n" => Scheme::S3,
            other => return Err(UriError::Scheme { uri: shown(), scheme: other.to_owned() }),
        };
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        if authority.contains('@') {
            return Err(UriError::Credentials(shown()));
        }
        if path.split('/').any(|part| part == "..") {
            return Err(UriError::Path(shown(), "its path contains '..'"));
        }
        Self::checked(scheme, authority, path.trim_end_matches('/'), shown)
    }
}

impl StoreUri {
    fn checked(scheme: Scheme, authority: &str, path: &str, shown: impl Fn() -> String) -> Result<Self, UriError> {
        let path = match scheme {
            Scheme::File if !authority.is_empty() && authority != "localhost" => {
                return Err(UriError::Path(shown(), "a file URI has three slashes: file:///path"));
            }
            Scheme::File if path.is_empty() => return Err(UriError::Path(shown(), "it has no path")),
            Scheme::S3 if authority.is_empty() => return Err(UriError::Bucket(shown())),
            Scheme::S3 => path.trim_start_matches('/'),
            Scheme::Hdfs | Scheme::ViewFs if path.is_empty() => {
                return Err(UriError::Path(shown(), "it has no path: write hdfs://NAMENODE/PATH"));
            }
            _ => path,
        };
        let authority = if scheme == Scheme::File { "" } else { authority };
        Ok(Self { scheme, authority: authority.to_owned(), path: path.to_owned() })
    }
}

fn is_scheme(text: &str) -> bool {
    text.len() > 1
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

impl fmt::Display for StoreUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.scheme, self.path.as_str()) {
            (Scheme::File, path) => write!(f, "file:{path}"),
            (Scheme::S3, "") => write!(f, "s3://{}", self.authority),
            (Scheme::S3, path) => write!(f, "s3://{}/{path}", self.authority),
            (scheme, path) => write!(f, "{}://{}{path}", scheme.name(), self.authority),
        }
    }
}

/// Hides what may be a secret in `text`: user information and query strings of URIs.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || "\"'<>".contains(c)).unwrap_or(after.len());
        let (uri, remaining) = after.split_at(end);
        let authority_end = uri.find(['/', '?', '#']).unwrap_or(uri.len());
        let (authority, path) = uri.split_at(authority_end);
        match authority.rsplit_once('@') {
            Some((_, host)) => out.push_str(&format!("***@{host}")),
            None => out.push_str(authority),
        }
        match path.split_once('?') {
            Some((path, _)) => out.push_str(&format!("{path}?***")),
            None => out.push_str(path),
        }
        rest = remaining;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_read_and_written() {
        for (text, shown) in [
            ("/a/b", "file:/a/b"),
            ("file:/a/b/", "file:/a/b"),
            ("file:///a", "file:/a"),
            ("a/b", "file:a/b"),
            ("hdfs://nn:8020/user/x", "hdfs://nn:8020/user/x"),
            ("hdfs:///user/x", "hdfs:///user/x"),
            ("viewfs://c/x", "viewfs://c/x"),
            ("s3a://bucket/p/q/", "s3://bucket/p/q"),
            ("s3://bucket", "s3://bucket"),
        ] {
            assert_eq!(text.parse::<StoreUri>().map(|u| u.to_string()), Ok(shown.to_owned()), "{text}");
        }
    }

    #[test]
    fn bad_uris_say_what_to_write() {
        for (text, needle) in [
            ("s3://", "bucket"),
            ("s3:///x", "bucket"),
            ("gs://b/x", "unknown scheme"),
            ("file://host/x", "three slashes"),
            ("hdfs://nn", "no path"),
            ("s3://key:secret@b/x", "credentials"),
            ("hdfs://nn/a/../b", "'..'"),
            ("", "empty"),
        ] {
            let error = text.parse::<StoreUri>().expect_err(text).to_string();
            assert!(error.contains(needle) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn secrets_are_redacted() {
        let text = "GET https://user:pw@host/x?X-Amz-Signature=abc failed, see http://a/b";
        assert_eq!(redact(text), "GET https://***@host/x?*** failed, see http://a/b");
    }
}
