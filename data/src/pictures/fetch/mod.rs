//! Pictures from the URLs in the items' metadata, fetched into a store.
//!
//! The URLs are written by strangers and the servers are theirs, so nothing they say is believed: who may be asked is decided
//! by the address that a name really has (`address`, `target`, `client`), again at each redirect; how long and how
//! much, by [`FetchOptions`]; what a picture is, by its first bytes (`image`). A URL that fails is a row of the result, and
//! only a store that fails ends a run.
//!
//! Bytes are stored once under their SHA-256, and each URL has a record (`record`). A run that was killed goes on where it was:
//! what an earlier one has settled is not asked again.

mod address;
mod attempt;
mod body;
mod budget;
mod client;
mod hosts;
mod image;
mod outcome;
mod patience;
mod record;
mod run;
mod target;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use outcome::{FetchFailure, FetchOutcome, FetchReason};
pub use record::{FetchRecord, picture_path, record_path};

use crate::store::Store;
use crate::{Error, Result};

/// How pictures are fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOptions {
    /// Pictures at a time.
    pub concurrent: usize,
    /// Pictures of one host at a time.
    pub per_host: usize,
    /// Tries for a picture, the first one included.
    pub attempts: u32,
    /// Time to connect, the lookup of the name included.
    pub connect_time: Duration,
    /// Time for one try at a picture, redirects and body included.
    pub picture_time: Duration,
    /// Size of a picture.
    pub picture_bytes: u64,
    /// Time for all pictures.
    pub budget_time: Duration,
    /// Bytes of all pictures that this run receives.
    pub budget_bytes: u64,
    /// Redirects of one picture.
    pub redirects: u32,
    /// Pause after the first failure; it doubles from there.
    pub pause_first: Duration,
    /// The longest pause between two tries.
    pub pause_longest: Duration,
    /// The longest pause that a server can ask for (`Retry-After`).
    pub retry_after_longest: Duration,
    /// Failures to connect in a row after which a host is left alone until the next run.
    pub host_failures: u32,
    /// Hosts that may be at any address, private ones included: `host`, or `host:port` for one port of it.
    pub allow_hosts: Vec<String>,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            concurrent: 16,
            per_host: 4,
            attempts: 4,
            connect_time: Duration::from_secs(10),
            picture_time: Duration::from_secs(30),
            picture_bytes: 20 << 20,
            budget_time: Duration::from_secs(6 * 3600),
            budget_bytes: 200 << 30,
            redirects: 3,
            pause_first: Duration::from_millis(500),
            pause_longest: Duration::from_secs(30),
            retry_after_longest: Duration::from_secs(120),
            host_failures: 32,
            allow_hosts: Vec::new(),
        }
    }
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchProgress {
    /// Distinct URLs in all.
    pub urls: u64,
    /// URLs whose picture is in the store, by this run or an earlier one.
    pub stored: u64,
    /// Bytes of these pictures; a picture of two URLs counts twice.
    pub stored_bytes: u64,
    /// URLs without a picture, final or not.
    pub failed: u64,
}

impl FetchProgress {
    fn add(&mut self, outcome: &FetchOutcome) {
        match outcome {
            FetchOutcome::Ok { bytes, .. } => {
                self.stored += 1;
                self.stored_bytes += bytes;
            }
            FetchOutcome::Failed(_) => self.failed += 1,
        }
    }
}

/// Whether these can be hosts that may be at private addresses.
///
/// # Errors
/// [`Error::AllowedHost`] naming the first that cannot.
pub fn check_hosts(entries: &[String]) -> Result<()> {
    target::AllowHosts::parse(entries).map(drop)
}

/// Fetches pictures into a store. Returns one record per distinct URL, in order of first appearance; a URL that fails is a
/// record too. What earlier runs have settled is taken from the store. `told` hears of every URL that is done.
///
/// At most `concurrent` pictures of `picture_bytes` are in memory, those that wait for the store included.
///
/// # Errors
/// [`Error::FetchStopped`] when `stop` is cancelled; what is stored by then is kept. [`Error::AllowedHost`] and
/// [`Error::FetchClient`] before anything is asked; the store's own failures.
pub async fn fetch_all(
    store: &Store,
    urls: Vec<String>,
    options: &FetchOptions,
    stop: &CancellationToken,
    told: impl Fn(FetchProgress) + Send + Sync,
) -> Result<Vec<FetchRecord>> {
    fetch_by_names(Arc::new(client::SystemNames), store, urls, options, stop, &told).await
}

/// The same with names from anywhere.
async fn fetch_by_names(
    names: Arc<dyn client::Names>,
    store: &Store,
    urls: Vec<String>,
    options: &FetchOptions,
    stop: &CancellationToken,
    told: &(dyn Fn(FetchProgress) + Send + Sync),
) -> Result<Vec<FetchRecord>> {
    let run = run::Run { store, options, names, told };
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Error::FetchStopped),
        records = run.all(urls) => records,
    }
}
