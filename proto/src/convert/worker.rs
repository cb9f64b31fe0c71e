//! What workers say.

use std::time::Duration;

use super::{Invalid, milliseconds, optional, sorted, text};
use crate::messages::{Claim, Committed, FailureClass, FromWorker, Progress, Register};
use crate::{GenerationId, LeaseId, pb};

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
            M::Ready(ready) => Self::Ready(ready.try_into()?),
        })
    }
}

pub(super) fn failure_class(class: pb::FailureClass) -> Option<FailureClass> {
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
            FromWorker::Ready(ready) => M::Ready(ready.into()),
        };
        Self { message: Some(message) }
    }
}

impl TryFrom<pb::Register> for Register {
    type Error = Invalid;

    fn try_from(r: pb::Register) -> Result<Self, Invalid> {
        let claims = r.claims.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        let (protocol, build, name, threads) = (r.protocol, r.build, r.name, r.threads);
        Ok(Self { protocol, build, name, threads, device: r.device, term: r.term, claims, job: optional(r.job) })
    }
}

impl From<Register> for pb::Register {
    fn from(r: Register) -> Self {
        let claims = r.claims.into_iter().map(|c| pb::Claim {
            lease: c.lease.0,
            stage: c.stage,
            digest: c.digest,
            shards: c.shards,
            generation: c.generation.map_or(0, |generation| generation.0),
        });
        Self {
            protocol: r.protocol,
            build: r.build,
            name: r.name,
            threads: r.threads,
            device: r.device,
            term: r.term,
            claims: claims.collect(),
            job: r.job.unwrap_or_default(),
        }
    }
}

impl TryFrom<pb::Claim> for Claim {
    type Error = Invalid;

    fn try_from(c: pb::Claim) -> Result<Self, Invalid> {
        let (stage, digest) = (text(c.stage, "claim.stage")?, text(c.digest, "claim.digest")?);
        let generation = (c.generation > 0).then_some(GenerationId(c.generation));
        Ok(Self { lease: LeaseId(c.lease), stage, digest, shards: c.shards, generation })
    }
}
