//! Between the generated types and the checked ones.

use std::time::Duration;

use crate::messages::{
    FailureClass, FromWorker, Grant, JobState, JobStatus, Progress, Register, StageState, StageStatus, ToWorker,
    Welcome,
};
use crate::{JobId, LeaseId, WorkerId, pb};

/// A message that breaks the contract.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message without a valid `{0}`")]
pub struct Invalid(pub &'static str);

impl TryFrom<pb::WorkerMessage> for FromWorker {
    type Error = Invalid;

    fn try_from(message: pb::WorkerMessage) -> Result<Self, Invalid> {
        use pb::worker_message::Message as M;
        Ok(match message.message.ok_or(Invalid("message"))? {
            M::Register(r) => {
                Self::Register(Register { protocol: r.protocol, build: r.build, name: r.name, threads: r.threads })
            }
            M::Heartbeat(_) => Self::Heartbeat,
            M::Leaving(_) => Self::Leaving,
            M::Progress(p) => Self::Progress {
                lease: LeaseId(p.lease),
                progress: Progress { done: p.done, total: p.total, unit: p.unit, note: p.note },
            },
            M::Committed(c) => Self::Committed { lease: LeaseId(c.lease), shard: c.shard, rows: c.rows },
            M::Ended(e) => Self::Ended { lease: LeaseId(e.lease) },
            M::Failed(f) => {
                let class = failure_class(f.class()).ok_or(Invalid("class"))?;
                Self::Failed { lease: LeaseId(f.lease), class, reason: f.reason }
            }
        })
    }
}

fn failure_class(class: pb::FailureClass) -> Option<FailureClass> {
    match class {
        pb::FailureClass::Unspecified => None,
        pb::FailureClass::Retry => Some(FailureClass::Retry),
        pb::FailureClass::Fatal => Some(FailureClass::Fatal),
        pb::FailureClass::Returned => Some(FailureClass::Returned),
    }
}

impl From<FailureClass> for pb::FailureClass {
    fn from(class: FailureClass) -> Self {
        match class {
            FailureClass::Retry => Self::Retry,
            FailureClass::Fatal => Self::Fatal,
            FailureClass::Returned => Self::Returned,
        }
    }
}

impl From<FromWorker> for pb::WorkerMessage {
    fn from(message: FromWorker) -> Self {
        use pb::worker_message::Message as M;
        let message = match message {
            FromWorker::Register(r) => {
                M::Register(pb::Register { protocol: r.protocol, build: r.build, name: r.name, threads: r.threads })
            }
            FromWorker::Heartbeat => M::Heartbeat(pb::Heartbeat {}),
            FromWorker::Leaving => M::Leaving(pb::Leaving {}),
            FromWorker::Progress { lease, progress: p } => {
                M::Progress(pb::Progress { lease: lease.0, done: p.done, total: p.total, unit: p.unit, note: p.note })
            }
            FromWorker::Committed { lease, shard, rows } => {
                M::Committed(pb::ShardCommitted { lease: lease.0, shard, rows })
            }
            FromWorker::Ended { lease } => M::Ended(pb::LeaseEnded { lease: lease.0 }),
            FromWorker::Failed { lease, class, reason } => {
                let class = pb::FailureClass::from(class);
                M::Failed(pb::LeaseFailed { lease: lease.0, class: class.into(), reason })
            }
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<pb::CoordinatorMessage> for ToWorker {
    type Error = Invalid;

    fn try_from(message: pb::CoordinatorMessage) -> Result<Self, Invalid> {
        use pb::coordinator_message::Message as M;
        Ok(match message.message.ok_or(Invalid("message"))? {
            M::Welcome(w) => Self::Welcome(Welcome {
                worker: WorkerId(w.worker),
                root: text(w.root, "root")?,
                heartbeat: Duration::from_millis(w.heartbeat_ms.max(1)),
            }),
            M::Refused(r) => Self::Refused(r.reason),
            M::Grant(g) => Self::Grant(g.try_into()?),
            M::Revoke(r) => Self::Revoke { lease: LeaseId(r.lease), reason: r.reason },
            M::Shutdown(s) => Self::Shutdown(s.reason),
        })
    }
}

impl TryFrom<pb::Grant> for Grant {
    type Error = Invalid;

    fn try_from(g: pb::Grant) -> Result<Self, Invalid> {
        if g.shards.is_empty() || g.shards.iter().any(|s| *s >= g.of) {
            return Err(Invalid("shards"));
        }
        Ok(Self {
            lease: LeaseId(g.lease),
            job: JobId(text(g.job_id, "job_id")?),
            job_toml: text(g.job_toml, "job_toml")?,
            stage: text(g.stage, "stage")?,
            split: optional(g.split),
            digest: text(g.digest, "digest")?,
            shards: g.shards,
            of: g.of,
        })
    }
}

impl From<ToWorker> for pb::CoordinatorMessage {
    fn from(message: ToWorker) -> Self {
        use pb::coordinator_message::Message as M;
        let message = match message {
            ToWorker::Welcome(w) => {
                let heartbeat_ms = u64::try_from(w.heartbeat.as_millis()).unwrap_or(u64::MAX);
                M::Welcome(pb::Welcome { worker: w.worker.0, root: w.root, heartbeat_ms })
            }
            ToWorker::Refused(reason) => M::Refused(pb::Refused { reason }),
            ToWorker::Grant(g) => M::Grant(pb::Grant {
                lease: g.lease.0,
                job_id: g.job.0,
                job_toml: g.job_toml,
                stage: g.stage,
                split: g.split.unwrap_or_default(),
                digest: g.digest,
                shards: g.shards,
                of: g.of,
            }),
            ToWorker::Revoke { lease, reason } => M::Revoke(pb::Revoke { lease: lease.0, reason }),
            ToWorker::Shutdown(reason) => M::Shutdown(pb::Shutdown { reason }),
        };
        Self { message: Some(message) }
    }
}

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
        Ok(Self { job, state, stages, workers: s.workers, reason: s.reason, failure })
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
            digest: s.digest,
            state,
            progress: Progress { done: s.done, total: s.total, unit: s.unit, note: s.note },
            reused: s.reused,
            retries: s.retries,
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
            digest: s.digest,
            state: state.into(),
            done: s.progress.done,
            total: s.progress.total,
            unit: s.progress.unit,
            note: s.progress.note,
            reused: s.reused,
            retries: s.retries,
        }
    }
}

fn text(value: String, name: &'static str) -> Result<String, Invalid> {
    if value.is_empty() { Err(Invalid(name)) } else { Ok(value) }
}

fn optional(value: String) -> Option<String> {
    (!value.is_empty()).then_some(value)
}
