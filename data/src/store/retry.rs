//! Patience with a store that fails now and then.

use observe::figures;
use std::future::Future;
use std::sync::PoisonError;
use std::time::Duration;

use super::Store;
use crate::{Class, Error, Result};

/// How often and how slowly a failed call is tried again. The clients of cloud stores try again on their own, a few times;
/// this is what comes on top, and what a local store has.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Calls in all, the first one included.
    pub attempts: u32,
    /// Pause after the first failure; it doubles from there.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// No call is begun when the first one is so long ago.
    pub deadline: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 10,
            first: Duration::from_millis(100),
            longest: Duration::from_secs(5),
            deadline: Duration::from_secs(120),
        }
    }
}

impl Retry {
    /// As often as need be for a time: for work that should outlast a store that is gone, or full, for a while.
    #[must_use]
    pub fn outlasting(time: Duration) -> Self {
        Self { attempts: u32::MAX, deadline: time, ..Self::default() }
    }

    /// Whether it makes sense to call again. An identity that cannot be found has been looked for often enough by the
    /// client; a full disk may be cleared by somebody, for whoever has the time.
    pub(super) fn is_worth(&self, error: &Error) -> bool {
        match error {
            Error::NoIdentity { .. } => false,
            Error::DiskFull { .. } => self.attempts == u32::MAX,
            error => error.class() == Class::Retry,
        }
    }

    /// Pause after the given number of failures.
    fn pause(&self, failures: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16));
        doubled.min(self.longest)
    }
}

/// How long a failing store is kept to oneself.
const QUIET: Duration = Duration::from_secs(10);

/// The failures of one call so far.
#[derive(Debug, Default)]
pub(super) struct Failures {
    count: u32,
    /// When the first call was, and when they were last spoken of.
    since: Option<(Duration, Duration)>,
}

/// The kind of a failure, as figures have it. That nothing is there is an answer.
pub(super) fn code(error: &object_store::Error) -> &'static str {
    use object_store::Error as E;
    match error {
        E::NotFound { .. } => "ok",
        E::AlreadyExists { .. } | E::Precondition { .. } | E::NotModified { .. } => "conflict",
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => "denied",
        _ => "failed",
    }
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
                    figures().store_call(action, "ok");
                    self.went_well();
                    return Ok(value);
                }
                Err(error) => {
                    figures().store_call(action, code(&error));
                    self.pause(&mut failures, self.explain(error, action, path)).await?;
                }
            }
        }
    }

    /// Waits before the next call, or hands the error back if there should be none.
    pub(super) async fn pause(&self, failures: &mut Failures, error: Error) -> Result<()> {
        failures.count += 1;
        let now = self.clock.now();
        let (began, told) = failures.since.get_or_insert((now, now));
        let failing = now.saturating_sub(*began);
        let over = failures.count >= self.retry.attempts || failing >= self.retry.deadline;
        if over || !self.retry.is_worth(&error) || self.until.is_cancelled() {
            // An answer is an answer: the store is there.
            self.went_well();
            return Err(error);
        }
        if now.saturating_sub(*told) >= QUIET {
            *told = now;
            tracing::warn!(%error, "the store has failed for {} s, trying again", failing.as_secs());
        } else {
            tracing::debug!(%error, failures = failures.count, "the store failed, trying again");
        }
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        tokio::select! {
            biased;
            () = self.until.cancelled() => Err(error),
            () = self.clock.sleep(self.retry.pause(failures.count)) => Ok(()),
        }
    }

    /// Whatever calls waited for is over.
    pub(super) fn went_well(&self) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}
