//! Manners: how many pictures a host is asked for at once, and when not at all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

use super::outcome::{FetchFailure, FetchReason};

/// More at once than this is a mistake, and more than a semaphore takes would be a panic.
const MOST: usize = 4096;

/// Longer than any run, and still a time that a clock can show.
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Every host that was asked so far, and the places for all of them together.
pub(super) struct Hosts {
    places: Arc<Semaphore>,
    per_host: usize,
    gives_up_after: u32,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

/// What is known about one host.
pub(super) struct Host {
    places: Semaphore,
    gives_up_after: u32,
    /// Failures to connect since it last answered.
    in_a_row: AtomicU32,
    paused_until: Mutex<Instant>,
}

/// The right to ask a host, until it is dropped.
pub(super) struct Turn<'a> {
    _of_host: SemaphorePermit<'a>,
    place: Place,
}

/// The place of a picture among all. It is kept until the picture is stored, so that a store slower than the network holds
/// the network up instead of filling the memory.
pub(super) struct Place {
    _of_all: OwnedSemaphorePermit,
}

impl Hosts {
    pub(super) fn new(concurrent: usize, per_host: usize, gives_up_after: u32) -> Self {
        let places = Arc::new(Semaphore::new(concurrent.clamp(1, MOST)));
        Self { places, per_host: per_host.clamp(1, MOST), gives_up_after, hosts: Mutex::default() }
    }

    pub(super) fn get(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(name) {
            return host.clone();
        }
        let host = Arc::new(Host::new(self.per_host, self.gives_up_after));
        hosts.insert(name.to_owned(), host.clone());
        host
    }

    /// Waits until the host may be asked. While somebody waits for a host, the places for all are free for others.
    pub(super) async fn turn<'a>(&'a self, host: &'a Host) -> Turn<'a> {
        loop {
            sleep_until(host.paused_until()).await;
            let of_host = host.places.acquire().await.expect("no semaphore of ours is closed");
            let of_all = self.places.clone().acquire_owned().await.expect("no semaphore of ours is closed");
            if host.paused_until() <= Instant::now() {
                return Turn { _of_host: of_host, place: Place { _of_all: of_all } };
            }
        }
    }
}

impl Turn<'_> {
    /// Leaves the host to others.
    pub(super) fn into_place(self) -> Place {
        self.place
    }
}

impl Host {
    fn new(places: usize, gives_up_after: u32) -> Self {
        let (places, paused_until) = (Semaphore::new(places), Mutex::new(Instant::now()));
        Self { places, gives_up_after, in_a_row: AtomicU32::new(0), paused_until }
    }

    /// Leaves the host alone for a while; of two pauses, the one that ends later counts.
    pub(super) fn pause(&self, pause: Duration) {
        let mut until = self.paused_until.lock().unwrap_or_else(PoisonError::into_inner);
        *until = (*until).max(Instant::now() + pause.min(LONGEST_PAUSE));
    }

    fn paused_until(&self) -> Instant {
        *self.paused_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The host is there, whatever it said.
    pub(super) fn answered(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
    }

    /// There was no connection.
    pub(super) fn unreachable(&self) {
        self.in_a_row.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the host is worth another try. Without this, one dead host with many pictures costs hours.
    pub(super) fn check(&self) -> Result<(), FetchFailure> {
        let failures = self.in_a_row.load(Ordering::Relaxed);
        if failures < self.gives_up_after {
            return Ok(());
        }
        let detail = format!("no connection {failures} times in a row, so the host is left alone until the next run");
        Err(FetchReason::Unreachable.because(detail))
    }
}
