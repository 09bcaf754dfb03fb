//! A bucket, or a prefix in one, as a store.
//!
//! Objects lie at `<prefix>/<key>`. A write is one request, or a multipart upload that is completed at the end: readers
//! see the old object or the whole new one, and a writer that is killed leaves at most an unfinished upload, which
//! pruning, or a lifecycle rule of the bucket, gives up. Refreshing copies an object onto itself, on the server.
//!
//! Nothing is kept between calls but connections and credentials. Every attempt has a deadline; what is transient is
//! tried again, and a body that breaks off goes on where it broke, from the same version of the object (`If-Match`).

mod client;
mod error;
mod read;
mod settings;
mod write;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::DateTime;
use tokio::sync::OnceCell;

use self::error::Answer;
use self::settings::Settings;
use super::content::Content;
use super::hadoop::Configuration;
use super::network::{Interrupted, Network};
use super::retry::{Budget, Failure, SystemClock, retry};
use super::{Key, Listed, Put, Source, Stat, Store, StoreError, StoreErrorKind, StoreOptions, StoreUri, Written};

/// A store in an S3 bucket.
pub struct S3Store {
    uri: StoreUri,
    settings: Settings,
    options: StoreOptions,
    network: Network,
    client: OnceCell<Client>,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store").field("uri", &self.uri).finish_non_exhaustive()
    }
}

/// What a call does, for its errors.
#[derive(Debug, Clone, Copy)]
struct Call<'a> {
    operation: &'static str,
    object: &'a str,
    /// Bytes that are moved, for the deadlines.
    bytes: u64,
}

impl S3Store {
    /// The store at `uri`. Nothing is contacted yet.
    pub fn new(uri: &StoreUri, options: &StoreOptions) -> Result<Self, StoreError> {
        let settings = Settings::new(uri, &configuration(uri, options)?, options);
        let network = Network::new(options.threads);
        Ok(Self { uri: uri.clone(), settings, options: options.clone(), network, client: OnceCell::new() })
    }

    /// What an executor must be told to reach this bucket.
    pub fn cluster_properties(uri: &StoreUri, options: &StoreOptions) -> Result<BTreeMap<String, String>, StoreError> {
        Ok(Settings::properties(uri, &configuration(uri, options)?, options))
    }

    /// The object's name in the bucket.
    fn name(&self, path: &str) -> String {
        if self.uri.path.is_empty() { path.to_owned() } else { format!("{}/{path}", self.uri.path) }
    }

    /// Runs one attempt after another until one succeeds, fails for good, or the time is spent.
    fn call<T, F>(&self, call: Call<'_>, mut attempt: impl FnMut(Client) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        retry(&SystemClock::start(), self.budget(call.bytes), |time| {
            let run = async {
                let connect = || client::connect(&self.settings, &self.options);
                let client = self.client.get_or_try_init(connect).await;
                let failed = |reason| Failure::from(self.error(call, StoreErrorKind::Misconfigured, reason));
                attempt(client.map_err(failed)?.clone()).await
            };
            self.network.wait(time, run).unwrap_or_else(|interrupted| Err(self.interrupted(call, &interrupted)))
        })
    }

    fn budget(&self, bytes: u64) -> Budget {
        let deadlines = &self.options.deadlines;
        let (call, attempt) = (deadlines.call_for(bytes), deadlines.attempt_for(bytes));
        Budget { call, attempt, unreachable: deadlines.unreachable }
    }

    fn interrupted(&self, call: Call<'_>, interrupted: &Interrupted) -> Failure {
        let (kind, reason) = match interrupted {
            Interrupted::Elapsed(time) => (StoreErrorKind::Transient, no_answer(*time)),
            Interrupted::Panicked(message) => (StoreErrorKind::Other, format!("the S3 client failed: {message}")),
            Interrupted::NoRuntime(error) => (StoreErrorKind::Other, format!("cannot start threads: {error}")),
        };
        self.error(call, kind, reason).into()
    }

    /// What a request that failed means.
    fn failed<E>(&self, call: Call<'_>, error: &SdkError<E, HttpResponse>) -> Failure
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let verdict = Answer::of(error, SystemTime::now()).verdict();
        Failure { error: self.error(call, verdict.kind, verdict.reason), unreachable: verdict.unreachable }
    }

    /// Why a HEAD request failed: its answer has no body that would say so, that of a GET has.
    fn in_full(&self, key: &Key, error: StoreError) -> StoreError {
        use StoreErrorKind::{Damaged, NotFound, Transient};
        if error.is_transient() {
            return error;
        }
        match self.range(key, 0, &mut [0]) {
            Err(told) if !matches!(told.kind, Damaged | NotFound | Transient) => told,
            _ => error,
        }
    }

    fn error(&self, call: Call<'_>, kind: StoreErrorKind, reason: String) -> StoreError {
        StoreError { kind, operation: call.operation, location: self.uri.join(call.object), reason }
    }

    /// A web page instead of an object: a proxy or a wrong endpoint that says 200.
    fn no_page(&self, call: Call<'_>, content_type: Option<&str>) -> Result<(), Failure> {
        if content_type.is_some_and(|t| t.starts_with("text/html")) {
            let (kind, reason) = error::web_page();
            return Err(self.error(call, kind, reason).into());
        }
        Ok(())
    }

    fn page(
        &self,
        call: Call<'_>,
        prefix: &str,
        token: Option<String>,
    ) -> Result<(Vec<Listed>, Option<String>), StoreError> {
        self.call(call, |client| {
            let request = client.list_objects_v2().bucket(&self.uri.authority).prefix(prefix);
            let request = request.set_continuation_token(token.clone());
            async move {
                let page = request.send().await.map_err(|e| self.failed(call, &e))?;
                let found = page.contents().iter().filter_map(|object| self.listed(object)).collect();
                Ok((found, page.next_continuation_token().map(str::to_owned)))
            }
        })
    }

    fn listed(&self, object: &aws_sdk_s3::types::Object) -> Option<Listed> {
        let name = object.key()?;
        let path =
            if self.uri.path.is_empty() { name } else { name.strip_prefix(&self.uri.path)?.strip_prefix('/')? };
        let stat = Stat { size: length(object.size()), modified: modified(object.last_modified()) };
        Some(Listed { key: Key::from_listing(path)?, stat })
    }
}

impl Store for S3Store {
    fn uri(&self) -> &StoreUri {
        &self.uri
    }

    fn read(&self, key: &Key, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.whole(key, limit)
    }

    fn read_range(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.range(key, offset, buffer)
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, StoreError> {
        let call = Call { operation: "cannot read", object: key.as_str(), bytes: 0 };
        let found = self.call(call, |client| {
            let request = client.head_object().bucket(&self.uri.authority).key(self.name(key.as_str()));
            async move {
                let head = request.send().await.map_err(|e| self.failed(call, &e))?;
                self.no_page(call, head.content_type())?;
                Ok(Stat { size: length(head.content_length()), modified: modified(head.last_modified()) })
            }
        });
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(self.in_full(key, error)),
        }
    }

    fn put(&self, key: &Key, source: Source<'_>, put: Put) -> Result<Written, StoreError> {
        let call = Call { operation: "cannot write", object: key.as_str(), bytes: 0 };
        let unread = |e: io::Error| self.error(call, StoreErrorKind::Other, format!("its source cannot be read: {e}"));
        let content = Content::open(source).map_err(unread)?;
        if put.keeps(self, key, content.len())? { Ok(Written::Kept) } else { self.write(key, &content, put) }
    }

    fn refresh(&self, key: &Key) -> Result<(), StoreError> {
        self.touch(key)
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>, StoreError> {
        let call = Call { operation: "cannot list", object: directory, bytes: 0 };
        let prefix = format!("{}/", self.name(directory));
        let (mut found, mut token) = self.page(call, &prefix, None)?;
        while token.is_some() {
            let (more, next) = self.page(call, &prefix, token)?;
            found.extend(more);
            token = next;
        }
        found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }

    fn remove_old(&self, key: &Key, before: SystemTime) -> Result<bool, StoreError> {
        if self.stat(key)?.is_none_or(|stat| stat.modified >= before) {
            return Ok(false);
        }
        self.delete(key).map(|()| true)
    }

    fn sweep(&self, before: SystemTime) -> Result<usize, StoreError> {
        self.abort_old(before)
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        let call = Call { operation: "cannot delete", object: key.as_str(), bytes: 0 };
        let result = self.call(call, |client| {
            let request = client.delete_object().bucket(&self.uri.authority).key(self.name(key.as_str()));
            async move { request.send().await.map(|_| ()).map_err(|e| self.failed(call, &e)) }
        });
        result.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
    }
}

fn configuration(uri: &StoreUri, options: &StoreOptions) -> Result<Configuration, StoreError> {
    let misconfigured = |reason| StoreError {
        kind: StoreErrorKind::Misconfigured,
        operation: "cannot open",
        location: uri.to_string(),
        reason,
    };
    Configuration::load(options).map_err(misconfigured)
}

fn no_answer(time: Duration) -> String {
    format!("no answer within {:.0} s", time.as_secs_f64())
}

fn length(size: Option<i64>) -> u64 {
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default()
}

fn modified(time: Option<&DateTime>) -> SystemTime {
    time.and_then(|time| SystemTime::try_from(*time).ok()).unwrap_or(SystemTime::UNIX_EPOCH)
}
