//! The proxy that the environment names.

use aws_smithy_http_client::proxy::ProxyConfig;

use crate::{StoreOptions, redact};

/// Where a proxy is never asked for: the metadata services of machines and containers, which give credentials.
const LINK_LOCAL: &str =
    "169.254.169.254,169.254.170.2,169.254.170.23,metadata.google.internal,localhost,127.0.0.1,::1";

/// A proxy for one scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    /// Whether it is for `https:` requests.
    pub(crate) tls: bool,
    /// Its URL, possibly with credentials: never shown.
    pub(crate) url: String,
    /// Hosts that are asked directly.
    pub(crate) except: String,
}

impl Proxy {
    /// The proxy for `https:` requests (`tls`) or for `http:` ones.
    pub(crate) fn of(options: &StoreOptions, tls: bool) -> Option<Self> {
        let either = |upper: &str, lower: &str| options.variable(lower).or_else(|| options.variable(upper));
        let own = if tls { either("HTTPS_PROXY", "https_proxy") } else { either("HTTP_PROXY", "http_proxy") };
        let url = own.or_else(|| either("ALL_PROXY", "all_proxy"))?;
        let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let except =
            either("NO_PROXY", "no_proxy").map_or(LINK_LOCAL.to_owned(), |hosts| format!("{hosts},{LINK_LOCAL}"));
        Some(Self { tls, url, except })
    }

    /// The same for the transport. The error is one line for people.
    pub(crate) fn config(&self) -> Result<ProxyConfig, String> {
        let made = if self.tls { ProxyConfig::https(&*self.url) } else { ProxyConfig::http(&*self.url) };
        let config =
            made.map_err(|_| format!("the proxy {:?} is no URL: write http://HOST:PORT", redact(&self.url)))?;
        Ok(config.no_proxy(&self.except))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_proxy_is_that_of_the_scheme_and_never_for_metadata() {
        let variables = [("https_proxy", "proxy:3128"), ("NO_PROXY", "internal")];
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let options = StoreOptions::new(BTreeMap::new(), find);
        let proxied = Proxy::of(&options, true).expect("a proxy");
        assert_eq!((proxied.tls, proxied.url.as_str()), (true, "http://proxy:3128"));
        assert!(proxied.except.starts_with("internal,") && proxied.except.contains("169.254.169.254"), "{proxied:?}");
        assert_eq!(Proxy::of(&options, false), None);
    }

    #[test]
    fn bad_proxy_is_named_without_its_password() {
        let bad = Proxy { tls: true, url: "http://user:secret@ho st".into(), except: String::new() };
        let error = bad.config().expect_err("no URL");
        assert!(error.contains("proxy") && !error.contains("secret"), "{error}");
    }
}
