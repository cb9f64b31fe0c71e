//! Statuses as JSON: the keys are documented in docs/cluster.md and stay.

use proto::{FailureClass, JobState, JobStatus, StageStatus};
use serde_json::{Value, json};

use super::{at_work, eta, percent, settled, stage_name, stage_state_name, stages_done};

/// The whole status of a job.
pub(crate) fn job(status: &JobStatus) -> Value {
    let status = settled(status);
    let mut value = summary(&status);
    value["stages"] = status.stages.iter().map(|s| stage(status.state, s)).collect();
    value
}

/// A job in one line: everything but what each stage has to say.
pub(crate) fn summary(status: &JobStatus) -> Value {
    let may_pass = (status.state == JobState::Failed).then_some(status.failure == Some(FailureClass::Retry));
    let at = at_work(status);
    json!({
        "job": status.job.0,
        "state": status.state.name(),
        "reason": status.reason,
        "may_pass": may_pass,
        "waiting": status.waiting,
        "age_s": status.age.as_secs(),
        "workers": status.workers,
        "stages_done": stages_done(status),
        "stages_total": status.stages.len(),
        "stage": at.map(stage_name),
        "percent": at.map_or(Some(100.0), percent),
    })
}

fn stage(job: JobState, stage: &StageStatus) -> Value {
    json!({
        "stage": stage.stage,
        "split": stage.split,
        "trial": stage.trial,
        "digest": stage.digest,
        "state": stage_state_name(job, stage),
        "reused": stage.reused,
        "unit": stage.progress.unit,
        "done": stage.progress.done,
        "total": stage.progress.total,
        "working": stage.working,
        "percent": percent(stage),
        "rate": (stage.rate * 10.0).round() / 10.0,
        "eta_s": eta(stage, stage.rate).map(|eta| eta.as_secs()),
        "shards": {"all": stage.shards.all, "done": stage.shards.done, "leased": stage.shards.leased},
        "attempts": stage.attempts,
        "retries": stage.retries,
        "oldest_lease_s": stage.oldest_lease.as_secs(),
        "rejected": stage.rejected,
        "quarantined": stage.quarantined,
        "members": stage.members,
        "generations": stage.generations,
        "note": stage.progress.note,
    })
}
