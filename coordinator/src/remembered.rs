//! The status of a job as the store alone remembers it: what is shown when no coordinator has the job in hand.

use std::time::Duration;

use data::artifact::{self, Done, QUARANTINED};
use data::store::Store;
use proto::{FailureClass, JobId, JobState, JobStatus, Progress, ShardCounts, StageState, StageStatus};

use crate::records::StageRecord;
use crate::{Result, records, submissions};

/// Puts together what the records of a job say.
///
/// # Errors
/// [`crate::Error::NoJob`] if there is no such job; those of the store.
pub async fn remembered(store: &Store, id: &str) -> Result<JobStatus> {
    let mut stages = Vec::new();
    for record in records::stages(store, id).await? {
        stages.push(stage(store, &record).await?);
    }
    let submitted = submissions::last_round(store, id).await?.map(|(_, submitted)| submitted).unwrap_or_default();
    let before = submitted.complete.clone().unwrap_or_default();
    for stage in stages.iter_mut().filter(|s| s.state == StageState::Done) {
        stage.reused = before.iter().any(|digest| digest.as_str() == stage.digest);
    }
    let done = stages.iter().all(|s| s.state == StageState::Done);
    let ended = submissions::last_end(store, id).await?;
    let reason = ended.as_ref().map(|e| e.reason.clone()).unwrap_or_default();
    let failed = |may_pass| if may_pass { FailureClass::Retry } else { FailureClass::Fatal };
    let (state, failure) = match &ended {
        Some(ended) if ended.state == JobState::Succeeded.name() => (JobState::Succeeded, None),
        Some(ended) if ended.state == JobState::Cancelled.name() => (JobState::Cancelled, None),
        Some(ended) => (JobState::Failed, Some(failed(ended.may_pass))),
        // A run on one machine leaves no word of its end but the tables.
        None if done => (JobState::Succeeded, None),
        None => (JobState::Running, None),
    };
    let waiting = if state.ended() { String::new() } else { "no coordinator has it in hand".to_owned() };
    let (job, age) = (JobId(id.to_owned()), Duration::from_secs(submitted.age().as_secs()));
    Ok(JobStatus { job, state, stages, workers: 0, reason, failure, waiting, age })
}

async fn stage(store: &Store, record: &StageRecord) -> Result<StageStatus> {
    let id = record.artifact();
    let complete = artifact::is_complete(store, &id).await?;
    let plan = artifact::read_plan(store, &id).await?;
    let done = artifact::done_records(store, &id).await?;
    let mut rejected = std::collections::BTreeMap::new();
    for (reason, rows) in done.iter().flat_map(|d| &d.rejected) {
        *rejected.entry(reason.clone()).or_default() += rows;
    }
    let rows: u64 = done.iter().map(|d| d.rows).sum();
    let total = plan.as_ref().map_or(0, |p| p.input_parts.iter().map(|part| part.rows).sum());
    let total = if complete { rows } else { total };
    let state = match (complete, done.is_empty()) {
        (true, _) => StageState::Done,
        (false, true) => StageState::Waiting,
        (false, false) => StageState::Running,
    };
    let progress = Progress { done: rows, total, unit: "rows".to_owned(), note: String::new() };
    let aside = |done: &&Done| done.rejected.contains_key(QUARANTINED);
    Ok(StageStatus {
        stage: record.stage.to_string(),
        split: record.split.map(|s| s.to_string()),
        trial: record.trial.clone(),
        digest: record.digest.to_string(),
        state,
        progress,
        reused: false,
        retries: 0,
        shards: ShardCounts { all: plan.map_or(0, |p| p.shards), done: count(done.len()), leased: 0 },
        attempts: 0,
        oldest_lease: Duration::ZERO,
        rate: 0.0,
        quarantined: done.iter().filter(aside).map(|d| d.shard).collect(),
        rejected,
        working: 0,
        members: 0,
        generations: 0,
    })
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
