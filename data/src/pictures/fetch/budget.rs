//! The time and the bytes of the whole step.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::outcome::{FetchFailure, FetchReason};

/// What is left of the time and the bytes.
pub(super) struct Budget {
    began: Instant,
    time: Duration,
    bytes_left: AtomicU64,
}

impl Budget {
    pub(super) fn new(time: Duration, bytes: u64) -> Self {
        Self { began: Instant::now(), time, bytes_left: AtomicU64::new(bytes) }
    }

    pub(super) fn time_left(&self) -> Duration {
        self.time.saturating_sub(self.began.elapsed())
    }

    /// Whether another picture may be asked for.
    pub(super) fn check(&self) -> Result<(), FetchFailure> {
        if self.time_left().is_zero() {
            return Err(Self::out_of_time());
        }
        if self.bytes_left.load(Ordering::Relaxed) == 0 { Err(Self::out_of_bytes()) } else { Ok(()) }
    }

    /// Takes bytes that have arrived. Once there are too few, there are none for anybody.
    pub(super) fn take(&self, bytes: u64) -> Result<(), FetchFailure> {
        let taken = self.bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.map(|_| ()).map_err(|_| {
            self.bytes_left.store(0, Ordering::Relaxed);
            Self::out_of_bytes()
        })
    }

    pub(super) fn out_of_time() -> FetchFailure {
        FetchReason::Budget.because("the time for all pictures was used up; the next run goes on here")
    }

    fn out_of_bytes() -> FetchFailure {
        FetchReason::Budget.because("the bytes for all pictures were used up; the next run goes on here")
    }
}
