//! All pictures: a queue for each host, so that a slow or paused one holds nobody else up.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::FuturesUnordered;
use futures::{FutureExt, TryStreamExt};

use super::attempt::Getter;
use super::client::Names;
use super::outcome::FetchOutcome;
use super::record::{self, FetchRecord};
use super::{FetchOptions, FetchProgress, Result};
use crate::store::Store;

/// One run over a list of URLs.
pub(super) struct Run<'a> {
    pub(super) store: &'a Store,
    pub(super) options: &'a FetchOptions,
    pub(super) names: Arc<dyn Names>,
    pub(super) told: &'a (dyn Fn(FetchProgress) + Send + Sync),
}

/// The URLs of one host that are still to be asked, as places in the list of all.
#[derive(Default)]
struct Queue {
    places: Vec<usize>,
    next: AtomicUsize,
}

impl Queue {
    fn pop(&self) -> Option<usize> {
        self.places.get(self.next.fetch_add(1, Ordering::Relaxed)).copied()
    }
}

impl Run<'_> {
    /// Fetches what no earlier run has settled. One record per distinct URL, in order of first appearance.
    pub(super) async fn all(&self, urls: Vec<String>) -> Result<Vec<FetchRecord>> {
        let getter = Getter::new(self.options, &self.names)?;
        let urls = distinct(urls);
        let mut records = record::settled(self.store, &urls, self.options).await?;
        let progress = Progress::new(self.told, &records);

        let mut queues: BTreeMap<String, Queue> = BTreeMap::new();
        for (i, url) in urls.iter().enumerate().filter(|(i, _)| records[*i].is_none()) {
            queues.entry(getter.queue(url)).or_default().places.push(i);
        }
        let lanes: FuturesUnordered<_> = queues
            .values()
            .flat_map(|queue| (0..self.options.per_host.clamp(1, queue.places.len())).map(move |_| queue))
            .map(|queue| self.lane(&getter, &urls, queue, &progress).boxed())
            .collect();
        for (i, record) in lanes.try_concat().await? {
            records[i] = Some(record);
        }
        Ok(records.into_iter().map(|record| record.expect("a lane leaves no URL of its queue out")).collect())
    }

    /// One URL of a host after the other.
    async fn lane(
        &self,
        getter: &Getter<'_>,
        urls: &[String],
        queue: &Queue,
        progress: &Progress<'_>,
    ) -> Result<Vec<(usize, FetchRecord)>> {
        let mut records = Vec::new();
        while let Some(i) = queue.pop() {
            let record = self.one(getter, &urls[i]).await?;
            progress.add(&record.outcome);
            records.push((i, record));
        }
        Ok(records)
    }

    async fn one(&self, getter: &Getter<'_>, url: &str) -> Result<FetchRecord> {
        let mut attempts = 0;
        let outcome = match getter.get(url, &mut attempts).await {
            Ok((picture, _place)) => record::store_picture(self.store, picture).await?,
            Err(failure) => FetchOutcome::Failed(failure),
        };
        let record = FetchRecord { url: url.to_owned(), outcome, attempts };
        record::store_record(self.store, &record).await?;
        Ok(record)
    }
}

fn distinct(urls: Vec<String>) -> Vec<String> {
    let mut seen = HashSet::new();
    urls.into_iter().filter(|url| seen.insert(url.clone())).collect()
}

/// Counts what is done and tells it.
struct Progress<'a> {
    counts: Mutex<FetchProgress>,
    told: &'a (dyn Fn(FetchProgress) + Send + Sync),
}

impl<'a> Progress<'a> {
    /// Begins with what earlier runs have done.
    fn new(told: &'a (dyn Fn(FetchProgress) + Send + Sync), records: &[Option<FetchRecord>]) -> Self {
        let mut counts = FetchProgress { urls: records.len() as u64, ..FetchProgress::default() };
        records.iter().flatten().for_each(|record| counts.add(&record.outcome));
        told(counts);
        Self { counts: Mutex::new(counts), told }
    }

    fn add(&self, outcome: &FetchOutcome) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.add(outcome);
        let now = *counts;
        drop(counts);
        (self.told)(now);
    }
}
