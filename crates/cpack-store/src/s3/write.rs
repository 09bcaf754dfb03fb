//! Writing objects: one request for small ones, parts side by side for large ones.

use std::ops::Range;
use std::time::SystemTime;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart, MetadataDirective};
use cpack_parallel::try_map;

use super::super::content::Content;
use super::super::retry::Failure;
use super::super::{Key, Put, Store as _, StoreError, StoreErrorKind, Written};
use super::{Call, S3Store};

/// Larger objects are sent in parts, of at least this size.
const PART: u64 = 8 << 20;

/// Most parts of one upload (Amazon's limit).
const MOST_PARTS: u64 = 10_000;

/// Parts of one object that are in flight: with their bytes in memory, 32 MiB.
const PARTS_IN_FLIGHT: usize = 4;

/// The largest object that one copy request takes (Amazon's limit).
const LARGEST_COPY: u64 = 5 << 30;

/// The type that is written, so that a web page can be told from an object.
const CONTENT_TYPE: &str = "application/octet-stream";

impl S3Store {
    pub(super) fn write(&self, key: &Key, content: &Content<'_>, put: Put) -> Result<Written, StoreError> {
        if content.len() > PART {
            return self.put_parts(key, content, put);
        }
        self.put_whole(key, content).map(|()| Written::Sent(content.len()))
    }

    fn put_whole(&self, key: &Key, content: &Content<'_>) -> Result<(), StoreError> {
        let call = Call { operation: "cannot write", object: key.as_str(), bytes: content.len() };
        let bytes = self.part(call, content, 0, content.len())?;
        self.call(call, |client| {
            let request = client
                .put_object()
                .bucket(&self.uri.authority)
                .key(self.name(key.as_str()))
                .content_type(CONTENT_TYPE)
                .body(ByteStream::from(bytes.clone()));
            async move {
                let answer = request.send().await.map_err(|e| self.failed(call, &e))?;
                self.tag(call, answer.e_tag()).map(drop)
            }
        })
    }

    fn put_parts(&self, key: &Key, content: &Content<'_>, put: Put) -> Result<Written, StoreError> {
        let upload = self.start(key)?;
        let sent =
            self.send_parts(key, &upload, content).and_then(|parts| match put.has_come(self, key, content.len()) {
                true => Ok(Written::Kept),
                false => self.complete(key, &upload, parts).map(|()| Written::Sent(content.len())),
            });
        match sent {
            Ok(Written::Sent(size)) => Ok(Written::Sent(size)),
            // The answer to a completion may get lost: then the upload is gone and the object there.
            Err(error) if error.is_not_found() && self.has_length(key, content.len()) => {
                Ok(Written::Sent(content.len()))
            }
            result => {
                self.abort(key, &upload);
                result
            }
        }
    }

    fn has_length(&self, key: &Key, len: u64) -> bool {
        matches!(self.stat(key), Ok(Some(stat)) if stat.size == len)
    }

    fn start(&self, key: &Key) -> Result<String, StoreError> {
        let call = Call { operation: "cannot write", object: key.as_str(), bytes: 0 };
        self.call(call, |client| {
            let request = client
                .create_multipart_upload()
                .bucket(&self.uri.authority)
                .key(self.name(key.as_str()))
                .content_type(CONTENT_TYPE);
            async move {
                let answer = request.send().await.map_err(|e| self.failed(call, &e))?;
                self.tag(call, answer.upload_id())
            }
        })
    }

    /// Sends all parts, several at once, each tried again by itself.
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
        let call = Call { operation: "cannot write", object: key.as_str(), bytes: size };
        let bytes = self.part(call, content, range.start, size)?;
        let number = i32::try_from(index + 1).unwrap_or(i32::MAX);
        self.call(call, |client| {
            let request = client
                .upload_part()
                .bucket(&self.uri.authority)
                .key(self.name(key.as_str()))
                .upload_id(upload)
                .part_number(number)
                .body(ByteStream::from(bytes.clone()));
            async move {
                let answer = request.send().await.map_err(|e| self.failed(call, &e))?;
                let tag = self.tag(call, answer.e_tag())?;
                Ok(CompletedPart::builder().part_number(number).e_tag(tag).build())
            }
        })
    }

    fn complete(&self, key: &Key, upload: &str, parts: Vec<CompletedPart>) -> Result<(), StoreError> {
        let call = Call { operation: "cannot write", object: key.as_str(), bytes: 0 };
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        self.call(call, |client| {
            let request = client
                .complete_multipart_upload()
                .bucket(&self.uri.authority)
                .key(self.name(key.as_str()))
                .upload_id(upload)
                .multipart_upload(parts.clone());
            async move { request.send().await.map(|_| ()).map_err(|e| self.failed(call, &e)) }
        })
    }

    /// Gives up an upload, as far as that is possible: what stays behind costs space until it is swept, nothing else.
    fn abort(&self, key: &Key, upload: &str) {
        let call = Call { operation: "cannot write", object: key.as_str(), bytes: 0 };
        let _ = self.abort_named(call, &self.name(key.as_str()), upload);
    }

    /// Gives up the upload of the object `name`. One that is gone already is no error.
    fn abort_named(&self, call: Call<'_>, name: &str, upload: &str) -> Result<(), StoreError> {
        let aborted = self.call(call, |client| {
            let request = client.abort_multipart_upload().bucket(&self.uri.authority).key(name).upload_id(upload);
            async move { request.send().await.map(|_| ()).map_err(|e| self.failed(call, &e)) }
        });
        aborted.or_else(|error| if error.is_not_found() { Ok(()) } else { Err(error) })
    }

    /// Starts an upload and leaves it, as a writer does that is killed.
    #[cfg(feature = "conformance")]
    pub fn abandon(&self, key: &Key) -> Result<(), StoreError> {
        self.start(key).map(drop)
    }

    /// Gives up the uploads that were started before `before`.
    pub(super) fn abort_old(&self, before: SystemTime) -> Result<usize, StoreError> {
        let call = Call { operation: "cannot clean up", object: "", bytes: 0 };
        let mut marker: (Option<String>, Option<String>) = (None, None);
        let mut swept = 0;
        loop {
            let page = self.call(call, |client| {
                let request = client
                    .list_multipart_uploads()
                    .bucket(&self.uri.authority)
                    .prefix(self.name(""))
                    .set_key_marker(marker.0.clone())
                    .set_upload_id_marker(marker.1.clone());
                async move { request.send().await.map_err(|e| self.failed(call, &e)) }
            })?;
            for upload in page.uploads().iter().filter(|upload| super::modified(upload.initiated()) < before) {
                if let (Some(name), Some(id)) = (upload.key(), upload.upload_id()) {
                    self.abort_named(call, name, id)?;
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
        let call = Call { operation: "cannot refresh", object: key.as_str(), bytes: 0 };
        let missing = || self.error(call, StoreErrorKind::NotFound, "no such object in this store".to_owned());
        let size = self.stat(key)?.ok_or_else(missing)?.size;
        if size > LARGEST_COPY {
            return self.touch_in_parts(key, size);
        }
        // The server copies all of it before it answers.
        let call = Call { bytes: size / 64, ..call };
        self.call(call, |client| {
            let request = client
                .copy_object()
                .copy_source(self.copy_source(key))
                .bucket(&self.uri.authority)
                .key(self.name(key.as_str()))
                .metadata_directive(MetadataDirective::Replace)
                .content_type(CONTENT_TYPE);
            async move { request.send().await.map(|_| ()).map_err(|e| self.failed(call, &e)) }
        })
    }

    fn touch_in_parts(&self, key: &Key, size: u64) -> Result<(), StoreError> {
        let upload = self.start(key)?;
        let part = size.div_ceil(MOST_PARTS).max(1 << 30);
        let copied: Result<Vec<_>, _> =
            (0..size.div_ceil(part)).map(|index| self.copy_part(key, &upload, index, part, size)).collect();
        copied.and_then(|parts| self.complete(key, &upload, parts)).inspect_err(|_| self.abort(key, &upload))
    }

    fn copy_part(
        &self,
        key: &Key,
        upload: &str,
        index: u64,
        part: u64,
        size: u64,
    ) -> Result<CompletedPart, StoreError> {
        let call = Call { operation: "cannot refresh", object: key.as_str(), bytes: part / 64 };
        let number = i32::try_from(index + 1).unwrap_or(i32::MAX);
        let range = format!("bytes={}-{}", index * part, ((index + 1) * part).min(size) - 1);
        self.call(call, |client| {
            let request = client
                .upload_part_copy()
                .copy_source(self.copy_source(key))
                .copy_source_range(&range)
                .bucket(&self.uri.authority)
                .key(self.name(key.as_str()))
                .upload_id(upload)
                .part_number(number);
            async move {
                let answer = request.send().await.map_err(|e| self.failed(call, &e))?;
                let tag = self.tag(call, answer.copy_part_result().and_then(|result| result.e_tag()))?;
                Ok(CompletedPart::builder().part_number(number).e_tag(tag).build())
            }
        })
    }

    /// What S3 always gives for what it took. Anything else that says 200 is no S3.
    fn tag(&self, call: Call<'_>, given: Option<&str>) -> Result<String, Failure> {
        given.map(str::to_owned).ok_or_else(|| {
            let (kind, reason) = super::error::web_page();
            self.error(call, kind, reason).into()
        })
    }

    fn copy_source(&self, key: &Key) -> String {
        percent_encode(&format!("{}/{}", self.uri.authority, self.name(key.as_str())))
    }

    fn part(&self, call: Call<'_>, content: &Content<'_>, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let failed =
            |e: std::io::Error| self.error(call, StoreErrorKind::Other, format!("its source cannot be read: {e}"));
        content.part(offset, len).map_err(failed)
    }
}

/// The size of the parts of an object of `len` bytes: as many as fit the limit, whole MiB.
fn part_size(len: u64) -> u64 {
    len.div_ceil(MOST_PARTS).next_multiple_of(1 << 20).max(PART)
}

/// `text` as a header takes it: a prefix may hold any character.
fn percent_encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::super::super::{Source, StoreOptions, Watcher};
    use super::*;
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

    #[test]
    fn prefixes_are_encoded_for_the_header() {
        assert_eq!(percent_encode("b/my env/ü+1.zip"), "b/my%20env/%C3%BC%2B1.zip");
    }
}
