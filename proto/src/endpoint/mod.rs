//! Where a coordinator is, how the way there is protected, and who we are to it.

mod failure;
#[cfg(test)]
mod tests;
mod token;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity, Uri};

pub use failure::EndpointError;
pub use token::{Bearer, Token};

/// How long a connection may take to be made, and again to be secured.
const CONNECT: Duration = Duration::from_secs(5);
/// How long silence may last before the other side is asked for a sign of life.
pub const QUIET: Duration = Duration::from_secs(5);
/// How long the sign of life may take. What is silent for both together is gone: nobody has to tell.
pub const ANSWER: Duration = Duration::from_secs(4);

/// A connection to a coordinator, for the generated clients.
pub type Connection = InterceptedService<Channel, Bearer>;

/// A coordinator as a client or a worker sees it. The files are read for every connection: renewed ones need no restart.
#[derive(Clone, Debug, Default)]
pub struct Endpoint {
    /// `https://host:port`, or `http://host:port` on the same machine.
    pub url: String,
    /// Who must have signed the coordinator's certificate, PEM; the system's authorities if not given.
    pub ca: Option<PathBuf>,
    /// Our certificate chain, PEM.
    pub cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub key: Option<PathBuf>,
    /// What we show in the place of a certificate, or beside it.
    pub token: Option<Token>,
}

impl Endpoint {
    /// A coordinator that asks nothing.
    #[must_use]
    pub fn open(url: impl Into<String>) -> Self {
        Self { url: url.into(), ..Self::default() }
    }

    /// Connects. The certificate of this side is judged by the coordinator later: [`Endpoint::explain`] the first answer.
    ///
    /// # Errors
    /// If the options do not fit together, the coordinator cannot be reached, or it is not the one that it should be.
    pub async fn connect(&self) -> Result<Connection, EndpointError> {
        let uri = self.uri()?;
        let secure = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default().to_owned();
        let mut endpoint = Channel::builder(uri)
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(QUIET)
            .keep_alive_timeout(ANSWER)
            .keep_alive_while_idle(true);
        if secure {
            let tls = self.tls(&host)?;
            endpoint = endpoint.tls_config(tls).map_err(|e| self.failure(&e))?;
        }
        let channel = endpoint.connect().await.map_err(|e| self.failure(&e))?;
        // On a machine's own loopback there is nobody to show it to.
        let token = self.token.as_ref().filter(|_| secure);
        Ok(InterceptedService::new(channel, Bearer::new(token)))
    }

    /// Tells trouble on the way to the coordinator, and what it thinks of who calls, from its answer to what was asked.
    #[must_use]
    pub fn explain(&self, status: &Status) -> EndpointError {
        EndpointError::of_status(self, status)
    }

    fn failure(&self, error: &(dyn std::error::Error + 'static)) -> EndpointError {
        EndpointError::of(self, error)
    }

    fn uri(&self) -> Result<Uri, EndpointError> {
        let wrong = |reason: &str| EndpointError::Url { url: self.url.clone(), reason: reason.to_owned() };
        let shape = "it must be like https://host:7070";
        let uri: Uri = self.url.parse().map_err(|_| wrong(shape))?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong(shape))?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if self.token.is_some() && !is_loopback(host) => {
                return Err(wrong("a token is never sent in the clear: use https://"));
            }
            Some("http") if self.ca.is_some() || self.cert.is_some() => {
                return Err(wrong("certificates are of no use over http://: use https://, or leave them out"));
            }
            Some("http") => {}
            _ => return Err(wrong(shape)),
        }
        Ok(uri)
    }

    fn tls(&self, host: &str) -> Result<ClientTlsConfig, EndpointError> {
        // The brackets of an IPv6 address belong to the URL.
        let mut tls = ClientTlsConfig::new().domain_name(host.trim_matches(['[', ']'])).timeout(CONNECT);
        tls = match &self.ca {
            Some(ca) => tls.ca_certificate(Certificate::from_pem(certificates(ca)?)),
            None => tls.with_native_roots(),
        };
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Ok(tls.identity(Identity::from_pem(certificates(cert)?, private_key(key)?))),
            (None, None) => Ok(tls),
            (Some(_), None) => Err(EndpointError::HalfIdentity { missing: "--tls-key" }),
            (None, Some(_)) => Err(EndpointError::HalfIdentity { missing: "--tls-cert" }),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

fn certificates(file: &Path) -> Result<Vec<u8>, EndpointError> {
    let pem = read(file)?;
    match CertificateDer::pem_slice_iter(&pem).next() {
        Some(Ok(_)) => Ok(pem),
        _ => Err(EndpointError::file(file, "there is no certificate in it; it must be PEM")),
    }
}

fn private_key(file: &Path) -> Result<Vec<u8>, EndpointError> {
    let pem = read(file)?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| EndpointError::file(file, "there is no private key in it; it must be PEM"))?;
    Ok(pem)
}

fn read(file: &Path) -> Result<Vec<u8>, EndpointError> {
    std::fs::read(file).map_err(|e| EndpointError::file(file, &e.to_string()))
}
