//! Shards of users that are put aside: they have a done record like any other, and their users are named.

use bytes::Bytes;

use super::commit::{Attempt, Commit, PartPayload, Stats, commit_shard};
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

/// Commits a shard without rows: parts that hold none, a part of `rejected` that names every user, and the record.
/// A worker that is not dead after all may still be first; then its record counts, and nobody is missing.
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
) -> Result<Done> {
    let input = plan.input_parts.get(shard as usize);
    let input = input.ok_or_else(|| Error::NotFound { object: store.name(&id.control("plan.json")) })?;
    let users: Vec<HistoryRow> = decode_part_of(&store.name(&input.path), store.get(&input.path).await?)?;
    let rejected: Vec<RejectedRow> =
        users.iter().map(|user| RejectedRow::of_user(user.user_id.clone(), QUARANTINED)).collect();
    let name = part_name(shard, plan.shards);
    let part = |table, rows: usize, bytes: Bytes| PartPayload { table, name: name.clone(), rows: rows as u64, bytes };
    let mut parts = Vec::new();
    for (table, bytes) in empty_parts(id.stage, split, footer)? {
        parts.push(part(table, 0, bytes));
    }
    parts.push(part(Table::Rejected, rejected.len(), encode_part(&rejected, footer)?));
    let stats = Stats { rejected: [(QUARANTINED.to_owned(), rejected.len() as u64)].into(), ..Stats::default() };
    let attempt = Attempt { shard, id: footer.attempt.clone(), parts, stats, ..Attempt::default() };
    let (Commit::Won(done) | Commit::AlreadyDone(done)) = commit_shard(store, id, plan, attempt).await?;
    Ok(done)
}

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
