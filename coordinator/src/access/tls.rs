//! TLS 1.3 for the coordinator's side of the wire.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::{AccessError, AccessFiles};

/// What a coordinator needs to take connections in.
pub(crate) struct ServerTls {
    pub(crate) config: Arc<ServerConfig>,
    /// When the certificate ends, in seconds since 1970.
    pub(crate) end: Option<i64>,
}

/// Reads the files.
pub(crate) fn server(files: &AccessFiles) -> Result<ServerTls, AccessError> {
    Ok(ServerTls { config: Arc::new(server_config(files)?), end: observe::certificate::end(&files.tls_cert) })
}

/// Where people may use tokens a client need not have a certificate.
fn server_config(files: &AccessFiles) -> Result<ServerConfig, AccessError> {
    let chain = certificates(&files.tls_cert)?;
    let key = PrivateKeyDer::from_pem_file(&files.tls_key)
        .map_err(|e| AccessError::file(&files.tls_key, format!("there is no private key in it ({e})")))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|e| AccessError::file(&files.tls_cert, e))?;
    let mut config = builder
        .with_client_cert_verifier(verifier(files)?)
        .with_single_cert(chain, key)
        .map_err(|e| AccessError::file(&files.tls_cert, format!("{e} (its key is {})", files.tls_key.display())))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn verifier(files: &AccessFiles) -> Result<Arc<dyn ClientCertVerifier>, AccessError> {
    let unusable = |e: &dyn std::fmt::Display| AccessError::file(&files.client_ca, e);
    let mut authorities = RootCertStore::empty();
    for authority in certificates(&files.client_ca)? {
        authorities.add(authority).map_err(|e| unusable(&e))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), Arc::new(default_provider()));
    let builder = if files.tokens.is_some() { builder.allow_unauthenticated() } else { builder };
    builder.build().map_err(|e| unusable(&e))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, AccessError> {
    let unusable = |e| AccessError::file(file, format!("{e}"));
    let found: Vec<_> =
        CertificateDer::pem_file_iter(file).map_err(unusable)?.collect::<Result<_, _>>().map_err(unusable)?;
    if found.is_empty() {
        return Err(AccessError::file(file, "there is no certificate in it; it must be PEM"));
    }
    Ok(found)
}
