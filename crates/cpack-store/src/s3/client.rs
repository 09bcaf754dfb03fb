//! The SDK's client: credentials, transport, trust.

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient};
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, Connector};

use super::settings::Settings;
use crate::StoreOptions;
use crate::web::{Proxy, tls_context};

/// The region that is asked when none is known: S3 there names the right one in its answer, and other servers take any.
const FALLBACK_REGION: &str = "us-east-1";

/// A client with the whole chain of credentials. The error is one line for people.
pub(super) async fn connect(settings: &Settings, options: &StoreOptions) -> Result<Client, String> {
    let config = load(settings, transport(settings, options)?).await;
    let in_profile = config.endpoint_url().is_some_and(|url| !url.contains(".amazonaws.com"));
    let region = config.region().cloned().unwrap_or_else(|| Region::from_static(FALLBACK_REGION));
    let mut builder = aws_sdk_s3::config::Builder::from(&config)
        .region(region)
        .force_path_style(settings.path_style || (!settings.custom && in_profile))
        // Tried again by the store itself, which also sees bodies that break off.
        .retry_config(RetryConfig::disabled())
        // Servers from before 2025 refuse the newer checksums. Layers are verified by their digests.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    Ok(Client::from_conf(builder.build()))
}

async fn load(settings: &Settings, http: SharedHttpClient) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    } else if settings.custom {
        // Without the last resort of the SDK's own chain, which is to ask Amazon's metadata service.
        let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else(Region::from_static(FALLBACK_REGION));
        loader = loader.region(chain);
    }
    if settings.anonymous {
        loader = loader.no_credentials();
    }
    loader.load().await
}

fn transport(settings: &Settings, options: &StoreOptions) -> Result<SharedHttpClient, String> {
    let tls = tls_context("AWS_CA_BUNDLE", options.variable("AWS_CA_BUNDLE"))?;
    let proxy = settings.proxy.as_ref().map(Proxy::config).transpose()?;
    Ok(Builder::new().build_with_connector_fn(move |settings, components| {
        let mut builder =
            Connector::builder().tls_provider(Provider::rustls(CryptoMode::Ring)).tls_context(tls.clone());
        builder.set_connector_settings(settings.cloned());
        builder.set_proxy_config(proxy.clone());
        if let Some(components) = components {
            builder.set_sleep_impl(components.sleep_impl());
        }
        builder.build()
    }))
}
