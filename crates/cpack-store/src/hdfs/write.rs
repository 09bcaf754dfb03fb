//! Writes an object as a temporary file, and renames it.

use std::time::SystemTime;

use bytes::Bytes;
use cpack_format::key::TEMPORARY;
use hdfs_native::{Client, HdfsError, WriteOptions};

use super::{HdfsStore, stat};
use crate::call::Call;
use crate::content::Content;
use crate::error::if_found;
use crate::retry::Failure;
use crate::{Key, Put, Source, Store as _, StoreError, Written, unique_name};

/// Bytes that the client gets at once. Each of these must make progress within the deadline of an attempt.
const CHUNK: u64 = 1 << 20;

/// Attempts with as many replicas as the file system wants.
const TRIES_IN_FULL: u32 = 2;

/// Replicas where the configuration does not say (`hdfs-default.xml`).
const REPLICATION: u32 = 3;

/// The mask of new files and directories unless `fs.permissions.umask-mode` says otherwise.
const UMASK: u32 = 0o022;

/// Directories of the layout whose objects every executor reads.
const FAN_OUT: [&str; 5] = ["layers/", "environments/", "overlays/", "launchers/", "boot/"];

impl HdfsStore {
    pub(super) fn send(&self, key: &Key, source: Source<'_>, put: Put) -> Result<Written, StoreError> {
        let call = self.operation("cannot write", key.as_str());
        let content = Content::open(source).map_err(|error| call.unread(&error))?;
        let temporary = &*self.path(&key.temporary(&unique_name()));
        let mut tries = 0;
        // An attempt has as long as it makes progress, so the deadline of the whole is the call's.
        let filled = self.call(call.moving(content.len()), |client| {
            tries += 1;
            // The client gives up a block when any data node of its pipeline does not answer. Where the name node does not
            // know yet which, a pipeline of one has the best chance; `spread` asks for the other replicas.
            let replication = (tries > TRIES_IN_FULL).then_some(1);
            let again = tries > 1;
            let content = &content;
            async move {
                if again {
                    // The attempt before left anything or nothing.
                    client.delete(temporary, false).await.map_err(|e| self.failed(call, &e))?;
                }
                self.fill_new(call, &client, temporary, content, replication).await
            }
        });
        let result = filled.and_then(|()| match put.has_come(self, key, content.len()) {
            true => Ok(Written::Kept),
            false => self.publish(key, temporary, content.len()).map(|()| Written::Sent(content.len())),
        });
        self.readers.forget(key);
        if let Ok(Written::Sent(_)) = result {
            self.spread(key, tries > TRIES_IN_FULL);
        } else {
            let _ = self.remove(call, temporary, false);
        }
        result
    }

    async fn fill_new(
        &self,
        call: Call<'_>,
        client: &Client,
        path: &str,
        content: &Content<'_>,
        replication: Option<u32>,
    ) -> Result<(), Failure> {
        let options = WriteOptions { replication, ..WriteOptions::default().permission(0o666 & !self.umask()) };
        let mut file = client.create(path, &options).await.map_err(|error| self.failed(call, &error))?;
        let mut offset = 0;
        while offset < content.len() {
            let chunk = content.part(offset, CHUNK).map_err(|error| call.unread(&error))?;
            offset += chunk.len() as u64;
            self.step(call, file.write_bytes(Bytes::from(chunk))).await?;
        }
        self.step(call, file.close()).await
    }

    /// Runs `step`, which moves at most [`CHUNK`] bytes, for at most the time of an attempt at that.
    async fn step<T>(&self, call: Call<'_>, step: impl Future<Output = hdfs_native::Result<T>>) -> Result<T, Failure> {
        let time = self.options.deadlines.attempt_for(CHUNK);
        match tokio::time::timeout(time, step).await {
            // The name node has created the file, so a data node does not answer, and there are others.
            Ok(result) => result.map_err(|error| Failure { unreachable: false, ..self.failed(call, &error) }),
            Err(_) => Err(call.no_answer(time).into()),
        }
    }

    /// Renames the temporary file into its place, over what is there.
    fn publish(&self, key: &Key, temporary: &str, len: u64) -> Result<(), StoreError> {
        let path = &*self.path(key.as_str());
        self.ask(self.operation("cannot write", key.as_str()), |client| async move {
            match client.rename(temporary, path, true).await {
                // The directory is missing, or the answer to an earlier attempt was lost, which renamed the file.
                Err(error) if is_missing(&error) => {
                    self.make_parent(&client, path).await?;
                    match client.rename(temporary, path, true).await {
                        Err(error) if is_missing(&error) => match client.get_file_info(path).await {
                            Ok(status) if status.length as u64 == len => Ok(()),
                            _ => Err(error),
                        },
                        result => result,
                    }
                }
                result => result,
            }
        })
    }

    /// Asks for more replicas of what every executor reads, or for the file system's default if the object was written with a
    /// `single` replica. The name node makes them later. It may refuse, which does not fail the write.
    fn spread(&self, key: &Key, single: bool) {
        let wanted = self.options.replication.filter(|_| FAN_OUT.iter().any(|start| key.as_str().starts_with(start)));
        let default = || self.configuration.get("dfs.replication").and_then(|text| text.parse().ok());
        let default = || single.then(|| default().unwrap_or(REPLICATION));
        let Some(replication) = wanted.or_else(default) else { return };
        let path = &*self.path(key.as_str());
        let call = self.operation("cannot replicate", key.as_str());
        let _ = self.ask(call, |client| async move { client.set_replication(path, replication).await });
    }

    /// Removes a file or directory. A missing one is no error.
    pub(super) fn remove(&self, call: Call<'_>, path: &str, recursive: bool) -> Result<(), StoreError> {
        if_found(self.ask(call, |client| async move { client.delete(path, recursive).await })).map(drop)
    }

    /// Removes an object that was last written before `before`: renames it away, looks at its age, and renames it back if it
    /// is young.
    pub(super) fn remove_aside(&self, key: &Key, before: SystemTime) -> Result<bool, StoreError> {
        if self.stat(key)?.is_none_or(|stat| stat.modified >= before) {
            return Ok(false);
        }
        self.readers.forget(key);
        let call = self.operation("cannot delete", key.as_str());
        let (place, aside) = (&*self.path(key.as_str()), &*self.path(&format!("{TEMPORARY}/{}", unique_name())));
        self.ask(call, |client| async move { self.make_parent(&client, aside).await })?;
        // Not found: another client removed it, or the answer to an earlier attempt was lost, which renamed it.
        if_found(self.rename(call, place, aside))?;
        let Some(status) = self.status(call, aside)? else { return Ok(false) };
        if stat(&status).modified < before {
            return self.remove(call, aside, false).map(|()| true);
        }
        // A client that wrote it anew meanwhile wrote the same bytes.
        if_found(self.rename(call, aside, place)).map(|_| false)
    }

    fn rename(&self, call: Call<'_>, from: &str, to: &str) -> Result<(), StoreError> {
        self.ask(call, |client| async move { client.rename(from, to, true).await })
    }

    async fn make_parent(&self, client: &Client, path: &str) -> hdfs_native::Result<()> {
        let directory = path.rsplit_once('/').map_or("/", |(directory, _)| directory);
        client.mkdirs(directory, 0o777 & !self.umask(), true).await
    }

    /// Removes the temporary files that were last written before `before`.
    pub(super) fn sweep_temporary(&self, before: SystemTime) -> Result<usize, StoreError> {
        let call = self.operation("cannot clean up", TEMPORARY);
        let mut swept = 0;
        for status in self.files(call)?.iter().filter(|status| stat(status).modified < before) {
            self.remove(call, &status.path, false)?;
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
