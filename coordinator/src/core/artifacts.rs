//! Artifacts: one stage's output, from waiting to done.

use std::collections::BTreeSet;
use std::time::Duration;

use data::artifact::ArtifactId;
use data::job::{Split, Stage};
use proto::{Committed, FailureClass, LeaseId, Progress, StageState};

use super::gang::Gang;
use super::leases::DONE_BY_OTHERS;
use super::shards::Shards;
use super::{Action, Core, StageEntry};

/// What one stage makes.
#[derive(Debug)]
pub(super) struct Artifact {
    pub(super) id: ArtifactId,
    pub(super) split: Option<Split>,
    pub(super) needs: Vec<ArtifactId>,
    pub(super) phase: Phase,
    pub(super) retries: u32,
    pub(super) attempts: u32,
    /// Whether a worker has ever begun with it.
    pub(super) begun: bool,
    /// The last progress that was heard of.
    pub(super) last: Progress,
    /// The leases over shards of it.
    pub(super) leases: BTreeSet<LeaseId>,
    /// Commits that were heard of before it was open.
    pub(super) early: Vec<Committed>,
    /// Those who train it, if it is a training.
    pub(super) gang: Option<Gang>,
}

/// Where an artifact stands.
#[derive(Debug)]
pub(super) enum Phase {
    Waiting,
    Opening,
    Open(Shards),
    /// Complete, with the shards for those who look.
    Finishing(Shards),
    Done(Option<Shards>),
    Failed(Failure),
}

/// Why something failed for good, and whether the same job may succeed later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) class: FailureClass,
    pub(super) reason: String,
}

impl Artifact {
    pub(super) fn new(stage: &StageEntry) -> Self {
        let phase = if stage.complete { Phase::Done(None) } else { Phase::Waiting };
        Self {
            id: stage.artifact.clone(),
            split: stage.split,
            needs: stage.needs.clone(),
            phase,
            retries: 0,
            attempts: 0,
            begun: false,
            last: Progress::default(),
            leases: BTreeSet::new(),
            early: Vec::new(),
            gang: is_training(stage.artifact.stage).then(|| Gang::new(stage.gang)),
        }
    }

    pub(super) fn failure(&self) -> Option<&Failure> {
        match &self.phase {
            Phase::Failed(failure) => Some(failure),
            _ => None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done(_))
    }

    /// The shards while they are worked on.
    pub(super) fn open(&self) -> Option<&Shards> {
        match &self.phase {
            Phase::Open(shards) => Some(shards),
            _ => None,
        }
    }

    pub(super) fn open_mut(&mut self) -> Option<&mut Shards> {
        match &mut self.phase {
            Phase::Open(shards) => Some(shards),
            _ => None,
        }
    }

    /// The shards as far as they are known.
    pub(super) fn shards(&self) -> Option<&Shards> {
        match &self.phase {
            Phase::Open(shards) | Phase::Finishing(shards) | Phase::Done(Some(shards)) => Some(shards),
            _ => None,
        }
    }

    pub(super) fn shards_mut(&mut self) -> Option<&mut Shards> {
        match &mut self.phase {
            Phase::Open(shards) | Phase::Finishing(shards) | Phase::Done(Some(shards)) => Some(shards),
            _ => None,
        }
    }

    /// Whether its shards are being found out.
    pub(super) fn is_opening(&self) -> bool {
        matches!(self.phase, Phase::Opening)
    }

    /// Whether its shards are not known yet.
    pub(super) fn is_unopened(&self) -> bool {
        matches!(self.phase, Phase::Waiting | Phase::Opening)
    }

    /// Keeps a commit in mind that the listing of what is done may have missed.
    pub(super) fn hear_early(&mut self, committed: &Committed) {
        if self.is_unopened() {
            self.early.push(committed.clone());
        }
    }

    pub(super) fn state(&self) -> StageState {
        match &self.phase {
            Phase::Waiting | Phase::Opening => StageState::Waiting,
            Phase::Open(_) if !self.begun => StageState::Waiting,
            Phase::Open(_) | Phase::Finishing(_) => StageState::Running,
            Phase::Done(_) => StageState::Done,
            Phase::Failed(_) => StageState::Failed,
        }
    }

    /// Whether two workers may try the same shard at once: not where they would train, or share a spool.
    pub(super) fn is_map(&self) -> bool {
        matches!(self.id.stage, Stage::Caption | Stage::Retrieve | Stage::Rank)
    }

    /// Whether the stage can do without a shard: its users then have no row, and are named.
    pub(super) fn can_spare_shards(&self) -> bool {
        matches!(self.id.stage, Stage::Retrieve | Stage::Rank) && self.split != Some(Split::Train)
    }
}

fn is_training(stage: Stage) -> bool {
    matches!(stage, Stage::TrainRetriever | Stage::TrainRanker)
}

impl Core {
    pub(super) fn opened(&mut self, id: &ArtifactId, rows: Vec<u64>, done: &[u32], actions: &mut Vec<Action>) {
        let Some(artifact) = self.artifacts.get_mut(id) else { return };
        if !matches!(artifact.phase, Phase::Opening) {
            return;
        }
        let mut shards = Shards::new(rows, done);
        artifact.begun |= !done.is_empty();
        // Leases of the coordinator before that were claimed already.
        for lease in &artifact.leases {
            let Some(held) = self.leases.get_mut(lease) else { continue };
            if held.narrow(|shard| shards.join(shard, *lease)) {
                actions.push(Action::Revoke(held.worker, *lease, DONE_BY_OTHERS.to_owned()));
            }
        }
        artifact.phase = Phase::Open(shards);
        for committed in std::mem::take(&mut artifact.early) {
            self.shard_done(id, &committed, None, actions);
        }
    }

    pub(super) fn finished(&mut self, id: &ArtifactId) {
        if let Some(artifact) = self.artifacts.get_mut(id) {
            let shards = match std::mem::replace(&mut artifact.phase, Phase::Done(None)) {
                Phase::Open(shards) | Phase::Finishing(shards) => Some(shards),
                _ => None,
            };
            artifact.phase = Phase::Done(shards);
            artifact.last.done = artifact.last.total;
            if artifact.is_map() {
                // It was about the last shard, not about all of them.
                artifact.last.note.clear();
            }
        }
    }

    pub(super) fn break_artifact(&mut self, id: &ArtifactId, class: FailureClass, reason: String) {
        // What is done is done, whatever a call that was on its way before says.
        if let Some(artifact) = self.artifacts.get_mut(id).filter(|a| !a.is_done()) {
            artifact.phase = Phase::Failed(Failure { class, reason });
        }
    }

    /// Opens what is wanted and whose inputs are done.
    pub(super) fn open_ready(&mut self, actions: &mut Vec<Action>) {
        for id in self.wanted.clone() {
            let ready = self.artifacts.get(&id).is_some_and(|a| {
                matches!(a.phase, Phase::Waiting)
                    && a.needs.iter().all(|n| self.artifacts.get(n).is_some_and(Artifact::is_done))
            });
            if let (true, Some(artifact)) = (ready, self.artifacts.get_mut(&id)) {
                artifact.phase = Phase::Opening;
                actions.push(Action::Open(id));
            }
        }
    }

    /// Completes what has all of its shards.
    pub(super) fn finish_complete(&mut self, actions: &mut Vec<Action>) {
        for (id, artifact) in &mut self.artifacts {
            if !artifact.open().is_some_and(Shards::is_complete) {
                continue;
            }
            let Phase::Open(shards) = std::mem::replace(&mut artifact.phase, Phase::Opening) else { continue };
            artifact.last.total = shards.total_rows().max(artifact.last.total);
            artifact.last.done = artifact.last.total;
            artifact.phase = Phase::Finishing(shards);
            actions.push(Action::Finish(id.clone()));
        }
    }

    /// Takes the measure of what is at work.
    pub(super) fn look(&mut self, now: Duration) {
        for shards in self.artifacts.values_mut().filter_map(Artifact::open_mut) {
            shards.look(now);
        }
    }
}
