//! A bucket of Google Cloud Storage, or a prefix in one, as a store, by the JSON interface.
//!
//! A large object is sent as parts to `<prefix>/tmp/`, which the server composes; a killed writer leaves parts there, which
//! pruning removes. Refreshing sets a word of metadata, which changes no byte and moves none. Versions are generation and
//! metageneration.

mod settings;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use aws_smithy_types::date_time::{DateTime, Format};
use bytes::Bytes;
use cpack_format::key::TEMPORARY;
use http::HeaderMap;
use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder, GoogleConfigKey};
use serde::Deserialize;

use self::settings::Settings;
use crate::error::NO_OBJECT;
use crate::rest::{
    Cloud, Connector, Found, Page, Plain, Refused, RestStore, Upload, insert, no_bucket, no_credentials,
    now_in_milliseconds, quick, request,
};
use crate::web::{Answer, BUNDLE, CONTENT_TYPE, Server, header, percent_encode};
use crate::{Stat, StoreError, StoreErrorKind, StoreOptions, StoreUri};

/// A store in a bucket of Google Cloud Storage.
pub(crate) type GsStore = RestStore<Gs>;

/// Most objects that one request composes (Google's limit).
const COMPOSED: u64 = 32;

/// The word of metadata that says when an object was refreshed, in milliseconds since 1970.
const USED: &str = "cluster-pack-used";

/// What errors say of Google.
static GOOGLE: Server = Server {
    bundle: BUNDLE,
    credentials: "set GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`",
    rights: "the account, and that it may get, create, update, delete and list objects here",
    refused,
};

impl GsStore {
    /// The store at `uri`. Nothing is contacted yet.
    pub(crate) fn new(uri: &StoreUri, options: &StoreOptions) -> Result<Self, StoreError> {
        let settings = Settings::new(options).map_err(|reason| StoreError::misconfigured(uri, reason))?;
        Ok(Self::of(uri, Gs { bucket: uri.authority.clone(), settings }, options))
    }
}

/// The properties that an executor needs to reach this bucket.
pub(crate) fn cluster_properties(
    uri: &StoreUri,
    options: &StoreOptions,
) -> Result<BTreeMap<String, String>, StoreError> {
    Settings::new(options)
        .map(|settings| settings.properties())
        .map_err(|reason| StoreError::misconfigured(uri, reason))
}

/// A bucket and where it is asked for.
#[derive(Debug)]
pub(crate) struct Gs {
    bucket: String,
    settings: Settings,
}

impl Gs {
    fn object(&self, name: &str) -> String {
        let (bucket, name) = (percent_encode(&self.bucket, b""), percent_encode(name, b""));
        format!("{}/storage/v1/b/{bucket}/o/{name}", self.settings.endpoint)
    }

    /// The name of a temporary object.
    fn temporary(upload: &Upload<'_>, part: &str) -> String {
        let prefix = upload.name.strip_suffix(upload.key.as_str()).unwrap_or_default();
        format!("{prefix}{}", upload.key.temporary(&format!("{}-{part}", upload.id)))
    }

    fn compose(&self, name: &str, sources: &[String], once: bool) -> Plain {
        let sources: Vec<_> = sources.iter().map(|name| serde_json::json!({ "name": name })).collect();
        let body = serde_json::json!({ "sourceObjects": sources, "destination": { "contentType": CONTENT_TYPE } });
        let bound = if once { "?ifGenerationMatch=0" } else { "" };
        let mut request = request("POST", &format!("{}/compose{bound}", self.object(name)), body.to_string().into());
        insert(&mut request, "content-type", "application/json");
        request
    }
}

impl Cloud for Gs {
    const NAME: &'static str = "Google Cloud Storage";
    const PART: u64 = 8 << 20;
    const MOST_PARTS: u64 = COMPOSED * COMPOSED;
    const SERVER: &'static Server = &GOOGLE;
    type Signer = Option<GcpCredentialProvider>;

    fn is_tls(&self) -> bool {
        self.settings.endpoint.starts_with("https:")
    }

    fn signer(&self, options: &StoreOptions) -> Result<Self::Signer, String> {
        if self.settings.anonymous {
            return Ok(None);
        }
        let mut builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name(&self.bucket)
            .with_retry(quick())
            .with_http_connector(Connector::new(options)?);
        for (variable, key) in [
            ("GOOGLE_APPLICATION_CREDENTIALS", GoogleConfigKey::ApplicationCredentials),
            ("GOOGLE_SERVICE_ACCOUNT", GoogleConfigKey::ServiceAccount),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", GoogleConfigKey::ServiceAccountKey),
        ] {
            if let Some(value) = options.variable(variable) {
                builder = builder.with_config(key, value);
            }
        }
        let unusable = |error: object_store::Error| {
            let said = no_credentials(&error).said();
            format!("Google's credentials cannot be used: {said}: check GOOGLE_APPLICATION_CREDENTIALS")
        };
        Ok(Some(builder.build().map_err(unusable)?.credentials().clone()))
    }

    async fn sign(&self, signer: &Self::Signer, mut request: Plain) -> Result<Plain, Answer> {
        if let Some(provider) = signer {
            let credential = provider.get_credential().await.map_err(|error| no_credentials(&error))?;
            insert(&mut request, "authorization", &format!("Bearer {}", credential.bearer));
        }
        Ok(request)
    }

    fn parse(_: &HeaderMap, body: &str) -> (String, String) {
        match serde_json::from_str::<Refusal>(body) {
            Ok(Refusal { error }) => {
                (error.errors.into_iter().map(|e| e.reason).next().unwrap_or_default(), error.message)
            }
            Err(_) if body.contains('<') => {
                let between = |tag: &str| Some(body.split_once(&format!("<{tag}>"))?.1.split_once('<')?.0.to_owned());
                (between("Code").unwrap_or_default(), between("Message").unwrap_or_default())
            }
            Err(_) => (String::new(), body.to_owned()),
        }
    }

    fn get(&self, name: &str, version: Option<&str>) -> Plain {
        let bound = version.map(|version| format!("&ifGenerationMatch={version}")).unwrap_or_default();
        request("GET", &format!("{}?alt=media{bound}", self.object(name)), Bytes::new())
    }

    fn version(headers: &HeaderMap) -> Option<String> {
        header(headers, "x-goog-generation").map(str::to_owned)
    }

    fn stat(&self, name: &str) -> Plain {
        request("GET", &self.object(name), Bytes::new())
    }

    fn found(_: &HeaderMap, body: &[u8]) -> Option<Found> {
        let object: Object = serde_json::from_slice(body).ok()?;
        let version = format!("{}/{}", object.generation.as_deref()?, object.metageneration.as_deref().unwrap_or("1"));
        Some(Found { stat: object.stat()?, version })
    }

    fn put(&self, name: &str, body: Bytes, once: bool) -> Plain {
        let (bucket, name) = (percent_encode(&self.bucket, b""), percent_encode(name, b""));
        let bound = if once { "&ifGenerationMatch=0" } else { "" };
        let uri =
            format!("{}/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}{bound}", self.settings.endpoint);
        let mut request = request("POST", &uri, body);
        insert(&mut request, "content-type", CONTENT_TYPE);
        request
    }

    fn part(&self, upload: &Upload<'_>, index: u64, body: Bytes) -> Plain {
        self.put(&Self::temporary(upload, &index.to_string()), body, false)
    }

    fn complete(store: &GsStore, upload: &Upload<'_>, parts: u64, once: bool) -> Result<(), Refused> {
        // The server copies all bytes before it answers.
        let call = store.operation("cannot write", upload.key.as_str()).moving(parts * Self::PART / 8);
        let part = |index: u64| Self::temporary(upload, &index.to_string());
        let mut sources: Vec<String> = (0..parts).map(part).collect();
        if parts > COMPOSED {
            let groups: Vec<Vec<String>> = sources.chunks(COMPOSED as usize).map(<[_]>::to_vec).collect();
            sources = Vec::new();
            for (index, group) in groups.iter().enumerate() {
                let name = Self::temporary(upload, &format!("group-{index}"));
                store.ask(call, || store.cloud.compose(&name, group, false))?;
                sources.push(name);
            }
        }
        store.ask_bound(call, || store.cloud.compose(&upload.name, &sources, once))?;
        Self::give_up(store, upload, parts);
        Ok(())
    }

    /// What stays behind costs space until a sweep.
    fn give_up(store: &GsStore, upload: &Upload<'_>, parts: u64) {
        let call = store.operation("cannot clean up", upload.key.as_str());
        let groups = if parts > COMPOSED { parts.div_ceil(COMPOSED) } else { 0 };
        let names = (0..parts).map(|index| index.to_string()).chain((0..groups).map(|index| format!("group-{index}")));
        let names: Vec<String> = names.map(|part| Self::temporary(upload, &part)).collect();
        let _ = cpack_parallel::try_map(4, &names, |name| store.remove(call, name, None));
    }

    fn touch(&self, name: &str) -> Plain {
        let body = serde_json::json!({ "metadata": { USED: now_in_milliseconds() } });
        let mut request = request("PATCH", &self.object(name), body.to_string().into());
        insert(&mut request, "content-type", "application/json");
        request
    }

    fn delete(&self, name: &str, version: Option<&str>) -> Plain {
        let bound = version.and_then(|version| version.split_once('/'));
        let bound =
            bound.map(|(generation, meta)| format!("?ifGenerationMatch={generation}&ifMetagenerationMatch={meta}"));
        request("DELETE", &format!("{}{}", self.object(name), bound.unwrap_or_default()), Bytes::new())
    }

    fn list(&self, prefix: &str, next: Option<&str>) -> Plain {
        let (bucket, prefix) = (percent_encode(&self.bucket, b""), percent_encode(prefix, b""));
        let token = next.map(|next| format!("&pageToken={}", percent_encode(next, b""))).unwrap_or_default();
        let uri = format!("{}/storage/v1/b/{bucket}/o?prefix={prefix}{token}", self.settings.endpoint);
        request("GET", &uri, Bytes::new())
    }

    fn page(body: &[u8]) -> Option<Page> {
        let listing: Listing = serde_json::from_slice(body).ok()?;
        let objects = listing.items.into_iter().filter_map(|object| Some((object.name.clone()?, object.stat()?)));
        Some(Page { objects: objects.collect(), next: listing.next_page_token.filter(|token| !token.is_empty()) })
    }

    fn sweep(store: &GsStore, before: SystemTime) -> Result<usize, StoreError> {
        let call = store.operation("cannot clean up", "");
        let mut swept = 0;
        for (name, stat) in store.objects(call, &format!("{TEMPORARY}/"))? {
            if stat.modified < before && store.remove(call, &name, None)? {
                swept += 1;
            }
        }
        Ok(swept)
    }

    fn may_lack_bucket(answer: &Answer) -> bool {
        !answer.message.contains("No such object")
    }
}

/// What Google's answers mean.
fn refused(answer: &Answer) -> Option<(StoreErrorKind, String)> {
    let status = answer.status.unwrap_or_default();
    let message = answer.message.to_ascii_lowercase();
    Some(match (answer.code.as_str(), status) {
        (_, 404) if message.contains("bucket does not exist") => {
            (StoreErrorKind::Misconfigured, no_bucket().to_owned())
        }
        ("NoSuchBucket", _) => (StoreErrorKind::Misconfigured, no_bucket().to_owned()),
        (_, 404) => (StoreErrorKind::NotFound, NO_OBJECT.to_owned()),
        (_, 401) if message.contains("anonymous") => {
            (StoreErrorKind::Denied, format!("no credentials were sent: {}", GOOGLE.credentials))
        }
        (_, 401) => (StoreErrorKind::Denied, "the credentials have expired: renew them and start again".to_owned()),
        ("rateLimitExceeded" | "userRateLimitExceeded", _) => (StoreErrorKind::Transient, answer.said()),
        ("quotaExceeded", _) => (StoreErrorKind::Full, answer.said()),
        _ => return None,
    })
}

/// Google's JSON for an object.
#[derive(Debug, Deserialize)]
struct Object {
    name: Option<String>,
    size: Option<String>,
    updated: Option<String>,
    generation: Option<String>,
    metageneration: Option<String>,
    #[serde(default)]
    metadata: BTreeMap<String, String>,
}

impl Object {
    fn stat(&self) -> Option<Stat> {
        let updated = DateTime::from_str(self.updated.as_deref()?, Format::DateTimeWithOffset).ok()?;
        let updated = SystemTime::try_from(updated).ok()?;
        // A change of metadata is an update to Google, and not to every emulator.
        let used = self.metadata.get(USED).and_then(|millis| millis.parse().ok());
        let used = used.map(|millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        let modified = used.map_or(updated, |used| used.max(updated));
        Some(Stat { size: self.size.as_deref()?.parse().ok()?, modified })
    }
}

#[derive(Debug, Deserialize)]
struct Listing {
    #[serde(default)]
    items: Vec<Object>,
    #[serde(rename = "nextPageToken")]
    next_page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    error: RefusalError,
}

#[derive(Debug, Deserialize)]
struct RefusalError {
    #[serde(default)]
    message: String,
    #[serde(default)]
    errors: Vec<Reason>,
}

#[derive(Debug, Deserialize)]
struct Reason {
    #[serde(default)]
    reason: String,
}
