//! What simulated workers have seen.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// What all workers of a process have seen since the last report.
#[derive(Debug, Default)]
pub struct Heard(Mutex<Report>);

/// What was seen; times in milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// How long each question took to be answered.
    pub answers: Vec<f64>,
    /// How long each worker waited from the end of a lease for the next one.
    pub waits: Vec<f64>,
    /// Registrations that were answered, and when the last of them was, since 1970.
    pub joined: u64,
    /// See `joined`.
    pub last_join: u64,
    /// When the first lease was granted, since 1970; 0 if none was.
    pub first_grant: u64,
    /// Leases that were granted.
    pub granted: u64,
    /// Shards that were committed.
    pub committed: u64,
    /// Shards that another worker had committed before: work for nothing.
    pub redone: u64,
    /// Leases that were taken back.
    pub revoked: u64,
    /// Sessions that broke.
    pub broken: u64,
}

impl Heard {
    /// Everything since the last report.
    #[must_use]
    pub fn report(&self) -> Report {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn answered(&self, took: Duration) {
        self.note(|report| report.answers.push(milliseconds(took)));
    }

    pub(super) fn joined(&self) {
        let now = now();
        self.note(|report| (report.joined, report.last_join) = (report.joined + 1, now));
    }

    pub(super) fn granted(&self, waited: Option<Duration>) {
        let now = now();
        self.note(|report| {
            report.granted += 1;
            report.waits.extend(waited.map(milliseconds));
            if report.first_grant == 0 {
                report.first_grant = now;
            }
        });
    }

    pub(super) fn note(&self, what: impl FnOnce(&mut Report)) {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Report {
    /// Takes in what another process saw.
    pub fn add(&mut self, other: Self) {
        self.answers.extend(other.answers);
        self.waits.extend(other.waits);
        self.joined += other.joined;
        self.last_join = self.last_join.max(other.last_join);
        self.first_grant = match (self.first_grant, other.first_grant) {
            (0, first) | (first, 0) => first,
            (ours, theirs) => ours.min(theirs),
        };
        self.granted += other.granted;
        self.committed += other.committed;
        self.redone += other.redone;
        self.revoked += other.revoked;
        self.broken += other.broken;
    }
}

/// Milliseconds since 1970: all processes of a run share one clock.
#[must_use]
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
