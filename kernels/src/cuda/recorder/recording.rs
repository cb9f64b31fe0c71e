//! A recording as its owner sees it.

use std::sync::{Arc, Weak};

use super::Recorder;
use super::pass::Mode;

/// Work that is done again and again on a device, kept so that it can be asked for in one piece: see
/// [`Device::replayed`](crate::Device::replayed). A new one holds nothing.
///
/// It keeps the memory of the work's temporary tensors, and gives it back when it is dropped.
#[derive(Debug, Default)]
pub struct Recording {
    kept: Option<Kept>,
    recorded: u64,
    replayed: u64,
    difference: Option<String>,
}

impl Recording {
    /// How often the work was done step by step, and recorded.
    #[must_use]
    pub fn recorded(&self) -> u64 {
        self.recorded
    }

    /// How often it was done in one piece, or a few if something is read in between.
    #[must_use]
    pub fn replayed(&self) -> u64 {
        self.replayed
    }

    /// Why the last pass that could have been replayed was not, in words for people.
    #[must_use]
    pub fn difference(&self) -> Option<&str> {
        self.difference.as_deref()
    }

    /// Its number on a device.
    pub(super) fn number(&mut self, on: &Arc<Recorder>) -> u64 {
        let here = Arc::downgrade(on);
        let kept = self.kept.take().filter(|kept| kept.on.ptr_eq(&here));
        self.kept.insert(kept.unwrap_or_else(|| Kept { number: on.next_number(), on: here })).number
    }

    /// Takes down how a pass went.
    pub(super) fn note(&mut self, mode: Mode, difference: Option<String>) {
        match mode {
            Mode::Recording => self.recorded += 1,
            Mode::Replaying => self.replayed += 1,
            Mode::Plain => {}
        }
        self.difference = difference.or(self.difference.take());
    }
}

/// What a device keeps for a recording.
#[derive(Debug)]
struct Kept {
    number: u64,
    on: Weak<Recorder>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(recorder) = self.on.upgrade() {
            recorder.forget(self.number);
        }
    }
}
