//! Jobs: what is wanted, in which order, and when it is over.

use data::artifact::ArtifactId;
use proto::{FailureClass, JobId, JobState, Progress, StageState, StageStatus};

use super::artifacts::{Artifact, Phase};
use super::{Action, Core, StageEntry};

/// A submitted job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) stages: Vec<WantedStage>,
    pub(super) state: JobState,
    pub(super) reason: String,
    pub(super) failure: Option<FailureClass>,
    told: bool,
}

/// A stage as one job sees it.
#[derive(Debug)]
pub(super) struct WantedStage {
    pub(super) artifact: ArtifactId,
    reused: bool,
}

impl Job {
    fn new(stages: Vec<WantedStage>) -> Self {
        Self { stages, state: JobState::Running, reason: String::new(), failure: None, told: false }
    }

    fn fail(&mut self, class: FailureClass, reason: String) {
        (self.state, self.reason, self.failure) = (JobState::Failed, reason, Some(class));
    }
}

impl Core {
    /// A job that failed or was cancelled is taken up again by submitting it again.
    pub(super) fn submit(&mut self, id: JobId, stages: Vec<StageEntry>) {
        let wanted = stages.iter().map(|s| WantedStage { artifact: s.artifact.clone(), reused: s.complete }).collect();
        for stage in stages {
            let fresh = Artifact::new(&stage);
            match self.artifacts.get_mut(&stage.artifact) {
                Some(known) if !matches!(known.phase, Phase::Failed(_)) => {}
                _ => {
                    self.artifacts.insert(stage.artifact, fresh);
                }
            }
        }
        if !self.queue.contains(&id) {
            self.queue.push(id.clone());
        }
        self.jobs.insert(id, Job::new(wanted));
    }

    pub(super) fn cancel(&mut self, id: &JobId, reason: String) {
        if let Some(job) = self.jobs.get_mut(id).filter(|j| !j.state.ended()) {
            job.state = JobState::Cancelled;
            job.reason = reason;
        }
    }

    /// A job whose stages are all done, and whose report is not: submitting it again writes the report again.
    pub(super) fn unreported(&mut self, id: &JobId, class: FailureClass, reason: &str) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.fail(class, format!("report: {reason}"));
        }
    }

    /// Ends the jobs whose stages are all done or of which one has failed.
    pub(super) fn settle_jobs(&mut self, actions: &mut Vec<Action>) {
        for (id, job) in &mut self.jobs {
            if !job.state.ended() {
                let phases = || job.stages.iter().filter_map(|s| self.artifacts.get(&s.artifact));
                if let Some((artifact, failure)) = phases().find_map(|a| a.failure().map(|failure| (a, failure))) {
                    let stage = Self::stage_name(&artifact.id, artifact.split);
                    job.fail(failure.class, format!("{stage}: {}", failure.reason));
                } else if phases().all(|a| matches!(a.phase, Phase::Done)) {
                    job.state = JobState::Succeeded;
                }
            }
            if job.state.ended() && !job.told {
                job.told = true;
                actions.push(Action::Ended(id.clone(), job.state));
            }
        }
    }

    /// The first running job that wants an artifact.
    pub(super) fn wanted_by(&self, artifact: &ArtifactId) -> Option<&JobId> {
        self.queue.iter().find(|id| {
            self.jobs.get(id).is_some_and(|j| !j.state.ended() && j.stages.iter().any(|s| s.artifact == *artifact))
        })
    }

    /// The artifacts of running jobs, in the order of service.
    pub(super) fn wanted(&self) -> Vec<ArtifactId> {
        let mut wanted: Vec<ArtifactId> = Vec::new();
        for job in self.queue.iter().filter_map(|id| self.jobs.get(id)).filter(|j| !j.state.ended()) {
            for stage in &job.stages {
                if !wanted.contains(&stage.artifact) {
                    wanted.push(stage.artifact.clone());
                }
            }
        }
        wanted
    }

    pub(super) fn stage_status(&self, stage: &WantedStage) -> StageStatus {
        let artifact = self.artifacts.get(&stage.artifact);
        StageStatus {
            stage: stage.artifact.stage.to_string(),
            split: artifact.and_then(|a| a.split).map(|s| s.to_string()),
            digest: stage.artifact.digest.to_string(),
            state: artifact.map_or(StageState::Waiting, Artifact::state),
            progress: artifact.map_or_else(Progress::default, |a| self.progress_of(a)),
            reused: stage.reused,
            retries: artifact.map_or(0, |a| a.retries),
        }
    }

    /// Committed rows and the progress of live leases together.
    fn progress_of(&self, artifact: &Artifact) -> Progress {
        let Phase::Open(shards) = &artifact.phase else { return artifact.last.clone() };
        let live = self.workers.values().filter_map(|w| w.lease.as_ref()).filter(|l| l.artifact == artifact.id);
        let mut sum = Progress { total: shards.rows.iter().sum(), ..artifact.last.clone() };
        sum.done = shards.done.iter().filter_map(|s| shards.rows.get(*s as usize)).sum();
        for lease in live {
            sum.done += lease.progress.done;
            if shards.rows.iter().all(|r| *r == 0) {
                sum.total += lease.progress.total;
            }
        }
        if sum.total > 0 {
            sum.done = sum.done.min(sum.total);
        }
        sum
    }
}
