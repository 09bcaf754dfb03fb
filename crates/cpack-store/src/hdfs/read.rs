//! Reads objects and ranges of them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use hdfs_native::Client;
use hdfs_native::file::FileReader;

use super::{HdfsStore, LISTING};
use crate::call::Call;
use crate::retry::Failure;
use crate::{Key, StoreError, StoreErrorKind};

/// Most objects whose blocks are remembered.
const MOST_READERS: usize = 64;

/// Objects whose blocks are known.
#[derive(Default)]
pub(super) struct Readers(Mutex<HashMap<Key, Arc<FileReader>>>);

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl Readers {
    fn get(&self, key: &Key) -> Option<Arc<FileReader>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn keep(&self, key: &Key, reader: &Arc<FileReader>) {
        let mut readers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() >= MOST_READERS {
            readers.clear();
        }
        readers.insert(key.clone(), Arc::clone(reader));
    }

    pub(super) fn forget(&self, key: &Key) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    pub(super) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl HdfsStore {
    /// Looks the blocks up anew, since the object may have been replaced.
    pub(super) fn whole(&self, key: &Key, limit: u64) -> Result<Vec<u8>, StoreError> {
        let call = self.operation("cannot read", key.as_str()).moving(limit.min(LISTING));
        self.call(call, |client| async move {
            let reader = self.open(call, key, &client).await?;
            let size = reader.file_length();
            if size as u64 > limit {
                return Err(call.too_large(size as u64, limit).into());
            }
            let mut bytes = vec![0; size];
            self.fill(call, &reader, 0, &mut bytes).await?;
            Ok(bytes)
        })
    }

    pub(super) fn range(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let call = self.operation("cannot read", key.as_str()).moving(buffer.len() as u64);
        if buffer.is_empty() {
            return Ok(());
        }
        // `call` runs one attempt at a time. The lock lends the buffer to each in turn; no attempt waits for it.
        let lent = tokio::sync::Mutex::new(buffer);
        self.call(call, |client| {
            let lent = &lent;
            async move {
                let mut buffer = lent.lock().await;
                let reader = match self.readers.get(key) {
                    Some(reader) => reader,
                    None => {
                        let reader = Arc::new(self.open(call, key, &client).await?);
                        self.readers.keep(key, &reader);
                        reader
                    }
                };
                // Blocks move and their tokens expire, and a reader never asks a data node again after it failed once.
                let filled = self.fill(call, &reader, offset, &mut buffer).await;
                filled.inspect_err(|_| self.readers.forget(key))
            }
        })
    }

    async fn open(&self, call: Call<'_>, key: &Key, client: &Client) -> Result<FileReader, Failure> {
        client.read(&self.path(key.as_str())).await.map_err(|e| self.failed(call, &e))
    }

    async fn fill(&self, call: Call<'_>, reader: &FileReader, offset: u64, buffer: &mut [u8]) -> Result<(), Failure> {
        // The client panics past the end.
        let end = offset.saturating_add(buffer.len() as u64);
        if end > reader.file_length() as u64 {
            let reason = format!("it ends at {}, before the expected {end}", reader.file_length());
            return Err(call.error(StoreErrorKind::Damaged, reason).into());
        }
        reader.read_range_buf(buffer, offset as usize).await.map_err(|e| self.failed(call, &e))
    }
}
