//! Writes small objects by one request, large ones by parts in parallel.

use std::ops::Range;
use std::time::SystemTime;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, MetadataDirective};
use cpack_parallel::try_map;

use super::{S3Store, modified};
use crate::call::Call;
use crate::content::Content;
use crate::error::{NO_OBJECT, if_found};
use crate::web::{CONTENT_TYPE, WEB_PAGE, percent_encode};
use crate::{Key, Put, Source, Store as _, StoreError, StoreErrorKind, Written};

/// Larger objects are sent in parts, of at least this size.
const PART: u64 = 8 << 20;

/// Most parts of one upload (Amazon's limit).
const MOST_PARTS: u64 = 10_000;

/// Parts of one object that are in flight: with their bytes in memory, 32 MiB.
const PARTS_IN_FLIGHT: usize = 4;

/// The largest object that one copy request takes (Amazon's limit).
const LARGEST_COPY: u64 = 5 << 30;

impl S3Store {
    pub(super) fn send(&self, key: &Key, source: Source<'_>, put: Put) -> Result<Written, StoreError> {
        let content = Content::open(source).map_err(|error| self.writing(key).unread(&error))?;
        if content.len() > PART {
            return self.send_in_parts(key, &content, put);
        }
        self.send_whole(key, &content).map(|()| Written::Sent(content.len()))
    }

    fn writing<'a>(&'a self, key: &'a Key) -> Call<'a> {
        self.operation("cannot write", key.as_str())
    }

    fn send_whole(&self, key: &Key, content: &Content<'_>) -> Result<(), StoreError> {
        let call = self.writing(key).moving(content.len());
        let bytes = content.part(0, content.len()).map_err(|error| call.unread(&error))?;
        let answer = self.ask(call, |client| {
            let request = client.put_object().bucket(&self.uri.authority).key(self.name(key.as_str()));
            request.content_type(CONTENT_TYPE).body(ByteStream::from(bytes.clone())).send()
        })?;
        given(call, answer.e_tag()).map(drop)
    }

    fn send_in_parts(&self, key: &Key, content: &Content<'_>, put: Put) -> Result<Written, StoreError> {
        let upload = self.start(key)?;
        let sent =
            self.send_parts(key, &upload, content).and_then(|parts| match put.has_come(self, key, content.len()) {
                true => Ok(Written::Kept),
                false => self.complete(key, &upload, parts).map(|()| Written::Sent(content.len())),
            });
        match sent {
            Ok(Written::Sent(size)) => Ok(Written::Sent(size)),
            // The answer to a completion may get lost: then the upload is gone and the object exists.
            Err(error) if error.is_not_found() && self.has_length(key, content.len()) => {
                Ok(Written::Sent(content.len()))
            }
            result => {
                // Parts that stay behind cost space until a sweep.
                let _ = self.abort(self.writing(key), &self.name(key.as_str()), &upload);
                result
            }
        }
    }

    fn has_length(&self, key: &Key, len: u64) -> bool {
        matches!(self.stat(key), Ok(Some(stat)) if stat.size == len)
    }

    /// Starts an upload in parts and returns its id.
    fn start(&self, key: &Key) -> Result<String, StoreError> {
        let call = self.writing(key);
        let answer = self.ask(call, |client| {
            let request = client.create_multipart_upload().bucket(&self.uri.authority).key(self.name(key.as_str()));
            request.content_type(CONTENT_TYPE).send()
        })?;
        given(call, answer.upload_id())
    }

    /// Sends all parts, several at once. Each retries by itself.
    fn send_parts(&self, key: &Key, upload: &str, content: &Content<'_>) -> Result<Vec<CompletedPart>, StoreError> {
        let size = part_size(content.len());
        let numbers: Vec<u64> = (0..content.len().div_ceil(size)).collect();
        try_map(PARTS_IN_FLIGHT, &numbers, |&index| {
            let range = index * size..content.len().min((index + 1) * size);
            self.send_part(key, upload, content, index, range)
        })
    }

    fn send_part(
        &self,
        key: &Key,
        upload: &str,
        content: &Content<'_>,
        index: u64,
        range: Range<u64>,
    ) -> Result<CompletedPart, StoreError> {
        let size = range.end - range.start;
        let call = self.writing(key).moving(size);
        let bytes = content.part(range.start, size).map_err(|error| call.unread(&error))?;
        let number = part_number(index);
        let answer = self.ask(call, |client| {
            let request = client.upload_part().bucket(&self.uri.authority).key(self.name(key.as_str()));
            request.upload_id(upload).part_number(number).body(ByteStream::from(bytes.clone())).send()
        })?;
        Ok(CompletedPart::builder().part_number(number).e_tag(given(call, answer.e_tag())?).build())
    }

    fn complete(&self, key: &Key, upload: &str, parts: Vec<CompletedPart>) -> Result<(), StoreError> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let completed = self.ask(self.writing(key), |client| {
            let request = client.complete_multipart_upload().bucket(&self.uri.authority).key(self.name(key.as_str()));
            request.upload_id(upload).multipart_upload(parts.clone()).send()
        });
        completed.map(drop)
    }

    /// Gives up the upload of the object `name`. One that is gone already is no error.
    fn abort(&self, call: Call<'_>, name: &str, upload: &str) -> Result<(), StoreError> {
        let aborted = self.ask(call, |client| {
            client.abort_multipart_upload().bucket(&self.uri.authority).key(name).upload_id(upload).send()
        });
        if_found(aborted).map(drop)
    }

    /// Starts an upload and leaves it, as a killed writer does.
    #[cfg(feature = "conformance")]
    pub fn abandon(&self, key: &Key) -> Result<(), StoreError> {
        self.start(key).map(drop)
    }

    /// Gives up the uploads that were started before `before`.
    pub(super) fn abort_old(&self, before: SystemTime) -> Result<usize, StoreError> {
        let call = self.operation("cannot clean up", "");
        let mut marker: (Option<String>, Option<String>) = (None, None);
        let mut swept = 0;
        loop {
            let page = self.ask(call, |client| {
                let request = client.list_multipart_uploads().bucket(&self.uri.authority).prefix(self.name(""));
                request.set_key_marker(marker.0.clone()).set_upload_id_marker(marker.1.clone()).send()
            })?;
            for upload in page.uploads().iter().filter(|upload| modified(upload.initiated()) < before) {
                if let (Some(name), Some(id)) = (upload.key(), upload.upload_id()) {
                    self.abort(call, name, id)?;
                    swept += 1;
                }
            }
            if page.is_truncated() != Some(true) {
                return Ok(swept);
            }
            marker = (page.next_key_marker, page.next_upload_id_marker);
        }
    }

    /// Makes the object's age zero by a copy onto itself, which moves no bytes over the network.
    pub(super) fn touch(&self, key: &Key) -> Result<(), StoreError> {
        let call = self.operation("cannot refresh", key.as_str());
        let size = self.stat(key)?.ok_or_else(|| call.error(StoreErrorKind::NotFound, NO_OBJECT))?.size;
        if size > LARGEST_COPY {
            return self.touch_in_parts(key, size);
        }
        // The server copies all of it before it answers.
        let copied = self.ask(call.moving(size / 64), |client| {
            let request = client.copy_object().copy_source(self.copy_source(key)).bucket(&self.uri.authority);
            let request = request.key(self.name(key.as_str())).content_type(CONTENT_TYPE);
            request.metadata_directive(MetadataDirective::Replace).send()
        });
        copied.map(drop)
    }

    fn touch_in_parts(&self, key: &Key, size: u64) -> Result<(), StoreError> {
        let upload = self.start(key)?;
        let part = size.div_ceil(MOST_PARTS).max(1 << 30);
        let copied: Result<Vec<_>, _> =
            (0..size.div_ceil(part)).map(|index| self.copy_part(key, &upload, index, part, size)).collect();
        copied.and_then(|parts| self.complete(key, &upload, parts)).inspect_err(|_| {
            let _ = self.abort(self.writing(key), &self.name(key.as_str()), &upload);
        })
    }

    fn copy_part(
        &self,
        key: &Key,
        upload: &str,
        index: u64,
        part: u64,
        size: u64,
    ) -> Result<CompletedPart, StoreError> {
        let call = self.operation("cannot refresh", key.as_str()).moving(part / 64);
        let number = part_number(index);
        let range = format!("bytes={}-{}", index * part, ((index + 1) * part).min(size) - 1);
        let answer = self.ask(call, |client| {
            let request = client.upload_part_copy().copy_source(self.copy_source(key)).copy_source_range(&range);
            let request = request.bucket(&self.uri.authority).key(self.name(key.as_str()));
            request.upload_id(upload).part_number(number).send()
        })?;
        let tag = given(call, answer.copy_part_result().and_then(|result| result.e_tag()))?;
        Ok(CompletedPart::builder().part_number(number).e_tag(tag).build())
    }

    fn copy_source(&self, key: &Key) -> String {
        percent_encode(&format!("{}/{}", self.uri.authority, self.name(key.as_str())), b"/")
    }
}

/// What S3 gives in every answer. A server that says 200 without it is not S3.
fn given(call: Call<'_>, value: Option<&str>) -> Result<String, StoreError> {
    value.map(str::to_owned).ok_or_else(|| call.error(StoreErrorKind::Misconfigured, WEB_PAGE))
}

/// S3 counts parts from one.
fn part_number(index: u64) -> i32 {
    i32::try_from(index + 1).unwrap_or(i32::MAX)
}

/// The size of the parts of an object of `len` bytes: as many as fit the limit, whole MiB.
fn part_size(len: u64) -> u64 {
    len.div_ceil(MOST_PARTS).next_multiple_of(1 << 20).max(PART)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::{StoreOptions, Watcher};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_cover_any_length_within_the_limit(len in 1u64..(5 << 40)) {
            let size = part_size(len);
            prop_assert!(size >= PART && len.div_ceil(size) <= MOST_PARTS);
        }
    }

    #[test]
    fn send_parts_panics_when_a_worker_does() {
        let store = S3Store::new(&"s3://bucket/p".parse().expect("a URI"), &StoreOptions::default()).expect("opens");
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(3 * PART).expect("grows");
        let die = |_| panic!("a worker dies");
        let content = Content::open(Source::Watched(file.path(), Watcher(&die))).expect("opens");
        let key = Key::layer(&cpack_format::Digest::of(b""));
        let sent = catch_unwind(AssertUnwindSafe(|| store.send_parts(&key, "upload", &content)));
        let panic = sent.expect_err("an upload whose parts are missing is not whole");
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"a worker dies"));
    }
}
