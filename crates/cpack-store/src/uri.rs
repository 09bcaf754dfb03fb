//! Store URIs: which kind of store, and where.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The kind of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scheme {
    /// A directory.
    File,
    /// A name node or a name service.
    Hdfs,
    /// HDFS through a client-side mount table.
    ViewFs,
    /// A bucket, also written `s3a:`.
    S3,
    /// A bucket of Google Cloud Storage.
    Gs,
    /// A container of Azure Blob Storage, written `abfs:`, `abfss:`, `az:`, `wasb:` or `wasbs:`.
    Azure,
    /// A web server, without TLS.
    Http,
    /// A web server.
    Https,
}

impl Scheme {
    /// The scheme of its URIs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Hdfs => "hdfs",
            Self::ViewFs => "viewfs",
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Azure => "abfss",
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The kind of the URIs of this scheme.
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "file" => Self::File,
            "hdfs" => Self::Hdfs,
            "viewfs" => Self::ViewFs,
            "s3" | "s3a" | "s3n" => Self::S3,
            "gs" | "gcs" => Self::Gs,
            "abfs" | "abfss" | "az" | "wasb" | "wasbs" => Self::Azure,
            "http" => Self::Http,
            "https" => Self::Https,
            _ => return None,
        })
    }

    /// Whether its paths are prefixes, without a leading slash.
    const fn has_prefixes(self) -> bool {
        matches!(self, Self::S3 | Self::Gs | Self::Azure)
    }
}

/// A store's URI, without credentials and without a trailing slash.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoreUri {
    /// The kind of the store.
    pub scheme: Scheme,
    /// Host and port, nameservice, bucket, or `CONTAINER@ACCOUNT-HOST`. Empty for directories and for the default file system.
    pub authority: String,
    /// The path, absolute for all but clouds (a prefix without leading slash).
    pub path: String,
}

/// A text that is no store URI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say what each variant means")]
pub enum UriError {
    #[error("{uri:?} has the unknown scheme {scheme:?}: use file:, hdfs:, viewfs:, s3:, gs:, abfss:, https: or a path")]
    Scheme { uri: String, scheme: String },
    #[error("{uri:?} names no bucket: write {write}")]
    Bucket { uri: String, write: &'static str },
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
        let Some(scheme) = Scheme::of(scheme) else {
            return Err(UriError::Scheme { uri: shown(), scheme: scheme.to_owned() });
        };
        let (authority, path) = match rest.strip_prefix("//") {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        if authority.contains('@') && !(scheme == Scheme::Azure && names_a_container(authority)) {
            return Err(UriError::Credentials(shown()));
        }
        if scheme >= Scheme::Gs && path.contains('?') {
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
            Scheme::S3 | Scheme::Gs | Scheme::Azure if authority.is_empty() => {
                let write = match scheme {
                    Scheme::Gs => "gs://BUCKET/PREFIX",
                    Scheme::Azure => "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX",
                    _ => "s3://BUCKET/PREFIX",
                };
                return Err(UriError::Bucket { uri: shown(), write });
            }
            _ if scheme.has_prefixes() => path.trim_start_matches('/'),
            Scheme::Http | Scheme::Https if authority.is_empty() => {
                return Err(UriError::Path(shown(), "it names no host: write https://HOST/PATH"));
            }
            Scheme::Hdfs | Scheme::ViewFs if path.is_empty() => {
                return Err(UriError::Path(shown(), "it has no path: write hdfs://NAMENODE/PATH"));
            }
            _ => path,
        };
        let authority = if scheme == Scheme::File { "" } else { authority };
        Ok(Self { scheme, authority: authority.to_owned(), path: path.to_owned() })
    }
}

/// Whether the user information of Azure's `CONTAINER@HOST` is a container and no password.
fn names_a_container(authority: &str) -> bool {
    let name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-$".contains(&byte));
    authority.split_once('@').is_some_and(|(container, host)| {
        !container.is_empty() && name(container) && !host.is_empty() && !host.contains('@')
    })
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
            (scheme, "") => write!(f, "{}://{}", scheme.name(), self.authority),
            (scheme, path) if scheme.has_prefixes() => write!(f, "{}://{}/{path}", scheme.name(), self.authority),
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
        let azure = ["abfs://", "abfss://", "wasb://", "wasbs://"].iter().any(|scheme| out.ends_with(scheme));
        match authority.rsplit_once('@') {
            Some(_) if azure && names_a_container(authority) => out.push_str(authority),
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
            ("gs://bucket/p/", "gs://bucket/p"),
            ("abfs://c@a.dfs.core.windows.net/p", "abfss://c@a.dfs.core.windows.net/p"),
            ("wasbs://c@a.blob.core.windows.net", "abfss://c@a.blob.core.windows.net"),
            ("az://c/p/q", "abfss://c/p/q"),
            ("https://host:8443/a/b/", "https://host:8443/a/b"),
            ("http://localhost", "http://localhost"),
        ] {
            assert_eq!(text.parse::<StoreUri>().map(|u| u.to_string()), Ok(shown.to_owned()), "{text}");
        }
    }

    #[test]
    fn bad_uris_say_what_to_write() {
        for (text, needle) in [
            ("s3://", "bucket"),
            ("s3:///x", "bucket"),
            ("ftp://b/x", "unknown scheme"),
            ("gs://", "gs://BUCKET"),
            ("abfss:///x", "CONTAINER@ACCOUNT"),
            ("https:///x", "no host"),
            ("https://me:secret@host/x", "credentials"),
            ("https://host/x?sig=secret", "credentials"),
            ("abfss://c:secret@a.dfs.core.windows.net/x", "credentials"),
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
        assert_eq!(redact("abfss://c@a.dfs.x/p?sig=s"), "abfss://c@a.dfs.x/p?***");
        assert_eq!(redact("abfss://u:pw@a.dfs.x/p"), "abfss://***@a.dfs.x/p");
    }
}
