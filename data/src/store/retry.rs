//! Patience with a store that fails now and then.

use std::future::Future;
use std::sync::PoisonError;
use std::time::Duration;

use super::Store;
use crate::{Class, Error, Result};

/// How often and how slowly a failed call is tried again. The clients of cloud stores try again on their own; this is
/// what comes on top, and what a local store has.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Calls in all, the first one included.
    pub attempts: u32,
    /// Pause after the first failure; it doubles from there.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// For how long calls go on after that, where somebody would rather wait than fail.
    pub patience: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 7,
            first: Duration::from_millis(100),
            longest: Duration::from_secs(5),
            patience: Duration::ZERO,
        }
    }
}

impl Retry {
    /// The same, going on for so long.
    pub(super) fn for_at_least(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Whether it makes sense to wait: a full disk may be cleared by somebody, for whoever has the patience.
    pub(super) fn is_worth(&self, error: &Error) -> bool {
        error.class() == Class::Retry || (!self.patience.is_zero() && matches!(error, Error::DiskFull { .. }))
    }

    /// Pause after the given number of failures.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(self.longest)
    }
}

/// The failures of one call so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Failures {
    count: u32,
    since: Option<Duration>,
}

impl Store {
    /// Calls until it succeeds, fails for good, or patience ends.
    pub(super) async fn retrying<T, F, C>(&self, action: &'static str, path: &str, call: C) -> Result<T>
    where
        C: Fn() -> F,
        F: Future<Output = object_store::Result<T>>,
    {
        let mut failures = Failures::default();
        loop {
            match call().await {
                Ok(value) => {
                    self.went_well();
                    return Ok(value);
                }
                Err(error) => failures = self.pause(failures, self.explain(error, action, path)).await?,
            }
        }
    }

    /// Waits before the next call, or hands the error back if there should be none. Returns the failures so far.
    pub(super) async fn pause(&self, failures: Failures, error: Error) -> Result<Failures> {
        let now = self.clock.now();
        let since = failures.since.unwrap_or(now);
        let count = failures.count + 1;
        let patient = count < self.retry.attempts || now.saturating_sub(since) < self.retry.patience;
        if !self.retry.is_worth(&error) || !patient || self.until.is_cancelled() {
            // An answer is an answer: the store is there.
            self.went_well();
            return Err(error);
        }
        tracing::debug!(%error, count, "the store failed, trying again");
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        tokio::select! {
            biased;
            () = self.until.cancelled() => Err(error),
            () = self.clock.sleep(self.retry.pause(count)) => Ok(Failures { count, since: Some(since) }),
        }
    }

    /// Whatever calls waited for is over.
    pub(super) fn went_well(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
