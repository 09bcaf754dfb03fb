//! Maps S3's answers to a kind and one line that says what to do.

use std::error::Error;
use std::time::SystemTime;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};

use crate::StoreErrorKind;
use crate::error::NO_OBJECT;
use crate::web::{Answer, Server, TOO_SHORT, Transport, chain};

/// What errors say of S3.
pub(super) static S3: Server = Server {
    bundle: "AWS_CA_BUNDLE",
    credentials: "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    rights: "the credentials, and that the policy allows to get, put, list and delete here",
    refused,
};

/// What is known of `error`, which came in at `now`.
pub(super) fn answer<E>(error: &SdkError<E, HttpResponse>, now: SystemTime) -> Answer
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
    Answer {
        status: response.map(|r| r.status().as_u16()),
        code: error.code().unwrap_or_default().to_owned(),
        message,
        html: header("content-type").is_some_and(|t| t.starts_with("text/html")) && response.is_some_and(has_body),
        region: header("x-amz-bucket-region").map(str::to_owned),
        skew: skew.unwrap_or_default(),
        transport: if response.is_some() { Transport::Unknown } else { transport(error, &chain.join(": ")) },
    }
}

/// What S3's codes mean.
fn refused(answer: &Answer) -> Option<(StoreErrorKind, String)> {
    let status = answer.status.unwrap_or_default();
    let said = answer.said();
    Some(match (answer.code.as_str(), status) {
        ("RequestTimeTooSkewed" | "RequestExpired", _) => answer.clock(),
        ("NoSuchKey" | "NotFound" | "NoSuchUpload", _) => (StoreErrorKind::NotFound, NO_OBJECT.to_owned()),
        ("NoSuchBucket", _) => (
            StoreErrorKind::Misconfigured,
            "there is no such bucket: create it, or check the URI and the endpoint".into(),
        ),
        ("ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" | "InvalidToken", _) => {
            (StoreErrorKind::Denied, "the credentials have expired: renew them and start again".into())
        }
        ("InvalidAccessKeyId" | "SignatureDoesNotMatch", _) => {
            (StoreErrorKind::Denied, format!("the credentials are wrong: {said}: check the access key and its secret"))
        }
        ("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _)
        | (_, 301 | 307) => elsewhere(answer),
        ("InvalidRange", _) => (StoreErrorKind::Damaged, TOO_SHORT.to_owned()),
        ("QuotaExceeded" | "XMinioStorageFull", _) => (StoreErrorKind::Full, said),
        ("SlowDown" | "RequestTimeout" | "OperationAborted" | "InternalError", _) => (StoreErrorKind::Transient, said),
        ("InvalidBucketName" | "MethodNotAllowed" | "NotImplemented", _) => {
            (StoreErrorKind::Misconfigured, format!("{said}: check the bucket's name and the endpoint"))
        }
        _ => return None,
    })
}

fn elsewhere(answer: &Answer) -> (StoreErrorKind, String) {
    let region = answer.region.as_deref().unwrap_or("another region");
    let set = answer.region.as_deref().unwrap_or("THAT-REGION");
    (StoreErrorKind::Misconfigured, format!("the bucket is in {region}: set AWS_REGION={set}"))
}

/// Whether a body came, or, after HEAD, was announced.
fn has_body(response: &HttpResponse) -> bool {
    let announced = response.headers().get("content-length").and_then(|length| length.trim().parse::<u64>().ok());
    // A body that is not in memory has bytes that were not read.
    announced.is_some_and(|length| length > 0) || response.body().bytes().is_none_or(|body| !body.is_empty())
}

fn transport<E>(error: &SdkError<E, HttpResponse>, text: &str) -> Transport {
    if let Some(said) = Transport::said_by(text) {
        return said;
    }
    if ["credential", "no identity resolver"].iter().any(|needle| text.contains(needle)) {
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
    use std::time::Duration;

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
            let verdict = answer.verdict(&S3);
            assert_eq!(verdict.kind, kind, "{answer:?}");
            assert!(verdict.reason.contains(needle), "{verdict:?}");
            assert!(!verdict.reason.contains('\n') && !verdict.unreachable);
        }
    }

    /// As moto 5.2.5 answers HEAD of a key that is missing, and a page whose HEAD tells its length.
    #[test]
    fn answer_called_html_without_a_body_is_judged_by_its_status() {
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
            assert_eq!(
                super::answer(&error, SystemTime::now()).verdict(&S3).kind,
                kind,
                "{status} {body:?} {length:?}"
            );
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
            let answer = super::answer(&error, SystemTime::now());
            assert_eq!(answer.transport, transport, "{answer:?}");
            assert_eq!((answer.verdict(&S3).kind, answer.verdict(&S3).unreachable), (kind, unreachable), "{answer:?}");
        }
    }

    #[test]
    fn signatures_are_not_shown() {
        let message = "GET https://host/k?X-Amz-Signature=abc\nfailed".to_owned();
        let verdict = Answer { message, ..answer(400, "Odd") }.verdict(&S3);
        assert!(!verdict.reason.contains("abc") && verdict.reason.contains("https://host/k?***"), "{verdict:?}");
    }
}
