//! Reading objects and ranges of them.

use std::ops::Range;

use aws_sdk_s3::operation::get_object::GetObjectOutput;
use tokio::sync::Mutex;

use super::super::retry::Failure;
use super::super::{Key, StoreError, StoreErrorKind};
use super::{Call, S3Store, length};

/// How far a range has come, over all attempts.
#[derive(Debug, Default)]
struct Progress {
    /// Bytes that are in the buffer.
    done: usize,
    /// The version of the object that they are from.
    version: Option<String>,
}

impl S3Store {
    /// The whole object, at most `limit` bytes.
    pub(super) fn whole(&self, key: &Key, limit: u64) -> Result<Vec<u8>, StoreError> {
        let call = Call { operation: "cannot read", object: key.as_str(), bytes: 0 };
        self.call(call, |client| {
            let request = client.get_object().bucket(&self.uri.authority).key(self.name(key.as_str()));
            async move {
                let mut answer = request.send().await.map_err(|e| self.failed(call, &e))?;
                self.no_page(call, answer.content_type())?;
                let size = length(answer.content_length());
                if size > limit {
                    let reason = format!("it has {size} bytes, more than the {limit} that it may have");
                    return Err(self.error(call, StoreErrorKind::Damaged, reason).into());
                }
                let mut bytes = vec![0; size as usize];
                let mut done = 0;
                self.body(call, &mut answer, &mut bytes, &mut done).await?;
                Ok(bytes)
            }
        })
    }

    /// Fills `buffer` from `offset`.
    pub(super) fn range(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let call = Call { operation: "cannot read", object: key.as_str(), bytes: buffer.len() as u64 };
        if buffer.is_empty() {
            return Ok(());
        }
        // Only one attempt runs at a time: the lock is never waited for, it lends the buffer to each in turn.
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
                    // Replaced meanwhile, or whatever else: the next attempt starts anew.
                    *progress = Progress::default();
                    self.failed(call, &e)
                })?;
                self.expect(call, &answer, &wanted)?;
                progress.version = answer.e_tag().map(str::to_owned);
                self.body(call, &mut answer, buffer, &mut progress.done).await
            }
        })
    }

    /// Checks that the answer is the range that was asked for.
    fn expect(&self, call: Call<'_>, answer: &GetObjectOutput, wanted: &Range<u64>) -> Result<(), Failure> {
        self.no_page(call, answer.content_type())?;
        let found = answer.content_range().unwrap_or("everything");
        let (kind, reason) = match answer.content_range().and_then(parse_range) {
            Some(range) if range == *wanted => return Ok(()),
            Some(range) if range.start == wanted.start && range.end < wanted.end => {
                (StoreErrorKind::Damaged, "it ends before the length that is expected".to_owned())
            }
            // An answer to another request: a proxy mixed them up.
            Some(_) => (StoreErrorKind::Transient, format!("the server sent {found} for {wanted:?}")),
            None if wanted.start == 0 && length(answer.content_length()) == wanted.end => return Ok(()),
            None => {
                let reason = format!("the server sent {found} for {wanted:?}: it, or a proxy, does not support ranges");
                (StoreErrorKind::Misconfigured, reason)
            }
        };
        Err(self.error(call, kind, reason).into())
    }

    /// Appends the answer's body to what is in `buffer` already.
    async fn body(
        &self,
        call: Call<'_>,
        answer: &mut GetObjectOutput,
        buffer: &mut [u8],
        done: &mut usize,
    ) -> Result<(), Failure> {
        let broken = |reason: String| Failure::from(self.error(call, StoreErrorKind::Transient, reason));
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
