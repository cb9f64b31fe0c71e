//! Where a coordinator is, how the way there is protected, and who we are to it.

mod failure;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Uri};

pub use failure::EndpointError;
pub use token::{Bearer, Token};
pub use wire::Wire;

/// How long a connection may take to be made, and again to be secured.
const CONNECT: Duration = Duration::from_secs(5);
/// How long silence may last before the other side is asked for a sign of life.
pub const QUIET: Duration = Duration::from_secs(5);
/// How long the sign of life may take. What is silent for both together is gone: nobody has to tell.
pub const ANSWER: Duration = Duration::from_secs(4);

/// How long a coordinator may take to answer a registration.
pub const REGISTRATION: Duration = Duration::from_secs(10);

/// What an address looks like.
const SHAPE: &str = "it must be like https://host:7070";

/// A connection to a coordinator, for the generated clients.
pub type Connection = InterceptedService<Wire, Bearer>;

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
        let tls = if secure { Some(self.tls(uri.host().unwrap_or_default())?) } else { None };
        // What is secured here is plain to those who would secure it otherwise.
        let plain = format!("http://{}", uri.authority().map_or("", |authority| authority.as_str()));
        let plain = plain.parse().map_err(|_| self.wrong(SHAPE))?;
        let endpoint = Channel::builder(plain)
            .origin(uri)
            .http2_keep_alive_interval(QUIET)
            .keep_alive_timeout(ANSWER)
            .keep_alive_while_idle(true);
        let wire = wire::connect(endpoint, tls, CONNECT).await.map_err(|e| self.failure(&e))?;
        // On a machine's own loopback there is nobody to show it to.
        let token = self.token.as_ref().filter(|_| secure);
        Ok(InterceptedService::new(wire, Bearer::new(token)))
    }

    /// Tells trouble on the way to the coordinator, and what it thinks of who calls, from its answer to what was asked.
    #[must_use]
    pub fn explain(&self, status: &Status) -> EndpointError {
        EndpointError::of_status(self, status)
    }

    /// Its host and port.
    ///
    /// # Errors
    /// If the URL names none.
    pub fn authority(&self) -> Result<String, EndpointError> {
        let uri = self.uri()?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        Ok(format!("{}:{port}", uri.host().unwrap_or_default()))
    }

    fn failure(&self, error: &(dyn std::error::Error + 'static)) -> EndpointError {
        EndpointError::of(self, error)
    }

    fn wrong(&self, reason: &str) -> EndpointError {
        EndpointError::Url { url: self.url.clone(), reason: reason.to_owned() }
    }

    fn uri(&self) -> Result<Uri, EndpointError> {
        let wrong = |reason| self.wrong(reason);
        let uri: Uri = self.url.parse().map_err(|_| wrong(SHAPE))?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong(SHAPE))?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if self.token.is_some() && !is_loopback(host) => {
                return Err(wrong("a token is never sent in the clear: use https://"));
            }
            Some("http") if self.ca.is_some() || self.cert.is_some() => {
                return Err(wrong("certificates are of no use over http://: use https://, or leave them out"));
            }
            Some("http") => {}
            _ => return Err(wrong(SHAPE)),
        }
        Ok(uri)
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}
