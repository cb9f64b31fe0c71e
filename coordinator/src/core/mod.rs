//! The coordinator's decisions, without I/O: events in, actions out.
//!
//! ```text
//! artifact   Waiting ──inputs done──► Opening ──Opened──► Open ──all shards done──► Finishing ──Finished──► Done
//!                                        └──────────────── Broken / too many failures ─────────────► Failed
//! shard      pending ──Grant──► leased ──Committed──► done
//!               ▲                 │ Failed(retry), Returned, worker left or silent
//!               ├─────────────────┘──── too many workers lost ───► condemned ──Quarantined──► done, its rows rejected
//!               └─────────────────────────────────────────── Spared ───┘
//! lease      granted, or claimed after a coordinator's end ──► ended, lost or revoked; at the tail two leases may
//!            work on one shard, and the first done record counts; a gang trains on leases of the one shard that it has
//! ```
//!
//! There is no clock, randomness, lock or hash order in here: the same events at the same times give the same actions.
//! What comes often, heartbeats and progress, costs no more than looking up its worker, whoever idles meanwhile.

mod artifacts;
mod events;
mod gang;
mod gangs;
mod grants;
mod jobs;
mod leases;
mod policy;
mod shards;
mod status;
#[cfg(test)]
mod tests;
mod workers;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use data::artifact::ArtifactId;
use data::job::{Split, Stage};
use proto::{JobId, JobState, LeaseId, WorkerId};

use artifacts::Artifact;
pub use events::{Action, Event, Joiner, Lease, StageEntry};
use gang::Numbers;
use jobs::Job;
use leases::Held;
pub use policy::Policy;
use workers::Worker;

/// Everything that the coordinator knows while it leads.
#[derive(Debug, Default)]
pub struct Core {
    policy: Policy,
    term: u64,
    leases_granted: u64,
    /// Nothing is granted before: workers of the coordinator before this one may hold it.
    hold_until: Duration,
    jobs: BTreeMap<JobId, Job>,
    /// Jobs in the order of their submission, which is the order of service.
    queue: Vec<JobId>,
    artifacts: BTreeMap<ArtifactId, Artifact>,
    /// The artifacts of running jobs, in the order of service.
    wanted: Vec<ArtifactId>,
    /// Those of them whose shards are known and not all done.
    open: Vec<ArtifactId>,
    /// Whether a shard may be pending that an idle worker takes: not once a look has found none, until something is opened or
    /// comes back or a worker idles.
    pending: bool,
    workers: BTreeMap<WorkerId, Worker>,
    /// Workers without a lease that would take one.
    idle: BTreeSet<WorkerId>,
    /// Workers that are for one job alone.
    bound: BTreeSet<WorkerId>,
    leases: BTreeMap<LeaseId, Held>,
    generations: Numbers,
    /// Gangs in which something has happened since they were looked at.
    restless: BTreeSet<ArtifactId>,
    /// Whether a gang may have room for an idle worker: not once a look has found none, as with `pending`.
    room: bool,
    /// Since when a shard is pending that nobody who idles would take.
    starved: Option<Duration>,
    /// Whether jobs and stages have to be looked at again.
    changed: bool,
}

impl Core {
    /// The coordinator of a term, which knows nothing yet.
    #[must_use]
    pub fn new(policy: Policy, term: u64) -> Self {
        Self { policy, term, generations: Numbers::new(term), ..Self::default() }
    }

    /// Workers of an earlier coordinator may come back with what they hold: nothing is granted before they had time to.
    pub fn expect_claims(&mut self, now: Duration) {
        self.hold_until = now + self.policy.claim_grace;
    }

    /// Takes in an event at time `now` (since the start) and says what to do.
    pub fn handle(&mut self, event: Event, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        self.take(event, now, &mut actions);
        if std::mem::take(&mut self.changed) {
            self.settle_jobs(&mut actions);
            self.revoke_unwanted(&mut actions);
            self.open_ready(&mut actions);
            self.finish_complete(&mut actions);
            self.open = self.list_open();
            (self.pending, self.room) = (true, true);
        }
        self.review_gangs(now, &mut actions);
        self.grant_idle(now, &mut actions);
        self.join_gangs(now, &mut actions);
        actions
    }

    fn take(&mut self, event: Event, now: Duration, actions: &mut Vec<Action>) {
        use Event::{Joined, Left, Said, Tallied, Tick};
        self.changed = !matches!(event, Said(..) | Tick | Joined(..) | Left(_) | Tallied { .. });
        match event {
            Event::Submitted { job, stages } => self.submit(job, stages, now),
            Event::Opened { artifact, rows, done } => self.opened(&artifact, rows, &done, actions),
            Event::Tallied { artifact, records } => {
                if let Some(shards) = self.artifacts.get_mut(&artifact).and_then(Artifact::shards_mut) {
                    records.iter().for_each(|record| shards.recall(record));
                }
            }
            Event::Finished(artifact) => self.finished(&artifact),
            Event::Broken { artifact, class, reason } => self.break_artifact(&artifact, class, reason),
            Event::Quarantined { artifact, committed } => self.shard_done(&artifact, &committed, None, actions),
            Event::Spared { artifact, shard } => {
                if let Some(shards) = self.artifacts.get_mut(&artifact).and_then(Artifact::open_mut) {
                    shards.spare(shard);
                }
            }
            Event::Joined(worker, joiner) => self.join(worker, joiner, now, actions),
            Event::Left(worker) => self.lose(worker, "the worker vanished", actions),
            Event::Said(worker, message) => self.hear(worker, message, now, actions),
            Event::Cancelled { job, reason } => self.cancel(&job, reason),
            Event::Unreported { job, class, reason } => self.unreported(&job, class, &reason),
            Event::Tick => {
                self.evict_silent(now, actions);
                self.look(now);
                self.duplicate_slow(now, actions);
                self.look_at_gangs(now, actions);
            }
        }
    }

    /// How a job stands that is not forgotten.
    #[must_use]
    pub fn state(&self, job: &JobId) -> Option<JobState> {
        self.jobs.get(job).map(|j| j.state)
    }

    /// Every job that is not forgotten, in the order of submission.
    #[must_use]
    pub fn jobs(&self) -> &[JobId] {
        &self.queue
    }

    /// Whether some job has an artifact that is not forgotten.
    #[must_use]
    pub fn knows(&self, artifact: &ArtifactId) -> bool {
        self.artifacts.contains_key(artifact)
    }

    /// The stage that an artifact is to a job, for messages.
    fn stage_name(artifact: &ArtifactId, split: Option<Split>, job: Option<&Job>) -> String {
        let stage: Stage = artifact.stage;
        let name = split.map_or_else(|| stage.to_string(), |split| format!("{stage}:{split}"));
        let wanted = job.and_then(|job| job.stages.iter().find(|wanted| wanted.artifact == *artifact));
        match wanted.and_then(|wanted| wanted.trial.as_ref()) {
            Some(trial) => format!("{name}[{trial}]"),
            None => name,
        }
    }
}
