//! The status of a job in figures, for people and for scripts.

mod json;
mod text;

use std::time::Duration;

use proto::{JobState, JobStatus, StageState, StageStatus};

pub(crate) use json::{job, summary};
pub(crate) use text::{aside_by_report, aside_by_status, page, put_aside, speed};

/// The name of a stage's state. In a job that has ended nothing runs, whatever it was at.
pub(crate) fn stage_state_name(job: JobState, stage: &StageStatus) -> &'static str {
    match stage.state {
        StageState::Waiting => "waiting",
        StageState::Running if job.ended() => "stopped",
        StageState::Running => "running",
        StageState::Done => "done",
        StageState::Failed => "failed",
    }
}

/// `rank:test`, `train_retriever[dropout=0.1 weight_decay=0]`
pub(crate) fn stage_name(stage: &StageStatus) -> String {
    let name = stage.split.as_ref().map_or_else(|| stage.stage.clone(), |split| format!("{}:{split}", stage.stage));
    stage.trial.as_ref().map_or_else(|| name.clone(), |trial| format!("{name}[{trial}]"))
}

/// Percent of a stage that are safe; nothing while its size is unknown. 100 comes with the end of the stage and not
/// before: what rounds up to it is held below.
pub(crate) fn percent(stage: &StageStatus) -> Option<f64> {
    let (done, total) = (stage.progress.done, stage.progress.total);
    match stage.state {
        StageState::Done => Some(100.0),
        StageState::Waiting if done == 0 => Some(0.0),
        _ if total == 0 => None,
        _ => Some(((done as f64 / total as f64 * 1000.0).floor() / 10.0).min(99.9)),
    }
}

/// How long a stage still takes at a rate, while that can be told.
pub(crate) fn eta(stage: &StageStatus, rate: f64) -> Option<Duration> {
    let left = stage.progress.total.saturating_sub(stage.progress.done);
    let known = stage.state == StageState::Running && stage.progress.total > 0 && rate > 0.0;
    // A rate close to nothing says nothing: the end would be out of sight.
    let seconds = known.then(|| left as f64 / rate).filter(|s| *s < 1e7)?;
    Some(Duration::from_secs_f64(seconds))
}

/// The same without what only a stage at work has, if the job has ended.
pub(crate) fn settled(status: &JobStatus) -> JobStatus {
    let mut status = status.clone();
    for stage in status.stages.iter_mut().filter(|s| status.state.ended() && s.state == StageState::Running) {
        (stage.rate, stage.working, stage.oldest_lease, stage.shards.leased) = (0.0, 0, Duration::ZERO, 0);
        stage.members = 0;
        stage.progress.note.clear();
    }
    status
}

/// The stage that a job is at: the first that runs, or failed, or waits.
pub(crate) fn at_work(status: &JobStatus) -> Option<&StageStatus> {
    let first = |state: StageState| status.stages.iter().find(|s| s.state == state);
    [StageState::Failed, StageState::Running, StageState::Waiting].into_iter().find_map(first)
}

/// Stages that are done.
pub(crate) fn stages_done(status: &JobStatus) -> usize {
    status.stages.iter().filter(|s| s.state == StageState::Done).count()
}

#[cfg(test)]
mod tests;
