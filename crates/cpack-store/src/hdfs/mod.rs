//! A directory in HDFS as a store.
//!
//! A write fills a file in `<store>/tmp/` and renames it into place, which the name node does atomically: a reader never
//! sees a part of an object, and a killed writer leaves nothing but a temporary file, which pruning removes. Renaming
//! replaces. Two writers of one key write the same bytes, so it does not matter which is last. The name node adds replicas
//! of what every executor reads after the rename, and the writer does not wait for them.
//!
//! [`Readers`] remembers the blocks of an immutable object, since a layer is read by many ranges. Every call has a deadline.
//! After a client let it pass, the next call makes a new client, which starts with the next name node.

mod client;
mod error;
mod probe;
mod read;
mod target;
mod write;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use hdfs_native::Client;
use hdfs_native::client::FileStatus;

use self::error::verdict;
use self::probe::Peer;
use self::read::Readers;
use self::target::{Authority, Target};
use crate::call::Call;
use crate::error::if_found;
use crate::hadoop::Configuration;
use crate::network::{Interrupted, Network};
use crate::retry::{Budget, Failure, SystemClock, retry};
use crate::{Key, Listed, Put, Source, Stat, Store, StoreError, StoreErrorKind, StoreOptions, StoreUri, Written};

/// A store in HDFS, or in a mount of `viewfs:` that leads there.
#[derive(Debug)]
pub(crate) struct HdfsStore {
    uri: StoreUri,
    target: Target,
    configuration: Configuration,
    options: StoreOptions,
    network: Network,
    session: Mutex<Session>,
    readers: Readers,
    /// What answers at the addresses of the name nodes, asked once there is reason to.
    peers: OnceLock<Vec<Peer>>,
}

/// The client in use.
#[derive(Debug, Default)]
struct Session {
    client: Option<Arc<Client>>,
    /// How many clients were given up. The next one starts with the name node at this place in the service.
    given_up: usize,
}

impl HdfsStore {
    /// The store at `uri`. Nothing is contacted yet.
    pub(crate) fn new(uri: &StoreUri, options: &StoreOptions) -> Result<Self, StoreError> {
        let configuration = Configuration::of(uri, options)?;
        let target = target::resolve(uri, &configuration).map_err(|reason| StoreError::misconfigured(uri, reason))?;
        Ok(Self {
            uri: uri.clone(),
            target,
            configuration,
            options: options.clone(),
            network: Network::new(options.threads),
            session: Mutex::default(),
            readers: Readers::default(),
            peers: OnceLock::new(),
        })
    }

    /// The properties that an executor needs to find this store and be let in.
    pub(crate) fn cluster_properties(
        uri: &StoreUri,
        options: &StoreOptions,
    ) -> Result<BTreeMap<String, String>, StoreError> {
        Ok(target::properties(uri, &Configuration::of(uri, options)?))
    }

    fn operation<'a>(&'a self, operation: &'static str, object: &'a str) -> Call<'a> {
        Call::new(&self.uri, operation, object)
    }

    /// The object's path in its file system.
    fn path(&self, relative: &str) -> String {
        format!("{}/{relative}", self.target.path)
    }

    /// Runs one attempt after another until one succeeds or fails for good, or the time is spent.
    fn call<T, F>(&self, call: Call<'_>, mut attempt: impl FnMut(Arc<Client>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        retry(&SystemClock::start(), self.budget(call), |time| {
            let (client, number) = self.client(call)?;
            let result = self.network.wait(time, attempt(client));
            result.unwrap_or_else(|error| {
                self.give_up(number);
                Err(interrupted(call, &error))
            })
        })
    }

    /// Sends one request until it is answered.
    fn ask<T, F>(&self, call: Call<'_>, mut request: impl FnMut(Arc<Client>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = hdfs_native::Result<T>>,
    {
        self.call(call, |client| {
            let answer = request(client);
            async move { answer.await.map_err(|error| self.failed(call, &error)) }
        })
    }

    /// The client in use and its number, made if there is none.
    fn client(&self, call: Call<'_>) -> Result<(Arc<Client>, usize), Failure> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let number = session.given_up;
        if let Some(client) = &session.client {
            return Ok((Arc::clone(client), number));
        }
        let connect = |runtime: &_| client::connect(&self.target, &self.configuration, &self.options, number, runtime);
        let made = self.network.guard(connect).map_err(|error| interrupted(call, &error))?;
        let client = Arc::new(made.map_err(|error| self.failed(call, &error))?);
        session.client = Some(Arc::clone(&client));
        Ok((client, number))
    }

    /// Stops using client `number`, unless another thread did so already.
    fn give_up(&self, number: usize) {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if session.given_up == number {
            session.client = None;
            session.given_up += 1;
        }
        self.readers.clear();
    }

    fn budget(&self, call: Call<'_>) -> Budget {
        let budget = call.budget(&self.options.deadlines);
        match self.target.authority {
            Authority::Address { .. } => budget,
            // A service has another name node: it is worth waiting for.
            Authority::Service { .. } => Budget { unreachable: budget.call, ..budget },
        }
    }

    /// What an error of the client means.
    fn failed(&self, call: Call<'_>, error: &hdfs_native::HdfsError) -> Failure {
        if error::is_hang_up(error) { self.hung_up(call) } else { call.failed(verdict(error)) }
    }

    /// What it means that the name node hangs up.
    fn hung_up(&self, call: Call<'_>) -> Failure {
        let addresses = match &self.target.authority {
            Authority::Address { host, port } => vec![format!("{host}:{port}")],
            Authority::Service { name, nodes } => {
                let address = |node: &String| self.configuration.get(&target::rpc_address(name, node));
                nodes.iter().filter_map(address).map(str::to_owned).collect()
            }
        };
        let peers = self.peers.get_or_init(|| addresses.iter().map(|address| probe::ask(address)).collect());
        let (kind, reason) = if peers.contains(&Peer::WebServer) {
            let reason =
                "a web server answers: the address must be that of the name node's RPC port, mostly 8020 or 9000";
            (StoreErrorKind::Misconfigured, reason)
        } else if peers.contains(&Peer::WantsProof) && !client::is_secure(&self.configuration) {
            let reason =
                "the cluster wants Kerberos, and hadoop.security.authentication is not set: set HADOOP_CONF_DIR";
            (StoreErrorKind::Denied, reason)
        } else {
            let reason = "the name node closes the connection: check that the address is that of its RPC port";
            (StoreErrorKind::Transient, reason)
        };
        call.error(kind, reason).into()
    }

    /// The file or directory at `path`, `None` if there is none.
    fn status(&self, call: Call<'_>, path: &str) -> Result<Option<FileStatus>, StoreError> {
        if_found(self.ask(call, |client| async move { client.get_file_info(path).await }))
    }

    /// All files under the directory of `call`, none if it does not exist.
    fn files(&self, call: Call<'_>) -> Result<Vec<FileStatus>, StoreError> {
        let path = &*self.path(call.object);
        let found = self.ask(call.moving(LISTING), |client| async move { client.list_status(path, true).await });
        let mut statuses = if_found(found)?.unwrap_or_default();
        statuses.retain(|status| !status.isdir);
        Ok(statuses)
    }

    fn listed(&self, status: &FileStatus) -> Option<Listed> {
        let path = status.path.strip_prefix(&self.target.path)?.strip_prefix('/')?;
        Some(Listed { key: Key::from_listing(path)?, stat: stat(status) })
    }
}

impl Store for HdfsStore {
    fn uri(&self) -> &StoreUri {
        &self.uri
    }

    fn read(&self, key: &Key, limit: u64) -> Result<Vec<u8>, StoreError> {
        self.whole(key, limit)
    }

    fn read_range(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        self.range(key, offset, buffer)
    }

    fn stat(&self, key: &Key) -> Result<Option<Stat>, StoreError> {
        let found = self.status(self.operation("cannot read", key.as_str()), &self.path(key.as_str()))?;
        Ok(found.as_ref().map(stat))
    }

    fn write(&self, key: &Key, source: Source<'_>, put: Put) -> Result<Written, StoreError> {
        self.send(key, source, put)
    }

    fn refresh(&self, key: &Key) -> Result<(), StoreError> {
        let path = &*self.path(key.as_str());
        // -1 leaves the access time alone, since many clusters have access times switched off.
        const UNCHANGED: u64 = u64::MAX;
        self.ask(self.operation("cannot refresh", key.as_str()), |client| async move {
            client.set_times(path, milliseconds(SystemTime::now()), UNCHANGED).await
        })
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>, StoreError> {
        let files = self.files(self.operation("cannot list", directory))?;
        let mut listed: Vec<Listed> = files.iter().filter_map(|status| self.listed(status)).collect();
        listed.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(listed)
    }

    fn remove_old(&self, key: &Key, before: SystemTime) -> Result<bool, StoreError> {
        self.remove_aside(key, before)
    }

    fn sweep(&self, before: SystemTime) -> Result<usize, StoreError> {
        self.sweep_temporary(before)
    }

    fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.readers.forget(key);
        self.remove(self.operation("cannot delete", key.as_str()), &self.path(key.as_str()), false)
    }

    fn erase(&self) -> Result<(), StoreError> {
        self.remove(self.operation("cannot remove", ""), &self.target.path, true)
    }
}

/// The bytes that a listing counts as, for its deadline. It asks once for each directory, which takes as long as a transfer:
/// 64 s more at the least rate that is accepted.
const LISTING: u64 = 16 << 20;

fn interrupted(call: Call<'_>, error: &Interrupted) -> Failure {
    // Most panics come from an answer that was damaged on its way, which the client does not expect.
    call.interrupted(error, "HDFS", StoreErrorKind::Transient).into()
}

fn stat(status: &FileStatus) -> Stat {
    let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(status.modification_time);
    Stat { size: status.length as u64, modified }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}
