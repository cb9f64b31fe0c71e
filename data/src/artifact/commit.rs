//! The commit of one shard: its parts, then its done record.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::done::{Done, FileRecord, PartRecord};
use super::{ArtifactId, Digest, Plan};
use crate::store::Store;
use crate::tables::{Table, part_name_index, read_summary};
use crate::{Error, Result};

/// The most that one request carries to a table folder.
pub const MAX_PART_BYTES: u64 = 64 << 20;

/// A part in memory, not yet in the store.
#[derive(Clone, Debug)]
pub struct PartPayload {
    /// The table.
    pub table: Table,
    /// Its name, from [`crate::tables::part_name`]: it follows from the shard, so that attempts collide.
    pub name: String,
    /// Rows in it.
    pub rows: u64,
    /// The encoded part.
    pub bytes: Bytes,
}

/// A model file in memory, not yet in the store.
#[derive(Clone, Debug)]
pub struct FilePayload {
    /// Its name in the model folder.
    pub name: String,
    /// Its content.
    pub bytes: Bytes,
}

/// What an attempt has to say beside its parts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Rows of the stage's main table, users or items.
    pub rows: u64,
    /// Rejected rows by reason.
    pub rejected: BTreeMap<String, u64>,
    /// Time that the attempt took; of a training, that of the attempts before it too.
    pub seconds: f64,
    /// Training steps, where there are any.
    pub steps: u64,
    /// Largest resident memory of the process so far.
    pub peak_rss_bytes: u64,
    /// Figures of one stage only.
    pub notes: BTreeMap<String, serde_json::Value>,
}

/// One attempt at one shard, finished and not yet committed.
#[derive(Clone, Debug, Default)]
pub struct Attempt {
    /// The shard.
    pub shard: u32,
    /// Who tries: different for every attempt, of any worker, ever.
    pub id: String,
    /// Parts that are still to be written.
    pub parts: Vec<PartPayload>,
    /// Model files that are still to be written.
    pub files: Vec<FilePayload>,
    /// Parts that [`write_part`] has written on the way, for shards that do not fit into memory.
    pub written_parts: Vec<PartRecord>,
    /// Files that [`write_file`] has written on the way.
    pub written_files: Vec<FileRecord>,
    /// What else there is to say.
    pub stats: Stats,
}

/// How a commit ended. Either way the shard is done.
#[derive(Clone, Debug, PartialEq)]
pub enum Commit {
    /// This attempt's done record counts.
    Won(Done),
    /// Another attempt's does.
    AlreadyDone(Done),
}

impl Commit {
    /// The record that counts.
    #[must_use]
    pub fn done(&self) -> &Done {
        match self {
            Self::Won(done) | Self::AlreadyDone(done) => done,
        }
    }
}

/// Commits a shard: creates its parts and files, then its done record. Any number of attempts may do so, at once or one
/// after another's death; exactly one done record results and it describes what really lies in the store.
///
/// # Errors
/// [`Error::NoSuchShard`]; [`Error::PartTooLarge`]; [`Error::PutAside`] if the shard is being put aside, which the caller
/// then completes with [`super::quarantine`]; [`Error::Differs`] if something foreign lies where a part belongs; the
/// store's own failures.
pub async fn commit_shard(store: &Store, id: &ArtifactId, plan: &Plan, attempt: Attempt) -> Result<Commit> {
    if attempt.shard >= plan.shards {
        return Err(Error::NoSuchShard { stage: id.stage, shard: attempt.shard, shards: plan.shards });
    }
    if let Some(done) = Done::read(store, id, attempt.shard).await? {
        return Ok(settled(done, &attempt.id));
    }
    let mut parts = attempt.written_parts;
    for part in attempt.parts {
        parts.push(write_part(store, id, part).await?);
    }
    let mut files = attempt.written_files;
    for file in attempt.files {
        files.push(write_file(store, id, file).await?);
    }
    record(store, id, attempt.shard, attempt.id, parts, files, attempt.stats).await
}

async fn record(
    store: &Store,
    id: &ArtifactId,
    shard: u32,
    attempt: String,
    parts: Vec<PartRecord>,
    files: Vec<FileRecord>,
    stats: Stats,
) -> Result<Commit> {
    let Stats { rows, rejected, seconds, steps, peak_rss_bytes, notes } = stats;
    let done = Done { shard, attempt, parts, files, rows, rejected, seconds, steps, peak_rss_bytes, notes };
    let path = Done::path(id, shard);
    match store.create_or_read(&path, done.to_bytes()).await? {
        None => Ok(Commit::Won(done)),
        Some(there) => Ok(settled(Done::parse(&store.name(&path), shard, &there)?, &done.attempt)),
    }
}

/// A record that was there before ours may still be ours: written by a call whose answer was lost.
fn settled(done: Done, attempt: &str) -> Commit {
    if done.attempt == attempt { Commit::Won(done) } else { Commit::AlreadyDone(done) }
}

/// Creates one part of a table. If an attempt that died has left its own there, that one stays and is described.
///
/// # Errors
/// [`Error::PartTooLarge`]; [`Error::PutAside`] if what lies there is a part without rows; [`Error::Part`] or
/// [`Error::Differs`] if it is not a part of this artifact; the store's own failures.
pub async fn write_part(store: &Store, id: &ArtifactId, part: PartPayload) -> Result<PartRecord> {
    let PartPayload { table, name, rows, bytes } = part;
    let path = format!("{}/{name}", id.table_prefix(table));
    if part_name_index(&name).is_none() {
        return Err(Error::Differs { object: store.name(&path), reason: "a table folder takes only parts".into() });
    }
    let size = bytes.len() as u64;
    if size > MAX_PART_BYTES {
        return Err(Error::PartTooLarge { object: store.name(&path), bytes: size, limit: MAX_PART_BYTES });
    }
    let sha256 = Digest::of_bytes(&bytes);
    match store.create_or_read(&path, bytes).await? {
        None => Ok(PartRecord { table, path, rows, bytes: size, sha256 }),
        Some(there) => {
            let record = describe(store, id, table, path, there)?;
            // The first part of a shard says what becomes of it.
            if record.rows == 0 && rows > 0 {
                Err(Error::PutAside { object: store.name(&record.path) })
            } else {
                Ok(record)
            }
        }
    }
}

/// The record of a part that somebody else has written.
fn describe(store: &Store, id: &ArtifactId, table: Table, path: String, there: Bytes) -> Result<PartRecord> {
    let name = store.name(&path);
    let (bytes, sha256) = (there.len() as u64, Digest::of_bytes(&there));
    let summary = read_summary(&name, table, there)?;
    if summary.footer.spec_digest != id.digest.as_str() {
        let reason = format!("it belongs to the artifact {}; remove it", summary.footer.spec_digest);
        return Err(Error::Differs { object: name, reason });
    }
    tracing::info!(part = name, attempt = summary.footer.attempt, "kept the part of an earlier attempt");
    Ok(PartRecord { table, path, rows: summary.rows, bytes, sha256 })
}

/// Creates one file of a model; one that is there stays and is described.
///
/// # Errors
/// The store's own failures.
pub async fn write_file(store: &Store, id: &ArtifactId, file: FilePayload) -> Result<FileRecord> {
    let path = format!("{}/{}", id.model_prefix(), file.name);
    let there = store.create_or_read(&path, file.bytes.clone()).await?.unwrap_or(file.bytes);
    Ok(FileRecord { path, bytes: there.len() as u64, sha256: Digest::of_bytes(&there) })
}
