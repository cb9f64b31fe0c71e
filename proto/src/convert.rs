//! Between the generated types and the checked ones.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::messages::{
    Claim, Committed, FailureClass, FromWorker, Grant, Info, JobState, JobStatus, Progress, Register, ShardCounts,
    StageState, StageStatus, ToWorker, Welcome, WorkerStatus,
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
            M::Register(r) => Self::Register(r.try_into()?),
            M::Heartbeat(_) => Self::Heartbeat,
            M::Leaving(_) => Self::Leaving,
            M::Progress(p) => Self::Progress {
                lease: LeaseId(p.lease),
                progress: Progress { done: p.done, total: p.total, unit: p.unit, note: p.note },
            },
            M::Committed(c) => {
                let took = Duration::from_millis(c.milliseconds);
                let committed = Committed { shard: c.shard, rows: c.rows, took, rejected: sorted(c.rejected) };
                Self::Committed { lease: LeaseId(c.lease), committed }
            }
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
            FromWorker::Register(r) => M::Register(r.into()),
            FromWorker::Heartbeat => M::Heartbeat(pb::Heartbeat {}),
            FromWorker::Leaving => M::Leaving(pb::Leaving {}),
            FromWorker::Progress { lease, progress: p } => {
                M::Progress(pb::Progress { lease: lease.0, done: p.done, total: p.total, unit: p.unit, note: p.note })
            }
            FromWorker::Committed { lease, committed: c } => M::Committed(pb::ShardCommitted {
                lease: lease.0,
                shard: c.shard,
                rows: c.rows,
                milliseconds: milliseconds(c.took),
                rejected: c.rejected.into_iter().collect(),
            }),
            FromWorker::Ended { lease } => M::Ended(pb::LeaseEnded { lease: lease.0 }),
            FromWorker::Failed { lease, class, reason } => {
                let class = pb::FailureClass::from(class);
                M::Failed(pb::LeaseFailed { lease: lease.0, class: class.into(), reason })
            }
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<pb::Register> for Register {
    type Error = Invalid;

    fn try_from(r: pb::Register) -> Result<Self, Invalid> {
        let claims = r.claims.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        let (protocol, build, name, threads) = (r.protocol, r.build, r.name, r.threads);
        Ok(Self { protocol, build, name, threads, device: r.device, term: r.term, claims })
    }
}

impl From<Register> for pb::Register {
    fn from(r: Register) -> Self {
        let claims = r.claims.into_iter().map(|c| pb::Claim {
            lease: c.lease.0,
            stage: c.stage,
            digest: c.digest,
            shards: c.shards,
        });
        Self {
            protocol: r.protocol,
            build: r.build,
            name: r.name,
            threads: r.threads,
            device: r.device,
            term: r.term,
            claims: claims.collect(),
        }
    }
}

impl TryFrom<pb::Claim> for Claim {
    type Error = Invalid;

    fn try_from(c: pb::Claim) -> Result<Self, Invalid> {
        let (stage, digest) = (text(c.stage, "claim.stage")?, text(c.digest, "claim.digest")?);
        Ok(Self { lease: LeaseId(c.lease), stage, digest, shards: c.shards })
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
                term: w.term,
                store_patience: Duration::from_millis(w.store_patience_ms),
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
                let (heartbeat_ms, store_patience_ms) = (milliseconds(w.heartbeat), milliseconds(w.store_patience));
                M::Welcome(pb::Welcome {
                    worker: w.worker.0,
                    root: w.root,
                    heartbeat_ms,
                    term: w.term,
                    store_patience_ms,
                })
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
            shards: s.shards.all,
            shards_done: s.shards.done,
            shards_leased: s.shards.leased,
            attempts: s.attempts,
            oldest_lease_s: s.oldest_lease.as_secs(),
            rate: s.rate,
            rejected: s.rejected.into_iter().collect(),
            quarantined: s.quarantined,
            working: s.working,
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
        });
        Self { root: i.root, term: i.term, build: i.build, workers: workers.collect() }
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
        });
        Self { root: i.root, term: i.term, build: i.build, workers: workers.collect() }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn sorted<V>(map: HashMap<String, V>) -> BTreeMap<String, V> {
    map.into_iter().collect()
}

fn text(value: String, name: &'static str) -> Result<String, Invalid> {
    if value.is_empty() { Err(Invalid(name)) } else { Ok(value) }
}

fn optional(value: String) -> Option<String> {
    (!value.is_empty()).then_some(value)
}
