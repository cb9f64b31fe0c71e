//! Artifacts: the shards of one stage's output, from waiting to done.

use std::collections::{BTreeMap, BTreeSet};

use data::artifact::ArtifactId;
use data::job::Split;
use proto::{FailureClass, LeaseId, Progress, StageState};

use super::{Action, Core, StageEntry};

/// What one stage makes.
#[derive(Debug)]
pub(super) struct Artifact {
    pub(super) id: ArtifactId,
    pub(super) split: Option<Split>,
    pub(super) needs: Vec<ArtifactId>,
    pub(super) phase: Phase,
    pub(super) retries: u32,
    /// Whether a worker has ever begun with it.
    pub(super) begun: bool,
    /// The last progress that was heard of.
    pub(super) last: Progress,
}

/// Where an artifact stands.
#[derive(Debug)]
pub(super) enum Phase {
    Waiting,
    Opening,
    Open(Shards),
    Finishing,
    Done,
    Failed(Failure),
}

/// Why something failed for good, and whether the same job may succeed later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) class: FailureClass,
    pub(super) reason: String,
}

/// The shards of an open artifact: every one is pending, leased or done.
#[derive(Debug, Default)]
pub(super) struct Shards {
    pub(super) rows: Vec<u64>,
    pub(super) pending: BTreeSet<u32>,
    pub(super) leased: BTreeMap<u32, LeaseId>,
    pub(super) done: BTreeSet<u32>,
    failures: BTreeMap<u32, u32>,
    losses: BTreeMap<u32, u32>,
}

impl Artifact {
    pub(super) fn new(stage: &StageEntry) -> Self {
        let phase = if stage.complete { Phase::Done } else { Phase::Waiting };
        Self {
            id: stage.artifact.clone(),
            split: stage.split,
            needs: stage.needs.clone(),
            phase,
            retries: 0,
            begun: false,
            last: Progress::default(),
        }
    }

    pub(super) fn failure(&self) -> Option<&Failure> {
        match &self.phase {
            Phase::Failed(failure) => Some(failure),
            _ => None,
        }
    }

    pub(super) fn state(&self) -> StageState {
        match &self.phase {
            Phase::Waiting | Phase::Opening => StageState::Waiting,
            Phase::Open(_) if !self.begun => StageState::Waiting,
            Phase::Open(_) | Phase::Finishing => StageState::Running,
            Phase::Done => StageState::Done,
            Phase::Failed(_) => StageState::Failed,
        }
    }

    /// A shard is in the store, whoever wrote it.
    pub(super) fn committed(&mut self, shard: u32, rows: u64) {
        let Phase::Open(shards) = &mut self.phase else { return };
        if let Some(known) = shards.rows.get_mut(shard as usize) {
            // Where the rows were not known before, progress is counted in units of the worker's own.
            *known = if *known == 0 { 0 } else { rows };
            shards.pending.remove(&shard);
            shards.leased.remove(&shard);
            shards.done.insert(shard);
        }
    }

    /// Puts the shards of a lease that ended back; counts what it says about them.
    pub(super) fn give_back(&mut self, lease: LeaseId, end: End, limit: u32, reason: &str) {
        let Phase::Open(shards) = &mut self.phase else { return };
        let back: Vec<u32> = shards.leased.iter().filter(|(_, l)| **l == lease).map(|(s, _)| *s).collect();
        if back.is_empty() {
            return;
        }
        let mut worst = 0;
        for shard in &back {
            shards.leased.remove(shard);
            shards.pending.insert(*shard);
            let count = match end {
                End::Returned => continue,
                End::Failed => shards.failures.entry(*shard).or_default(),
                End::Lost => shards.losses.entry(*shard).or_default(),
            };
            *count += 1;
            worst = worst.max(*count);
        }
        if end != End::Returned {
            self.retries += 1;
        }
        if worst >= limit {
            let reason = match end {
                End::Lost => format!("shard {} lost its worker {worst} times: {reason}", back[0]),
                _ if worst == 1 => reason.to_owned(),
                _ => format!("failed {worst} times, the last time: {reason}"),
            };
            self.phase = Phase::Failed(Failure { class: FailureClass::Retry, reason });
        }
    }
}

/// How a lease ended before its shards were done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The worker said that it failed.
    Failed,
    /// The worker vanished.
    Lost,
    /// The worker handed it back.
    Returned,
}

impl Core {
    pub(super) fn opened(&mut self, id: &ArtifactId, rows: Vec<u64>, done: &[u32]) {
        let Some(artifact) = self.artifacts.get_mut(id) else { return };
        if !matches!(artifact.phase, Phase::Opening) {
            return;
        }
        let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        let mut shards = Shards { rows, pending: (0..count).collect(), ..Shards::default() };
        for shard in done.iter().filter(|s| **s < count) {
            shards.pending.remove(shard);
            shards.done.insert(*shard);
        }
        artifact.begun |= !done.is_empty();
        artifact.phase = Phase::Open(shards);
    }

    pub(super) fn finished(&mut self, id: &ArtifactId) {
        if let Some(artifact) = self.artifacts.get_mut(id) {
            artifact.phase = Phase::Done;
            artifact.last.done = artifact.last.total;
        }
    }

    pub(super) fn break_artifact(&mut self, id: &ArtifactId, class: FailureClass, reason: String) {
        if let Some(artifact) = self.artifacts.get_mut(id) {
            artifact.phase = Phase::Failed(Failure { class, reason });
        }
    }

    /// Opens what is wanted and whose inputs are done.
    pub(super) fn open_ready(&mut self, actions: &mut Vec<Action>) {
        for id in self.wanted() {
            let ready = self
                .artifacts
                .get(&id)
                .is_some_and(|a| matches!(a.phase, Phase::Waiting) && a.needs.iter().all(|n| self.is_done(n)));
            if let (true, Some(artifact)) = (ready, self.artifacts.get_mut(&id)) {
                artifact.phase = Phase::Opening;
                actions.push(Action::Open(id));
            }
        }
    }

    /// Completes what has all of its shards.
    pub(super) fn finish_complete(&mut self, actions: &mut Vec<Action>) {
        let mut complete = Vec::new();
        for (id, artifact) in &self.artifacts {
            if let Phase::Open(shards) = &artifact.phase
                && shards.done.len() == shards.rows.len()
            {
                complete.push((id.clone(), shards.rows.iter().sum::<u64>()));
            }
        }
        for (id, total) in complete {
            if let Some(artifact) = self.artifacts.get_mut(&id) {
                artifact.last.total = total.max(artifact.last.total);
                artifact.last.done = artifact.last.total;
                artifact.phase = Phase::Finishing;
                actions.push(Action::Finish(id));
            }
        }
    }

    fn is_done(&self, id: &ArtifactId) -> bool {
        self.artifacts.get(id).is_some_and(|a| matches!(a.phase, Phase::Done))
    }
}
