//! A client for HTTP requests of the stores that have no SDK.

use std::error::Error;
use std::time::{Duration, SystemTime};

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_runtime_api::client::http::{HttpConnector as _, HttpConnectorSettings};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::date_time::{DateTime, Format};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, LAST_MODIFIED};
use http::{HeaderMap, Request, Response};

use super::{Answer, Proxy, Transport, chain, is_page, tls_context};
use crate::StoreOptions;

/// The variable that names the authorities to trust.
pub(crate) const BUNDLE: &str = "SSL_CERT_FILE";

/// How long a connection may take to be made, as with the SDK for S3.
const CONNECT: Duration = Duration::from_millis(3100);

/// The most bytes of a refusal that are read.
const LARGEST_REFUSAL: usize = 64 << 10;

/// A pool of connections.
#[derive(Debug)]
pub(crate) struct Web {
    connector: Connector,
}

/// Reads a server's code and message from the body of its refusal.
pub(crate) type Parse = fn(&HeaderMap, &str) -> (String, String);

impl Web {
    /// A client for `https:` requests (`tls`) or for `http:` ones. The error is one line for people.
    pub(crate) fn new(options: &StoreOptions, tls: bool) -> Result<Self, String> {
        let settings = HttpConnectorSettings::builder().connect_timeout(CONNECT).build();
        let proxy = Proxy::of(options, tls).as_ref().map(Proxy::config).transpose()?;
        let mut builder = Connector::builder()
            .tls_provider(Provider::rustls(CryptoMode::Ring))
            .tls_context(tls_context(BUNDLE, options.variable(BUNDLE))?)
            .connector_settings(settings);
        builder.set_proxy_config(proxy);
        Ok(Self { connector: builder.build() })
    }

    /// Sends a request. Every answer of the server is one, whatever its status.
    pub(crate) async fn send(&self, request: Request<SdkBody>) -> Result<Response<SdkBody>, Answer> {
        let request = request.try_into().map_err(|error| Answer::none(Transport::Invalid, format!("{error}")))?;
        let answer = self.connector.call(request).await.map_err(|error| {
            let transport = if error.is_io() || error.is_timeout() { Transport::Broken } else { Transport::Unknown };
            unanswered(&error, transport)
        })?;
        answer.try_into_http1x().map_err(|error| Answer::none(Transport::Broken, error.to_string()))
    }

    /// Sends a request that must be answered by success, and not by a web page.
    pub(crate) async fn ask(&self, request: Request<SdkBody>, parse: Parse) -> Result<Response<SdkBody>, Answer> {
        let response = self.send(request).await?;
        let page = is_page(header(response.headers(), CONTENT_TYPE.as_str()));
        if response.status().is_success() && !page {
            return Ok(response);
        }
        Err(refusal(response, parse).await)
    }
}

/// What is known of a request that was not answered.
fn unanswered(error: &(dyn Error + 'static), transport: Transport) -> Answer {
    let chain = chain(error);
    let transport = Transport::said_by(&chain.join(": ")).unwrap_or(transport);
    // Outer errors only say that something failed.
    Answer::none(transport, chain.last().cloned().unwrap_or_default())
}

/// What is known of a request that was refused, or answered by a web page.
pub(crate) async fn refusal(response: Response<SdkBody>, parse: Parse) -> Answer {
    let (head, body) = response.into_parts();
    let announced = header(&head.headers, CONTENT_LENGTH.as_str()).and_then(|length| length.parse::<u64>().ok());
    let mut stream = ByteStream::new(body);
    let mut text = Vec::new();
    while let Some(Ok(chunk)) = stream.next().await {
        text.extend_from_slice(&chunk);
        if text.len() > LARGEST_REFUSAL {
            break;
        }
    }
    let has_body = !text.is_empty() || announced.is_some_and(|length| length > 0);
    let html = is_page(header(&head.headers, CONTENT_TYPE.as_str())) && has_body;
    let (code, message) = if html { Default::default() } else { parse(&head.headers, &String::from_utf8_lossy(&text)) };
    let date = header(&head.headers, DATE.as_str()).and_then(http_date);
    let now = SystemTime::now();
    let skew = date.map(|date| now.duration_since(date).unwrap_or_else(|error| error.duration())).unwrap_or_default();
    Answer { status: Some(head.status.as_u16()), code, message, html, skew, ..Answer::default() }
}

/// A header as text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The time of a header.
pub(crate) fn http_date(text: &str) -> Option<SystemTime> {
    SystemTime::try_from(DateTime::from_str(text, Format::HttpDate).ok()?).ok()
}

/// When an object was last changed.
pub(crate) fn last_modified(headers: &HeaderMap) -> SystemTime {
    header(headers, LAST_MODIFIED.as_str()).and_then(http_date).unwrap_or(SystemTime::UNIX_EPOCH)
}
