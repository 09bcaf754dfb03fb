//! The certificate authorities that the transport trusts.

use std::path::Path;

use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;

/// The trust in the authorities of `bundle`, the variable of that name and its value, else in the system's (or
/// `SSL_CERT_FILE`'s), else in the ones that are built in.
pub(crate) fn tls_context(variable: &str, bundle: Option<&str>) -> Result<TlsContext, String> {
    let trust = TrustStore::empty().with_pem_certificate(pem(&authorities(variable, bundle)?));
    TlsContext::builder().with_trust_store(trust).build().map_err(|error| error.to_string())
}

fn authorities(variable: &str, bundle: Option<&str>) -> Result<Vec<CertificateDer<'static>>, String> {
    if let Some(bundle) = bundle {
        let found = usable(rustls_native_certs::load_certs_from_paths(Some(Path::new(bundle)), None).certs);
        if found.is_empty() {
            return Err(format!("{variable} names {bundle}, which holds no certificate that can be used"));
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
    fn bundle_without_certificates_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("writes");
        for path in [file.path().to_str().expect("a path"), "/no/such/file"] {
            let error = authorities("AWS_CA_BUNDLE", Some(path)).expect_err(path);
            assert!(error.contains(path) && error.contains("AWS_CA_BUNDLE"), "{error}");
        }
    }
}
