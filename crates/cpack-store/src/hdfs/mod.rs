//! A directory in HDFS as a store.
//!
//! Objects are written to `<store>/tmp/` and renamed into place, which the name node does at once or not at all: a reader
//! never sees a part of one, and a writer that is killed leaves nothing but a temporary file, which pruning removes.
//! Renaming replaces: two writers of one key write the same bytes, and whoever is last wins without anybody noticing.
//! What every executor reads gets more replicas, by the name node and after the rename, so that a writer does not wait.
//!
//! The blocks of an immutable object are looked up once and remembered: a layer is read by many ranges. Every call has a
//! deadline, and a client that let it pass is made anew, starting with the next name node.

mod client;
mod error;
mod probe;
mod read;
mod target;
mod write;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use hdfs_native::Client;
use hdfs_native::client::FileStatus;

use self::error::verdict;
use self::probe::Peer;
use self::read::Readers;
use self::target::Target;
use super::content::Content;
use super::hadoop::Configuration;
use super::network::{Interrupted, Network};
use super::retry::{Budget, Failure, SystemClock, retry};
use super::{Key, Listed, Put, Source, Stat, Store, StoreError, StoreErrorKind, StoreOptions, StoreUri, Written};

/// A store in HDFS, or in a mount of `viewfs:` that leads there.
#[derive(Debug)]
pub struct HdfsStore {
    uri: StoreUri,
    target: Target,
    configuration: Configuration,
    options: StoreOptions,
    network: Network,
    session: Mutex<Session>,
    readers: Readers,
    /// What the name nodes turned out to be, once there was reason to ask.
    peers: OnceLock<Vec<Peer>>,
}

/// The client in use.
#[derive(Debug, Default)]
struct Session {
    client: Option<Arc<Client>>,
    /// How many clients were given up: the place in the service at which the next one starts.
    given_up: usize,
}

/// What a call does, for its errors.
#[derive(Debug, Clone, Copy)]
struct Call<'a> {
    operation: &'static str,
    object: &'a str,
    /// Bytes that are moved, for the deadlines.
    bytes: u64,
}

impl HdfsStore {
    /// The store at `uri`. Nothing is contacted yet.
    pub fn new(uri: &StoreUri, options: &StoreOptions) -> Result<Self, StoreError> {
        let misconfigured = |reason| misconfigured(uri, reason);
        let configuration = Configuration::load(options).map_err(misconfigured)?;
        Ok(Self {
            uri: uri.clone(),
            target: target::resolve(uri, &configuration).map_err(misconfigured)?,
            configuration,
            options: options.clone(),
            network: Network::new(options.threads),
            session: Mutex::default(),
            readers: Readers::default(),
            peers: OnceLock::new(),
        })
    }

    /// What an executor must be told to find this store and be let in.
    pub fn cluster_properties(uri: &StoreUri, options: &StoreOptions) -> Result<BTreeMap<String, String>, StoreError> {
        let configuration = Configuration::load(options).map_err(|reason| misconfigured(uri, reason))?;
        Ok(target::properties(uri, &configuration))
    }

    /// The object's path in its file system.
    fn path(&self, relative: &str) -> String {
        format!("{}/{relative}", self.target.path)
    }

    /// Runs one attempt after another until one succeeds, fails for good, or the time is spent.
    fn call<T, F>(&self, call: Call<'_>, mut attempt: impl FnMut(Arc<Client>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        retry(&SystemClock::start(), self.budget(call.bytes), |time| {
            let (client, number) = self.client(call)?;
            let result = self.network.wait(time, attempt(client));
            result.unwrap_or_else(|interrupted| {
                self.give_up(number);
                Err(self.interrupted(call, &interrupted))
            })
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
        let made = self.network.guard(connect).map_err(|interrupted| self.interrupted(call, &interrupted))?;
        let client = Arc::new(made.map_err(|error| self.failed(call, &error))?);
        session.client = Some(Arc::clone(&client));
        Ok((client, number))
    }

    /// Stops using client `number`, if nobody has done so already.
    fn give_up(&self, number: usize) {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if session.given_up == number {
            session.client = None;
            session.given_up += 1;
        }
        self.readers.clear();
    }

    fn budget(&self, bytes: u64) -> Budget {
        let deadlines = &self.options.deadlines;
        let (call, attempt) = (deadlines.call_for(bytes), deadlines.attempt_for(bytes));
        // A service has another name node: it is worth waiting for.
        let single = matches!(self.target.authority, target::Authority::Address { .. });
        Budget { call, attempt, unreachable: if single { deadlines.unreachable } else { call } }
    }

    fn interrupted(&self, call: Call<'_>, interrupted: &Interrupted) -> Failure {
        let (kind, reason) = match interrupted {
            Interrupted::Elapsed(time) => (StoreErrorKind::Transient, no_answer(*time)),
            // Mostly an answer that was damaged on its way, which the client does not expect.
            Interrupted::Panicked(message) => (StoreErrorKind::Transient, format!("the HDFS client failed: {message}")),
            Interrupted::NoRuntime(error) => (StoreErrorKind::Other, format!("cannot start threads: {error}")),
        };
        self.error(call, kind, reason).into()
    }

    /// What an error of the client means.
    fn failed(&self, call: Call<'_>, error: &hdfs_native::HdfsError) -> Failure {
        if error::is_hang_up(error) {
            return self.hung_up(call);
        }
        let verdict = verdict(error);
        Failure { error: self.error(call, verdict.kind, verdict.reason), unreachable: verdict.unreachable }
    }

    /// What it means that the name node hangs up.
    fn hung_up(&self, call: Call<'_>) -> Failure {
        let addresses = match &self.target.authority {
            target::Authority::Address { host, port } => vec![format!("{host}:{port}")],
            target::Authority::Service { name, nodes } => {
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
        self.error(call, kind, reason.to_owned()).into()
    }

    fn error(&self, call: Call<'_>, kind: StoreErrorKind, reason: String) -> StoreError {
        StoreError { kind, operation: call.operation, location: self.uri.join(call.object), reason }
    }

    /// All that is under the directory of `call`, nothing if it does not exist.
    fn statuses(&self, call: Call<'_>) -> Result<Vec<FileStatus>, StoreError> {
        let path = self.path(call.object);
        let found = self.call(call, |client| {
            let path = path.clone();
            async move { client.list_status(&path, true).await.map_err(|e| self.failed(call, &e)) }
        });
        found.or_else(|error| if error.is_not_found() { Ok(Vec::new()) } else { Err(error) })
    }

    fn listed(&self, status: &FileStatus) -> Option<Listed> {
        if status.isdir {
            return None;
        }
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
        let call = Call { operation: "cannot read", object: key.as_str(), bytes: 0 };
        let path = self.path(key.as_str());
        let found = self.call(call, |client| {
            let path = path.clone();
            async move { client.get_file_info(&path).await.map_err(|e| self.failed(call, &e)) }
        });
        match found {
            Ok(status) => Ok(Some(stat(&status))),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn put(&self, key: &Key, source: Source<'_>, put: Put) -> Result<Written, StoreError> {
        let call = Call { operation: "cannot write", object: key.as_str(), bytes: 0 };
        let unread = |e: io::Error| self.error(call, StoreErrorKind::Other, format!("its source cannot be read: {e}"));
        let content = Content::open(source).map_err(unread)?;
        if put.keeps(self, key, content.len())? { Ok(Written::Kept) } else { self.write(key, &content, put) }
    }

    fn refresh(&self, key: &Key) -> Result<(), StoreError> {
        let call = Call { operation: "cannot refresh", object: key.as_str(), bytes: 0 };
        let path = self.path(key.as_str());
        // -1: access times are left alone, since many clusters have them switched off.
        const UNCHANGED: u64 = u64::MAX;
        self.call(call, |client| {
            let (path, now) = (path.clone(), milliseconds(SystemTime::now()));
            async move { client.set_times(&path, now, UNCHANGED).await.map_err(|e| self.failed(call, &e)) }
        })
    }

    fn list(&self, directory: &str) -> Result<Vec<Listed>, StoreError> {
        let call = Call { operation: "cannot list", object: directory, bytes: LISTING };
        let statuses = self.statuses(call)?;
        let mut listed: Vec<Listed> = statuses.iter().filter_map(|status| self.listed(status)).collect();
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
        let call = Call { operation: "cannot delete", object: key.as_str(), bytes: 0 };
        self.readers.forget(key);
        self.remove(call, &self.path(key.as_str()))
    }

    fn erase(&self) -> Result<(), StoreError> {
        self.remove_root()
    }
}

/// What a listing counts as, in bytes. It asks once for each directory, so its time is that of a transfer: 64 s more at
/// the least rate that is accepted.
const LISTING: u64 = 16 << 20;

fn misconfigured(uri: &StoreUri, reason: String) -> StoreError {
    StoreError { kind: StoreErrorKind::Misconfigured, operation: "cannot open", location: uri.to_string(), reason }
}

fn no_answer(time: Duration) -> String {
    format!("no answer within {:.0} s", time.as_secs_f64())
}

fn stat(status: &FileStatus) -> Stat {
    let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(status.modification_time);
    Stat { size: status.length as u64, modified }
}

fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}
