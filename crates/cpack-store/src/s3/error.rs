//! Maps S3's answers to a kind and one line that says what to do.

use std::error::Error;
use std::time::{Duration, SystemTime};

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};

use crate::call::{MAX_MESSAGE, Verdict};
use crate::error::NO_OBJECT;
use crate::{StoreErrorKind, redact};

/// S3 refuses requests from a clock that is off by more than this.
const MAX_SKEW: Duration = Duration::from_secs(15 * 60);

/// The reason for a web page where S3 should be.
pub(super) const WEB_PAGE: &str =
    "a web page came back instead of S3's answer: check the endpoint, and the proxy between";

/// The reason for an object that is too short.
pub(super) const TOO_SHORT: &str = "it ends before the length that is expected";

/// What is known of a failed request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// HTTP status, `None` if there was no answer.
    pub(super) status: Option<u16>,
    /// S3's error code, e.g. `NoSuchKey`.
    pub(super) code: String,
    /// The message of the server, or of the client.
    pub(super) message: String,
    /// Whether a web page came back. An answer without a body counts as none: moto, and proxies that drop bodies, call every
    /// answer `text/html`, and only its status tells what happened.
    pub(super) html: bool,
    /// The bucket's region, where the server names it.
    pub(super) region: Option<String>,
    /// How far the server's clock is from this machine's.
    pub(super) skew: Duration,
    /// Why there was no answer.
    pub(super) transport: Transport,
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Transport {
    /// There was an answer, or nothing better is known.
    #[default]
    Unknown,
    /// Refused, or no such host.
    Unreachable,
    /// A broken connection or a time-out.
    Broken,
    /// The server's certificate is not trusted.
    Untrusted,
    /// No credentials, or their provider failed.
    Credentials,
    /// The client could not build the request, and never sent it.
    Invalid,
}

impl Answer {
    /// What is known of `error`, which came in at `now`.
    pub(super) fn of<E>(error: &SdkError<E, HttpResponse>, now: SystemTime) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let response = error.raw_response();
        let header = |name| response.and_then(|r| r.headers().get(name));
        let date = header("date").and_then(|date| DateTime::from_str(date, DateTimeFormat::HttpDate).ok());
        let date = date.and_then(|date| SystemTime::try_from(date).ok());
        let skew = date.map(|date| now.duration_since(date).unwrap_or_else(|e| e.duration()));
        let chain = chain(error);
        // Outer errors only say that something failed.
        let innermost = || chain.last().cloned().unwrap_or_default();
        let message = match error.message() {
            Some(message) => message.to_owned(),
            None if response.is_some_and(|r| !r.status().is_success()) => String::new(),
            None => innermost(),
        };
        Self {
            status: response.map(|r| r.status().as_u16()),
            code: error.code().unwrap_or_default().to_owned(),
            message,
            html: header("content-type").is_some_and(|t| t.starts_with("text/html")) && response.is_some_and(has_body),
            region: header("x-amz-bucket-region").map(str::to_owned),
            skew: skew.unwrap_or_default(),
            transport: if response.is_some() { Transport::Unknown } else { transport(error, &chain.join(": ")) },
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        let (kind, reason) = match self.status {
            None => self.without_answer(),
            // Gateways answer 5xx with web pages. Those errors are transient.
            Some(status) if status >= 500 || status == 429 || status == 408 => self.busy(status),
            Some(_) if self.html => (StoreErrorKind::Misconfigured, WEB_PAGE.to_owned()),
            Some(status) => self.refused(status),
        };
        Verdict { kind, reason, unreachable: self.transport == Transport::Unreachable }
    }

    fn without_answer(&self) -> (StoreErrorKind, String) {
        let said = self.said();
        match self.transport {
            Transport::Unreachable => (
                StoreErrorKind::Transient,
                format!("nothing answers there: {said}: check the endpoint and that the server runs"),
            ),
            Transport::Untrusted => (
                StoreErrorKind::Misconfigured,
                format!("the server's certificate is not trusted: {said}: name its authority in AWS_CA_BUNDLE"),
            ),
            Transport::Credentials => (
                StoreErrorKind::Denied,
                format!(
                    "no usable credentials: {said}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
                ),
            ),
            Transport::Invalid => (StoreErrorKind::Other, said),
            Transport::Broken | Transport::Unknown => (StoreErrorKind::Transient, said),
        }
    }

    fn busy(&self, status: u16) -> (StoreErrorKind, String) {
        let kind = match (status, self.code.as_str()) {
            (507, _) | (_, "QuotaExceeded" | "XMinioStorageFull") => StoreErrorKind::Full,
            (501, _) => StoreErrorKind::Misconfigured,
            _ => StoreErrorKind::Transient,
        };
        (kind, format!("the server answers {status}: {}", self.said()))
    }

    fn refused(&self, status: u16) -> (StoreErrorKind, String) {
        let skewed = matches!(self.code.as_str(), "RequestTimeTooSkewed" | "RequestExpired")
            || (status == 403 && self.skew > MAX_SKEW);
        if skewed {
            let minutes = self.skew.as_secs() / 60;
            let reason = format!("this machine's clock is {minutes} minutes off the server's: set the clock");
            return (StoreErrorKind::Misconfigured, reason);
        }
        let said = self.said();
        match (self.code.as_str(), status) {
            ("NoSuchKey" | "NotFound" | "NoSuchUpload", _) => (StoreErrorKind::NotFound, NO_OBJECT.to_owned()),
            ("NoSuchBucket", _) => (
                StoreErrorKind::Misconfigured,
                "there is no such bucket: create it, or check the URI and the endpoint".into(),
            ),
            ("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken", _) => {
                (StoreErrorKind::Denied, "the credentials have expired: renew them and start again".into())
            }
            ("InvalidAccessKeyId" | "SignatureDoesNotMatch", _) => (
                StoreErrorKind::Denied,
                format!("the credentials are wrong: {said}: check the access key and its secret"),
            ),
            ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _)
            | (_, 301 | 307) => self.elsewhere(),
            ("InvalidRange", _) | (_, 416) => (StoreErrorKind::Damaged, TOO_SHORT.to_owned()),
            ("QuotaExceeded" | "XMinioStorageFull", _) => (StoreErrorKind::Full, said),
            ("SlowDown" | "RequestTimeout" | "OperationAborted" | "InternalError", _) | (_, 409 | 412) => {
                (StoreErrorKind::Transient, said)
            }
            ("InvalidBucketName" | "MethodNotAllowed" | "NotImplemented", _) | (_, 405) => {
                (StoreErrorKind::Misconfigured, format!("{said}: check the bucket's name and the endpoint"))
            }
            (_, 401 | 403) => (
                StoreErrorKind::Denied,
                format!(
                    "access denied ({said}): check the credentials, and that the policy allows to get, put, list and delete here"
                ),
            ),
            (_, 404) => (StoreErrorKind::NotFound, NO_OBJECT.to_owned()),
            _ => (StoreErrorKind::Other, format!("the server answers {status}: {said}")),
        }
    }

    fn elsewhere(&self) -> (StoreErrorKind, String) {
        let region = self.region.as_deref().unwrap_or("another region");
        let set = self.region.as_deref().unwrap_or("THAT-REGION");
        (StoreErrorKind::Misconfigured, format!("the bucket is in {region}: set AWS_REGION={set}"))
    }

    /// The server's or client's message in one line, without secrets.
    fn said(&self) -> String {
        let text = redact(&self.message).split_whitespace().collect::<Vec<_>>().join(" ");
        let text: String = text.chars().take(MAX_MESSAGE).collect();
        match (self.code.is_empty(), text.is_empty()) {
            (false, false) if !text.contains(&self.code) => format!("{}: {text}", self.code),
            (_, false) => text,
            (false, true) => self.code.clone(),
            (true, true) => "no reason given".to_owned(),
        }
    }
}

/// Whether a body came, or, after HEAD, was announced.
fn has_body(response: &HttpResponse) -> bool {
    let announced = response.headers().get("content-length").and_then(|length| length.trim().parse::<u64>().ok());
    // A body that is not in memory has bytes that were not read.
    announced.is_some_and(|length| length > 0) || response.body().bytes().is_none_or(|body| !body.is_empty())
}

/// The messages of an error and all its causes, outermost first.
fn chain(error: &(dyn Error + 'static)) -> Vec<String> {
    std::iter::successors(Some(error), |&error| error.source()).map(ToString::to_string).collect()
}

fn transport<E>(error: &SdkError<E, HttpResponse>, text: &str) -> Transport {
    let any = |needles: &[&str]| needles.iter().any(|needle| text.contains(needle));
    if any(&["onnection refused", "failed to lookup address", "dns error", "No route to host"]) {
        return Transport::Unreachable;
    }
    if any(&["InvalidCertificate", "invalid peer certificate", "UnknownIssuer"]) {
        return Transport::Untrusted;
    }
    if any(&["credential", "no identity resolver"]) {
        return Transport::Credentials;
    }
    match error {
        SdkError::ConstructionFailure(_) => Transport::Invalid,
        SdkError::TimeoutError(_) => Transport::Broken,
        SdkError::DispatchFailure(failure) if failure.is_io() || failure.is_timeout() => Transport::Broken,
        _ => Transport::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str) -> Answer {
        Answer { status: Some(status), code: code.into(), message: "says the server".into(), ..Answer::default() }
    }

    #[test]
    fn every_refusal_has_a_kind_and_says_what_to_do() {
        use StoreErrorKind as Kind;
        let html = |status| Answer { html: true, ..answer(status, "") };
        let region = Answer { region: Some("eu-west-1".into()), ..answer(301, "PermanentRedirect") };
        let late = Answer { skew: Duration::from_secs(7200), ..answer(403, "") };
        for (answer, kind, needle) in [
            (answer(404, "NoSuchKey"), Kind::NotFound, "no such object"),
            (answer(404, ""), Kind::NotFound, "no such object"),
            (answer(404, "NoSuchBucket"), Kind::Misconfigured, "create it"),
            (answer(403, "AccessDenied"), Kind::Denied, "policy"),
            (answer(403, ""), Kind::Denied, "policy"),
            (answer(400, "ExpiredToken"), Kind::Denied, "renew"),
            (answer(403, "InvalidAccessKeyId"), Kind::Denied, "access key"),
            (answer(403, "RequestTimeTooSkewed"), Kind::Misconfigured, "set the clock"),
            (late, Kind::Misconfigured, "120 minutes"),
            (region, Kind::Misconfigured, "AWS_REGION=eu-west-1"),
            (answer(400, "AuthorizationHeaderMalformed"), Kind::Misconfigured, "AWS_REGION"),
            (answer(416, "InvalidRange"), Kind::Damaged, "ends before"),
            (answer(503, "SlowDown"), Kind::Transient, "503"),
            (answer(500, "InternalError"), Kind::Transient, "500"),
            (answer(409, "OperationAborted"), Kind::Transient, "says"),
            (answer(412, "PreconditionFailed"), Kind::Transient, "says"),
            (answer(507, ""), Kind::Full, "507"),
            (html(200), Kind::Misconfigured, "web page"),
            (html(404), Kind::Misconfigured, "web page"),
            (html(502), Kind::Transient, "502"),
            (answer(400, "Odd"), Kind::Other, "Odd: says the server"),
        ] {
            let verdict = answer.verdict();
            assert_eq!(verdict.kind, kind, "{answer:?}");
            assert!(verdict.reason.contains(needle), "{verdict:?}");
            assert!(!verdict.reason.contains('\n') && !verdict.unreachable);
        }
    }

    /// As moto 5.2.5 answers HEAD of a key that is missing, and a page whose HEAD tells its length.
    #[test]
    fn an_answer_called_html_without_a_body_is_judged_by_its_status() {
        use StoreErrorKind as Kind;
        for (status, body, length, kind) in [
            (404, "", Some("0"), Kind::NotFound),
            (404, "", None, Kind::NotFound),
            (404, "", Some("1234"), Kind::Misconfigured),
            (404, "<html>", Some("6"), Kind::Misconfigured),
            (403, "", Some("0"), Kind::Denied),
            (403, "<html>", None, Kind::Misconfigured),
            (412, "", Some("0"), Kind::Transient),
            (503, "", Some("0"), Kind::Transient),
            (503, "<html>", Some("6"), Kind::Transient),
        ] {
            let mut response = HttpResponse::new(status.try_into().expect("a status"), body.into());
            response.headers_mut().insert("content-type", "text/html; charset=utf-8");
            length.into_iter().for_each(|length| drop(response.headers_mut().insert("content-length", length)));
            let source = aws_sdk_s3::error::ErrorMetadata::builder().build();
            let error: SdkError<_, HttpResponse> =
                SdkError::service_error(aws_sdk_s3::operation::head_object::HeadObjectError::generic(source), response);
            assert_eq!(Answer::of(&error, SystemTime::now()).verdict().kind, kind, "{status} {body:?} {length:?}");
        }
    }

    #[test]
    fn without_an_answer_the_reason_is_found_in_the_chain() {
        for (message, transport, kind, unreachable) in [
            (
                "tcp connect error: Connection refused (os error 111)",
                Transport::Unreachable,
                StoreErrorKind::Transient,
                true,
            ),
            ("failed to lookup address information", Transport::Unreachable, StoreErrorKind::Transient, true),
            ("invalid peer certificate: UnknownIssuer", Transport::Untrusted, StoreErrorKind::Misconfigured, false),
            ("no credentials found in chain", Transport::Credentials, StoreErrorKind::Denied, false),
            ("something else", Transport::Invalid, StoreErrorKind::Other, false),
        ] {
            let error: SdkError<aws_sdk_s3::Error, HttpResponse> = SdkError::construction_failure(message);
            let answer = Answer::of(&error, SystemTime::now());
            assert_eq!(answer.transport, transport, "{answer:?}");
            assert_eq!((answer.verdict().kind, answer.verdict().unreachable), (kind, unreachable), "{answer:?}");
        }
    }

    #[test]
    fn signatures_are_not_shown() {
        let message = "GET https://host/k?X-Amz-Signature=abc\nfailed".to_owned();
        let verdict = Answer { message, ..answer(400, "Odd") }.verdict();
        assert!(!verdict.reason.contains("abc") && verdict.reason.contains("https://host/k?***"), "{verdict:?}");
    }
}
