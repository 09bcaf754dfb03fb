//! What is to be known before S3 is asked: endpoint, region, addressing, proxy. A pure value.
//!
//! Names are those of Hadoop's S3A connector, so that a cluster's own configuration is understood and a job can carry
//! them to executors; `fs.s3a.bucket.BUCKET.…` wins over `fs.s3a.…`, and both over the `AWS_*` variables.

use std::collections::BTreeMap;

use crate::hadoop::Configuration;
use crate::web::Proxy;
use crate::{StoreOptions, StoreUri};

/// Endpoint of a store that is not Amazon's.
const ENDPOINT: &str = "endpoint";
/// The bucket's region.
const REGION: &str = "endpoint.region";
/// `true`: the bucket stands in the path, not in the host name.
const PATH_STYLE: &str = "path.style.access";
/// `false`: an endpoint without scheme is spoken to without TLS.
const TLS: &str = "connection.ssl.enabled";
/// Classes that give credentials; of them only the anonymous one matters here.
const CREDENTIALS: &str = "aws.credentials.provider";

/// How a bucket is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// The endpoint from the job or the cluster's configuration, as a URL. The SDK finds that of the environment itself.
    pub(super) endpoint: Option<String>,
    /// Whether any endpoint of one's own is set, wherever.
    pub(super) custom: bool,
    /// The region, if one is set outside of AWS's own files.
    pub(super) region: Option<String>,
    /// Whether the bucket stands in the path.
    pub(super) path_style: bool,
    /// Whether requests are not signed.
    pub(super) anonymous: bool,
    /// The proxy for the endpoint's scheme.
    pub(super) proxy: Option<Proxy>,
}

impl Settings {
    /// The settings for the bucket of `uri`.
    pub(super) fn new(uri: &StoreUri, configuration: &Configuration, options: &StoreOptions) -> Self {
        let property = |name: &str| property(configuration, &uri.authority, name);
        let scheme = if property(TLS) == Some("false") { "http" } else { "https" };
        let endpoint = property(ENDPOINT)
            .map(|url| if url.contains("://") { url.to_owned() } else { format!("{scheme}://{url}") });
        let environ = options.variable("AWS_ENDPOINT_URL_S3").or_else(|| options.variable("AWS_ENDPOINT_URL"));
        let used = endpoint.as_deref().or(environ);
        let foreign = used.is_some_and(|url| !url.contains(".amazonaws.com"));
        let region = property(REGION).or_else(|| options.variable("AWS_REGION"));
        Self {
            custom: used.is_some(),
            region: region.or_else(|| options.variable("AWS_DEFAULT_REGION")).map(str::to_owned),
            path_style: property(PATH_STYLE).map_or(foreign, |value| value.eq_ignore_ascii_case("true")),
            anonymous: property(CREDENTIALS).is_some_and(|value| value.contains("Anonymous")),
            proxy: Proxy::of(options, !used.is_some_and(|url| url.starts_with("http://"))),
            endpoint,
        }
    }

    /// What an executor must be told to reach the same bucket: no credentials, no proxy.
    pub(super) fn properties(
        uri: &StoreUri,
        configuration: &Configuration,
        options: &StoreOptions,
    ) -> BTreeMap<String, String> {
        let settings = Self::new(uri, configuration, options);
        let environ = options.variable("AWS_ENDPOINT_URL_S3").or_else(|| options.variable("AWS_ENDPOINT_URL"));
        let endpoint = settings.endpoint.or_else(|| environ.map(str::to_owned));
        let style = settings.custom.then(|| settings.path_style.to_string());
        let anonymous = settings.anonymous.then(|| "AnonymousAWSCredentialsProvider".to_owned());
        [(ENDPOINT, endpoint), (REGION, settings.region), (PATH_STYLE, style), (CREDENTIALS, anonymous)]
            .into_iter()
            .filter_map(|(name, value)| Some((format!("fs.s3a.{name}"), value?)))
            .collect()
    }
}

fn property<'a>(configuration: &'a Configuration, bucket: &str, name: &str) -> Option<&'a str> {
    let own = configuration.get(&format!("fs.s3a.bucket.{bucket}.{name}"));
    own.or_else(|| configuration.get(&format!("fs.s3a.{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(variables: &[(&str, &str)]) -> StoreOptions {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        StoreOptions::new(BTreeMap::new(), find)
    }

    fn uri() -> StoreUri {
        "s3://b/p".parse().expect("a URI")
    }

    #[test]
    fn amazon_is_the_default() {
        let settings = Settings::new(&uri(), &Configuration::default(), &options(&[]));
        assert_eq!(settings, Settings::default());
        assert_eq!(Settings::properties(&uri(), &Configuration::default(), &options(&[])), BTreeMap::new());
    }

    #[test]
    fn foreign_endpoint_has_the_bucket_in_its_path() {
        for (properties, variables, endpoint, path_style) in [
            ([("fs.s3a.endpoint", "minio:9000"), ("", "")], &[][..], Some("https://minio:9000"), true),
            (
                [("fs.s3a.endpoint", "minio:9000"), ("fs.s3a.connection.ssl.enabled", "false")],
                &[],
                Some("http://minio:9000"),
                true,
            ),
            ([("fs.s3a.endpoint", "http://a"), ("fs.s3a.bucket.b.endpoint", "http://c")], &[], Some("http://c"), true),
            ([("fs.s3a.endpoint", "http://a"), ("fs.s3a.path.style.access", "false")], &[], Some("http://a"), false),
            (
                [("fs.s3a.endpoint", "s3.eu-west-1.amazonaws.com"), ("", "")],
                &[],
                Some("https://s3.eu-west-1.amazonaws.com"),
                false,
            ),
            ([("", ""), ("", "")], &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")], None, true),
        ] {
            let settings = Settings::new(&uri(), &Configuration::from(properties), &options(variables));
            assert_eq!((settings.endpoint.as_deref(), settings.path_style), (endpoint, path_style), "{properties:?}");
            assert!(settings.custom);
        }
    }

    #[test]
    fn executor_is_told_where_but_not_who() {
        let variables = [
            ("AWS_ENDPOINT_URL", "http://minio:9000"),
            ("AWS_REGION", "eu-west-1"),
            ("HTTP_PROXY", "http://user:secret@proxy"),
        ];
        let configuration = Configuration::from([("fs.s3a.secret.key", "secret")]);
        let properties = Settings::properties(&uri(), &configuration, &options(&variables));
        let expected = [
            ("fs.s3a.endpoint", "http://minio:9000"),
            ("fs.s3a.endpoint.region", "eu-west-1"),
            ("fs.s3a.path.style.access", "true"),
        ];
        assert_eq!(properties, expected.map(|(n, v)| (n.to_owned(), v.to_owned())).into());
    }

    #[test]
    fn the_proxy_is_that_of_the_endpoint() {
        let variables = [("https_proxy", "proxy:3128"), ("NO_PROXY", "internal")];
        let proxied = Settings::new(&uri(), &Configuration::default(), &options(&variables)).proxy.expect("a proxy");
        assert_eq!((proxied.url.as_str(), proxied.tls), ("http://proxy:3128", true));
        let plain = Configuration::from([("fs.s3a.endpoint", "http://minio")]);
        assert_eq!(Settings::new(&uri(), &plain, &options(&variables)).proxy, None);
    }
}
