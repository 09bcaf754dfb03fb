//! The SDK's client: credentials, transport, trust.

use std::path::Path;

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::config::{RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

use super::settings::{Proxy, Settings};
use crate::{StoreOptions, redact};

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
    let trust = TrustStore::empty().with_pem_certificate(pem(&authorities(options.variable("AWS_CA_BUNDLE"))?));
    let tls = TlsContext::builder().with_trust_store(trust).build().map_err(|error| error.to_string())?;
    let proxy = settings.proxy.as_ref().map(proxy).transpose()?;
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

fn proxy(proxy: &Proxy) -> Result<ProxyConfig, String> {
    let made = if proxy.tls { ProxyConfig::https(&*proxy.url) } else { ProxyConfig::http(&*proxy.url) };
    let config = made.map_err(|_| format!("the proxy {:?} is no URL: write http://HOST:PORT", redact(&proxy.url)))?;
    Ok(config.no_proxy(&proxy.except))
}

/// The certificate authorities to trust: those of `bundle`, else the system's (or `SSL_CERT_FILE`'s), else the ones that
/// are built in.
fn authorities(bundle: Option<&str>) -> Result<Vec<CertificateDer<'static>>, String> {
    if let Some(bundle) = bundle {
        let found = usable(rustls_native_certs::load_certs_from_paths(Some(Path::new(bundle)), None).certs);
        if found.is_empty() {
            return Err(format!("AWS_CA_BUNDLE names {bundle}, which holds no certificate that can be used"));
        }
        return Ok(found);
    }
    let native = usable(rustls_native_certs::load_native_certs().certs);
    Ok(if native.is_empty() { webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec() } else { native })
}

/// Without those that would end the client in a panic.
fn usable(mut certificates: Vec<CertificateDer<'static>>) -> Vec<CertificateDer<'static>> {
    certificates.retain(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok());
    certificates
}

/// The form in which the transport takes certificates.
fn pem(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        BASE64.encode_string(certificate, &mut text);
        text.push_str("\n-----END CERTIFICATE-----\n");
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject as _;

    #[test]
    fn built_in_roots_survive_the_way_through_pem() {
        let roots = usable(webpki_root_certs::TLS_SERVER_ROOT_CERTS.to_vec());
        assert!(roots.len() > 100, "{}", roots.len());
        let back: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem(&roots)).collect();
        assert_eq!(back.expect("parses"), roots);
    }

    #[test]
    fn a_bundle_without_certificates_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("writes");
        for path in [file.path().to_str().expect("a path"), "/no/such/file"] {
            let error = authorities(Some(path)).expect_err(path);
            assert!(error.contains(path) && error.contains("AWS_CA_BUNDLE"), "{error}");
        }
    }

    #[test]
    fn a_bad_proxy_is_named_without_its_password() {
        let bad = Proxy { tls: true, url: "http://user:secret@ho st".into(), except: String::new() };
        let error = proxy(&bad).expect_err("no URL");
        assert!(error.contains("proxy") && !error.contains("secret"), "{error}");
    }
}
