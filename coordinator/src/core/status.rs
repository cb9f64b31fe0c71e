//! What the coordinator shows of what it knows.

use std::time::Duration;

use data::artifact::ArtifactId;
use proto::{JobId, JobStatus, LeaseId, Progress, ShardCounts, StageState, StageStatus, WorkerStatus};

use super::Core;
use super::artifacts::{Artifact, Phase};
use super::gang::Gang;
use super::jobs::{Job, WantedStage};
use super::leases::Held;
use super::shards::Shards;

impl Core {
    /// The status of a job at time `now`.
    #[must_use]
    pub fn status(&self, job: &JobId, now: Duration) -> Option<JobStatus> {
        let known = self.jobs.get(job)?;
        let stages: Vec<StageStatus> = known.stages.iter().map(|s| self.stage_status(s, now)).collect();
        let due = !known.state.ended() && stages.iter().any(|s| s.shards.all > 0);
        let waiting = match (due, self.workers.is_empty()) {
            (true, true) => "no worker is connected",
            (true, false) if !self.has_worker_for(known) => "all workers are for other jobs (--job)",
            _ => "",
        };
        Some(JobStatus {
            job: job.clone(),
            state: known.state,
            stages,
            workers: u32::try_from(self.workers.len()).unwrap_or(u32::MAX),
            reason: known.reason.clone(),
            failure: known.failure,
            waiting: waiting.to_owned(),
            age: seconds(now.saturating_sub(known.since)),
        })
    }

    /// Whether some worker may take a stage of a job, for whatever job that is.
    fn has_worker_for(&self, job: &Job) -> bool {
        job.stages.iter().any(|stage| self.workers.keys().any(|worker| self.may_take(*worker, &stage.artifact)))
    }

    /// Every worker, in the order of their registration.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerStatus> {
        let status = |(id, worker): (&proto::WorkerId, &super::workers::Worker)| {
            let held = worker.lease.and_then(|lease| self.leases.get(&lease));
            WorkerStatus {
                worker: *id,
                name: worker.name.clone(),
                device: worker.device.clone(),
                stage: held.map(|h| self.stage_of(&h.artifact)),
                job: held.and_then(|h| self.wanted_by(&h.artifact).cloned()),
                shards: held.map_or(0, |h| u32::try_from(h.shards.len()).unwrap_or(u32::MAX)),
                leaving: worker.leaving,
                suspect: worker.suspect,
            }
        };
        self.workers.iter().map(status).collect()
    }

    /// The job that a lease serves and the name of its stage, for those who keep a log.
    #[must_use]
    pub fn purpose(&self, lease: LeaseId) -> Option<(&JobId, String)> {
        let held = self.leases.get(&lease)?;
        Some((self.wanted_by(&held.artifact)?, self.stage_of(&held.artifact)))
    }

    /// The lease in a worker's hands.
    #[must_use]
    pub fn lease_of(&self, worker: proto::WorkerId) -> Option<LeaseId> {
        self.workers.get(&worker)?.lease
    }

    /// The name of a worker.
    #[must_use]
    pub fn name_of(&self, worker: proto::WorkerId) -> Option<&str> {
        self.workers.get(&worker).map(|w| w.name.as_str())
    }

    /// The name of a stage with its split, for people; of a trial, with the settings that it has in the first job that wants
    /// it.
    #[must_use]
    pub fn stage_of(&self, id: &ArtifactId) -> String {
        let job = self.wanted_by(id).and_then(|job| self.jobs.get(job));
        Self::stage_name(id, self.artifacts.get(id).and_then(|a| a.split), job)
    }

    fn stage_status(&self, stage: &WantedStage, now: Duration) -> StageStatus {
        let artifact = self.artifacts.get(&stage.artifact);
        let shards = artifact.and_then(Artifact::shards);
        let gang = artifact.and_then(|a| a.gang.as_ref());
        let leases = artifact.into_iter().flat_map(|a| &a.leases);
        let at_work: Vec<&Held> = match artifact.map(|a| &a.phase) {
            Some(Phase::Open(_)) => leases.filter_map(|lease| self.leases.get(lease)).collect(),
            _ => Vec::new(),
        };
        let oldest = at_work.iter().map(|h| now.saturating_sub(h.since)).max().unwrap_or_default();
        StageStatus {
            stage: stage.artifact.stage.to_string(),
            split: artifact.and_then(|a| a.split).map(|s| s.to_string()),
            trial: stage.trial.clone(),
            digest: stage.artifact.digest.to_string(),
            state: artifact.map_or(StageState::Waiting, Artifact::state),
            progress: artifact.map_or_else(Progress::default, |a| progress(a, &at_work)),
            reused: stage.reused,
            retries: artifact.map_or(0, |a| a.retries),
            shards: shards.map_or_else(ShardCounts::default, |s| ShardCounts {
                all: s.all(),
                done: s.done(),
                leased: s.leased(),
            }),
            attempts: artifact.map_or(0, |a| a.attempts),
            oldest_lease: seconds(oldest),
            rate: artifact.and_then(Artifact::open).map_or(0.0, Shards::rate),
            rejected: shards.map(|s| s.rejected.clone()).unwrap_or_default(),
            quarantined: shards.map(|s| s.quarantined.iter().copied().collect()).unwrap_or_default(),
            working: working(shards, &at_work),
            members: gang.map_or(0, Gang::training),
            generations: gang.map_or(0, Gang::opened),
        }
    }
}

/// Committed rows where shards have them; where only the worker knows, what it says.
fn progress(artifact: &Artifact, at_work: &[&Held]) -> Progress {
    let Some(shards) = artifact.open() else { return artifact.last.clone() };
    let mut sum = Progress { done: shards.done_rows(), total: shards.total_rows(), ..artifact.last.clone() };
    if artifact.gang.is_some() {
        // Members of a gang have done the same steps, and who has just come knows of none.
        let furthest = at_work.iter().map(|held| &held.progress).max_by_key(|progress| progress.done);
        return furthest.unwrap_or(&artifact.last).clone();
    }
    if sum.total == 0 {
        for held in at_work {
            sum.done += held.progress.done;
            sum.total += held.progress.total;
        }
    }
    sum
}

/// What leases have computed beyond what is committed.
fn working(shards: Option<&Shards>, at_work: &[&Held]) -> u64 {
    let Some(shards) = shards.filter(|s| s.total_rows() > 0) else { return 0 };
    let computed: u64 = at_work.iter().map(|h| h.progress.done).sum();
    computed.min(shards.total_rows() - shards.done_rows())
}

/// Whole seconds, so that a status changes once a second at most for its times.
fn seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}
