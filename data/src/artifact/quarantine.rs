//! Shards of users that are put aside: they have a done record like any other, and their users are named.

use bytes::Bytes;

use super::commit::{Attempt, Commit, PartPayload, Stats, commit_shard, write_part};
use super::{ArtifactId, Done, Plan};
use crate::job::{Split, Stage};
use crate::store::Store;
use crate::tables::{
    CandidateRow, Footer, HistoryRow, RankingRow, RejectedRow, Row, Table, TargetRankRow, decode_part_of, encode_part,
    part_name,
};
use crate::{Error, Result};

/// Why the rows of a shard are missing, in the done record and in the table of rejected rows.
pub const QUARANTINED: &str = "the shard killed its workers";

/// What became of a shard that was to be put aside.
#[derive(Clone, Debug, PartialEq)]
pub enum Aside {
    /// It is done: without rows, or as a worker did it that was not dead after all.
    Done(Done),
    /// A worker has computed it and died before its done record: the shard kills nobody, the next attempt completes it.
    Computed,
}

/// Commits a shard without rows: parts that hold none, a part of `rejected` that names every user, and the record.
/// Workers may be at it all the same. Whose part is there first, in the order of [`empty_parts`], has decided: an empty
/// one is never described as a worker's, nor a worker's as empty.
///
/// # Errors
/// [`Error::NotFound`] if the plan knows no input of the shard; those of a commit.
pub async fn quarantine(
    store: &Store,
    id: &ArtifactId,
    split: Option<Split>,
    plan: &Plan,
    shard: u32,
    footer: &Footer,
) -> Result<Aside> {
    if let Some(done) = Done::read(store, id, shard).await? {
        return Ok(Aside::Done(done));
    }
    let input = plan.input_parts.get(shard as usize);
    let input = input.ok_or_else(|| Error::NotFound { object: store.name(&id.control("plan.json")) })?;
    let users: Vec<HistoryRow> = decode_part_of(&store.name(&input.path), store.get(&input.path).await?)?;
    let rejected: Vec<RejectedRow> =
        users.iter().map(|user| RejectedRow::of_user(user.user_id.clone(), QUARANTINED)).collect();
    let name = part_name(shard, plan.shards);
    let part = |table, rows: usize, bytes: Bytes| PartPayload { table, name: name.clone(), rows: rows as u64, bytes };
    let mut written = Vec::new();
    for (table, bytes) in empty_parts(id.stage, split, footer)? {
        let record = write_part(store, id, part(table, 0, bytes)).await?;
        if record.rows > 0 {
            return Ok(Done::read(store, id, shard).await?.map_or(Aside::Computed, Aside::Done));
        }
        written.push(record);
    }
    let parts = vec![part(Table::Rejected, rejected.len(), encode_part(&rejected, footer)?)];
    let stats = Stats { rejected: [(QUARANTINED.to_owned(), rejected.len() as u64)].into(), ..Stats::default() };
    let attempt =
        Attempt { shard, id: footer.attempt.clone(), parts, written_parts: written, stats, ..Attempt::default() };
    let (Commit::Won(done) | Commit::AlreadyDone(done)) = commit_shard(store, id, plan, attempt).await?;
    Ok(Aside::Done(done))
}

/// The parts of a shard without rows, in the order in which workers write theirs.
fn empty_parts(stage: Stage, split: Option<Split>, footer: &Footer) -> Result<Vec<(Table, Bytes)>> {
    fn empty<R: Row>(footer: &Footer) -> Result<(Table, Bytes)> {
        Ok((R::TABLE, encode_part::<R>(&[], footer)?))
    }
    Ok(match stage {
        Stage::Rank => vec![empty::<RankingRow>(footer)?],
        Stage::Retrieve if split.is_some_and(Split::has_target) => {
            vec![empty::<CandidateRow>(footer)?, empty::<TargetRankRow>(footer)?]
        }
        Stage::Retrieve => vec![empty::<CandidateRow>(footer)?],
        _ => Vec::new(),
    })
}
