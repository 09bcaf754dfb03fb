//! The transport for requests for tokens, which `object_store` makes.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
};
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use crate::StoreOptions;
use crate::web::{Answer, Transport, Web, chain};

/// Gives `object_store` connections of ours: with the same TLS, authorities and proxies.
#[derive(Debug, Clone)]
pub(crate) struct Connector(Arc<Tokens>);

#[derive(Debug)]
struct Tokens {
    tls: Web,
    plain: Web,
}

impl Connector {
    /// The error is one line for people.
    pub(crate) fn new(options: &StoreOptions) -> Result<Self, String> {
        Ok(Self(Arc::new(Tokens { tls: Web::new(options, true)?, plain: Web::new(options, false)? })))
    }
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait::async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let web = if head.uri.scheme_str() == Some("https") { &self.0.tls } else { &self.0.plain };
        let failed = |answer: Answer| HttpError::new(HttpErrorKind::Connect, Unanswered(answer.said()));
        let answer = web.send(http::Request::from_parts(head, SdkBody::from(body))).await.map_err(failed)?;
        let (head, body) = answer.into_parts();
        let broken = |error: Box<dyn Error + Send + Sync>| HttpError::new_boxed(HttpErrorKind::Interrupted, error);
        let bytes: Bytes = body.collect().await.map_err(broken)?.to_bytes();
        Ok(http::Response::from_parts(head, HttpResponseBody::from(bytes)))
    }
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unanswered(String);

/// How `object_store` retries requests for tokens: shortly, since a metadata service is near or not there at all.
pub(crate) fn quick() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { max_backoff: Duration::from_secs(1), ..BackoffConfig::default() },
        max_retries: 2,
        retry_timeout: Duration::from_secs(10),
    }
}

/// Why there are no credentials. Only the innermost cause is told: outer ones repeat URLs and retries.
pub(crate) fn no_credentials(error: &(dyn Error + 'static)) -> Answer {
    Answer::none(Transport::Credentials, chain(error).last().cloned().unwrap_or_default())
}
