//! What is to be known before a web server is asked: whether it may be asked without TLS, and which headers it gets.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{Scheme, StoreOptions, StoreUri};

/// Allows `http:` to other machines. Travels in the job as [`PLAIN_PROPERTY`].
const PLAIN: &str = "CPACK_HTTP_PLAIN";
const PLAIN_PROPERTY: &str = "cpack.http.plain";

/// Names a file of headers.
const HEADER_FILE: &str = "CPACK_HTTP_HEADER_FILE";

/// How a web server is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// Whether other machines may be asked by `http:`.
    plain: bool,
    /// The file of headers. It is read for each request, since tokens are renewed.
    header_file: Option<String>,
}

impl Settings {
    /// The settings for `uri`. The error is one line for people.
    pub(super) fn new(uri: &StoreUri, options: &StoreOptions) -> Result<Self, String> {
        let set = |value: Option<&str>| value.is_some_and(|value| !matches!(value, "0" | "false"));
        let plain = set(options.variable(PLAIN)) || set(options.cluster.get(PLAIN_PROPERTY).map(String::as_str));
        let settings = Self { plain, header_file: options.variable(HEADER_FILE).map(str::to_owned) };
        if uri.scheme == Scheme::Http && !settings.may_ask_plainly(host(&uri.authority)) {
            return Err(format!(
                "http: is for this machine only, since nothing protects what is read: use https:, or set {PLAIN}=1"
            ));
        }
        settings.headers()?;
        Ok(settings)
    }

    /// What an executor must be told: never a header.
    pub(super) fn properties(uri: &StoreUri, options: &StoreOptions) -> Result<BTreeMap<String, String>, String> {
        let settings = Self::new(uri, options)?;
        let plain = uri.scheme == Scheme::Http && settings.plain;
        Ok(plain.then(|| (PLAIN_PROPERTY.to_owned(), "true".to_owned())).into_iter().collect())
    }

    /// Whether `host` may be asked by `http:`.
    pub(super) fn may_ask_plainly(&self, host: &str) -> bool {
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        self.plain || host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
    }

    /// The headers for the store's own server: a line each, `NAME: VALUE`. The error names the file and no value.
    pub(super) fn headers(&self) -> Result<HeaderMap, String> {
        let Some(path) = &self.header_file else { return Ok(HeaderMap::new()) };
        let text = fs::read_to_string(path).map_err(|error| format!("{HEADER_FILE} names {path}: {error}"))?;
        let mut headers = HeaderMap::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let header = line.split_once(':').and_then(|(name, value)| {
                let mut value = HeaderValue::from_str(value.trim()).ok()?;
                value.set_sensitive(true);
                Some((name.trim().parse::<HeaderName>().ok()?, value))
            });
            let number = index + 1;
            let (name, value) = header.ok_or_else(|| {
                format!("{HEADER_FILE} names {path}, whose line {number} is no header: write NAME: VALUE")
            })?;
            headers.append(name, value);
        }
        Ok(headers)
    }
}

/// The host of an authority.
fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> StoreOptions {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        StoreOptions::new(BTreeMap::new(), find)
    }

    fn uri(text: &str) -> StoreUri {
        text.parse().expect("a URI")
    }

    #[test]
    fn plain_http_is_for_this_machine_unless_it_is_asked_for() {
        for (text, variables, ok) in [
            ("https://host/s", &[][..], true),
            ("http://127.0.0.1:80/s", &[], true),
            ("http://localhost/s", &[], true),
            ("http://[::1]:8/s", &[], true),
            ("http://host/s", &[], false),
            ("http://127.0.0.1.example.org/s", &[], false),
            ("http://host/s", &[(PLAIN, "1")], true),
            ("http://host/s", &[(PLAIN, "0")], false),
        ] {
            let settings = Settings::new(&uri(text), &options(variables));
            assert_eq!(settings.is_ok(), ok, "{text}: {settings:?}");
            assert!(ok || settings.is_err_and(|error| error.contains(PLAIN)));
        }
        let told = Settings::properties(&uri("http://host/s"), &options(&[(PLAIN, "1")])).expect("properties");
        let executor = StoreOptions { cluster: told, ..options(&[]) };
        assert!(Settings::new(&uri("http://host/s"), &executor).is_ok());
        assert_eq!(Settings::properties(&uri("https://host/s"), &options(&[(PLAIN, "1")])), Ok(BTreeMap::new()));
    }

    #[test]
    fn headers_are_read_and_bad_ones_named_without_their_value() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().display().to_string();
        let read = |text: &str| {
            std::fs::write(file.path(), text).expect("writes");
            Settings::new(&uri("https://host/s"), &options(&[(HEADER_FILE, &path)])).and_then(|s| s.headers())
        };
        let headers = read("Authorization: Bearer s3cr3t\n\nX-Team: a\n").expect("headers");
        assert_eq!((headers.len(), headers["x-team"].to_str().ok()), (2, Some("a")));
        assert!(!format!("{headers:?}").contains("s3cr3t"));
        let error = read("Authorization: Bearer s3cr3t\ns3cr3t\n").expect_err("no header");
        assert!(error.contains("line 2") && error.contains(&path) && !error.contains("s3cr3t"), "{error}");
        let missing = Settings::new(&uri("https://host/s"), &options(&[(HEADER_FILE, "/no/such")]));
        assert!(missing.expect_err("no file").contains("/no/such"));
    }
}
