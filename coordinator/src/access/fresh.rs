//! What is made of files, and made again when they change.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tracing::{error, info};

use super::AccessError;

type Make<T> = Box<dyn Fn() -> Result<T, AccessError> + Send + Sync>;

/// A value made of files. Whoever asks looks at the files first, so that a change needs no restart and no signal.
pub(crate) struct Fresh<T> {
    files: Vec<PathBuf>,
    make: Make<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    stamps: Vec<Option<Stamp>>,
    /// What was made last of files that could be used.
    good: Arc<T>,
    /// Why the files as they are now cannot be used.
    problem: Option<String>,
}

/// What tells that a file is another one: a file moved into its place has another number, even within the same second.
#[derive(PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    number: u64,
}

impl Stamp {
    fn of(file: &Path) -> Option<Self> {
        let found = std::fs::metadata(file).ok()?;
        Some(Self { modified: found.modified().ok(), bytes: found.len(), number: found.ino() })
    }
}

impl<T> Fresh<T> {
    /// Makes the value for the first time.
    pub(crate) fn new(
        files: Vec<PathBuf>,
        make: impl Fn() -> Result<T, AccessError> + Send + Sync + 'static,
    ) -> Result<Self, AccessError> {
        // Looked at before they are read: a change between the two is seen the next time.
        let stamps = files.iter().map(|file| Stamp::of(file)).collect();
        let state = State { stamps, good: Arc::new(make()?), problem: None };
        Ok(Self { files, make: Box::new(make), state: Mutex::new(state) })
    }

    /// The value of the files as they are now, or the last one that could be made.
    pub(crate) fn latest(&self) -> Arc<T> {
        self.looked_at(|state| Arc::clone(&state.good))
    }

    /// The value of the files as they are now, or why there is none.
    pub(crate) fn current(&self) -> Result<Arc<T>, String> {
        self.looked_at(|state| match &state.problem {
            None => Ok(Arc::clone(&state.good)),
            Some(problem) => Err(problem.clone()),
        })
    }

    fn looked_at<R>(&self, answer: impl FnOnce(&State<T>) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stamps: Vec<_> = self.files.iter().map(|file| Stamp::of(file)).collect();
        if stamps != state.stamps {
            state.stamps = stamps;
            match (self.make)() {
                Ok(value) => {
                    info!(files = ?self.files, "changed files are in use");
                    (state.good, state.problem) = (Arc::new(value), None);
                }
                Err(e) => {
                    error!(files = ?self.files, error = %e, "files were changed and cannot be used");
                    state.problem = Some(e.to_string());
                }
            }
        }
        answer(&state)
    }
}
