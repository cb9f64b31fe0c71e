//! TLS for the side that connects: whom it trusts, and who it is.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::wire::Tls;
use super::{Endpoint, EndpointError};

impl Endpoint {
    /// Reads the files.
    pub(super) fn tls(&self, host: &str) -> Result<Tls, EndpointError> {
        // The brackets of an IPv6 address belong to the URL.
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(|_| self.wrong("its host is no name that a certificate has"))?;
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| EndpointError::Handshake { url: self.url.clone(), reason: e.to_string() })?
            .with_root_certificates(self.authorities()?);
        let mut config = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let mismatch = |e| EndpointError::file(cert, &format!("{e} (its key is {})", key.display()));
                builder.with_client_auth_cert(certificates(cert)?, private_key(key)?).map_err(mismatch)?
            }
            (None, None) => builder.with_no_client_auth(),
            (Some(_), None) => return Err(EndpointError::HalfIdentity { missing: "--tls-key" }),
            (None, Some(_)) => return Err(EndpointError::HalfIdentity { missing: "--tls-cert" }),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok((Arc::new(config), name))
    }

    /// Who must have signed the coordinator's certificate.
    fn authorities(&self) -> Result<RootCertStore, EndpointError> {
        let mut authorities = RootCertStore::empty();
        let Some(file) = &self.ca else {
            // What of a system's store cannot be read is not trusted.
            authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return Ok(authorities);
        };
        for authority in certificates(file)? {
            authorities.add(authority).map_err(|e| EndpointError::file(file, &e.to_string()))?;
        }
        Ok(authorities)
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, EndpointError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(file)?).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(EndpointError::file(file, "there is no certificate in it; it must be PEM")),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, EndpointError> {
    PrivateKeyDer::from_pem_slice(&read(file)?)
        .map_err(|_| EndpointError::file(file, "there is no private key in it; it must be PEM"))
}

fn read(file: &Path) -> Result<Vec<u8>, EndpointError> {
    std::fs::read(file).map_err(|e| EndpointError::file(file, &e.to_string()))
}
