//! What a store's failure means: which object, what to do, and whether trying again can help.

use std::error::Error as StdError;
use std::io::ErrorKind;

use object_store::Error as Failure;

use super::{Store, cloud};
use crate::{Class, Error};

impl Store {
    /// Names the object and the way out.
    pub(super) fn explain(&self, failure: Failure, action: &'static str, path: &str) -> Error {
        let object = self.name(path);
        let reason = words(&failure);
        if lacks_bucket(&reason) {
            return Error::NoBucket { url: self.url().to_owned(), reason };
        }
        let not_found = matches!(failure, Failure::NotFound { .. }) || io_kind(&failure) == Some(ErrorKind::NotFound);
        if not_found && self.has_gone() {
            let reason = format!("{} has lost everything that was in it: is its file system mounted?", self.url());
            return Error::Store { action, object, reason, class: Class::Retry };
        }
        let scheme = self.url().split("://").next().unwrap_or_default();
        if lacks_identity(&reason) {
            return Error::NoIdentity { url: self.url().to_owned(), remedy: cloud::identity(scheme), reason };
        }
        match &failure {
            Failure::NotFound { .. } => Error::NotFound { object },
            Failure::PermissionDenied { .. } | Failure::Unauthenticated { .. } => {
                Error::Denied { action, object, reason }
            }
            Failure::NotSupported { .. }
            | Failure::NotImplemented { .. }
            | Failure::InvalidPath { .. }
            | Failure::UnknownConfigurationKey { .. } => Error::Store { action, object, reason, class: Class::Fatal },
            _ => match io_kind(&failure) {
                Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => Error::DiskFull { action, object, reason },
                Some(ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
                    Error::Denied { action, object, reason }
                }
                _ if status(&reason) == Some(507) => Error::DiskFull { action, object, reason },
                kind => {
                    let class = class(kind, &reason);
                    let hint = if elsewhere(&reason) { "; set AWS_REGION to the region of the bucket" } else { "" };
                    Error::Store { action, object, class, reason: reason + hint }
                }
            },
        }
    }
}

/// Whether trying again can help against a failure that no variant stands for.
fn class(kind: Option<ErrorKind>, reason: &str) -> Class {
    let final_kind = matches!(
        kind,
        Some(
            ErrorKind::NotADirectory
                | ErrorKind::IsADirectory
                | ErrorKind::InvalidFilename
                | ErrorKind::CrossesDevices
                | ErrorKind::FileTooLarge
                | ErrorKind::InvalidInput
        )
    );
    if final_kind || elsewhere(reason) || status(reason).is_some_and(|status| refused(status, reason)) {
        Class::Fatal
    } else {
        Class::Retry
    }
}

/// The HTTP status of the answer. The client's error type does not show it; its message does.
fn status(reason: &str) -> Option<u16> {
    let (_, rest) = reason.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// Whether an answer means that the same request will be refused again.
fn refused(status: u16, reason: &str) -> bool {
    match status {
        // A request that came too slowly is a bad one to S3.
        400 => !reason.contains("RequestTimeout"),
        // Too slow, in conflict with another one, changed meanwhile, too early, too many.
        408 | 409 | 412 | 425 | 429 => false,
        // A method or version that the server does not know.
        501 | 505 => true,
        other => (400..500).contains(&other),
    }
}

/// Whether the bucket is in another region than was asked.
fn elsewhere(reason: &str) -> bool {
    ["redirect without LOCATION", "AuthorizationHeaderMalformed", "PermanentRedirect"]
        .iter()
        .any(|s| reason.contains(s))
}

/// Whether the metadata service of a machine was asked for an identity, and gave none: what the clients do last.
fn lacks_identity(reason: &str) -> bool {
    ["http://169.254.169.254/", "/latest/api/token", "http://metadata/", "metadata.google.internal"]
        .iter()
        .any(|s| reason.contains(s))
}

fn lacks_bucket(reason: &str) -> bool {
    ["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"].iter().any(|s| reason.contains(s))
}

/// The kind of the innermost input/output error, if there is one.
fn io_kind(failure: &(dyn StdError + 'static)) -> Option<ErrorKind> {
    let mut kind = None;
    let mut next = Some(failure);
    while let Some(error) = next {
        next = error.source();
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            kind = Some(io.kind());
            next = io.get_ref().map(|inner| inner as &(dyn StdError + 'static)).or(next);
        }
    }
    kind
}

/// The message of the failure with those of its causes, each once.
fn words(failure: &(dyn StdError + 'static)) -> String {
    let mut text = failure.to_string();
    let mut next = failure.source();
    while let Some(error) = next {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        next = error.source();
    }
    text
}
