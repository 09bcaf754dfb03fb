//! Reading objects and ranges of them.

use std::ops::Range;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use tokio::sync::Mutex;

use super::error::TOO_SHORT;
use super::{S3Store, failed, length, no_page};
use crate::call::Call;
use crate::retry::Failure;
use crate::{Key, StoreError, StoreErrorKind};

/// How much of a range all attempts together have read.
#[derive(Debug, Default)]
struct Progress {
    /// Bytes that are in the buffer.
    done: usize,
    /// The version of the object that they are from.
    version: Option<String>,
}

impl S3Store {
    pub(super) fn whole(&self, key: &Key, limit: u64) -> Result<Vec<u8>, StoreError> {
        let call = self.operation("cannot read", key.as_str());
        self.call(call, |client| {
            let request = client.get_object().bucket(&self.uri.authority).key(self.name(key.as_str()));
            async move {
                let mut answer = request.send().await.map_err(|e| failed(call, &e))?;
                no_page(call, answer.content_type())?;
                let size = length(answer.content_length());
                if size > limit {
                    return Err(call.too_large(size, limit).into());
                }
                let mut bytes = vec![0; size as usize];
                read_body(call, &mut answer, &mut bytes, &mut 0).await?;
                Ok(bytes)
            }
        })
    }

    pub(super) fn range(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let call = self.operation("cannot read", key.as_str()).moving(buffer.len() as u64);
        if buffer.is_empty() {
            return Ok(());
        }
        // `call` runs one attempt at a time. The lock lends the buffer to each in turn; no attempt waits for it.
        let state = Mutex::new((buffer, Progress::default()));
        self.call(call, |client| {
            let state = &state;
            async move {
                let mut lent = state.lock().await;
                let (buffer, progress) = &mut *lent;
                let wanted = offset + progress.done as u64..offset + buffer.len() as u64;
                let answer = client
                    .get_object()
                    .bucket(&self.uri.authority)
                    .key(self.name(key.as_str()))
                    .range(format!("bytes={}-{}", wanted.start, wanted.end - 1))
                    .set_if_match(progress.version.clone())
                    .send()
                    .await;
                let mut answer = answer.map_err(|e| {
                    // The object may have been replaced: the next attempt reads all of the range.
                    *progress = Progress::default();
                    failed(call, &e)
                })?;
                expect(call, &answer, &wanted)?;
                progress.version = answer.e_tag().map(str::to_owned);
                read_body(call, &mut answer, buffer, &mut progress.done).await
            }
        })
    }
}

/// Checks that the answer is the range `wanted`.
fn expect(call: Call<'_>, answer: &GetObjectOutput, wanted: &Range<u64>) -> Result<(), StoreError> {
    no_page(call, answer.content_type())?;
    let found = answer.content_range().unwrap_or("everything");
    let (kind, reason) = match answer.content_range().and_then(parse_range) {
        Some(range) if range == *wanted => return Ok(()),
        Some(range) if range.start == wanted.start && range.end < wanted.end => {
            (StoreErrorKind::Damaged, TOO_SHORT.to_owned())
        }
        // An answer to another request: a proxy mixed them up.
        Some(_) => (StoreErrorKind::Transient, format!("the server sent {found} for {wanted:?}")),
        None if wanted.start == 0 && length(answer.content_length()) == wanted.end => return Ok(()),
        None => {
            let reason = format!("the server sent {found} for {wanted:?}: it, or a proxy, does not support ranges");
            (StoreErrorKind::Misconfigured, reason)
        }
    };
    Err(call.error(kind, reason))
}

/// Appends the answer's body to the first `done` bytes of `buffer`, until it is full.
async fn read_body(
    call: Call<'_>,
    answer: &mut GetObjectOutput,
    buffer: &mut [u8],
    done: &mut usize,
) -> Result<(), Failure> {
    let broken = |reason: String| Failure::from(call.error(StoreErrorKind::Transient, reason));
    while let Some(chunk) = answer.body.next().await {
        let chunk = chunk.map_err(|e| broken(format!("the connection broke off: {e}")))?;
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
