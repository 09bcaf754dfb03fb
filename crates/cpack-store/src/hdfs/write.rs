//! Writing objects: a temporary file, then its rename.

use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hdfs_native::client::FileStatus;
use hdfs_native::{Client, HdfsError, WriteOptions};

use super::super::content::Content;
use super::super::retry::Failure;
use super::super::{Key, Put, Store as _, StoreError, StoreErrorKind, Written};
use super::{Call, HdfsStore, LISTING, no_answer};
use cpack_format::key::TEMPORARY;

/// Bytes that are handed to the client as one: its progress is watched by these.
const CHUNK: u64 = 1 << 20;

/// Attempts with as many replicas as the file system wants.
const TRIES_IN_FULL: u32 = 2;

/// Replicas where the configuration does not say (`hdfs-default.xml`).
const REPLICATION: u32 = 3;

/// The mask that files and directories are made with unless `fs.permissions.umask-mode` says otherwise.
const UMASK: u32 = 0o022;

/// Directories of the layout whose objects every executor reads.
const FAN_OUT: [&str; 5] = ["layers/", "environments/", "overlays/", "launchers/", "boot/"];

impl HdfsStore {
    /// Writes the object under a temporary name and renames it.
    pub(super) fn write(&self, key: &Key, content: &Content<'_>, put: Put) -> Result<Written, StoreError> {
        // An attempt has as long as it makes progress, so the deadline of the whole is the call's.
        let call = Call { operation: "cannot write", object: key.as_str(), bytes: content.len() };
        let temporary = self.path(&key.temporary(&self.temporary_name()));
        let mut tries = 0;
        let result = self
            .call(call, |client| {
                let temporary = temporary.clone();
                tries += 1;
                // The client gives up a block when any data node of its pipeline does not answer. Where the name node does
                // not know yet which, a pipeline of one has the best chance; the other replicas follow.
                let replication = (tries > TRIES_IN_FULL).then_some(1);
                let again = tries > 1;
                async move {
                    if again {
                        // What the attempt before left, which may be anything.
                        client.delete(&temporary, false).await.map_err(|e| self.failed(call, &e))?;
                    }
                    self.fill_new(call, &client, &temporary, content, replication).await
                }
            })
            .and_then(|()| match put.has_come(self, key, content.len()) {
                true => Ok(Written::Kept),
                false => self.publish(key, &temporary, content.len()).map(|()| Written::Sent(content.len())),
            });
        self.readers.forget(key);
        if let Ok(Written::Sent(_)) = result {
            self.spread(key, tries > TRIES_IN_FULL);
        } else {
            let _ = self.remove(Call { bytes: 0, ..call }, &temporary);
        }
        result
    }

    fn temporary_name(&self) -> String {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        format!("{}-{}-{now:x}-{count:x}", self.options.temporary_prefix, process::id())
    }

    async fn fill_new(
        &self,
        call: Call<'_>,
        client: &Client,
        path: &str,
        content: &Content<'_>,
        replication: Option<u32>,
    ) -> Result<(), Failure> {
        let failed = |e: HdfsError| self.failed(call, &e);
        let options = WriteOptions { replication, ..WriteOptions::default().permission(0o666 & !self.umask()) };
        let mut file = client.create(path, &options).await.map_err(failed)?;
        let mut offset = 0;
        while offset < content.len() {
            let chunk = content
                .part(offset, CHUNK)
                .map_err(|e| self.error(call, StoreErrorKind::Other, format!("its source cannot be read: {e}")))?;
            offset += chunk.len() as u64;
            self.within(call, CHUNK, file.write_bytes(Bytes::from(chunk))).await?;
        }
        self.within(call, CHUNK, file.close()).await
    }

    /// `step`, unless it takes longer than an attempt at moving `bytes` may.
    async fn within<T>(
        &self,
        call: Call<'_>,
        bytes: u64,
        step: impl Future<Output = hdfs_native::Result<T>>,
    ) -> Result<T, Failure> {
        let time: Duration = self.options.deadlines.attempt_for(bytes);
        match tokio::time::timeout(time, step).await {
            // The name node made the file: what does not answer now is a data node, and there are others.
            Ok(result) => result.map_err(|e| Failure { unreachable: false, ..self.failed(call, &e) }),
            Err(_) => Err(self.error(call, StoreErrorKind::Transient, no_answer(time)).into()),
        }
    }

    /// Renames the temporary file into its place, over what is there.
    fn publish(&self, key: &Key, temporary: &str, len: u64) -> Result<(), StoreError> {
        let call = Call { operation: "cannot write", object: key.as_str(), bytes: 0 };
        let path = self.path(key.as_str());
        self.call(call, |client| {
            let (path, temporary) = (path.clone(), temporary.to_owned());
            async move {
                match client.rename(&temporary, &path, true).await {
                    Ok(()) => Ok(()),
                    Err(error) if !is_missing(&error) => Err(self.failed(call, &error)),
                    // Either the directory is missing, or an earlier attempt whose answer was lost did it.
                    Err(_) => {
                        let failed = |e: HdfsError| self.failed(call, &e);
                        let directory = path.rsplit_once('/').map_or("/", |(directory, _)| directory);
                        client.mkdirs(directory, 0o777 & !self.umask(), true).await.map_err(failed)?;
                        match client.rename(&temporary, &path, true).await {
                            Err(error) if is_missing(&error) => match client.get_file_info(&path).await {
                                Ok(status) if status.length as u64 == len => Ok(()),
                                _ => Err(failed(error)),
                            },
                            result => result.map_err(failed),
                        }
                    }
                }
            }
        })
    }

    /// Asks for more replicas of what every executor reads. The name node makes them by and by; that it may refuse is no
    /// failure of the write.
    ///
    /// `single`: it was written with one replica, whatever the file system's default.
    fn spread(&self, key: &Key, single: bool) {
        let wanted = self.options.replication.filter(|_| FAN_OUT.iter().any(|start| key.as_str().starts_with(start)));
        let default = || self.configuration.get("dfs.replication").and_then(|text| text.parse().ok());
        let default = || single.then(|| default().unwrap_or(REPLICATION));
        let Some(replication) = wanted.or_else(default) else { return };
        let call = Call { operation: "cannot replicate", object: key.as_str(), bytes: 0 };
        let path = self.path(key.as_str());
        let _ = self.call(call, |client| {
            let path = path.clone();
            async move { client.set_replication(&path, replication).await.map_err(|e| self.failed(call, &e)) }
        });
    }

    /// Removes a file. One that is gone already is no error.
    pub(super) fn remove(&self, call: Call<'_>, path: &str) -> Result<(), StoreError> {
        self.unlink(call, path, false)
    }

    /// Removes the store's directory.
    pub(super) fn remove_root(&self) -> Result<(), StoreError> {
        self.unlink(Call { operation: "cannot remove", object: "", bytes: 0 }, &self.target.path, true)
    }

    fn unlink(&self, call: Call<'_>, path: &str, recursive: bool) -> Result<(), StoreError> {
        let result = self.call(call, |client| {
            let path = path.to_owned();
            async move { client.delete(&path, recursive).await.map_err(|e| self.failed(call, &e)) }
        });
        match result {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes an object that nothing happened to since `before`: renamed away, looked at, and put back if it is young.
    pub(super) fn remove_aside(&self, key: &Key, before: SystemTime) -> Result<bool, StoreError> {
        if self.stat(key)?.is_none_or(|stat| stat.modified >= before) {
            return Ok(false);
        }
        self.readers.forget(key);
        let call = Call { operation: "cannot delete", object: key.as_str(), bytes: 0 };
        let place = self.path(key.as_str());
        let aside = self.path(&format!("{TEMPORARY}/{}", self.temporary_name()));
        self.make_parent(call, &aside)?;
        match self.rename(call, &place, &aside) {
            // Somebody else removed it, or an attempt whose answer was lost did this.
            Err(error) if !error.is_not_found() => return Err(error),
            _ => {}
        }
        let found = self.call(call, |client| {
            let path = aside.clone();
            async move { client.get_file_info(&path).await.map_err(|e| self.failed(call, &e)) }
        });
        let status = match found {
            Ok(status) => status,
            Err(error) if error.is_not_found() => return Ok(false),
            Err(error) => return Err(error),
        };
        if super::stat(&status).modified < before {
            return self.remove(call, &aside).map(|()| true);
        }
        // Whoever wrote it anew meanwhile wrote the same bytes.
        match self.rename(call, &aside, &place) {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(false),
        }
    }

    fn rename(&self, call: Call<'_>, from: &str, to: &str) -> Result<(), StoreError> {
        self.call(call, |client| {
            let (from, to) = (from.to_owned(), to.to_owned());
            async move { client.rename(&from, &to, true).await.map_err(|e| self.failed(call, &e)) }
        })
    }

    fn make_parent(&self, call: Call<'_>, path: &str) -> Result<(), StoreError> {
        let directory = path.rsplit_once('/').map_or("/", |(directory, _)| directory);
        self.call(call, |client| {
            let directory = directory.to_owned();
            async move {
                client.mkdirs(&directory, 0o777 & !self.umask(), true).await.map_err(|e| self.failed(call, &e))
            }
        })
    }

    /// Removes the temporary files that nobody wrote to since `before`.
    pub(super) fn sweep_temporary(&self, before: SystemTime) -> Result<usize, StoreError> {
        let call = Call { operation: "cannot clean up", object: TEMPORARY, bytes: LISTING };
        let statuses = self.statuses(call)?;
        let old = |status: &&FileStatus| !status.isdir && super::stat(status).modified < before;
        let mut swept = 0;
        for status in statuses.iter().filter(old) {
            self.remove(Call { bytes: 0, ..call }, &status.path)?;
            swept += 1;
        }
        Ok(swept)
    }

    fn umask(&self) -> u32 {
        let mask = self.configuration.get("fs.permissions.umask-mode");
        mask.and_then(|mask| u32::from_str_radix(mask, 8).ok()).unwrap_or(UMASK)
    }
}

fn is_missing(error: &HdfsError) -> bool {
    match error {
        HdfsError::FileNotFound(_) => true,
        HdfsError::RPCError(class, _) => class.ends_with("FileNotFoundException"),
        _ => false,
    }
}
