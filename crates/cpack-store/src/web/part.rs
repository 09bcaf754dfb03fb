//! Reads objects, and ranges of them, from answers of HTTP servers. A body that breaks off goes on where it broke, from the
//! same version of the object.

use std::ops::Range;

#[cfg(any(feature = "http", feature = "rest"))]
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
#[cfg(any(feature = "http", feature = "rest"))]
use http::{
    HeaderName, Response,
    header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE},
};
use tokio::sync::Mutex;

#[cfg(any(feature = "http", feature = "rest"))]
use super::header;
use super::{TOO_SHORT, WEB_PAGE, is_page};
use crate::call::Call;
use crate::retry::Failure;
use crate::{StoreError, StoreErrorKind};

/// An answer with an object or a part of one.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) content_type: Option<String>,
    pub(crate) content_range: Option<String>,
    /// The length of the body, if the server says it.
    pub(crate) length: Option<u64>,
    /// The version of the object, which a later request can ask for.
    pub(crate) version: Option<String>,
    pub(crate) body: ByteStream,
}

#[cfg(any(feature = "http", feature = "rest"))]
impl Part {
    /// What `answer` says of itself and of its body, an object of this version.
    pub(crate) fn of(answer: Response<SdkBody>, version: Option<String>) -> Self {
        let (head, body) = answer.into_parts();
        let text = |name: HeaderName| header(&head.headers, name.as_str()).map(str::to_owned);
        Self {
            content_type: text(CONTENT_TYPE),
            content_range: text(CONTENT_RANGE),
            length: text(CONTENT_LENGTH).and_then(|length| length.parse().ok()),
            version,
            body: ByteStream::new(body),
        }
    }
}

/// How much of a range all attempts together have read.
#[derive(Debug, Default)]
struct Progress {
    /// Bytes that are in the buffer.
    done: usize,
    /// The version of the object that they are from.
    version: Option<String>,
}

/// A buffer that attempts fill one after another. The lock lends it to each in turn; no attempt waits for it.
#[derive(Debug)]
pub(crate) struct Filling<'a> {
    offset: u64,
    state: Mutex<(&'a mut [u8], Progress)>,
}

impl<'a> Filling<'a> {
    /// `buffer` is for the bytes from `offset` and not empty.
    pub(crate) fn new(offset: u64, buffer: &'a mut [u8]) -> Self {
        Self { offset, state: Mutex::new((buffer, Progress::default())) }
    }

    /// One attempt: `get` asks for a range of the version that it is given, or of any.
    pub(crate) async fn attempt<F>(
        &self,
        call: Call<'_>,
        get: impl FnOnce(Range<u64>, Option<String>) -> F,
    ) -> Result<(), Failure>
    where
        F: Future<Output = Result<Part, Failure>>,
    {
        let mut lent = self.state.lock().await;
        let (buffer, progress) = &mut *lent;
        let wanted = self.offset + progress.done as u64..self.offset + buffer.len() as u64;
        let mut part = get(wanted.clone(), progress.version.clone()).await.inspect_err(|_| {
            // The object may have been replaced: the next attempt reads all of the range.
            *progress = Progress::default();
        })?;
        expect(call, &part, &wanted)?;
        progress.version = part.version.take();
        read_body(call, &mut part, buffer, &mut progress.done).await
    }
}

/// Reads an object of at most `limit` bytes.
pub(crate) async fn whole(call: Call<'_>, mut part: Part, limit: u64) -> Result<Vec<u8>, Failure> {
    no_page(call, &part)?;
    if let Some(size) = part.length {
        if size > limit {
            return Err(call.too_large(size, limit).into());
        }
        let mut bytes = vec![0; size as usize];
        read_body(call, &mut part, &mut bytes, &mut 0).await?;
        return Ok(bytes);
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = part.body.next().await {
        bytes.extend_from_slice(&chunk.map_err(|error| broken_off(call, &error.to_string()))?);
        if bytes.len() as u64 > limit {
            return Err(call.too_large(bytes.len() as u64, limit).into());
        }
    }
    Ok(bytes)
}

/// Refuses a web page instead of an object, which a proxy or a wrong endpoint sends with status 200.
fn no_page(call: Call<'_>, part: &Part) -> Result<(), StoreError> {
    if is_page(part.content_type.as_deref()) {
        return Err(call.error(StoreErrorKind::Misconfigured, WEB_PAGE));
    }
    Ok(())
}

/// Checks that the answer is the range `wanted`.
fn expect(call: Call<'_>, part: &Part, wanted: &Range<u64>) -> Result<(), StoreError> {
    no_page(call, part)?;
    let found = part.content_range.as_deref().unwrap_or("everything");
    let (kind, reason) = match part.content_range.as_deref().and_then(parse_range) {
        Some(range) if range == *wanted => return Ok(()),
        Some(range) if range.start == wanted.start && range.end < wanted.end => {
            (StoreErrorKind::Damaged, TOO_SHORT.to_owned())
        }
        // An answer to another request: a proxy mixed them up.
        Some(_) => (StoreErrorKind::Transient, format!("the server sent {found} for {wanted:?}")),
        None if wanted.start == 0 && part.length == Some(wanted.end) => return Ok(()),
        None => {
            let reason = format!("the server sent {found} for {wanted:?}: it, or a proxy, does not support ranges");
            (StoreErrorKind::Misconfigured, reason)
        }
    };
    Err(call.error(kind, reason))
}

fn broken_off(call: Call<'_>, reason: &str) -> Failure {
    call.error(StoreErrorKind::Transient, format!("the connection broke off: {reason}")).into()
}

/// Appends the answer's body to the first `done` bytes of `buffer`, until it is full.
async fn read_body(call: Call<'_>, part: &mut Part, buffer: &mut [u8], done: &mut usize) -> Result<(), Failure> {
    let broken = |reason: String| Failure::from(call.error(StoreErrorKind::Transient, reason));
    while let Some(chunk) = part.body.next().await {
        let chunk = chunk.map_err(|error| broken_off(call, &error.to_string()))?;
        let place = buffer.get_mut(*done..*done + chunk.len());
        place.ok_or_else(|| broken("more bytes came than were asked for".to_owned()))?.copy_from_slice(&chunk);
        *done += chunk.len();
    }
    if *done < buffer.len() {
        return Err(broken(format!("{} of {} bytes came", *done, buffer.len())));
    }
    Ok(())
}

/// The range of a `Content-Range` header (RFC 9110, 14.4).
fn parse_range(header: &str) -> Option<Range<u64>> {
    let (first, rest) = header.strip_prefix("bytes ")?.split_once('-')?;
    let (last, _) = rest.split_once('/')?;
    Some(first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        for (header, range) in [
            ("bytes 0-9/10", Some(0..10)),
            ("bytes 5-5/*", Some(5..6)),
            ("bytes */10", None),
            ("bytes 0-18446744073709551615/1", None),
            ("items 0-9/10", None),
        ] {
            assert_eq!(parse_range(header), range, "{header}");
        }
    }
}
