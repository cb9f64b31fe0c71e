//! Whole preparations, from files that the tests write to histories.

#![allow(clippy::unwrap_used)]

mod formats;
mod golden;
mod limits;
mod properties;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::{Counts, Gauge, prepare};
use crate::job::{Columns, Dataset, Format, Limits, MaxRejected};
use crate::tables::{HistoryRow, ItemRow, RejectedRow};
use crate::{Error, Result};

/// A folder with the input files of a test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    fn write_gz(&self, name: &str, content: &str) -> PathBuf {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content.as_bytes()).unwrap();
        self.write(name, encoder.finish().unwrap())
    }

    fn dataset(&self, format: Format) -> Dataset {
        dataset(format, self.path())
    }
}

/// A dataset without any filter.
fn dataset(format: Format, path: &Path) -> Dataset {
    Dataset {
        format,
        path: path.display().to_string(),
        min_interactions_per_user: 1,
        min_interactions_per_item: 1,
        min_rating: 0.0,
        columns: Columns {
            user: "user".to_owned(),
            item: "item".to_owned(),
            time: Some("time".to_owned()),
            title: None,
            image: None,
            rating: None,
        },
        shard_users: 4096,
    }
}

fn limits() -> Limits {
    Limits { max_rejected: MaxRejected::Rows(1_000), memory_bytes: 256 << 20 }
}

/// Everything that a preparation gives, in memory.
#[derive(Debug, PartialEq)]
struct Outcome {
    items: Vec<ItemRow>,
    shards: Vec<Vec<HistoryRow>>,
    counts: Counts,
    rejected: Vec<RejectedRow>,
}

impl Outcome {
    fn users(&self) -> impl Iterator<Item = &HistoryRow> {
        self.shards.iter().flatten()
    }

    /// Users with their items, written `user: a b c`.
    fn lines(&self) -> Vec<String> {
        self.users().map(|u| format!("{}: {}", u.user_id, u.items.join(" "))).collect()
    }

    fn rejected(&self) -> Vec<(&str, Option<u64>, &str)> {
        self.rejected.iter().map(|r| (r.file.as_str(), r.line, r.reason.as_str())).collect()
    }
}

fn run(dataset: &Dataset) -> Result<Outcome> {
    run_with(dataset, &limits())
}

fn run_with(dataset: &Dataset, limits: &Limits) -> Result<Outcome> {
    let spool = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let outcome = runtime.block_on(async {
        let mut prepared = prepare(dataset, limits, spool.path(), &Gauge::default()).await?;
        let mut shards = Vec::new();
        while let Some(shard) = prepared.histories.next_shard().await? {
            shards.push(shard);
        }
        assert_eq!(shards.len(), prepared.shards as usize);
        Ok(Outcome { items: prepared.items, shards, counts: prepared.counts, rejected: prepared.rejected })
    });
    assert_eq!(std::fs::read_dir(spool.path()).unwrap().count(), 0, "the spool is left empty");
    outcome
}

fn message(result: Result<Outcome>) -> String {
    result.unwrap_err().to_string()
}
