//! One run or coordinator at a time under a root on this machine.

use std::fs::{File, TryLockError};

use anyhow::Result;
use data::store::Store;

/// Stands where a run is at work, and holds nothing.
const NAME: &str = "_control/v1/run.lock";

/// Another run or coordinator uses the root.
#[derive(Debug, thiserror::Error)]
#[error(
    "another `mllm4rec run`, `coordinator`, `rm` or `gc` is at work under {root}: wait for it or stop it, hand the job to the \
      coordinator with `mllm4rec submit`, or give this one a root of its own with --root"
)]
pub(crate) struct RootInUse {
    root: String,
}

/// The right to run under a root; given up when it is dropped, however the process ends.
///
/// Coordinators on several machines are told apart by their terms, of which the last wins. On one machine the first wins:
/// nobody who types a command twice means to stop the first.
pub(crate) struct RootLock(#[expect(dead_code, reason = "held, never read")] Option<File>);

impl RootLock {
    /// Takes the root, unless it is in use. Where there is nothing to lock, the terms alone decide.
    pub(crate) fn take(store: &Store) -> Result<Self> {
        let Some(root) = store.folder() else { return Ok(Self(None)) };
        let path = root.join(NAME);
        let open = || {
            std::fs::create_dir_all(path.parent().unwrap_or(root))?;
            File::options().create(true).truncate(false).write(true).open(&path)
        };
        // A root that cannot be written is told by the first that has to write there.
        let Ok(file) = open() else { return Ok(Self(None)) };
        match file.try_lock() {
            Ok(()) => Ok(Self(Some(file))),
            Err(TryLockError::WouldBlock) => Err(RootInUse { root: root.display().to_string() }.into()),
            Err(TryLockError::Error(e)) => {
                tracing::debug!(error = %e, "this file system has no locks");
                Ok(Self(None))
            }
        }
    }
}
