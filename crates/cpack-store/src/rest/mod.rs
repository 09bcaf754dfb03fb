//! What Google Cloud Storage and Azure Blob Storage have in common as stores: objects at `<prefix>/<key>`, one HTTP request
//! for each thing that is done, and versions that requests can be bound to.
//!
//! [`RestStore`] keeps the contract of a store; a [`Cloud`] says how its requests look and what its answers hold. Each
//! attempt has a deadline, and [`RestStore::call`] retries transient errors; a body that breaks off goes on where it broke,
//! from the same version of the object. What must be atomic is bound to a version: [`Put::Once`] writes only where nothing
//! is, and [`Store::remove_old`] removes only the version whose age it saw. A large object is sent in parts, several at once,
//! and appears with the last request.
//!
//! The crate `object_store` finds the credentials, with the whole chain of each cloud, and signs Azure's requests. Its own
//! requests are not used. It reaches Google by the XML interface, which servers for tests do not have; it cannot make an
//! object's age zero, bind a removal or a list of blocks to a version, or say when a server's clock differs; and it reads
//! bodies into buffers of its own.

mod credentials;
mod write;

use std::fmt;
use std::ops::Range;
use std::time::SystemTime;

use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request, Response};
use tokio::sync::OnceCell;

pub(crate) use self::credentials::{Connector, no_credentials, quick};
use crate::call::Call;
use crate::error::if_found;
use crate::network::Network;
use crate::retry::{Failure, SystemClock, retry};
use crate::web::{Answer, Filling, Part, Server, Transport, Web, whole};
use crate::{Key, Listed, Put, Source, Stat, Store, StoreError, StoreErrorKind, StoreOptions, StoreUri, Written};

/// The most bytes of an answer that is no object: a page of a listing has a thousand names.
const LARGEST_ANSWER: u64 = 16 << 20;

/// An object as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) stat: Stat,
    /// What a request can be bound to. Changes when the object is written or refreshed.
    pub(crate) version: String,
}

/// A page of a listing.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Names in the bucket.
    pub(crate) objects: Vec<(String, Stat)>,
    /// What the next request names, if there is another page.
    pub(crate) next: Option<String>,
}

/// A request without credentials.
pub(crate) type Plain = Request<Bytes>;

/// How one cloud's requests look.
pub(crate) trait Cloud: fmt::Debug + Send + Sync + Sized {
    /// For messages.
    const NAME: &'static str;
    /// Larger objects are sent in parts, of at least this size.
    const PART: u64;
    /// Most parts of one object.
    const MOST_PARTS: u64;
    /// What errors say.
    const SERVER: &'static Server;
    /// Credentials, with their cache.
    type Signer: Send + Sync;

    /// Whether the server is asked by TLS.
    fn is_tls(&self) -> bool;
    /// Finds out who signs. The error is one line for people.
    fn signer(&self, options: &StoreOptions) -> Result<Self::Signer, String>;
    /// Adds credentials to `request`.
    fn sign(&self, signer: &Self::Signer, request: Plain) -> impl Future<Output = Result<Plain, Answer>>;
    /// Code and message of a refusal.
    fn parse(headers: &HeaderMap, body: &str) -> (String, String);

    fn get(&self, name: &str, version: Option<&str>) -> Plain;
    /// The version of the object in an answer to [`Cloud::get`].
    fn version(headers: &HeaderMap) -> Option<String>;
    fn stat(&self, name: &str) -> Plain;
    /// What the answer to [`Cloud::stat`] says.
    fn found(headers: &HeaderMap, body: &[u8]) -> Option<Found>;
    /// Writes a whole object, where none is if `once`.
    fn put(&self, name: &str, body: Bytes, once: bool) -> Plain;
    /// Sends a part of the object `name`. `upload` is unique to this write.
    fn part(&self, upload: &Upload<'_>, index: u64, body: Bytes) -> Plain;
    /// Makes the object of `parts` parts, where none is if `once`.
    fn complete(store: &RestStore<Self>, upload: &Upload<'_>, parts: u64, once: bool) -> Result<(), Refused>;
    /// Removes parts that belong to no object.
    fn give_up(store: &RestStore<Self>, upload: &Upload<'_>, parts: u64);
    /// Makes the object's age zero.
    fn touch(&self, name: &str) -> Plain;
    /// Removes an object, of this version only if one is given.
    fn delete(&self, name: &str, version: Option<&str>) -> Plain;
    fn list(&self, prefix: &str, next: Option<&str>) -> Plain;
    fn page(body: &[u8]) -> Option<Page>;
    /// Removes what killed writers left. Returns how many there were.
    fn sweep(store: &RestStore<Self>, before: SystemTime) -> Result<usize, StoreError>;
    /// Whether a missing object may mean that the bucket is missing.
    fn may_lack_bucket(answer: &Answer) -> bool;
}

/// An object that is sent in parts.
#[derive(Debug)]
pub(crate) struct Upload<'a> {
    /// Its name in the bucket.
    pub(crate) name: String,
    pub(crate) key: &'a Key,
    /// Unique to this write.
    pub(crate) id: String,
}

/// Why something was not written.
#[derive(Debug)]
pub(crate) enum Refused {
    /// There is another version already.
    Exists,
    Failed(StoreError),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// A store in a bucket of a cloud.
pub(crate) struct RestStore<C: Cloud> {
    uri: StoreUri,
    pub(crate) cloud: C,
    options: StoreOptions,
    network: Network,
    client: OnceCell<(Web, C::Signer)>,
}

impl<C: Cloud> fmt::Debug for RestStore<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestStore").field("uri", &self.uri).field("cloud", &C::NAME).finish_non_exhaustive()
    }
}

impl<C: Cloud> RestStore<C> {
    /// The store at `uri`. Nothing is contacted yet.
    pub(crate) fn of(uri: &StoreUri, cloud: C, options: &StoreOptions) -> Self {
        let (network, options) = (Network::new(options.threads), options.clone());
        Self { uri: uri.clone(), cloud, options, network, client: OnceCell::new() }
    }

    pub(crate) fn operation<'a>(&'a self, operation: &'static str, object: &'a str) -> Call<'a> {
        Call::new(&self.uri, operation, object)
    }

    /// The object's name in the bucket.
    pub(crate) fn name(&self, path: &str) -> String {
        if self.uri.path.is_empty() { path.to_owned() } else { format!("{}/{path}", self.uri.path) }
    }

    /// Runs one attempt after another until one succeeds or fails for good, or the time is spent.
    fn call<'a, T, F>(
        &'a self,
        call: Call<'_>,
        mut attempt: impl FnMut(&'a (Web, C::Signer)) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        retry(&SystemClock::start(), call.budget(&self.options.deadlines), |time| {
            let run = async {
                let connect =
                    || async { Ok((Web::new(&self.options, self.cloud.is_tls())?, self.cloud.signer(&self.options)?)) };
                let client = self.client.get_or_try_init(connect).await;
                let failed = |reason: String| Failure::from(call.error(StoreErrorKind::Misconfigured, reason));
                attempt(client.map_err(failed)?).await
            };
            let answered = self.network.wait(time, run);
            answered.unwrap_or_else(|error| Err(call.interrupted(&error, C::NAME, StoreErrorKind::Other).into()))
        })
    }

    /// Signs and sends one request.
    async fn send(&self, client: &(Web, C::Signer), request: Plain) -> Result<Response<SdkBody>, Answer> {
        let (web, signer) = client;
        let signed = self.cloud.sign(signer, request).await?;
        web.ask(signed.map(SdkBody::from), C::parse).await
    }

    fn failed(call: Call<'_>, answer: &Answer) -> Failure {
        call.failed(answer.verdict(C::SERVER))
    }

    /// Sends a request until it is answered, and reads the answer.
    pub(crate) fn ask(&self, call: Call<'_>, request: impl Fn() -> Plain) -> Result<(HeaderMap, Vec<u8>), StoreError> {
        self.ask_bound(call, request).map_err(|refused| match refused {
            Refused::Failed(error) => error,
            Refused::Exists => call.error(StoreErrorKind::Transient, "the object changed meanwhile"),
        })
    }

    /// As [`RestStore::ask`], for a request that is bound to a version, or to there being none.
    pub(crate) fn ask_bound(
        &self,
        call: Call<'_>,
        request: impl Fn() -> Plain,
    ) -> Result<(HeaderMap, Vec<u8>), Refused> {
        let answered = self.call(call, |client| {
            let request = request();
            let (is_bound, has_body) = (is_bound(&request), request.method() != http::Method::HEAD);
            async move {
                let answer = match self.send(client, request).await {
                    Ok(answer) => answer,
                    Err(answer) if is_bound && matches!(answer.status, Some(304 | 409 | 412)) => return Ok(None),
                    Err(answer) => return Err(Self::failed(call, &answer)),
                };
                let headers = answer.headers().clone();
                if !has_body {
                    return Ok(Some((headers, Vec::new())));
                }
                let part = Part { content_type: None, ..Part::of(answer, None) };
                Ok(Some((headers, whole(call, part, LARGEST_ANSWER).await?)))
            }
        })?;
        answered.ok_or(Refused::Exists)
    }

    /// An object's length, age and version. `None` if it does not exist.
    pub(crate) fn find(&self, key: &Key) -> Result<Option<Found>, StoreError> {
        let call = self.operation("cannot read", key.as_str());
        let name = self.name(key.as_str());
        let asked = self.ask(call, || self.cloud.stat(&name)).and_then(|(headers, body)| {
            let odd = || call.error(StoreErrorKind::Misconfigured, crate::web::WEB_PAGE);
            C::found(&headers, &body).ok_or_else(odd)
        });
        if_found(asked).map_err(|error| self.in_full(key, error))
    }

    /// Asks by GET why a request failed whose answer had no body that would say so.
    fn in_full(&self, key: &Key, error: StoreError) -> StoreError {
        use StoreErrorKind::{Damaged, Denied, NotFound, Other, Transient};
        if !matches!(error.kind, Denied | Other) {
            return error;
        }
        match self.read_range(key, 0, &mut [0]) {
            Err(told) if !matches!(told.kind, Damaged | NotFound | Transient) => told,
            _ => error,
        }
    }

    /// What it means that an object is missing: the bucket may be.
    async fn missing(&self, call: Call<'_>, client: &(Web, C::Signer), answer: Answer) -> Failure {
        if answer.status == Some(404) && !answer.html && C::may_lack_bucket(&answer) {
            let listed = self.send(client, self.cloud.list(&self.name("names/"), None)).await;
            if let Err(told) = listed
                && told.status == Some(404)
            {
                return call.error(StoreErrorKind::Misconfigured, no_bucket()).into();
            }
        }
        Self::failed(call, &answer)
    }

    async fn get(
        &self,
        call: Call<'_>,
        client: &(Web, C::Signer),
        key: &Key,
        range: Option<Range<u64>>,
        version: Option<String>,
    ) -> Result<Part, Failure> {
        let mut request = self.cloud.get(&self.name(key.as_str()), version.as_deref());
        if let Some(range) = range {
            insert(&mut request, "range", &format!("bytes={}-{}", range.start, range.end - 1));
        }
        match self.send(client, request).await {
            Ok(answer) => {
                let version = C::version(answer.headers());
                Ok(Part::of(answer, version))
            }
            Err(answer) => Err(self.missing(call, client, answer).await),
        }
    }

    /// The objects whose names start with `prefix`.
    pub(crate) fn objects(&self, call: Call<'_>, prefix: &str) -> Result<Vec<(String, Stat)>, StoreError> {
        let prefix = self.name(prefix);
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            let (_, body) =
                self.ask(call, || self.cloud.list(&prefix, next.as_deref())).map_err(|error| match error {
                    // Nothing is listed: the bucket is missing.
                    error if error.is_not_found() => call.error(StoreErrorKind::Misconfigured, no_bucket()),
                    error => error,
                })?;
            let odd = || call.error(StoreErrorKind::Misconfigured, crate::web::WEB_PAGE);
            let page = C::page(&body).ok_or_else(odd)?;
            found.extend(page.objects);
            next = page.next;
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    /// The path in the store of a name in the bucket.
    pub(crate) fn path<'a>(&self, name: &'a str) -> Option<&'a str> {
        if self.uri.path.is_empty() { Some(name) } else { name.strip_prefix(&self.uri.path)?.strip_prefix('/') }
    }

    /// Removes the object of this name, of this version only if one is given. Returns whether this call removed it.
    pub(crate) fn remove(&self, call: Call<'_>, name: &str, version: Option<&str>) -> Result<bool, StoreError> {
        match self.ask_bound(call, || self.cloud.delete(name, version)) {
            Ok(_) => Ok(true),
            Err(Refused::Exists) => Ok(false),
            Err(Refused::Failed(error)) if error.is_not_found() => Ok(false),
            Err(Refused::Failed(error)) => Err(error),
        }
    }
}

impl<C: Cloud> Store for RestStore<C> {
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
        let filling = &Filling::new(offset, buffer);
        self.call(call, |client| {
            filling.attempt(call, move |range, version| self.get(call, client, key, Some(range), version))
        })
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, StoreError> {
        Ok(self.find(key)?.map(|found| found.stat))
    }

    fn write(&self, key: &Key, source: Source<'_>, put: Put) -> Result<Written, StoreError> {
        self.send_object(key, source, put)
    }

    fn refresh(&self, key: &Key) -> Result<(), StoreError> {
        let name = self.name(key.as_str());
        self.ask(self.operation("cannot refresh", key.as_str()), || self.cloud.touch(&name)).map(drop)
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>, StoreError> {
        let objects = self.objects(self.operation("cannot list", directory), &format!("{directory}/"))?;
        let listed =
            |(name, stat): &(String, Stat)| Some(Listed { key: Key::from_listing(self.path(name)?)?, stat: *stat });
        let mut found: Vec<Listed> = objects.iter().filter_map(listed).collect();
        found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn remove_old(&self, key: &Key, before: SystemTime) -> Result<bool, StoreError> {
        match self.find(key)? {
            Some(found) if found.stat.modified < before => {
                let call = self.operation("cannot delete", key.as_str());
                self.remove(call, &self.name(key.as_str()), Some(&found.version))
            }
            _ => Ok(false),
        }
    }

    fn sweep(&self, before: SystemTime) -> Result<usize, StoreError> {
        C::sweep(self, before)
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.remove(self.operation("cannot delete", key.as_str()), &self.name(key.as_str()), None).map(drop)
    }
}

/// Whether a request is bound to a version.
fn is_bound(request: &Plain) -> bool {
    let query = request.uri().query().unwrap_or_default();
    request.headers().contains_key("if-none-match")
        || request.headers().contains_key("if-match")
        || query.contains("enerationMatch=")
}

/// The reason for a missing bucket.
pub(crate) fn no_bucket() -> &'static str {
    "there is no such bucket, account or container: create it, or check the URI and the endpoint"
}

/// A request of `method` for `uri`. An URI that is none gives a request that cannot be sent.
pub(crate) fn request(method: &str, uri: &str, body: Bytes) -> Plain {
    let length = body.len();
    let built = Request::builder().method(method).uri(uri).header(CONTENT_LENGTH, length);
    built.body(body).unwrap_or_default()
}

/// Sets a header of a request, if `value` can be one.
pub(crate) fn insert(request: &mut Plain, name: &'static str, value: &str) {
    if let Ok(value) = value.parse() {
        request.headers_mut().insert(name, value);
    }
}

/// The time of a refresh, as metadata say it.
pub(crate) fn now_in_milliseconds() -> String {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis().to_string()
}

/// Why a request could not be signed.
pub(crate) fn unsigned(reason: impl fmt::Display) -> Answer {
    Answer::none(Transport::Credentials, reason.to_string())
}
