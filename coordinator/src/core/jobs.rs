//! Jobs: what is wanted, in which order, and when it is over.

use std::collections::BTreeSet;
use std::time::Duration;

use data::artifact::ArtifactId;
use proto::{FailureClass, JobId, JobState};

use super::artifacts::{Artifact, Phase};
use super::{Action, Core, StageEntry};

/// A submitted job.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) stages: Vec<WantedStage>,
    pub(super) state: JobState,
    pub(super) reason: String,
    pub(super) failure: Option<FailureClass>,
    pub(super) since: Duration,
    told: bool,
}

/// A stage as one job sees it.
#[derive(Debug)]
pub(super) struct WantedStage {
    pub(super) artifact: ArtifactId,
    pub(super) trial: Option<String>,
    pub(super) reused: bool,
}

impl Job {
    fn new(stages: Vec<WantedStage>, since: Duration) -> Self {
        Self { stages, state: JobState::Running, reason: String::new(), failure: None, since, told: false }
    }

    fn fail(&mut self, class: FailureClass, reason: String) {
        (self.state, self.reason, self.failure) = (JobState::Failed, reason, Some(class));
    }
}

impl Core {
    /// A job that failed or was cancelled is taken up again by submitting it again.
    pub(super) fn submit(&mut self, id: JobId, stages: Vec<StageEntry>, now: Duration) {
        let wanted =
            |s: &StageEntry| WantedStage { artifact: s.artifact.clone(), trial: s.trial.clone(), reused: s.complete };
        let wanted = stages.iter().map(wanted).collect();
        for stage in stages {
            let fresh = Artifact::new(&stage);
            // What nobody wants may have been removed from the store meanwhile: only what it holds now counts.
            let at_work = self.wanting(&stage.artifact).next().is_some();
            match self.artifacts.get_mut(&stage.artifact) {
                Some(known) if at_work && !matches!(known.phase, Phase::Failed(_)) => {}
                Some(known) if known.is_done() && stage.complete => {}
                // Leases that are still to come back stay on it.
                Some(known) => *known = Artifact { leases: std::mem::take(&mut known.leases), ..fresh },
                None => drop(self.artifacts.insert(stage.artifact, fresh)),
            }
        }
        // A job that is taken up again goes to the end of the queue, as a new one would.
        self.queue.retain(|known| *known != id);
        self.queue.push(id.clone());
        self.jobs.insert(id, Job::new(wanted, now));
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
                let artifacts = || job.stages.iter().filter_map(|s| self.artifacts.get(&s.artifact));
                if let Some((artifact, failure)) = artifacts().find_map(|a| a.failure().map(|failure| (a, failure))) {
                    let stage = Self::stage_name(&artifact.id, artifact.split, Some(job));
                    job.fail(failure.class, format!("{stage}: {}", failure.reason));
                } else if artifacts().all(Artifact::is_done) {
                    job.state = JobState::Succeeded;
                }
            }
            if job.state.ended() && !job.told {
                job.told = true;
                actions.push(Action::Ended(id.clone(), job.state));
            }
        }
        self.wanted = self.list_wanted();
    }

    /// Forgets a job that has ended, and the artifacts that only it had: whoever submits it again says what is complete.
    pub fn forget(&mut self, id: &JobId) {
        if self.jobs.get(id).is_none_or(|job| !job.state.ended()) {
            return;
        }
        self.jobs.remove(id);
        self.queue.retain(|known| known != id);
        let stages = self.jobs.values().flat_map(|job| &job.stages);
        let named: BTreeSet<&ArtifactId> = stages.map(|stage| &stage.artifact).collect();
        // Leases that are still to come back keep theirs.
        self.artifacts.retain(|id, artifact| named.contains(id) || !artifact.leases.is_empty());
    }

    /// The first running job that wants an artifact.
    pub(super) fn wanted_by(&self, artifact: &ArtifactId) -> Option<&JobId> {
        self.wanting(artifact).next()
    }

    /// The running jobs that want an artifact, first come first.
    pub fn wanting(&self, artifact: &ArtifactId) -> impl Iterator<Item = &JobId> {
        let wants = |job: &Job| !job.state.ended() && job.stages.iter().any(|s| s.artifact == *artifact);
        self.queue.iter().filter(move |id| self.jobs.get(id).is_some_and(&wants))
    }

    /// The artifacts of running jobs, in the order of service.
    fn list_wanted(&self) -> Vec<ArtifactId> {
        let mut seen = BTreeSet::new();
        let running = self.queue.iter().filter_map(|id| self.jobs.get(id)).filter(|j| !j.state.ended());
        let stages = running.flat_map(|job| &job.stages).map(|stage| &stage.artifact);
        stages.filter(|artifact| seen.insert(*artifact)).cloned().collect()
    }

    /// Those of them whose shards are known and not all done.
    pub(super) fn list_open(&self) -> Vec<ArtifactId> {
        let open = |id: &&ArtifactId| self.artifacts.get(*id).is_some_and(|artifact| artifact.open().is_some());
        self.wanted.iter().filter(open).cloned().collect()
    }
}
