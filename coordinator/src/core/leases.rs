//! Leases: who gets what, and what their ends mean.

use std::time::Duration;

use data::artifact::ArtifactId;
use proto::{Claim, Committed, FailureClass, LeaseId, Progress, WorkerId};

use super::artifacts::Phase;
use super::{Action, Core};

/// Why a lease is taken back whose shards are all done.
pub(super) const DONE_BY_OTHERS: &str = "another worker was faster";
const TRAINED: &str = "the training is over, and its model committed";
const UNWANTED: &str = "no running job wants this any more";
/// What progress counts in a training.
const STEPS: &str = "steps";

/// A lease in a worker's hands.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) worker: WorkerId,
    pub(super) artifact: ArtifactId,
    /// What is not committed yet, in the order of work: the first is at work now.
    pub(super) shards: Vec<u32>,
    /// When it was granted, or committed last.
    pub(super) since: Duration,
    pub(super) progress: Progress,
    /// Whether its worker has said a word about it: before, nobody knows that it has arrived.
    pub(super) heard_of: bool,
    pub(super) revoked: bool,
}

impl Held {
    /// Keeps the shards that are of use. Says whether none is left of some, so that the lease is to be taken back.
    pub(super) fn narrow(&mut self, mut of_use: impl FnMut(u32) -> bool) -> bool {
        let some = !self.shards.is_empty();
        self.shards.retain(|shard| of_use(*shard));
        let useless = some && self.shards.is_empty() && !self.revoked;
        self.revoked |= useless;
        useless
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
    /// A worker that was cut off says what it goes on with.
    pub(super) fn claim(&mut self, worker: WorkerId, claim: Claim, now: Duration, actions: &mut Vec<Action>) {
        let Claim { lease, stage, digest, mut shards, generation } = claim;
        // Its session before may still look alive from here: it is not, and what it held is not lost.
        let before = self.leases.get(&lease).map(|held| (held.worker, held.shards.clone()));
        if let Some((before, held)) = before.filter(|(before, _)| *before != worker) {
            self.supersede(before, actions);
            // Commits of these are on their way.
            let said: Vec<u32> = held.into_iter().filter(|shard| !shards.contains(shard)).collect();
            shards.extend(said);
        }
        let meant = |id: &&ArtifactId| id.digest.as_str() == digest && id.stage.as_str() == stage;
        let takes = |id: &&ArtifactId| self.artifacts.get(*id).is_some_and(|a| a.is_unopened() || a.open().is_some());
        let Some(id) = self.wanted.iter().find(meant).filter(takes).cloned() else {
            self.end_lease(lease, End::Returned, UNWANTED, actions);
            actions.push(Action::Revoke(worker, lease, UNWANTED.to_owned()));
            return;
        };
        self.hold(worker, lease, &id, shards, now);
        if let Some(gang) = self.gang_mut(&id) {
            gang.claim(lease, generation);
            self.restless.insert(id.clone());
        }
        let Some(held) = self.leases.get_mut(&lease) else { return };
        held.heard_of = true;
        // Where there is nothing left of it, its commits and its end are still to be said.
        let Some(open) = self.artifacts.get_mut(&id).and_then(|a| a.open_mut()) else { return };
        open.forgive(lease); // its stream broke, and not the worker
        if held.narrow(|shard| open.join(shard, lease) || open.holds(shard, lease)) {
            actions.push(Action::Revoke(worker, lease, DONE_BY_OTHERS.to_owned()));
        }
    }

    /// Takes leases back that no running job wants any more.
    pub(super) fn revoke_unwanted(&mut self, actions: &mut Vec<Action>) {
        for (id, artifact) in self.artifacts.iter().filter(|(_, artifact)| !artifact.leases.is_empty()) {
            if self.wanted.contains(id) {
                continue;
            }
            for lease in &artifact.leases {
                if let Some(held) = self.leases.get_mut(lease).filter(|held| !held.revoked) {
                    held.revoked = true;
                    actions.push(Action::Revoke(held.worker, *lease, UNWANTED.to_owned()));
                }
            }
        }
    }

    pub(super) fn note_progress(&mut self, worker: WorkerId, lease: LeaseId, progress: Progress) {
        let Some(held) = self.leases.get_mut(&lease).filter(|h| h.worker == worker) else { return };
        held.heard_of = true;
        if progress == Progress::default() {
            return; // it has taken the lease up, and that is all there is to say
        }
        held.progress = progress.clone();
        if let Some(artifact) = self.artifacts.get_mut(&held.artifact) {
            if let Some(gang) = artifact.gang.as_mut().filter(|_| progress.unit == STEPS) {
                gang.reached(lease, progress.done);
            }
            // Whoever is slower than another goes on for a while.
            if matches!(artifact.phase, Phase::Opening | Phase::Open(_)) {
                artifact.last = progress;
            }
        }
    }

    pub(super) fn note_committed(
        &mut self,
        worker: WorkerId,
        lease: LeaseId,
        committed: &Committed,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let Some(held) = self.leases.get_mut(&lease).filter(|h| h.worker == worker) else { return };
        (held.progress.done, held.since, held.heard_of) = (0, now, true);
        held.shards.retain(|s| *s != committed.shard);
        let artifact = held.artifact.clone();
        self.shard_done(&artifact, committed, Some(lease), actions);
    }

    /// A shard is in the store: whoever else works on it need not.
    pub(super) fn shard_done(
        &mut self,
        id: &ArtifactId,
        committed: &Committed,
        by: Option<LeaseId>,
        actions: &mut Vec<Action>,
    ) {
        let Some(artifact) = self.artifacts.get_mut(id) else { return };
        artifact.hear_early(committed);
        let reason = if artifact.gang.is_some() { TRAINED } else { DONE_BY_OTHERS };
        if let Some(gang) = &mut artifact.gang {
            gang.finish();
        }
        let Some(shards) = artifact.open_mut() else { return };
        let Some(leases) = shards.committed(committed) else { return };
        self.changed |= shards.is_complete();
        for lease in leases.into_iter().filter(|l| Some(*l) != by) {
            let Some(held) = self.leases.get_mut(&lease) else { continue };
            if held.narrow(|shard| shard != committed.shard) {
                actions.push(Action::Revoke(held.worker, lease, reason.to_owned()));
            }
        }
    }

    /// What a lease held goes back; its end counts for the shard that was at work.
    pub(super) fn end_lease(&mut self, lease: LeaseId, end: End, reason: &str, actions: &mut Vec<Action>) {
        let Some(held) = self.leases.remove(&lease) else { return };
        (self.pending, self.room) = (true, true);
        if let Some(worker) = self.workers.get_mut(&held.worker).filter(|w| w.lease == Some(lease)) {
            worker.lease = None;
            self.rest(held.worker);
        }
        self.leave_gang(&held, lease, end, reason);
        let Some(artifact) = self.artifacts.get_mut(&held.artifact) else { return };
        artifact.leases.remove(&lease);
        let Some(shards) = artifact.open_mut() else { return };
        for shard in &held.shards {
            shards.give_back(*shard, lease);
        }
        let Some(at_work) = held.shards.first().copied() else { return };
        match end {
            _ if artifact.gang.is_some() => {}
            End::Returned => {}
            End::Failed => self.count_failure(&held.artifact, at_work, lease, reason),
            End::Lost => self.count_loss(&held.artifact, at_work, lease, held.heard_of, reason, actions),
        }
    }

    /// A failure that is said again, to the next session, has not happened again.
    fn count_failure(&mut self, id: &ArtifactId, shard: u32, lease: LeaseId, reason: &str) {
        let Some(artifact) = self.artifacts.get_mut(id) else { return };
        let Some(times) = artifact.open_mut().and_then(|shards| shards.failed(shard, lease)) else { return };
        artifact.retries += 1;
        if times >= self.policy.max_failures {
            let reason = match times {
                1 => reason.to_owned(),
                times => format!("failed {times} times, the last time: {reason}"),
            };
            self.fail_artifact(id, reason);
        }
    }

    /// A lease that its worker has not spoken of may have got lost on the way, and hardly counts.
    fn count_loss(
        &mut self,
        id: &ArtifactId,
        shard: u32,
        lease: LeaseId,
        heard_of: bool,
        reason: &str,
        actions: &mut Vec<Action>,
    ) {
        let wanted = self.wanted.contains(id);
        let Some(artifact) = self.artifacts.get_mut(id) else { return };
        artifact.retries += u32::from(heard_of);
        let spare = artifact.can_spare_shards();
        let Some(shards) = artifact.open_mut() else { return };
        let losses = shards.lost(shard, lease, heard_of);
        let times = losses.count(self.policy.max_losses);
        let reason = format!("shard {shard} lost its worker {} times: {reason}", losses.all());
        if spare && times >= self.policy.quarantine_after {
            // What nobody wants any more waits for somebody who does.
            if wanted && shards.condemn(shard) {
                actions.push(Action::Quarantine(id.clone(), shard, reason));
            }
        } else if !spare && times >= self.policy.max_losses {
            self.fail_artifact(id, reason);
        }
    }

    pub(super) fn fail_artifact(&mut self, id: &ArtifactId, reason: String) {
        self.break_artifact(id, FailureClass::Retry, reason);
        self.changed = true;
    }
}
