//! A store that any web server publishes: read-only, for executors, and for clients that only read.
//!
//! An object is the file at `<URI>/<key>`. Ranges are asked for side by side and by `Range`; a body that breaks off goes on
//! where it broke, from the same version (`If-Match`) if the server names one. A server without ranges serves small objects
//! only. Nothing can be listed or written. Refreshing an object asks whether it is there: nothing removes objects behind a
//! web server but its owner.
//!
//! Redirects are followed, at most [`MOST_REDIRECTS`]. The headers of `CPACK_HTTP_HEADER_FILE` go to the scheme, host and port
//! of the store's own URI and nowhere else. `http:` is spoken to this machine alone, unless `CPACK_HTTP_PLAIN` allows it; a
//! redirect from `https:` to `http:` is never followed.

mod settings;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::SystemTime;

use aws_smithy_types::body::SdkBody;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MATCH, LOCATION, RANGE};
use http::{HeaderMap, Method, Request, Response, Uri};
use tokio::sync::OnceCell;

use self::settings::Settings;
use crate::call::Call;
use crate::error::if_found;
use crate::network::Network;
use crate::retry::{Failure, SystemClock, retry};
use crate::web::{Answer, BUNDLE, Filling, Part, Server, Web, header, last_modified, percent_encode, refusal, whole};
use crate::{Key, Listed, Put, Source, Stat, Store, StoreError, StoreErrorKind, StoreOptions, StoreUri, Written};

/// Redirects of one request.
const MOST_REDIRECTS: usize = 5;

/// What errors say of web servers.
static SERVER: Server = Server {
    bundle: BUNDLE,
    credentials: "give a token by CPACK_HTTP_HEADER_FILE",
    rights: "the token, which CPACK_HTTP_HEADER_FILE gives: a file of headers, `Authorization: Bearer …`",
    refused: |_| None,
};

/// A store that a web server publishes.
#[derive(Debug)]
pub(crate) struct WebStore {
    uri: StoreUri,
    /// Where objects are, as a URI without a trailing slash.
    base: String,
    settings: Settings,
    options: StoreOptions,
    network: Network,
    client: OnceCell<Web>,
}

impl WebStore {
    /// The store at `uri`. Nothing is contacted yet.
    pub(crate) fn new(uri: &StoreUri, options: &StoreOptions) -> Result<Self, StoreError> {
        let settings = Settings::new(uri, options).map_err(|reason| StoreError::misconfigured(uri, reason))?;
        let base = percent_encode(&uri.to_string(), b":/%@!$&'()*+,;=[]");
        let (network, options) = (Network::new(options.threads), options.clone());
        Ok(Self { uri: uri.clone(), base, settings, options, network, client: OnceCell::new() })
    }

    /// The properties that an executor needs to reach this server.
    pub(crate) fn cluster_properties(
        uri: &StoreUri,
        options: &StoreOptions,
    ) -> Result<BTreeMap<String, String>, StoreError> {
        Settings::properties(uri, options).map_err(|reason| StoreError::misconfigured(uri, reason))
    }

    fn operation<'a>(&'a self, operation: &'static str, object: &'a str) -> Call<'a> {
        Call::new(&self.uri, operation, object)
    }

    /// Runs one attempt after another until one succeeds or fails for good, or the time is spent.
    fn call<'a, T, F>(&'a self, call: Call<'_>, mut attempt: impl FnMut(&'a Web) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        retry(&SystemClock::start(), call.budget(&self.options.deadlines), |time| {
            let run = async {
                let connect = || async { Web::new(&self.options, self.uri.scheme.name() == "https") };
                let client = self.client.get_or_try_init(connect).await;
                let failed = |reason: String| Failure::from(call.error(StoreErrorKind::Misconfigured, reason));
                attempt(client.map_err(failed)?).await
            };
            let answered = self.network.wait(time, run);
            answered.unwrap_or_else(|error| Err(call.interrupted(&error, "HTTP", StoreErrorKind::Other).into()))
        })
    }

    /// Sends a request for `key` with these headers, and follows redirects.
    async fn ask(
        &self,
        call: Call<'_>,
        client: &Web,
        method: Method,
        key: &Key,
        extra: HeaderMap,
    ) -> Result<Response<SdkBody>, Failure> {
        let failed = |answer: &Answer| call.failed(answer.verdict(&SERVER));
        let invalid = |reason: String| Failure::from(call.error(StoreErrorKind::Misconfigured, reason));
        let start = format!("{}/{}", self.base, percent_encode(key.as_str(), b"/"));
        let start: Uri = start.parse().map_err(|error| invalid(format!("it is no URL: {error}")))?;
        let own = origin(&start);
        let mut at = start.clone();
        for _ in 0..=MOST_REDIRECTS {
            let mut request = Request::new(SdkBody::empty());
            *request.method_mut() = method.clone();
            *request.uri_mut() = at.clone();
            request.headers_mut().clone_from(&extra);
            if origin(&at) == own {
                let headers = self.settings.headers().map_err(invalid)?;
                request.headers_mut().extend(headers);
            }
            let response = client.send(request).await.map_err(|answer| failed(&answer))?;
            if response.status().is_redirection() && response.status().as_u16() != 304 {
                at = self.redirected(&at, response.headers()).map_err(invalid)?;
                continue;
            }
            let page = crate::web::is_page(header(response.headers(), CONTENT_TYPE.as_str()));
            if response.status().is_success() && !page {
                return Ok(response);
            }
            return Err(failed(&refusal(response, said).await));
        }
        Err(invalid(format!("it was redirected more than {MOST_REDIRECTS} times")))
    }

    /// Where a redirect leads. The error is one line for people.
    fn redirected(&self, from: &Uri, headers: &HeaderMap) -> Result<Uri, String> {
        let location = header(headers, LOCATION.as_str()).unwrap_or_default();
        let to = resolve(from, location).ok_or("it was redirected to what is no URL")?;
        let host = to.host().unwrap_or_default();
        match to.scheme_str() {
            Some("https") => Ok(to),
            Some("http") if from.scheme_str() == Some("http") && self.settings.may_ask_plainly(host) => Ok(to),
            _ => Err(format!("it was redirected to http://{host}, where what is read is not protected")),
        }
    }

    async fn get(
        &self,
        call: Call<'_>,
        client: &Web,
        key: &Key,
        range: Option<Range<u64>>,
        version: Option<String>,
    ) -> Result<Part, Failure> {
        let mut headers = HeaderMap::new();
        let mut set = |name, value: String| value.parse().map(|value| drop(headers.insert(name, value)));
        // What is compressed on the way has other ranges.
        let _ = set(ACCEPT_ENCODING, "identity".to_owned());
        if let Some(range) = range {
            let _ = set(RANGE, format!("bytes={}-{}", range.start, range.end - 1));
        }
        if let Some(version) = version {
            let _ = set(IF_MATCH, version);
        }
        let answer = self.ask(call, client, Method::GET, key, headers).await?;
        let version = strong_version(answer.headers());
        Ok(Part::of(answer, version))
    }

    /// Length and age, by HEAD, or by the first byte where the server has no HEAD.
    async fn find(&self, call: Call<'_>, client: &Web, key: &Key) -> Result<Stat, Failure> {
        let found = self.ask(call, client, Method::HEAD, key, HeaderMap::new()).await?;
        let modified = last_modified(found.headers());
        if let Some(size) = header(found.headers(), CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok()) {
            return Ok(Stat { size, modified });
        }
        let first = self.get(call, client, key, Some(0..1), None).await?;
        let total = first.content_range.as_deref().and_then(|range| range.rsplit_once('/')?.1.parse().ok());
        let unknown = || call.error(StoreErrorKind::Misconfigured, "the server does not say how long it is");
        Ok(Stat { size: total.or(first.length).ok_or_else(unknown)?, modified })
    }

    fn read_only<T>(&self, operation: &'static str, object: &str) -> Result<T, StoreError> {
        let reason =
            "a store behind a web server can only be read: name the store itself, by file:, hdfs:, s3:, gs: or abfss:";
        Err(self.operation(operation, object).error(StoreErrorKind::Misconfigured, reason))
    }
}

impl Store for WebStore {
    fn uri(&self) -> &StoreUri {
        &self.uri
    }

    fn read(&self, key: &Key, limit: u64) -> Result<Vec<u8>, StoreError> {
        let call = self.operation("cannot read", key.as_str());
        self.call(
            call,
            |client| async move { whole(call, self.get(call, client, key, None, None).await?, limit).await },
        )
    }

    fn read_range(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let call = self.operation("cannot read", key.as_str()).moving(buffer.len() as u64);
        if buffer.is_empty() {
            return Ok(());
        }
        let filling = Filling::new(offset, buffer);
        self.call(call, |client| {
            filling.attempt(call, move |range, version| self.get(call, client, key, Some(range), version))
        })
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, StoreError> {
        let call = self.operation("cannot read", key.as_str());
        if_found(self.call(call, |client| self.find(call, client, key)))
    }

    fn write(&self, key: &Key, _: Source<'_>, _: Put) -> Result<Written, StoreError> {
        self.read_only("cannot write", key.as_str())
    }

    fn refresh(&self, key: &Key) -> Result<(), StoreError> {
        let call = self.operation("cannot refresh", key.as_str());
        self.call(call, |client| self.find(call, client, key)).map(drop)
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>, StoreError> {
        self.read_only("cannot list", directory)
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.read_only("cannot delete", key.as_str())
    }

    fn remove_old(&self, key: &Key, _: SystemTime) -> Result<bool, StoreError> {
        self.read_only("cannot delete", key.as_str())
    }

    fn sweep(&self, _: SystemTime) -> Result<usize, StoreError> {
        self.read_only("cannot clean up", "")
    }
}

/// The version of an answer's object. A weak tag names no bytes.
fn strong_version(headers: &HeaderMap) -> Option<String> {
    header(headers, ETAG.as_str()).filter(|tag| tag.starts_with('"')).map(str::to_owned)
}

/// Web servers have no codes, and their messages are pages for people.
fn said(_: &HeaderMap, body: &str) -> (String, String) {
    (String::new(), if body.contains('<') { String::new() } else { body.to_owned() })
}

/// Scheme, host and port: headers with tokens go to one of them only.
fn origin(uri: &Uri) -> (Option<&str>, Option<String>, u16) {
    let port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    (uri.scheme_str(), uri.host().map(str::to_ascii_lowercase), uri.port_u16().unwrap_or(port))
}

/// The URI of `location` as it stands in an answer from `from` (RFC 9110, 10.2.2).
fn resolve(from: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().filter(|location| !location.is_empty())?;
    let (scheme, authority) = (from.scheme_str()?, from.authority()?);
    let whole = if location.contains("://") && !location.starts_with(['/', '?']) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let directory = from.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{location}")
    };
    whole.parse().ok().filter(|uri: &Uri| uri.host().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_resolved_and_origins_compared() {
        let from: Uri = "https://host/a/b.zip".parse().expect("a URI");
        for (location, to, same) in [
            ("https://HOST:443/c?sig=x", "https://HOST:443/c?sig=x", true),
            ("https://other/c", "https://other/c", false),
            ("//other/c", "https://other/c", false),
            ("/c", "https://host/c", true),
            ("c", "https://host/a/c", true),
            ("http://host/c", "http://host/c", false),
            ("https://host:444/c", "https://host:444/c", false),
        ] {
            let uri = resolve(&from, location).expect(location);
            assert_eq!((uri.to_string().to_lowercase(), origin(&uri) == origin(&from)), (to.to_lowercase(), same));
        }
        assert_eq!(resolve(&from, ""), None);
        assert_eq!(resolve(&from, "https://"), None);
    }
}
