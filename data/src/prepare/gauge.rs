//! How far a preparation is, for whoever waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Shows from outside what [`super::prepare`] is doing; clones show the same.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<State>);

#[derive(Debug, Default)]
struct State {
    rows: AtomicU64,
    read: AtomicBool,
}

impl Gauge {
    /// Rows read so far, good and bad ones.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.0.rows.load(Ordering::Relaxed)
    }

    /// What is being done, in a word.
    #[must_use]
    pub fn phase(&self) -> &'static str {
        if self.0.read.load(Ordering::Relaxed) { "filtering" } else { "reading" }
    }

    pub(super) fn add_row(&self) {
        self.0.rows.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end_of_reading(&self) {
        self.0.read.store(true, Ordering::Relaxed);
    }
}
