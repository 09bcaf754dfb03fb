//! HTTP as all stores speak it that are reached by it: one transport and one TLS stack, the same proxies, the same trust.
//!
//! The transport is that of the AWS SDK (hyper and rustls with ring), because S3 brings it along. S3's requests pass through
//! the SDK; those of the other stores through [`Web`].

mod answer;
#[cfg(any(feature = "http", feature = "rest"))]
mod client;
mod part;
mod proxy;
mod trust;

pub(crate) use answer::{Answer, Server, TOO_SHORT, Transport, WEB_PAGE, chain};
#[cfg(feature = "azure")]
pub(crate) use client::http_date;
#[cfg(feature = "http")]
pub(crate) use client::refusal;
#[cfg(any(feature = "http", feature = "rest"))]
pub(crate) use client::{BUNDLE, Web, header, last_modified};
pub(crate) use part::{Filling, Part, whole};
pub(crate) use proxy::Proxy;
pub(crate) use trust::tls_context;

/// The type of every object, so that a web page can be told from one.
pub(crate) const CONTENT_TYPE: &str = "application/octet-stream";

/// Whether `content_type` is that of a web page.
pub(crate) fn is_page(content_type: Option<&str>) -> bool {
    content_type.is_some_and(|kind| kind.starts_with("text/html"))
}

/// `text` for a URI: all but unreserved characters and those of `keep` are encoded.
pub(crate) fn percent_encode(text: &str, keep: &[u8]) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || keep.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_encoded_for_uris_and_headers() {
        assert_eq!(percent_encode("b/my env/ü+1.zip", b"/"), "b/my%20env/%C3%BC%2B1.zip");
        assert_eq!(percent_encode("a/b", b""), "a%2Fb");
    }
}
