//! Why a coordinator cannot be spoken to, in words that say what to do.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

use tokio_rustls::rustls::{CertificateError, Error as TlsError};
use tonic::{Code, Status};

use super::Endpoint;

/// How rustls tells of an alert. Our certificate is judged after the handshake, and of an error that comes so late HTTP/2 keeps
/// the words alone.
const ALERT: &str = "received fatal alert: ";

/// Alerts by which a server refuses a certificate.
const ABOUT_CERTIFICATES: [&str; 9] = [
    "CertificateRequired",
    "UnknownCA",
    "BadCertificate",
    "UnsupportedCertificate",
    "CertificateExpired",
    "CertificateRevoked",
    "CertificateUnknown",
    "DecryptError",
    "AccessDenied",
];

/// Why a coordinator cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The address is none, or does not fit the other options.
    #[error("--coordinator {url}: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file cannot be used.
    #[error("cannot use {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate without its key, or a key without its certificate.
    #[error("{missing} must be given too: a certificate and its key belong together")]
    HalfIdentity {
        /// The option.
        missing: &'static str,
    },
    /// Nobody answers.
    #[error("cannot reach the coordinator at {url}: {reason}")]
    Unreachable {
        /// Where.
        url: String,
        /// What was said last.
        reason: String,
    },
    /// The coordinator's certificate is signed by somebody else.
    #[error(
        "the certificate of {url} is not signed by {authorities}: give the authority that signed it with --tls-ca (the ca.pem \
         beside the coordinator's certificate); if you have, this may be another coordinator than you think"
    )]
    UnknownAuthority {
        /// Where.
        url: String,
        /// Who was trusted.
        authorities: String,
    },
    /// The coordinator's certificate is for another host.
    #[error(
        "the certificate of {url} is not for that host ({reason}): use a name that is in it, or make one with \
         `mllm4rec certs --add server NAME --host HOST`"
    )]
    WrongHost {
        /// Where.
        url: String,
        /// What it is for.
        reason: String,
    },
    /// The coordinator's certificate has ended, or has not begun.
    #[error("the certificate of {url} is not valid now ({reason}): renew it, or set the clock of this machine")]
    NotValidNow {
        /// Where.
        url: String,
        /// What the check said.
        reason: String,
    },
    /// The coordinator does not take our certificate.
    #[error(
        "{url} refused {certificate} ({alert}): it must be signed by an authority of the coordinator's --client-ca, and be \
         valid now; `mllm4rec certs --add` makes one"
    )]
    CertificateRefused {
        /// Where.
        url: String,
        /// Which one.
        certificate: String,
        /// What it said.
        alert: String,
    },
    /// There is no TLS at the other end.
    #[error("{url} does not speak TLS: use http:// if it is a coordinator on this machine without certificates")]
    NoTls {
        /// Where.
        url: String,
    },
    /// Something answers, and it is not HTTP/2 without TLS.
    #[error("{url} does not speak plain HTTP/2 ({reason}): if the coordinator has certificates, use https://")]
    MaybeTls {
        /// Where.
        url: String,
        /// What was seen.
        reason: String,
    },
    /// TLS failed for another reason.
    #[error("no secure connection to {url}: {reason}")]
    Handshake {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// The coordinator has heard us, and says what is wrong with what was asked.
    #[error("{words}")]
    Answer {
        /// The kind of its answer.
        code: Code,
        /// What it said.
        words: String,
    },
    /// The coordinator does not know us.
    #[error("{url} does not know who calls: {words}")]
    NotKnown {
        /// Where.
        url: String,
        /// What it said.
        words: String,
    },
    /// The coordinator knows us, and the method is not ours.
    #[error("{url} does not allow it: {words}")]
    NotAllowed {
        /// Where.
        url: String,
        /// What it said.
        words: String,
    },
}

impl EndpointError {
    /// Whether waiting may help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    pub(super) fn file(path: &Path, reason: &str) -> Self {
        Self::File { path: path.to_owned(), reason: reason.to_owned() }
    }

    pub(super) fn of_status(endpoint: &Endpoint, status: &Status) -> Self {
        let (url, words) = (endpoint.url.clone(), status.message().to_owned());
        match status.code() {
            Code::Unauthenticated => Self::NotKnown { url, words },
            Code::PermissionDenied => Self::NotAllowed { url, words },
            code => match status.source() {
                Some(source) => Self::of(endpoint, source),
                None if of_the_way(code) => Self::Unreachable { url, reason: words },
                None => Self::Answer { code, words },
            },
        }
    }

    pub(super) fn of(endpoint: &Endpoint, error: &(dyn StdError + 'static)) -> Self {
        if let Some(tls) = causes(error).find_map(|cause| cause.downcast_ref::<TlsError>()) {
            return Self::of_tls(endpoint, tls);
        }
        let url = endpoint.url.clone();
        let reason = causes(error).last().map(ToString::to_string).unwrap_or_default();
        if let Some(alert) = reason.strip_prefix(ALERT) {
            return Self::of_alert(endpoint, alert);
        }
        // A TLS server answers with an alert, which is no frame of HTTP/2.
        if url.starts_with("http://") && (reason.contains("http2 error") || reason.contains("invalid size")) {
            return Self::MaybeTls { url, reason };
        }
        Self::Unreachable { url, reason }
    }

    fn of_tls(endpoint: &Endpoint, error: &TlsError) -> Self {
        let (url, reason) = (endpoint.url.clone(), error.to_string());
        match error {
            TlsError::InvalidCertificate(wrong) => match wrong {
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    Self::WrongHost { url, reason: wrong.to_string() }
                }
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::NotValidNow { url, reason: wrong.to_string() },
                _ => {
                    let own = endpoint.ca.as_ref().map(|ca| ca.display().to_string());
                    Self::UnknownAuthority {
                        url,
                        authorities: own.unwrap_or("any authority of this system".to_owned()),
                    }
                }
            },
            TlsError::AlertReceived(alert) => Self::of_alert(endpoint, &format!("{alert:?}")),
            TlsError::InvalidMessage(_) => Self::NoTls { url },
            _ => Self::Handshake { url, reason },
        }
    }

    /// What the other side said when it ended the connection.
    fn of_alert(endpoint: &Endpoint, alert: &str) -> Self {
        let (url, alert) = (endpoint.url.clone(), alert.to_owned());
        if !ABOUT_CERTIFICATES.contains(&alert.as_str()) {
            return Self::Handshake { url, reason: format!("it answered {alert}") };
        }
        let own = endpoint.cert.as_ref().map(|cert| cert.display().to_string());
        let certificate = own.unwrap_or("a connection without a certificate (--tls-cert)".to_owned());
        Self::CertificateRefused { url, certificate, alert }
    }
}

/// Codes by which libraries, and a coordinator that stops, say that there was no answer.
fn of_the_way(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled | Code::DeadlineExceeded)
}

/// An error and what it came of.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| cause_of(*error))
}

/// What an I/O error wraps is not its source, and is what matters here.
fn cause_of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}
