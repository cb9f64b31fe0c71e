//! What is kept of a URL, and where.
//!
//! ```text
//! _control/v1/pictures/<2 digits>/<sha256 of the content>             the bytes, once for each content
//! _control/v1/pictures/urls/<2 digits>/<sha256 of the URL>.json       how fetching it ended
//! ```
//!
//! The content is there before its record, so that a record never speaks of bytes that are not.

use std::collections::HashMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::body::Picture;
use super::outcome::{FetchOutcome, FetchReason};
use super::{FetchOptions, Result};
use crate::Error;
use crate::artifact::Digest;
use crate::store::Store;

const PICTURES: &str = "_control/v1/pictures";

/// How many records are read at a time.
const READS: usize = 32;

/// How fetching one URL ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRecord {
    /// As it stands in the metadata.
    pub url: String,
    /// How it ended.
    pub outcome: FetchOutcome,
    /// Tries of the run that wrote this down; 0 if the URL was never asked.
    pub attempts: u32,
}

/// Path of a picture below the root of the store.
#[must_use]
pub fn picture_path(sha256: &Digest) -> String {
    let hex = sha256.as_str();
    format!("{PICTURES}/{}/{hex}", &hex[..2])
}

/// Path of the record of a URL below the root of the store.
#[must_use]
pub fn record_path(url: &str) -> String {
    let digest = Digest::of_bytes(url.as_bytes());
    format!("{PICTURES}/urls/{}/{digest}.json", &digest.as_str()[..2])
}

/// The record as it lies in the store.
#[derive(Serialize, Deserialize)]
struct Stored {
    url: String,
    outcome: String,
    #[serde(rename = "final")]
    is_final: bool,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Digest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

impl From<&FetchRecord> for Stored {
    fn from(record: &FetchRecord) -> Self {
        let outcome = &record.outcome;
        let mut stored = Self {
            url: record.url.clone(),
            outcome: outcome.as_str().into_owned(),
            is_final: outcome.is_final(),
            attempts: record.attempts,
            sha256: None,
            bytes: None,
            limit_bytes: None,
            detail: None,
        };
        match outcome {
            FetchOutcome::Ok { sha256, bytes } => (stored.sha256, stored.bytes) = (Some(sha256.clone()), Some(*bytes)),
            FetchOutcome::Failed(failure) => {
                stored.detail = Some(failure.detail.clone());
                stored.limit_bytes = match failure.reason {
                    FetchReason::TooLarge { limit } => Some(limit),
                    _ => None,
                };
            }
        }
        stored
    }
}

impl Stored {
    fn outcome(self) -> Option<FetchOutcome> {
        if self.outcome == "ok" {
            return Some(FetchOutcome::Ok { sha256: self.sha256?, bytes: self.bytes? });
        }
        let reason = FetchReason::parse(&self.outcome, self.limit_bytes)?;
        Some(FetchOutcome::Failed(reason.because(self.detail.unwrap_or_default())))
    }
}

/// Stores a picture under its content. Equal pictures of many URLs are one object.
pub(super) async fn store_picture(store: &Store, picture: Picture) -> Result<FetchOutcome> {
    let (path, bytes) = (picture_path(&picture.sha256), picture.bytes.len() as u64);
    match store.create_or_read(&path, picture.bytes).await? {
        None => Ok(FetchOutcome::Ok { sha256: picture.sha256, bytes }),
        Some(_) => Err(Error::Differs {
            object: store.name(&path),
            reason: "its content does not fit its name; remove it and run again".to_owned(),
        }),
    }
}

/// Writes a record, over that of an earlier run. Nothing is written about a URL that was left for the next run untried:
/// a missing record says the same.
pub(super) async fn store_record(store: &Store, record: &FetchRecord) -> Result<()> {
    if record.attempts == 0 && !record.outcome.is_final() {
        return Ok(());
    }
    let json = serde_json::to_vec_pretty(&Stored::from(record)).expect("strings and numbers are JSON");
    store.put(&record_path(&record.url), json.into()).await
}

/// The records of earlier runs that leave nothing to ask for, each in the place of its URL.
pub(super) async fn settled(
    store: &Store,
    urls: &[String],
    options: &FetchOptions,
) -> Result<Vec<Option<FetchRecord>>> {
    let there: HashMap<String, u64> = store.list(PICTURES).await?.into_iter().map(|e| (e.path, e.size)).collect();
    let there = &there;
    let read = |url: String| async move {
        let path = record_path(&url);
        let bytes = if there.contains_key(&path) { store.try_get(&path).await? } else { None };
        let record = bytes.and_then(|bytes| parse(store, &url, &bytes));
        Ok(record.filter(|record| is_settled(&record.outcome, there, options)))
    };
    stream::iter(urls.to_vec()).map(read).buffered(READS).try_collect().await
}

/// A record that cannot be read counts as none: asking again mends it.
fn parse(store: &Store, url: &str, bytes: &Bytes) -> Option<FetchRecord> {
    let stored = serde_json::from_slice::<Stored>(bytes).ok().filter(|stored| stored.url == url);
    let attempts = stored.as_ref().map_or(0, |stored| stored.attempts);
    let outcome = stored.and_then(Stored::outcome);
    if outcome.is_none() {
        tracing::warn!(
            object = store.name(&record_path(url)),
            "this record cannot be read, the picture is asked for again"
        );
    }
    Some(FetchRecord { url: url.to_owned(), outcome: outcome?, attempts })
}

/// Whether an outcome still holds: the picture is still there, and what was too large still is.
fn is_settled(outcome: &FetchOutcome, there: &HashMap<String, u64>, options: &FetchOptions) -> bool {
    match outcome {
        FetchOutcome::Ok { sha256, bytes } => there.get(&picture_path(sha256)) == Some(bytes),
        FetchOutcome::Failed(failure) => match failure.reason {
            FetchReason::TooLarge { limit } => limit >= options.picture_bytes,
            reason => reason.is_final(),
        },
    }
}
