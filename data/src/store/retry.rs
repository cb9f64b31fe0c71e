//! Patience with a store that fails now and then.

use std::future::Future;
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
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 7, first: Duration::from_millis(100), longest: Duration::from_secs(5) }
    }
}

impl Retry {
    /// Pause after the given number of failures.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(self.longest)
    }
}

impl Store {
    /// Calls until it succeeds, fails for good, or patience ends.
    pub(super) async fn retrying<T, F, C>(&self, action: &'static str, path: &str, call: C) -> Result<T>
    where
        C: Fn() -> F,
        F: Future<Output = object_store::Result<T>>,
    {
        let mut failures = 0;
        loop {
            match call().await {
                Ok(value) => return Ok(value),
                Err(error) => failures = self.pause(failures, self.explain(error, action, path)).await?,
            }
        }
    }

    /// Waits before the next call, or hands the error back if there should be none. Returns the failures so far.
    pub(super) async fn pause(&self, failures: u32, error: Error) -> Result<u32> {
        let failures = failures + 1;
        if error.class() == Class::Fatal || failures >= self.retry.attempts {
            return Err(error);
        }
        tracing::debug!(%error, failures, "the store failed, trying again");
        tokio::time::sleep(self.retry.pause(failures)).await;
        Ok(failures)
    }
}
