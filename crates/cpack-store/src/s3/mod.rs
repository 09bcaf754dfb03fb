//! A bucket, or a prefix in one, as a store.
//!
//! Objects lie at `<prefix>/<key>`. A write is one request, or a multipart upload that is completed at the end: readers
//! see the old object or the whole new one. A killed writer leaves at most an unfinished upload, which pruning, or a
//! lifecycle rule of the bucket, gives up. Refreshing copies an object onto itself, on the server.
//!
//! Calls share connections and credentials, and nothing else. Every attempt has a deadline. [`S3Store::call`] retries
//! transient errors; a body that breaks off goes on where it broke, from the same version of the object (`If-Match`).
//!
//! Credentials and requests are those of AWS's SDK, not of the crate `object_store`, by which the other clouds' credentials are
//! found. That one knows no profiles, no SSO and no `credential_process`, which clients have. Both are equally fast: 857 MB from SeaweedFS in ranges
//! of 8 MiB, eight at once, took the SDK (aws-sdk-s3 1.157.0) 0.86 s and 0.52 s of a core, `object_store` 0.14.2 with reqwest 0.87 s and
//! 0.62 s (medians of four, in alternation, two cores). The price of the SDK is size: a program that does only this has 13.8 MB with it
//! and 7.4 MB without.

mod client;
mod error;
mod read;
mod settings;
mod write;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::time::SystemTime;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::DateTime;
use tokio::sync::OnceCell;

use self::settings::Settings;
use crate::call::Call;
use crate::error::if_found;
use crate::hadoop::Configuration;
use crate::network::Network;
use crate::retry::{Failure, SystemClock, retry};
use crate::web::{WEB_PAGE, is_page};
use crate::{Key, Listed, Put, Source, Stat, Store, StoreError, StoreErrorKind, StoreOptions, StoreUri, Written};

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

impl S3Store {
    /// The store at `uri`. Nothing is contacted yet.
    pub fn new(uri: &StoreUri, options: &StoreOptions) -> Result<Self, StoreError> {
        let settings = Settings::new(uri, &Configuration::of(uri, options)?, options);
        let network = Network::new(options.threads);
        Ok(Self { uri: uri.clone(), settings, options: options.clone(), network, client: OnceCell::new() })
    }

    /// The properties that an executor needs to reach this bucket.
    pub(crate) fn cluster_properties(
        uri: &StoreUri,
        options: &StoreOptions,
    ) -> Result<BTreeMap<String, String>, StoreError> {
        Ok(Settings::properties(uri, &Configuration::of(uri, options)?, options))
    }

    fn operation<'a>(&'a self, operation: &'static str, object: &'a str) -> Call<'a> {
        Call::new(&self.uri, operation, object)
    }

    /// The object's name in the bucket.
    fn name(&self, path: &str) -> String {
        if self.uri.path.is_empty() { path.to_owned() } else { format!("{}/{path}", self.uri.path) }
    }

    /// Runs one attempt after another until one succeeds or fails for good, or the time is spent.
    fn call<T, F>(&self, call: Call<'_>, mut attempt: impl FnMut(Client) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        retry(&SystemClock::start(), call.budget(&self.options.deadlines), |time| {
            let run = async {
                let connect = || client::connect(&self.settings, &self.options);
                let client = self.client.get_or_try_init(connect).await;
                let failed = |reason: String| Failure::from(call.error(StoreErrorKind::Misconfigured, reason));
                attempt(client.map_err(failed)?.clone()).await
            };
            let answered = self.network.wait(time, run);
            answered.unwrap_or_else(|error| Err(call.interrupted(&error, "S3", StoreErrorKind::Other).into()))
        })
    }

    /// Sends one request until it is answered.
    fn ask<T, E, F>(&self, call: Call<'_>, mut request: impl FnMut(Client) -> F) -> Result<T, StoreError>
    where
        E: ProvideErrorMetadata + Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    {
        self.call(call, |client| {
            let answer = request(client);
            async move { answer.await.map_err(|error| failed(call, &error)) }
        })
    }

    /// Asks by GET why a HEAD request failed: the answer to a HEAD has no body that would say so.
    fn in_full(&self, key: &Key, error: StoreError) -> StoreError {
        use StoreErrorKind::{Damaged, NotFound, Transient};
        if error.is_transient() {
            return error;
        }
        match self.read_range(key, 0, &mut [0]) {
            Err(told) if !matches!(told.kind, Damaged | NotFound | Transient) => told,
            _ => error,
        }
    }

    fn page(&self, directory: &str, token: Option<String>) -> Result<ListObjectsV2Output, StoreError> {
        let prefix = format!("{}/", self.name(directory));
        self.ask(self.operation("cannot list", directory), |client| {
            let request = client.list_objects_v2().bucket(&self.uri.authority).prefix(&prefix);
            request.set_continuation_token(token.clone()).send()
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
        let call = self.operation("cannot read", key.as_str());
        let head = self
            .ask(call, |client| client.head_object().bucket(&self.uri.authority).key(self.name(key.as_str())).send());
        let found = head.and_then(|head| {
            if is_page(head.content_type()) {
                return Err(call.error(StoreErrorKind::Misconfigured, WEB_PAGE));
            }
            Ok(Stat { size: length(head.content_length()), modified: modified(head.last_modified()) })
        });
        if_found(found).map_err(|error| self.in_full(key, error))
    }

    fn write(&self, key: &Key, source: Source<'_>, put: Put) -> Result<Written, StoreError> {
        self.send(key, source, put)
    }

    fn refresh(&self, key: &Key) -> Result<(), StoreError> {
        self.touch(key)
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>, StoreError> {
        let (mut found, mut token) = (Vec::new(), None);
        loop {
            let page = self.page(directory, token)?;
            found.extend(page.contents().iter().filter_map(|object| self.listed(object)));
            token = page.next_continuation_token;
            if token.is_none() {
                break;
            }
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
        let call = self.operation("cannot delete", key.as_str());
        let deleted = self
            .ask(call, |client| client.delete_object().bucket(&self.uri.authority).key(self.name(key.as_str())).send());
        if_found(deleted).map(drop)
    }
}

/// What the error of a request means.
fn failed<E>(call: Call<'_>, error: &SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + Error + 'static,
{
    call.failed(error::answer(error, SystemTime::now()).verdict(&error::S3))
}

fn length(size: Option<i64>) -> u64 {
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default()
}

fn modified(time: Option<&DateTime>) -> SystemTime {
    time.and_then(|time| SystemTime::try_from(*time).ok()).unwrap_or(SystemTime::UNIX_EPOCH)
}
