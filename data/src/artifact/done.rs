//! Done records: the commit of a shard.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use super::spec::{parse_control, read_control};
use super::{ArtifactId, Digest};
use crate::store::Store;
use crate::tables::Table;
use crate::{Error, Result};

/// How many done records are read at a time.
const READS: usize = 16;

/// One part of a table, as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    /// The table.
    pub table: Table,
    /// Path below the root of the store.
    pub path: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Its content.
    pub sha256: Digest,
}

/// One file of a model, as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Path below the root of the store.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its content.
    pub sha256: Digest,
}

/// Says that a shard is done, and by what. There is at most one for a shard, ever.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Done {
    /// The shard.
    pub shard: u32,
    /// The attempt that created this record. A part may come from an earlier attempt that died before its record.
    pub attempt: String,
    /// The parts that readers will see.
    pub parts: Vec<PartRecord>,
    /// The model files that readers will see.
    #[serde(default)]
    pub files: Vec<FileRecord>,
    /// Rows of the stage's main table, users or items.
    pub rows: u64,
    /// Rejected rows by reason.
    #[serde(default)]
    pub rejected: BTreeMap<String, u64>,
    /// Time that the attempt took; of a training, that of the attempts before it too.
    pub seconds: f64,
    /// Training steps, where there are any.
    #[serde(default)]
    pub steps: u64,
    /// Largest resident memory of the process so far.
    #[serde(default)]
    pub peak_rss_bytes: u64,
    /// Figures of one stage only.
    #[serde(default)]
    pub notes: BTreeMap<String, serde_json::Value>,
}

impl Done {
    pub(super) fn path(id: &ArtifactId, shard: u32) -> String {
        id.control(&format!("done/{shard:05}.json"))
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        serde_json::to_vec_pretty(self).expect("a done record has only string keys").into()
    }

    pub(super) fn parse(name: &str, shard: u32, bytes: &[u8]) -> Result<Self> {
        let done: Self = parse_control(name, bytes)?;
        if done.shard == shard {
            return Ok(done);
        }
        Err(Error::Control { object: name.to_owned(), reason: format!("it speaks of shard {}", done.shard) })
    }

    /// The done record of one shard, if there is one.
    pub(super) async fn read(store: &Store, id: &ArtifactId, shard: u32) -> Result<Option<Self>> {
        read_control(store, &Self::path(id, shard)).await
    }
}

/// The done record of a shard, or nothing while there is none.
///
/// # Errors
/// [`Error::Control`] if it cannot be understood; the store's own failures.
pub async fn done_record(store: &Store, id: &ArtifactId, shard: u32) -> Result<Option<Done>> {
    Done::read(store, id, shard).await
}

/// The shards that are done, in order: one listing, nothing is read.
///
/// # Errors
/// [`Error::Control`] if an object has a name that is not a shard's; the store's own failures.
pub async fn done_shards(store: &Store, id: &ArtifactId) -> Result<Vec<u32>> {
    let folder = id.control("done");
    let mut shards = Vec::new();
    for entry in store.list(&folder).await? {
        let name = entry.path[folder.len()..].trim_start_matches('/');
        let shard = name.strip_suffix(".json").and_then(|n| n.parse().ok()).ok_or_else(|| Error::Control {
            object: store.name(&entry.path),
            reason: "its name is not that of a done record; remove it".into(),
        })?;
        shards.push(shard);
    }
    shards.sort_unstable();
    Ok(shards)
}

/// Every done record of an artifact, in order of shards.
///
/// # Errors
/// [`Error::Control`] if one cannot be understood; the store's own failures.
pub async fn done_records(store: &Store, id: &ArtifactId) -> Result<Vec<Done>> {
    let read = |shard| async move {
        let path = Done::path(id, shard);
        Done::parse(&store.name(&path), shard, &store.get(&path).await?)
    };
    stream::iter(done_shards(store, id).await?).map(read).buffered(READS).try_collect().await
}
