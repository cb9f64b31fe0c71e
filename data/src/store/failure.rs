//! What a store's failure means: which object, what to do, and whether trying again can help.

use std::error::Error as StdError;
use std::io::ErrorKind;

use object_store::Error as Failure;

use super::Store;
use crate::{Class, Error};

impl Store {
    /// Names the object and the way out.
    pub(super) fn explain(&self, failure: Failure, action: &'static str, path: &str) -> Error {
        let object = self.name(path);
        let reason = words(&failure);
        if lacks_bucket(&reason) {
            return Error::NoBucket { url: self.url().to_owned(), reason };
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
                kind => Error::Store { action, object, class: class(kind, &reason), reason },
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
    // The client's error type does not show its HTTP status; its message does.
    let refused = ["status 400", "status 405", "status 411", "status 413"].iter().any(|s| reason.contains(s));
    if final_kind || refused { Class::Fatal } else { Class::Retry }
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
