//! Whether a store keeps the promises on which commits rest, found out on the store itself.
//!
//! Many programs that speak S3 take `If-None-Match: *` and ignore it, or look first and write afterwards: two workers then
//! both believe that they have committed a shard. No version number tells, so the store is tried: it is written to below a
//! prefix of its own, through the same calls as every job, and what was written is removed at the end.

#[cfg(test)]
mod tests;

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use futures::{StreamExt, TryStreamExt, stream};

use super::{Created, Store};
use crate::{Error, Result};

/// Writers that race for one object.
const WRITERS: usize = 16;
/// Objects that they race for. A store that looks first and writes afterwards breaks its promise only now and then.
const ROUNDS: usize = 96;
/// Races at once: a busy store shows more of what it does wrong.
const AT_ONCE: usize = 8;
/// Writers and rounds for a coordinator that starts: few enough to take less than a second, and enough for a store that
/// ignores the condition altogether.
const QUICK: (usize, usize) = (8, 2);
/// Calls of which the median is shown.
const TIMED: usize = 15;

/// One thing that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// An object is created and read back.
    CreateAndRead,
    /// An object that was created is in the listing at once.
    ListAfterCreate,
    /// A second create of the same object is refused.
    CreateTwice,
    /// Of many creates at once one wins, and its bytes stay.
    Race,
    /// An object that was deleted is gone.
    Delete,
}

impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CreateAndRead => "create and read",
            Self::ListAfterCreate => "list after create",
            Self::CreateTwice => "create twice",
            Self::Race => "race of creates",
            Self::Delete => "delete",
        })
    }
}

/// How one trial ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What was tried.
    pub trial: Trial,
    /// Whether the store did what jobs rely on.
    pub passed: bool,
    /// What was seen.
    pub seen: String,
}

/// Medians of the time that one call took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Creating a small object.
    pub create: Duration,
    /// Reading it.
    pub get: Duration,
    /// Listing a folder of a few objects.
    pub list: Duration,
}

/// What was found out about a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Findings {
    /// Every trial, in the order in which they were made.
    pub verdicts: Vec<Verdict>,
    /// How quick it is.
    pub latency: Latency,
}

impl Findings {
    /// Why the store cannot hold jobs, if it cannot.
    #[must_use]
    pub fn objection(&self) -> Option<String> {
        let failed: Vec<&Verdict> = self.verdicts.iter().filter(|v| !v.passed).collect();
        if failed.is_empty() {
            return None;
        }
        let seen = failed.iter().map(|v| format!("{}: {}", v.trial, v.seen)).collect::<Vec<_>>().join("; ");
        let creates = failed.iter().any(|v| matches!(v.trial, Trial::CreateTwice | Trial::Race));
        let advice = if creates {
            "; conditional writes are not honoured, so two workers could both commit the same shard. moto (without its \
             requests in a row), s3rver, s3s-fs and old gateways behave so; S3, GCS, Azure, R2 and current MinIO do not"
        } else {
            ""
        };
        Some(seen + advice)
    }
}

/// Tries everything that jobs rely on, and takes the time.
///
/// # Errors
/// The store's own failures; that a promise is broken is a finding, not an error.
pub async fn examine(store: &Store) -> Result<Findings> {
    let scratch = Scratch::new(store);
    let findings = scratch.examine().await;
    let removed = scratch.remove().await;
    let findings = findings?;
    removed?;
    Ok(findings)
}

/// Refuses a store that lets two creates of one object win. Takes less than a second; a store that breaks its promise
/// only now and then may get through here, and is caught by [`examine`] sooner or later.
///
/// # Errors
/// [`Error::UnsafeStore`]; the store's own failures.
pub async fn require_safe(store: &Store) -> Result<()> {
    let scratch = Scratch::new(store);
    let (writers, rounds) = QUICK;
    let verdicts = async { Ok(vec![scratch.create_twice().await?, scratch.race(writers, rounds).await?]) }.await;
    let removed = scratch.remove().await;
    let findings = Findings { verdicts: verdicts?, latency: Latency::default() };
    removed?;
    match findings.objection() {
        None => Ok(()),
        Some(reason) => {
            let reason = format!("{reason}. `mllm4rec doctor --store {}` tries more", store.url());
            Err(Error::UnsafeStore { url: store.url().to_owned(), reason })
        }
    }
}

/// A prefix of its own.
struct Scratch<'a> {
    store: &'a Store,
    prefix: String,
}

impl<'a> Scratch<'a> {
    fn new(store: &'a Store) -> Self {
        // Its keys are random, in every process anew.
        let random = RandomState::new().build_hasher().finish();
        Self { store, prefix: format!("_control/v1/doctor/{random:016x}") }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.prefix)
    }

    async fn examine(&self) -> Result<Findings> {
        let (created, latency) = self.create_and_read().await?;
        let listed = self.list_after_create().await?;
        let twice = self.create_twice().await?;
        let race = self.race(WRITERS, ROUNDS).await?;
        let deleted = self.delete().await?;
        Ok(Findings { verdicts: vec![created, listed, twice, race, deleted], latency })
    }

    async fn create_and_read(&self) -> Result<(Verdict, Latency)> {
        let (mut create, mut get, mut list) = (Vec::new(), Vec::new(), Vec::new());
        let mut wrong = Vec::new();
        for i in 0..TIMED {
            let (path, bytes) = (self.path(&format!("timed/{i:02}")), Bytes::from(format!("object {i}")));
            timed(&mut create, self.store.create(&path, bytes.clone())).await?;
            if timed(&mut get, self.store.try_get(&path)).await? != Some(bytes) {
                wrong.push(path);
            }
            timed(&mut list, self.store.list(&self.path("timed"))).await?;
        }
        let seen = match wrong.first() {
            None => format!("{TIMED} of {TIMED} objects were read as they were written"),
            Some(path) => format!("{} of {TIMED} objects read back differ or are gone, as {path}", wrong.len()),
        };
        let latency = Latency { create: median(create), get: median(get), list: median(list) };
        Ok((Verdict { trial: Trial::CreateAndRead, passed: wrong.is_empty(), seen }, latency))
    }

    async fn list_after_create(&self) -> Result<Verdict> {
        let mut late = 0;
        for i in 0..TIMED {
            let path = self.path(&format!("listed/{i:02}"));
            self.store.create(&path, Bytes::from_static(b"listed")).await?;
            late += usize::from(!self.store.list(&self.path("listed")).await?.iter().any(|entry| entry.path == path));
        }
        let seen = format!("{} of {TIMED} objects were in the listing right after their creation", TIMED - late);
        Ok(Verdict { trial: Trial::ListAfterCreate, passed: late == 0, seen })
    }

    async fn create_twice(&self) -> Result<Verdict> {
        let path = self.path("twice");
        self.store.create(&path, Bytes::from_static(b"first")).await?;
        let second = self.store.create(&path, Bytes::from_static(b"second")).await?;
        let kept = self.store.get(&path).await?.as_ref() == b"first";
        let (passed, seen) = match (second, kept) {
            (Created::Exists, true) => (true, "the second was refused"),
            (Created::New, _) => (false, "the second was accepted and has replaced the first"),
            (Created::Exists, false) => (false, "the second was refused and has replaced the first"),
        };
        Ok(Verdict { trial: Trial::CreateTwice, passed, seen: seen.to_owned() })
    }

    async fn race(&self, writers: usize, rounds: usize) -> Result<Verdict> {
        let paths = (0..rounds).map(|round| self.path(&format!("race/{round:02}")));
        let races = stream::iter(paths).map(|path| async move { self.one_wins(&path, writers).await });
        let fair: Vec<bool> = races.buffer_unordered(AT_ONCE).try_collect().await?;
        let wrong = fair.iter().filter(|fair| !**fair).count();
        let seen = format!("{} of {rounds} objects had exactly one winner among {writers} writers", rounds - wrong);
        Ok(Verdict { trial: Trial::Race, passed: wrong == 0, seen })
    }

    /// Whether one of many creates at once wins, and its bytes stay.
    async fn one_wins(&self, path: &str, writers: usize) -> Result<bool> {
        let body = |writer: usize| Bytes::from(format!("writer {writer:02}"));
        let ended = try_join_all((0..writers).map(|writer| self.store.create(path, body(writer)))).await?;
        let winners: Vec<usize> = (0..writers).filter(|&writer| ended[writer] == Created::New).collect();
        let kept = self.store.get(path).await?;
        Ok(winners.len() == 1 && kept == body(winners[0]))
    }

    async fn delete(&self) -> Result<Verdict> {
        let path = self.path("deleted");
        self.store.create(&path, Bytes::from_static(b"deleted")).await?;
        self.store.delete(&path).await?;
        let passed = self.store.try_get(&path).await?.is_none();
        let seen = if passed { "the object is gone" } else { "the object can still be read" };
        Ok(Verdict { trial: Trial::Delete, passed, seen: seen.to_owned() })
    }

    /// Removes all that was written.
    async fn remove(&self) -> Result<()> {
        let entries = self.store.list(&self.prefix).await?;
        let deleted = join_all(entries.iter().map(|entry| self.store.delete(&entry.path))).await;
        if let Some(folder) = self.store.folder() {
            let _ = std::fs::remove_dir_all(folder.join(&self.prefix)); // empty folders harm nobody
        }
        deleted.into_iter().collect()
    }
}

async fn timed<T>(times: &mut Vec<Duration>, call: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let value = call.await;
    times.push(started.elapsed());
    value
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
