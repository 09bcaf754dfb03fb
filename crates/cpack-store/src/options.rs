//! What a store needs beside its URI.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Variables that name the user to act as; the first that is set wins. Only a cluster without Kerberos believes them.
const USER_VARIABLES: [&str; 2] = ["C_PACK_USER", "HADOOP_USER_NAME"];

/// Every variable that stores read through [`StoreOptions::variable`]. The AWS SDK and the HDFS client read others by
/// themselves: credentials and profiles (`AWS_*`), Kerberos (`KRB5*`), the file of delegation tokens.
///
/// | variable | is |
/// | --- | --- |
/// | `C_PACK_USER`, `HADOOP_USER_NAME`, `USER` | the user to act as on a cluster without Kerberos, first one first |
/// | `HADOOP_CONF_DIR`, `HADOOP_HOME` | where `core-site.xml` and `hdfs-site.xml` are (`$HADOOP_HOME/etc/hadoop`) |
/// | `HADOOP_TOKEN_FILE_LOCATION` | the delegation tokens that YARN hands to a container |
/// | `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL` | the endpoint of a store that is not Amazon's |
/// | `AWS_REGION`, `AWS_DEFAULT_REGION` | the bucket's region |
/// | `AWS_CA_BUNDLE` | a PEM file of the certificate authorities to trust instead of the system's |
/// | `STORAGE_EMULATOR_HOST` | the endpoint of an emulator of Google Cloud Storage, with its scheme |
/// | `GOOGLE_APPLICATION_CREDENTIALS`, `GOOGLE_SERVICE_ACCOUNT` | files of Google's credentials |
/// | `GOOGLE_SERVICE_ACCOUNT_KEY` | the content of such a file |
/// | `AZURE_STORAGE_CONNECTION_STRING` | account, endpoint and key, or shared access signature |
/// | `AZURE_STORAGE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME` | the account where the URI names none |
/// | `AZURE_STORAGE_ENDPOINT` | the account's URL where it is not Azure's own |
/// | `AZURE_STORAGE_KEY`, `AZURE_STORAGE_ACCOUNT_KEY`, `AZURE_STORAGE_ACCESS_KEY` | the account's key |
/// | `AZURE_STORAGE_SAS_TOKEN`, `AZURE_STORAGE_SAS_KEY` | a shared access signature |
/// | `AZURE_STORAGE_TOKEN` | a bearer token |
/// | `AZURE_TENANT_ID`, `AZURE_CLIENT_ID`, `AZURE_CLIENT_SECRET`, `AZURE_FEDERATED_TOKEN_FILE`, `AZURE_AUTHORITY_HOST` | a service principal, or workload identity |
/// | `AZURE_USE_AZURE_CLI`, `IDENTITY_ENDPOINT`, `AZURE_SKIP_SIGNATURE` | `az`'s login; managed identity; no credentials |
/// | `CPACK_HTTP_HEADER_FILE` | a file of headers for the web server of an `https:` store |
/// | `CPACK_HTTP_PLAIN` | `1` allows `http:` stores on other machines |
/// | `SSL_CERT_FILE` | a PEM file of the certificate authorities to trust, for all but S3 where `AWS_CA_BUNDLE` is set |
/// | `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY` | proxies, also in lower case |
const VARIABLES: [&str; 44] = [
    "C_PACK_USER",
    "HADOOP_USER_NAME",
    "USER",
    "HADOOP_CONF_DIR",
    "HADOOP_HOME",
    "HADOOP_TOKEN_FILE_LOCATION",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "STORAGE_EMULATOR_HOST",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_ACCOUNT_NAME",
    "AZURE_STORAGE_ENDPOINT",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_ACCESS_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_SAS_KEY",
    "AZURE_STORAGE_TOKEN",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_AUTHORITY_HOST",
    "AZURE_USE_AZURE_CLI",
    "AZURE_SKIP_SIGNATURE",
    "IDENTITY_ENDPOINT",
    "CPACK_HTTP_HEADER_FILE",
    "CPACK_HTTP_PLAIN",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// Copies of what every executor reads: Hadoop's own figure for the files of a job
/// (`mapreduce.client.submit.file.replication`).
const FAN_OUT_REPLICATION: u32 = 10;

/// What a store needs beside its URI.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// Hadoop properties, and S3 endpoint and region as `fs.s3a.*`; on an executor those of the job. They win over the
    /// machine's own configuration.
    pub cluster: BTreeMap<String, String>,
    /// The user to act as where the cluster believes it ([`USER_VARIABLES`]).
    pub user: Option<String>,
    /// How long calls may take.
    pub deadlines: Deadlines,
    /// Copies of what every executor reads (HDFS). `None` leaves the file system's default.
    pub replication: Option<u32>,
    /// Most threads that wait for the network. `None` means one per core, at most four.
    pub threads: Option<usize>,
    /// The variables of [`VARIABLES`] that are set.
    pub environ: BTreeMap<&'static str, String>,
}

/// How long calls may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// A call that moves few bytes, with all its attempts.
    pub call: Duration,
    /// One attempt of such a call.
    pub attempt: Duration,
    /// A call to a server that refuses connections, or that no resolver knows.
    pub unreachable: Duration,
    /// Bytes per second below which a transfer counts as stuck. Calls and attempts that move many bytes get the time that
    /// those take at this rate in addition.
    pub least_rate: u64,
}

impl Deadlines {
    /// The time for one attempt at moving `bytes`.
    pub fn attempt_for(&self, bytes: u64) -> Duration {
        self.attempt + self.transfer(bytes)
    }

    /// The time for a call that moves `bytes`, with all its attempts.
    pub fn call_for(&self, bytes: u64) -> Duration {
        self.call + self.transfer(bytes)
    }

    fn transfer(&self, bytes: u64) -> Duration {
        Duration::from_millis(bytes.saturating_mul(1000) / self.least_rate.max(1))
    }
}

impl Default for Deadlines {
    /// A failover of an HDFS name node takes tens of seconds, one attempt is enough to notice that a node lost power, and a
    /// working cluster network gives more than 256 KiB/s to each of a thousand executors.
    fn default() -> Self {
        Self {
            call: Duration::from_secs(120),
            attempt: Duration::from_secs(20),
            unreachable: Duration::from_secs(20),
            least_rate: 256 << 10,
        }
    }
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cluster: BTreeMap::new(),
            user: None,
            deadlines: Deadlines::default(),
            replication: Some(FAN_OUT_REPLICATION),
            threads: None,
            environ: BTreeMap::new(),
        }
    }
}

impl StoreOptions {
    /// The options for a job's `cluster` properties. `variable` looks up each of [`VARIABLES`] once.
    pub fn new(cluster: BTreeMap<String, String>, variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &'static str| variable(name).filter(|value| !value.is_empty()).map(|value| (name, value));
        let environ: BTreeMap<_, _> = VARIABLES.into_iter().filter_map(set).collect();
        let user = USER_VARIABLES.iter().find_map(|name| environ.get(name)).cloned();
        Self { cluster, user, environ, ..Self::default() }
    }

    /// The options for a job's `cluster` properties and this process's variables.
    pub fn of_process(cluster: BTreeMap<String, String>) -> Self {
        Self::new(cluster, |name| std::env::var(name).ok())
    }

    /// A variable of [`VARIABLES`] that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environ.get(name).map(String::as_str)
    }
}

impl fmt::Debug for StoreOptions {
    /// Shows only the names of properties and variables, since a configuration may hold keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("cluster", &self.cluster.keys())
            .field("user", &self.user)
            .field("deadlines", &self.deadlines)
            .field("replication", &self.replication)
            .field("threads", &self.threads)
            .field("environ", &self.environ.keys())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_s_own_user_variable_wins() {
        let both = |name: &str| Some(format!("by {name}"));
        assert_eq!(StoreOptions::new(BTreeMap::new(), both).user.as_deref(), Some("by C_PACK_USER"));
        let empty = |name: &str| Some(if name == "C_PACK_USER" { "" } else { "hadoop" }.to_owned());
        assert_eq!(StoreOptions::new(BTreeMap::new(), empty).user.as_deref(), Some("hadoop"));
        assert_eq!(StoreOptions::new(BTreeMap::new(), |_| None).user, None);
    }

    #[test]
    fn transfer_has_time_for_its_bytes() {
        let deadlines = Deadlines::default();
        assert_eq!(deadlines.attempt_for(0), deadlines.attempt);
        assert_eq!(deadlines.attempt_for(8 << 20), deadlines.attempt + Duration::from_secs(32));
        assert!(Deadlines { least_rate: 0, ..deadlines }.call_for(1) > deadlines.call);
    }

    #[test]
    fn values_of_properties_are_not_shown() {
        let cluster = BTreeMap::from([("fs.s3a.secret.key".to_owned(), "hidden".to_owned())]);
        let shown = format!("{:?}", StoreOptions { cluster, ..StoreOptions::default() });
        assert!(shown.contains("fs.s3a.secret.key") && !shown.contains("hidden"), "{shown}");
    }
}
