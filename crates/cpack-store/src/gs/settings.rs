//! What is to be known before Google is asked: the endpoint, and whether requests have credentials. A pure value.
//!
//! Names of properties are those of Hadoop's connector for Google, so that a job can carry them to executors.

use std::collections::BTreeMap;

use crate::{StoreOptions, redact};

/// Google's own endpoint.
const GOOGLE: &str = "https://storage.googleapis.com";

/// The endpoint, with its scheme.
const ENDPOINT: &str = "fs.gs.storage.root.url";

/// `UNAUTHENTICATED`: no credentials are sent.
const AUTHENTICATION: &str = "fs.gs.auth.type";

/// The variable of Google's own clients for an emulator, which wants no credentials.
const EMULATOR: &str = "STORAGE_EMULATOR_HOST";

/// How a bucket is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    /// A URL without a trailing slash.
    pub(super) endpoint: String,
    /// Whether requests have no credentials.
    pub(super) anonymous: bool,
}

impl Settings {
    /// The settings of the job, else of the environment. The error is one line for people.
    pub(super) fn new(options: &StoreOptions) -> Result<Self, String> {
        let property = |name: &str| options.cluster.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let emulator = options.variable(EMULATOR);
        let (name, endpoint) = match (property(ENDPOINT), emulator) {
            (Some(endpoint), _) => (ENDPOINT, endpoint),
            (None, Some(endpoint)) => (EMULATOR, endpoint),
            (None, None) => (ENDPOINT, GOOGLE),
        };
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(format!("{name} is {:?}, which has no scheme: write http://HOST:PORT", redact(endpoint)));
        }
        let anonymous = match property(AUTHENTICATION) {
            Some(kind) => kind.eq_ignore_ascii_case("UNAUTHENTICATED"),
            None => name == EMULATOR,
        };
        Ok(Self { endpoint: endpoint.trim_end_matches('/').to_owned(), anonymous })
    }

    /// What an executor must be told to reach the same bucket: no credentials.
    pub(super) fn properties(&self) -> BTreeMap<String, String> {
        let endpoint = (self.endpoint != GOOGLE).then(|| (ENDPOINT.to_owned(), self.endpoint.clone()));
        let anonymous = self.anonymous.then(|| (AUTHENTICATION.to_owned(), "UNAUTHENTICATED".to_owned()));
        endpoint.into_iter().chain(anonymous).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> StoreOptions {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        StoreOptions::new(BTreeMap::new(), find)
    }

    #[test]
    fn executor_is_told_where_but_not_who() {
        let google = Settings::new(&options(&[("GOOGLE_APPLICATION_CREDENTIALS", "/key.json")])).expect("settings");
        assert_eq!((google.endpoint.as_str(), google.anonymous), (GOOGLE, false));
        assert_eq!(google.properties(), BTreeMap::new());
        let emulator = Settings::new(&options(&[(EMULATOR, "http://127.0.0.1:1/")])).expect("settings");
        assert_eq!((emulator.endpoint.as_str(), emulator.anonymous), ("http://127.0.0.1:1", true));
        let executor = StoreOptions { cluster: emulator.properties(), ..options(&[]) };
        assert_eq!(Settings::new(&executor), Ok(emulator));
    }

    #[test]
    fn endpoint_without_a_scheme_is_named() {
        let error = Settings::new(&options(&[(EMULATOR, "127.0.0.1:1")])).expect_err("no scheme");
        assert!(error.contains(EMULATOR) && error.contains("http://"), "{error}");
    }
}
