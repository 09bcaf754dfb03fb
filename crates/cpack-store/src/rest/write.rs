//! Writes small objects by one request, large ones by parts in parallel.

use bytes::Bytes;
use cpack_parallel::try_map;

use super::{Cloud, Refused, RestStore, Upload};
use crate::call::Call;
use crate::content::Content;
use crate::{Key, Put, Source, StoreError, StoreErrorKind, Written, unique_name};

/// Parts of one object that are in flight, with their bytes in memory.
const PARTS_IN_FLIGHT: usize = 4;

impl<C: Cloud> RestStore<C> {
    pub(super) fn send_object(&self, key: &Key, source: Source<'_>, put: Put) -> Result<Written, StoreError> {
        let content = Content::open(source).map_err(|error| self.writing(key).unread(&error))?;
        let sent = self.send_content(key, &content, put == Put::Once);
        match sent {
            // What came meanwhile is kept, unless it is not whole.
            Err(Refused::Exists) if put.has_come(self, key, content.len()) => return Ok(Written::Kept),
            Err(Refused::Exists) => self.send_content(key, &content, false),
            sent => sent,
        }
        .map(|()| Written::Sent(content.len()))
        .map_err(|refused| match refused {
            Refused::Failed(error) if error.is_not_found() => {
                StoreError { kind: StoreErrorKind::Misconfigured, reason: super::no_bucket().to_owned(), ..error }
            }
            Refused::Failed(error) => error,
            Refused::Exists => self.writing(key).error(StoreErrorKind::Transient, "another writer was faster"),
        })
    }

    fn writing<'a>(&'a self, key: &'a Key) -> Call<'a> {
        self.operation("cannot write", key.as_str())
    }

    fn send_content(&self, key: &Key, content: &Content<'_>, once: bool) -> Result<(), Refused> {
        if content.len() > C::PART {
            return self.send_in_parts(key, content, once);
        }
        let call = self.writing(key).moving(content.len());
        let bytes = Bytes::from(content.part(0, content.len()).map_err(|error| call.unread(&error))?);
        let name = self.name(key.as_str());
        self.ask_bound(call, || self.cloud.put(&name, bytes.clone(), once)).map(drop)
    }

    fn send_in_parts(&self, key: &Key, content: &Content<'_>, once: bool) -> Result<(), Refused> {
        let upload = Upload { name: self.name(key.as_str()), key, id: unique_name() };
        let size = part_size::<C>(content.len());
        let numbers: Vec<u64> = (0..content.len().div_ceil(size)).collect();
        let parts = numbers.len() as u64;
        let sent = try_map(PARTS_IN_FLIGHT, &numbers, |&index| {
            let len = size.min(content.len() - index * size);
            let call = self.writing(key).moving(len);
            let bytes = Bytes::from(content.part(index * size, len).map_err(|error| call.unread(&error))?);
            self.ask(call, || self.cloud.part(&upload, index, bytes.clone())).map(drop)
        });
        // Sending took its time. Not every server that speaks a cloud's language binds the last request.
        let has_come = || once && Put::Once.has_come(self, key, content.len());
        let completed = sent.map_err(Refused::from).and_then(|_| match has_come() {
            true => Err(Refused::Exists),
            false => C::complete(self, &upload, parts, once),
        });
        completed.inspect_err(|_| C::give_up(self, &upload, parts))
    }

    /// Sends one part of an object and leaves it, as a killed writer does.
    #[cfg(feature = "conformance")]
    pub(crate) fn abandon(&self, key: &Key) -> Result<(), StoreError> {
        let upload = Upload { name: self.name(key.as_str()), key, id: unique_name() };
        self.ask(self.writing(key), || self.cloud.part(&upload, 0, Bytes::from_static(b"left"))).map(drop)
    }
}

/// The size of the parts of an object of `len` bytes: as many as fit the limit, whole MiB.
fn part_size<C: Cloud>(len: u64) -> u64 {
    len.div_ceil(C::MOST_PARTS).next_multiple_of(1 << 20).max(C::PART)
}
