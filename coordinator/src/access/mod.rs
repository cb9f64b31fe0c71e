//! Who may call the coordinator, and over what.
//!
//! On a loopback address without TLS nothing is asked. Everywhere else the wire is TLS 1.3, and a caller is known by a client
//! certificate, which carries its role, or by a token that is looked up by its hash. [`Role`]s say which methods are theirs;
//! a method that no role has is refused. Certificates and tokens are read again when their files change.

mod caller;
mod certificate;
mod connection;
mod door;
mod error;
mod fresh;
mod guard;
mod refusals;
mod roles;
#[cfg(test)]
mod tests;
mod tls;
pub mod tokens;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use caller::{Caller, check_name};
pub use certificate::uri_of;
pub(crate) use door::{Door, ShownCertificate};
pub use error::AccessError;
pub use roles::Role;

/// How callers are known.
#[derive(Clone, Debug, Default)]
pub enum Access {
    /// Nobody is asked who they are. For a loopback address only.
    #[default]
    Open,
    /// TLS, and callers with a role.
    Guarded(AccessFiles),
}

/// The files of a guarded coordinator. What is in them is read when it is needed and kept out of this value.
#[derive(Clone, Debug)]
pub struct AccessFiles {
    /// The coordinator's certificate chain, PEM.
    pub tls_cert: PathBuf,
    /// Its private key, PEM.
    pub tls_key: PathBuf,
    /// The authorities that sign client certificates, PEM.
    pub client_ca: PathBuf,
    /// The tokens that people may use in the place of a certificate.
    pub tokens: Option<PathBuf>,
}

/// The same files as somebody gave them: any may be missing.
#[derive(Clone, Debug, Default)]
pub struct AccessFlags {
    /// `--tls-cert`
    pub tls_cert: Option<PathBuf>,
    /// `--tls-key`
    pub tls_key: Option<PathBuf>,
    /// `--client-ca`
    pub client_ca: Option<PathBuf>,
    /// `--tokens`
    pub tokens: Option<PathBuf>,
}

impl Access {
    /// Puts flags together: none of them, or all that belong together.
    ///
    /// # Errors
    /// If some are given and others that they need are not.
    pub fn from_flags(flags: AccessFlags) -> Result<Self, AccessError> {
        let AccessFlags { tls_cert, tls_key, client_ca, tokens } = flags;
        let given = [("--tls-cert", &tls_cert), ("--tls-key", &tls_key), ("--client-ca", &client_ca)];
        let missing: Vec<&str> = given.iter().filter(|(_, file)| file.is_none()).map(|(flag, _)| *flag).collect();
        match (tls_cert, tls_key, client_ca) {
            (Some(tls_cert), Some(tls_key), Some(client_ca)) => {
                Ok(Self::Guarded(AccessFiles { tls_cert, tls_key, client_ca, tokens }))
            }
            (None, None, None) if tokens.is_none() => Ok(Self::Open),
            _ => Err(AccessError::Incomplete { missing: missing.join(", ") }),
        }
    }

    /// Opens the door of a coordinator that listens on `address`.
    ///
    /// # Errors
    /// If other machines could reach it unknown, or a file cannot be used.
    pub(crate) fn door(&self, address: SocketAddr) -> Result<Door, AccessError> {
        match self {
            Self::Open if address.ip().to_canonical().is_loopback() => Ok(Door::open()),
            Self::Open => Err(AccessError::Unguarded { address }),
            Self::Guarded(files) => Door::guarded(files),
        }
    }
}
