//! How fetching a picture ended.

use std::borrow::Cow;
use std::fmt;

use crate::artifact::Digest;

/// How fetching a picture ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchOutcome {
    /// The picture is in the store.
    Ok {
        /// Its content.
        sha256: Digest,
        /// Its size.
        bytes: u64,
    },
    /// There is no picture.
    Failed(FetchFailure),
}

/// Why there is no picture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchFailure {
    /// The kind of the failure.
    pub reason: FetchReason,
    /// What happened, for people.
    pub detail: String,
}

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchReason {
    /// Not an http or https URL, or one with a user name or password.
    BadUrl,
    /// The host is at an address that is not of the public internet.
    RefusedAddress,
    /// A redirect too many, in a circle, or to nowhere.
    Redirects,
    /// 404 or 410.
    NotFound,
    /// Another status than 200.
    Http(u16),
    /// More bytes than a picture may have.
    TooLarge {
        /// How many it might have had.
        limit: u64,
    },
    /// The body does not begin as a JPEG, PNG, WebP, GIF or BMP does.
    NotAnImage,
    /// The body is compressed, which nobody asked for.
    Encoded,
    /// No answer in time, or only a part of one.
    Timeout,
    /// No connection: no such name, nobody there, or no common ground in TLS.
    Unreachable,
    /// The connection ended in the middle of the answer, or the answer was not HTTP.
    BrokenOff,
    /// The time or the bytes of the whole step were used up before.
    Budget,
}

impl FetchOutcome {
    /// The value in a table: `ok`, or that of the reason.
    #[must_use]
    pub fn as_str(&self) -> Cow<'static, str> {
        match self {
            Self::Ok { .. } => "ok".into(),
            Self::Failed(failure) => failure.reason.as_str(),
        }
    }

    /// Whether a later run has nothing to ask for.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Ok { .. }) || matches!(self, Self::Failed(failure) if failure.reason.is_final())
    }
}

impl fmt::Display for FetchOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok { bytes, .. } => write!(f, "stored, {bytes} bytes"),
            Self::Failed(failure) => f.write_str(&failure.detail),
        }
    }
}

/// Reasons whose name says it all.
const NAMED: [(FetchReason, &str); 10] = [
    (FetchReason::BadUrl, "bad_url"),
    (FetchReason::RefusedAddress, "refused_address"),
    (FetchReason::Redirects, "redirects"),
    (FetchReason::NotFound, "not_found"),
    (FetchReason::NotAnImage, "not_an_image"),
    (FetchReason::Encoded, "encoded"),
    (FetchReason::Timeout, "timeout"),
    (FetchReason::Unreachable, "unreachable"),
    (FetchReason::BrokenOff, "broken_off"),
    (FetchReason::Budget, "budget"),
];

impl FetchReason {
    /// The value in a table: `not_found`, `too_large`, `http_503` …
    #[must_use]
    pub fn as_str(self) -> Cow<'static, str> {
        match self {
            Self::Http(status) => format!("http_{status}").into(),
            Self::TooLarge { .. } => "too_large".into(),
            named => NAMED.iter().find(|(reason, _)| *reason == named).map_or("", |(_, name)| name).into(),
        }
    }

    /// Reads [`FetchReason::as_str`] back; `limit` is what the name of `too_large` does not say.
    pub(super) fn parse(name: &str, limit: Option<u64>) -> Option<Self> {
        match (name, limit) {
            ("too_large", Some(limit)) => Some(Self::TooLarge { limit }),
            _ => match name.strip_prefix("http_") {
                Some(status) => status.parse().ok().map(Self::Http),
                None => NAMED.iter().find(|(_, known)| *known == name).map(|(reason, _)| *reason),
            },
        }
    }

    /// Whether the same run tries again.
    #[must_use]
    pub fn may_pass(self) -> bool {
        match self {
            Self::Http(status) => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::Timeout | Self::Unreachable | Self::BrokenOff => true,
            _ => false,
        }
    }

    /// Whether a later run does not ask again. A refused address is looked at again, since the name may have moved and the
    /// host may be allowed by now.
    #[must_use]
    pub fn is_final(self) -> bool {
        !self.may_pass() && !matches!(self, Self::RefusedAddress | Self::Budget)
    }

    /// A failure of this kind.
    pub(super) fn because(self, detail: impl Into<String>) -> FetchFailure {
        FetchFailure { reason: self, detail: detail.into() }
    }
}
