//! What is to be known before Azure is asked: account, container, endpoint. A pure value.

use std::collections::BTreeMap;

use crate::{StoreOptions, StoreUri, redact};

/// Properties of a job: the account where the URI names none, an endpoint that is not Azure's own, and `true` where no
/// credentials are sent.
const ACCOUNT: &str = "fs.azure.account";
const ENDPOINT: &str = "fs.azure.endpoint";
const ANONYMOUS: &str = "fs.azure.anonymous";

/// What follows the account in the names of Azure's own hosts.
const SUFFIX: &str = "blob.core.windows.net";

/// The account and key that every copy of Microsoft's emulator knows, and where it listens.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
const EMULATOR_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const EMULATOR_ENDPOINT: &str = "http://127.0.0.1:10000/devstoreaccount1";

const CONNECTION: &str = "AZURE_STORAGE_CONNECTION_STRING";

/// How a container is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) account: String,
    pub(super) container: String,
    /// The account's URL without a trailing slash.
    pub(super) endpoint: String,
    /// Whether requests have no credentials.
    pub(super) anonymous: bool,
    /// Whether the URI names the account.
    named: bool,
    /// The endpoint that follows from the URI alone.
    usual: String,
}

impl Settings {
    /// The settings for the container of `uri`: of the job, else of the environment. The error is one line for people.
    pub(super) fn new(uri: &StoreUri, options: &StoreOptions) -> Result<Self, String> {
        let property = |name: &str| options.cluster.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let (container, host) = uri.authority.split_once('@').unwrap_or((&uri.authority, ""));
        let connection = Connection::of(options)?;
        let told = property(ACCOUNT).or(connection.account.as_deref());
        let told = told.or_else(|| first(options, &["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"]));
        let named = host.split('.').next().filter(|account| !account.is_empty());
        let account = named.or(told).ok_or(
            "no account is named: write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX, or set AZURE_STORAGE_ACCOUNT",
        )?;
        if let (Some(named), Some(other)) = (named, connection.account.as_deref())
            && named != other
        {
            return Err(format!("the URI names the account {named:?}, {CONNECTION} {other:?}: use one of them"));
        }
        let usual = match host.split_once('.') {
            Some((account, suffix)) => {
                let blob = suffix.strip_prefix("dfs.").map(|rest| format!("blob.{rest}"));
                format!("https://{account}.{}", blob.as_deref().unwrap_or(suffix))
            }
            None => format!("https://{account}.{SUFFIX}"),
        };
        let (name, endpoint) = match (property(ENDPOINT), options.variable("AZURE_STORAGE_ENDPOINT")) {
            (Some(endpoint), _) => (ENDPOINT, endpoint.to_owned()),
            (None, Some(endpoint)) => ("AZURE_STORAGE_ENDPOINT", endpoint.to_owned()),
            (None, None) => (CONNECTION, connection.endpoint(account).unwrap_or_else(|| usual.clone())),
        };
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(format!(
                "{name} has {:?}, which has no scheme: write http://HOST:PORT/ACCOUNT",
                redact(&endpoint)
            ));
        }
        let anonymous = property(ANONYMOUS).or_else(|| options.variable("AZURE_SKIP_SIGNATURE")) == Some("true");
        Ok(Self {
            account: account.to_owned(),
            container: container.to_owned(),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            anonymous,
            named: named.is_some(),
            usual,
        })
    }

    /// What an executor must be told to reach the same container: no credentials.
    pub(super) fn properties(&self) -> BTreeMap<String, String> {
        let account = (!self.named).then(|| (ACCOUNT, self.account.clone()));
        let endpoint = (self.endpoint != self.usual).then(|| (ENDPOINT, self.endpoint.clone()));
        let anonymous = self.anonymous.then(|| (ANONYMOUS, "true".to_owned()));
        [account, endpoint, anonymous].into_iter().flatten().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The account's key.
pub(super) fn account_key(options: &StoreOptions) -> Option<String> {
    let connection = Connection::of(options).ok().and_then(|connection| connection.key);
    let variables = ["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY"];
    connection.or_else(|| first(options, &variables).map(str::to_owned))
}

/// A shared access signature for the account.
pub(super) fn shared_access(options: &StoreOptions) -> Option<String> {
    let connection = Connection::of(options).ok().and_then(|connection| connection.token);
    connection.or_else(|| first(options, &["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"]).map(str::to_owned))
}

fn first<'a>(options: &'a StoreOptions, variables: &[&str]) -> Option<&'a str> {
    variables.iter().find_map(|name| options.variable(name))
}

/// A connection string as Azure's portal gives it: `NAME=VALUE;…`.
#[derive(Default)]
struct Connection {
    account: Option<String>,
    key: Option<String>,
    token: Option<String>,
    blob_endpoint: Option<String>,
    scheme: Option<String>,
    suffix: Option<String>,
}

impl Connection {
    fn of(options: &StoreOptions) -> Result<Self, String> {
        let mut found = Self::default();
        let text = options.variable(CONNECTION).unwrap_or_default();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, value) =
                part.split_once('=').ok_or_else(|| format!("{CONNECTION} is not NAME=VALUE;NAME=VALUE;…"))?;
            let value = Some(value.to_owned());
            match name.to_ascii_lowercase().as_str() {
                "accountname" => found.account = value,
                "accountkey" => found.key = value,
                "sharedaccesssignature" => found.token = value,
                "blobendpoint" => found.blob_endpoint = value,
                "defaultendpointsprotocol" => found.scheme = value,
                "endpointsuffix" => found.suffix = value,
                "usedevelopmentstorage" => {
                    found.account = Some(EMULATOR_ACCOUNT.to_owned());
                    found.key = Some(EMULATOR_KEY.to_owned());
                    found.blob_endpoint = Some(EMULATOR_ENDPOINT.to_owned());
                }
                _ => {}
            }
        }
        Ok(found)
    }

    /// The account's URL, where the string says anything of it.
    fn endpoint(&self, account: &str) -> Option<String> {
        let scheme = self.scheme.as_deref().unwrap_or("https");
        let made = || self.suffix.as_ref().map(|suffix| format!("{scheme}://{account}.blob.{suffix}"));
        self.blob_endpoint.clone().or_else(made)
    }
}
