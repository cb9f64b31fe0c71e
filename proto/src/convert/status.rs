//! What people are shown.

use std::time::Duration;

use super::worker::failure_class;
use super::{Invalid, optional, sorted, text};
use crate::messages::{Info, JobState, JobStatus, Progress, ShardCounts, StageState, StageStatus, WorkerStatus};
use crate::{JobId, WorkerId, pb};

impl TryFrom<pb::JobStatus> for JobStatus {
    type Error = Invalid;

    fn try_from(s: pb::JobStatus) -> Result<Self, Invalid> {
        let state = match s.state() {
            pb::JobState::Unspecified => return Err(Invalid("state")),
            pb::JobState::Running => JobState::Running,
            pb::JobState::Succeeded => JobState::Succeeded,
            pb::JobState::Failed => JobState::Failed,
            pb::JobState::Cancelled => JobState::Cancelled,
        };
        let failure = failure_class(s.failure());
        let stages = s.stages.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        let job = JobId(text(s.job_id, "job_id")?);
        let age = Duration::from_secs(s.seconds);
        Ok(Self { job, state, stages, workers: s.workers, reason: s.reason, failure, waiting: s.waiting, age })
    }
}

impl From<JobStatus> for pb::JobStatus {
    fn from(s: JobStatus) -> Self {
        let state = match s.state {
            JobState::Running => pb::JobState::Running,
            JobState::Succeeded => pb::JobState::Succeeded,
            JobState::Failed => pb::JobState::Failed,
            JobState::Cancelled => pb::JobState::Cancelled,
        };
        Self {
            job_id: s.job.0,
            state: state.into(),
            stages: s.stages.into_iter().map(Into::into).collect(),
            workers: s.workers,
            reason: s.reason,
            failure: s.failure.map_or(pb::FailureClass::Unspecified, Into::into).into(),
            waiting: s.waiting,
            seconds: s.age.as_secs(),
        }
    }
}

impl TryFrom<pb::StageStatus> for StageStatus {
    type Error = Invalid;

    fn try_from(s: pb::StageStatus) -> Result<Self, Invalid> {
        let state = match s.state() {
            pb::StageState::Unspecified => return Err(Invalid("state")),
            pb::StageState::Waiting => StageState::Waiting,
            pb::StageState::Running => StageState::Running,
            pb::StageState::Done => StageState::Done,
            pb::StageState::Failed => StageState::Failed,
        };
        Ok(Self {
            stage: text(s.stage, "stage")?,
            split: optional(s.split),
            trial: optional(s.trial),
            digest: s.digest,
            state,
            progress: Progress { done: s.done, total: s.total, unit: s.unit, note: s.note },
            reused: s.reused,
            retries: s.retries,
            shards: ShardCounts { all: s.shards, done: s.shards_done, leased: s.shards_leased },
            attempts: s.attempts,
            oldest_lease: Duration::from_secs(s.oldest_lease_s),
            rate: s.rate,
            rejected: sorted(s.rejected),
            quarantined: s.quarantined,
            working: s.working,
            members: s.members,
            generations: s.generations,
        })
    }
}

impl From<StageStatus> for pb::StageStatus {
    fn from(s: StageStatus) -> Self {
        let state = match s.state {
            StageState::Waiting => pb::StageState::Waiting,
            StageState::Running => pb::StageState::Running,
            StageState::Done => pb::StageState::Done,
            StageState::Failed => pb::StageState::Failed,
        };
        Self {
            stage: s.stage,
            split: s.split.unwrap_or_default(),
            trial: s.trial.unwrap_or_default(),
            digest: s.digest,
            state: state.into(),
            done: s.progress.done,
            total: s.progress.total,
            unit: s.progress.unit,
            note: s.progress.note,
            reused: s.reused,
            retries: s.retries,
            shards: s.shards.all,
            shards_done: s.shards.done,
            shards_leased: s.shards.leased,
            attempts: s.attempts,
            oldest_lease_s: s.oldest_lease.as_secs(),
            rate: s.rate,
            rejected: s.rejected.into_iter().collect(),
            quarantined: s.quarantined,
            working: s.working,
            members: s.members,
            generations: s.generations,
        }
    }
}

impl From<pb::InfoReply> for Info {
    fn from(i: pb::InfoReply) -> Self {
        let workers = i.workers.into_iter().map(|w| WorkerStatus {
            worker: WorkerId(w.worker),
            name: w.name,
            device: w.device,
            stage: optional(w.stage),
            job: optional(w.job_id).map(JobId),
            shards: w.shards,
            leaving: w.leaving,
            suspect: w.suspect,
        });
        Self { root: i.root, term: i.term, build: i.build, workers: workers.collect(), waiting: i.waiting }
    }
}

impl From<Info> for pb::InfoReply {
    fn from(i: Info) -> Self {
        let workers = i.workers.into_iter().map(|w| pb::WorkerStatus {
            worker: w.worker.0,
            name: w.name,
            device: w.device,
            stage: w.stage.unwrap_or_default(),
            job_id: w.job.map(|j| j.0).unwrap_or_default(),
            shards: w.shards,
            leaving: w.leaving,
            suspect: w.suspect,
        });
        Self { root: i.root, term: i.term, build: i.build, workers: workers.collect(), waiting: i.waiting }
    }
}
