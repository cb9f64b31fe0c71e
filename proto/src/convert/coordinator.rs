//! What a coordinator says to its workers.

use std::time::Duration;

use super::{Invalid, milliseconds, optional, text};
use crate::messages::{Grant, ToWorker, Welcome};
use crate::{GenerationId, JobId, LeaseId, WorkerId, pb};

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
                step_patience: Duration::from_millis(w.step_patience_ms),
            }),
            M::Refused(r) => Self::Refused(r.reason),
            M::Grant(g) => Self::Grant(g.try_into()?),
            M::Revoke(r) => Self::Revoke { lease: LeaseId(r.lease), reason: r.reason },
            M::Generation(g) => Self::Generation(g.try_into()?),
            M::Regroup(r) => Self::Regroup { lease: LeaseId(r.lease), generation: GenerationId(r.generation) },
            M::Abort(a) => {
                Self::Abort { lease: LeaseId(a.lease), generation: GenerationId(a.generation), reason: a.reason }
            }
            M::Shutdown(s) => Self::Shutdown(s.reason),
            M::JobEnded(e) => Self::JobEnded {
                job: JobId(text(e.job_id, "job_id")?),
                succeeded: e.succeeded,
                reason: e.reason,
                may_pass: e.may_pass,
            },
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
            ToWorker::Welcome(w) => M::Welcome(pb::Welcome {
                worker: w.worker.0,
                root: w.root,
                heartbeat_ms: milliseconds(w.heartbeat),
                term: w.term,
                store_patience_ms: milliseconds(w.store_patience),
                step_patience_ms: milliseconds(w.step_patience),
            }),
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
            ToWorker::Generation(generation) => M::Generation(generation.into()),
            ToWorker::Regroup { lease, generation } => {
                M::Regroup(pb::Regroup { lease: lease.0, generation: generation.0 })
            }
            ToWorker::Abort { lease, generation, reason } => {
                M::Abort(pb::Abort { lease: lease.0, generation: generation.0, reason })
            }
            ToWorker::Shutdown(reason) => M::Shutdown(pb::Shutdown { reason }),
            ToWorker::JobEnded { job, succeeded, reason, may_pass } => {
                M::JobEnded(pb::JobEnded { job_id: job.0, succeeded, reason, may_pass })
            }
        };
        Self { message: Some(message) }
    }
}
