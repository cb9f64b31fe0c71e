//! What keeps a coordinator from being guarded.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Why access cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Other machines could reach a coordinator that asks nobody who they are.
    #[error(
        "{address} can be reached from other machines, and whoever may submit jobs may spend them: give --tls-cert and \
         --tls-key for TLS, --client-ca to know workers and people by their certificates, and --tokens if people are to \
         use tokens (`mllm4rec certs --out DIR` makes certificates and prints the command); or listen on 127.0.0.1"
    )]
    Unguarded {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// Some of the files that belong together are missing.
    #[error(
        "{missing} must be given too: TLS needs a certificate, its key, and the authority by which workers are known \
         (`mllm4rec certs --out DIR` makes all of them and prints the command)"
    )]
    Incomplete {
        /// The flags.
        missing: String,
    },
    /// A file cannot be used.
    #[error("cannot use {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A name is not fit for logs and file names.
    #[error("`{name}` is no name: use 1 to 64 letters, digits, dots, dashes and underscores")]
    Name {
        /// The name.
        name: String,
    },
    /// There is no such role.
    #[error("there is no role `{role}`: it is viewer, submitter, operator or worker")]
    Role {
        /// What was given.
        role: String,
    },
    /// Workers are known by certificates alone.
    #[error(
        "a token cannot make a worker: workers are known by their certificates (`mllm4rec certs --add worker NAME`)"
    )]
    WorkerToken,
    /// The name has a token already.
    #[error("{name} has a token in {path} already: revoke it first, or choose another name")]
    TokenExists {
        /// The name.
        name: String,
        /// The file.
        path: PathBuf,
    },
    /// Nobody of that name has a token.
    #[error("nobody called {name} has a token in {path}; `mllm4rec token list` shows who has")]
    NoToken {
        /// The name.
        name: String,
        /// The file.
        path: PathBuf,
    },
}

impl AccessError {
    pub(crate) fn file(path: &Path, reason: impl std::fmt::Display) -> Self {
        Self::File { path: path.to_owned(), reason: reason.to_string() }
    }
}
