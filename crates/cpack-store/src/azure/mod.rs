//! A container of Azure Blob Storage, or a prefix in one, as a store.
//!
//! A large object is sent as blocks, which the list of blocks makes a blob. Blocks that a killed writer left belong to no blob:
//! the service drops them after a week. Refreshing sets a word of metadata, which changes no byte and
//! moves none. Versions are ETags, which refreshing changes, too: a reader that meets it in the middle of a range reads the
//! range again.

mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, ETAG};
use object_store::azure::{AzureAuthorizer, AzureConfigKey, AzureCredentialProvider, MicrosoftAzureBuilder};
use object_store::client::HttpRequestBody;

use self::settings::{Settings, account_key, shared_access};
use crate::error::NO_OBJECT;
use crate::rest::{
    Cloud, Connector, Found, Page, Plain, Refused, RestStore, Upload, insert, no_bucket, no_credentials,
    now_in_milliseconds, quick, request, unsigned,
};
use crate::web::{Answer, BUNDLE, CONTENT_TYPE, Server, TOO_SHORT, header, http_date, last_modified, percent_encode};
use crate::{Stat, StoreError, StoreErrorKind, StoreOptions, StoreUri};

/// A store in a container of Azure Blob Storage.
pub(crate) type AzureStore = RestStore<Azure>;

/// What errors say of Azure.
static AZURE: Server = Server {
    bundle: BUNDLE,
    credentials: "set AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or AZURE_CLIENT_ID and what goes with it",
    rights: "the key, the token or the role, and that it allows to read, add, create, write, delete and list blobs here",
    refused,
};

impl AzureStore {
    /// The store at `uri`. Nothing is contacted yet.
    pub(crate) fn new(uri: &StoreUri, options: &StoreOptions) -> Result<Self, StoreError> {
        let settings = Settings::new(uri, options).map_err(|reason| StoreError::misconfigured(uri, reason))?;
        Ok(Self::of(uri, Azure(settings), options))
    }
}

/// The properties that an executor needs to reach this container.
pub(crate) fn cluster_properties(
    uri: &StoreUri,
    options: &StoreOptions,
) -> Result<BTreeMap<String, String>, StoreError> {
    let settings = Settings::new(uri, options).map_err(|reason| StoreError::misconfigured(uri, reason))?;
    Ok(settings.properties())
}

/// A container and where it is asked for.
#[derive(Debug)]
pub(crate) struct Azure(Settings);

impl Azure {
    fn blob(&self, name: &str) -> String {
        format!("{}/{}/{}", self.0.endpoint, self.0.container, percent_encode(name, b"/"))
    }

    /// A request that makes a blob, where none is if `once`.
    fn making(mut request: Plain, once: bool) -> Plain {
        insert(&mut request, "x-ms-blob-content-type", CONTENT_TYPE);
        if once {
            insert(&mut request, "if-none-match", "*");
        }
        request
    }

    /// The name of a block. All of one blob have the same length.
    fn block(upload: &Upload<'_>, index: u64) -> String {
        BASE64.encode(format!("{}-{index:06}", upload.id))
    }
}

impl Cloud for Azure {
    const NAME: &'static str = "Azure";
    const PART: u64 = 8 << 20;
    /// Azure's limit.
    const MOST_PARTS: u64 = 50_000;
    const SERVER: &'static Server = &AZURE;
    type Signer = Option<AzureCredentialProvider>;

    fn is_tls(&self) -> bool {
        self.0.endpoint.starts_with("https:")
    }

    fn signer(&self, options: &StoreOptions) -> Result<Self::Signer, String> {
        if self.0.anonymous {
            return Ok(None);
        }
        let mut builder = MicrosoftAzureBuilder::new()
            .with_account(&self.0.account)
            .with_container_name(&self.0.container)
            .with_endpoint(self.0.endpoint.clone())
            .with_retry(quick())
            .with_http_connector(Connector::new(options)?);
        if let Some(key) = account_key(options) {
            builder = builder.with_access_key(key);
        } else if let Some(token) = shared_access(options) {
            builder = builder.with_config(AzureConfigKey::SasKey, token);
        }
        for (variable, key) in [
            ("AZURE_STORAGE_TOKEN", AzureConfigKey::Token),
            ("AZURE_TENANT_ID", AzureConfigKey::AuthorityId),
            ("AZURE_CLIENT_ID", AzureConfigKey::ClientId),
            ("AZURE_CLIENT_SECRET", AzureConfigKey::ClientSecret),
            ("AZURE_FEDERATED_TOKEN_FILE", AzureConfigKey::FederatedTokenFile),
            ("AZURE_AUTHORITY_HOST", AzureConfigKey::AuthorityHost),
            ("AZURE_USE_AZURE_CLI", AzureConfigKey::UseAzureCli),
            ("IDENTITY_ENDPOINT", AzureConfigKey::MsiEndpoint),
        ] {
            if let Some(value) = options.variable(variable) {
                builder = builder.with_config(key, value);
            }
        }
        let unusable = |error: object_store::Error| {
            format!("Azure's credentials cannot be used: {}: {}", no_credentials(&error).said(), AZURE.credentials)
        };
        Ok(Some(builder.build().map_err(unusable)?.credentials().clone()))
    }

    async fn sign(&self, signer: &Self::Signer, request: Plain) -> Result<Plain, Answer> {
        let (head, body) = request.into_parts();
        let mut bare = http::Request::from_parts(head, HttpRequestBody::empty());
        match signer {
            Some(provider) => {
                let credential = provider.get_credential().await.map_err(|error| no_credentials(&error))?;
                let authorizer = AzureAuthorizer::new(&credential, &self.0.account);
                authorizer.try_authorize(&mut bare).map_err(unsigned)?;
            }
            None => drop(bare.headers_mut().insert("x-ms-version", http::HeaderValue::from_static("2023-11-03"))),
        }
        Ok(http::Request::from_parts(bare.into_parts().0, body))
    }

    fn parse(headers: &HeaderMap, body: &str) -> (String, String) {
        let code = header(headers, "x-ms-error-code").unwrap_or_default().to_owned();
        let document = roxmltree::Document::parse(body.trim_start_matches('\u{feff}')).ok();
        let text = |name: &str| {
            let document = document.as_ref()?;
            document.descendants().find(|node| node.has_tag_name(name))?.text().map(str::to_owned)
        };
        // The further lines are ids of the request and its time. The detail of a refused signature repeats what was signed.
        let first = |text: String| text.lines().next().unwrap_or_default().to_owned();
        let detail = text("AuthenticationErrorDetail").map(first).filter(|detail| detail.contains("time frame"));
        let message = detail.or_else(|| text("Message").map(first)).unwrap_or_default();
        (if code.is_empty() { text("Code").unwrap_or_default() } else { code }, message)
    }

    fn get(&self, name: &str, version: Option<&str>) -> Plain {
        let mut request = request("GET", &self.blob(name), Bytes::new());
        if let Some(version) = version {
            insert(&mut request, "if-match", version);
        }
        request
    }

    fn version(headers: &HeaderMap) -> Option<String> {
        header(headers, ETAG.as_str()).map(str::to_owned)
    }

    fn stat(&self, name: &str) -> Plain {
        request("HEAD", &self.blob(name), Bytes::new())
    }

    fn found(headers: &HeaderMap, _: &[u8]) -> Option<Found> {
        let size = header(headers, CONTENT_LENGTH.as_str())?.parse().ok()?;
        let version = header(headers, ETAG.as_str())?.to_owned();
        Some(Found { stat: Stat { size, modified: last_modified(headers) }, version })
    }

    fn put(&self, name: &str, body: Bytes, once: bool) -> Plain {
        let mut request = request("PUT", &self.blob(name), body);
        insert(&mut request, "x-ms-blob-type", "BlockBlob");
        Self::making(request, once)
    }

    fn part(&self, upload: &Upload<'_>, index: u64, body: Bytes) -> Plain {
        let id = percent_encode(&Self::block(upload, index), b"");
        request("PUT", &format!("{}?comp=block&blockid={id}", self.blob(&upload.name)), body)
    }

    fn complete(store: &AzureStore, upload: &Upload<'_>, parts: u64, once: bool) -> Result<(), Refused> {
        let blocks: String =
            (0..parts).map(|index| format!("<Latest>{}</Latest>", Self::block(upload, index))).collect();
        let list = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{blocks}</BlockList>");
        let uri = format!("{}?comp=blocklist", store.cloud.blob(&upload.name));
        let call = store.operation("cannot write", upload.key.as_str());
        store.ask_bound(call, || Self::making(request("PUT", &uri, list.clone().into()), once)).map(drop)
    }

    fn give_up(_: &AzureStore, _: &Upload<'_>, _: u64) {}

    fn touch(&self, name: &str) -> Plain {
        let mut request = request("PUT", &format!("{}?comp=metadata", self.blob(name)), Bytes::new());
        insert(&mut request, "x-ms-meta-cluster_pack_used", &now_in_milliseconds());
        request
    }

    fn delete(&self, name: &str, version: Option<&str>) -> Plain {
        let mut request = request("DELETE", &self.blob(name), Bytes::new());
        if let Some(version) = version {
            insert(&mut request, "if-match", version);
        }
        request
    }

    fn list(&self, prefix: &str, next: Option<&str>) -> Plain {
        let marker = next.map(|next| format!("&marker={}", percent_encode(next, b""))).unwrap_or_default();
        let prefix = percent_encode(prefix, b"");
        let at = format!("{}/{}", self.0.endpoint, self.0.container);
        request("GET", &format!("{at}?restype=container&comp=list&prefix={prefix}{marker}"), Bytes::new())
    }

    fn page(body: &[u8]) -> Option<Page> {
        let text = std::str::from_utf8(body).ok()?.trim_start_matches('\u{feff}');
        let document = roxmltree::Document::parse(text).ok()?;
        let root = document.root_element();
        let child = |node: roxmltree::Node<'_, '_>, name: &str| {
            Some(node.descendants().find(|node| node.has_tag_name(name))?.text().unwrap_or_default().to_owned())
        };
        let object = |blob: roxmltree::Node<'_, '_>| {
            let size = child(blob, "Content-Length")?.parse().ok()?;
            let modified = http_date(&child(blob, "Last-Modified")?)?;
            Some((child(blob, "Name")?, Stat { size, modified }))
        };
        if !root.has_tag_name("EnumerationResults") {
            return None;
        }
        let objects = root.descendants().filter(|node| node.has_tag_name("Blob")).filter_map(object).collect();
        Some(Page { objects, next: child(root, "NextMarker").filter(|marker| !marker.is_empty()) })
    }

    /// The service drops blocks of no blob by itself.
    fn sweep(_: &AzureStore, _: SystemTime) -> Result<usize, StoreError> {
        Ok(0)
    }

    fn may_lack_bucket(_: &Answer) -> bool {
        false
    }
}

/// What Azure's codes mean.
fn refused(answer: &Answer) -> Option<(StoreErrorKind, String)> {
    let said = answer.said();
    let expired = || {
        let reason =
            "the shared access signature has expired, or is not valid yet: make a new one, and check the clock";
        (StoreErrorKind::Denied, reason.to_owned())
    };
    Some(match answer.code.as_str() {
        "BlobNotFound" | "ResourceNotFound" => (StoreErrorKind::NotFound, NO_OBJECT.to_owned()),
        "ContainerNotFound" | "ContainerBeingDeleted" => (StoreErrorKind::Misconfigured, no_bucket().to_owned()),
        "AccountIsDisabled" | "InvalidUri" | "InvalidResourceName" | "OutOfRangeInput" => {
            (StoreErrorKind::Misconfigured, format!("{said}: check the names of the account and the container"))
        }
        "InvalidRange" => (StoreErrorKind::Damaged, TOO_SHORT.to_owned()),
        "ServerBusy" | "InternalError" | "OperationTimedOut" => (StoreErrorKind::Transient, said),
        "AuthenticationFailed" if answer.skew > std::time::Duration::from_secs(15 * 60) => answer.clock(),
        "AuthenticationFailed" if said.contains("time frame") || said.contains("expired") => expired(),
        // Azurite's word for a wrong signature.
        "AuthorizationFailure" if !said.contains("failed to authenticate") => return None,
        "AuthenticationFailed" | "AuthorizationFailure" | "InvalidAuthenticationInfo" => (
            StoreErrorKind::Denied,
            format!("the credentials are wrong or have expired: {said}: check the account, its key, and the token"),
        ),
        "NoAuthenticationInformation" | "PublicAccessNotPermitted" => {
            (StoreErrorKind::Denied, format!("no credentials were sent: {}", AZURE.credentials))
        }
        _ => return None,
    })
}
