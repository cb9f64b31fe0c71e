//! How a store waits: by the timer of the runtime, or as a simulation says.

use std::fmt::Debug;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

/// Time for calls that are tried again.
pub trait Clock: Debug + Send + Sync {
    /// Time since some beginning.
    fn now(&self) -> Duration;
    /// Waits.
    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()>;
}

/// The timer of the runtime.
#[derive(Debug)]
pub(super) struct Timer {
    began: Instant,
}

impl Default for Timer {
    fn default() -> Self {
        Self { began: Instant::now() }
    }
}

impl Clock for Timer {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn sleep(&self, pause: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(pause).boxed()
    }
}
