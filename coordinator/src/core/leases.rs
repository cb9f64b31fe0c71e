//! Leases: who gets what, and what their ends mean.

use std::time::Duration;

use data::artifact::ArtifactId;
use proto::{Claim, Committed, FailureClass, LeaseId, Progress, WorkerId};

use super::shards::Shards;
use super::{Action, Core, Lease};

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
    revoked: bool,
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
    /// Gives pending shards to idle workers: first job first, first stage first, first shard first.
    pub(super) fn grant_idle(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if now < self.hold_until {
            return; // those who hold something from before speak first
        }
        while let Some(worker) = self.idle.first().copied() {
            let pending = |id: &&ArtifactId| {
                self.artifacts.get(*id).and_then(|a| a.open()).is_some_and(|s| !s.pending.is_empty())
            };
            let Some(id) = self.wanted.iter().find(pending).cloned() else { return };
            let lease = self.next_lease();
            let most = self.fair_share(&id);
            let target = self.policy.lease_target;
            let Some(shards) = self.artifacts.get_mut(&id).and_then(|a| a.open_mut()) else { return };
            let taken = shards.take(lease, target, most);
            self.grant(worker, lease, &id, taken, now, actions);
        }
    }

    /// When nothing is left to begin with, idle workers try what others are slow with; the first commit counts.
    pub(super) fn duplicate_slow(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if now < self.hold_until || self.idle.is_empty() {
            return;
        }
        for (id, shard) in self.slowest(self.idle.len(), now) {
            let Some(worker) = self.idle.first().copied() else { return };
            let lease = self.next_lease();
            if let Some(shards) = self.artifacts.get_mut(&id).and_then(|a| a.open_mut()) {
                shards.join(shard, lease);
            }
            self.grant(worker, lease, &id, vec![shard], now, actions);
        }
    }

    /// The shards that will be done last, of those that one worker alone has had for long enough, at most so many. Those of
    /// the slowest lease come first, and of them the last one, which its holder would begin with last.
    fn slowest(&self, most: usize, now: Duration) -> Vec<(ArtifactId, u32)> {
        let mut late: Vec<(f64, &Held, &Shards)> =
            self.leases.values().filter_map(|held| self.late(held, now)).collect();
        late.sort_by(|a, b| b.0.total_cmp(&a.0)); // the older of two that are alike stays first
        let alone = |(_, held, shards): (f64, &Held, &Shards)| -> Vec<(ArtifactId, u32)> {
            let shards = held.shards.iter().rev().filter(|s| shards.hands(**s) == 1);
            shards.map(|shard| (held.artifact.clone(), *shard)).collect()
        };
        late.into_iter().flat_map(alone).take(most).collect()
    }

    /// How long a lease will need, in seconds from when it committed last, if that is longer than it should.
    fn late<'a>(&'a self, held: &'a Held, now: Duration) -> Option<(f64, &'a Held, &'a Shards)> {
        let waited = now.saturating_sub(held.since);
        if waited < self.policy.duplicate_after || !self.wanted.contains(&held.artifact) {
            return None;
        }
        let artifact = self.artifacts.get(&held.artifact).filter(|a| a.is_map())?;
        let shards = artifact.open().filter(|s| s.pending.is_empty())?;
        let shard = held.shards.iter().rev().find(|s| shards.hands(**s) == 1)?;
        let takes = shards.estimate(*shard).unwrap_or_default();
        // A shard that is at work for less time than it needs is not slow.
        if held.shards.len() == 1 && waited.as_secs_f64() < 1.5 * takes {
            return None;
        }
        Some((takes * held.shards.len() as f64 + waited.as_secs_f64(), held, shards))
    }

    /// The most shards of a lease, so that all workers end at about the same time.
    fn fair_share(&self, id: &ArtifactId) -> usize {
        let Some(artifact) = self.artifacts.get(id) else { return 1 };
        let pending = artifact.open().map_or(0, |s| s.pending.len());
        let workers = self.workers.len().max(1);
        pending.div_ceil(2 * workers).clamp(1, self.policy.max_bundle)
    }

    fn next_lease(&mut self) -> LeaseId {
        self.leases_granted += 1;
        LeaseId::of(self.term, self.leases_granted)
    }

    fn grant(
        &mut self,
        worker: WorkerId,
        id: LeaseId,
        artifact: &ArtifactId,
        shards: Vec<u32>,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let job = self.wanted_by(artifact).cloned();
        let Some((known, job)) = self.artifacts.get_mut(artifact).zip(job) else { return };
        (known.begun, known.attempts) = (true, known.attempts + 1);
        let (split, of) = (known.split, known.open().map_or(0, Shards::all));
        actions.push(Action::Grant(
            worker,
            Lease { id, job, artifact: artifact.clone(), split, shards: shards.clone(), of },
        ));
        self.hold(worker, id, artifact, shards, now);
    }

    fn hold(&mut self, worker: WorkerId, id: LeaseId, artifact: &ArtifactId, shards: Vec<u32>, now: Duration) {
        self.idle.remove(&worker);
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.lease = Some(id);
        }
        let (artifact, progress) = (artifact.clone(), Progress::default());
        self.leases.insert(id, Held { worker, artifact, shards, since: now, progress, revoked: false });
    }

    /// A worker that was cut off says what it goes on with.
    pub(super) fn claim(&mut self, worker: WorkerId, claim: Claim, now: Duration, actions: &mut Vec<Action>) {
        let id = self.artifacts.keys().find(|a| a.digest.as_str() == claim.digest && a.stage.as_str() == claim.stage);
        let wanted = id.filter(|id| self.wanted.contains(id)).cloned();
        let known = wanted.as_ref().and_then(|id| self.artifacts.get_mut(id));
        let Some((id, artifact)) = wanted.clone().zip(known) else {
            actions.push(Action::Revoke(worker, claim.lease, "no running job wants this any more".to_owned()));
            return;
        };
        let mut shards = claim.shards;
        if let Some(open) = artifact.open_mut() {
            if let Some(at_work) = shards.first().filter(|_| LeaseId::term(claim.lease) == self.term) {
                open.forgive(*at_work); // its stream broke, and not the worker
            }
            shards.retain(|shard| open.join(*shard, claim.lease));
            artifact.begun = true;
        }
        // Where there is nothing left of it, its commits and its end are still to be said.
        self.hold(worker, claim.lease, &id, shards, now);
    }

    /// Takes leases back that no running job wants any more, or whose shards others have done.
    pub(super) fn revoke_unwanted(&mut self, actions: &mut Vec<Action>) {
        for (id, held) in self.leases.iter_mut().filter(|(_, held)| !held.revoked) {
            if !self.wanted.contains(&held.artifact) {
                held.revoked = true;
                let reason = "no running job wants this any more".to_owned();
                actions.push(Action::Revoke(held.worker, *id, reason));
            }
        }
    }

    pub(super) fn note_progress(&mut self, worker: WorkerId, lease: LeaseId, progress: Progress) {
        let Some(held) = self.leases.get_mut(&lease).filter(|h| h.worker == worker) else { return };
        held.progress = progress.clone();
        if let Some(artifact) = self.artifacts.get_mut(&held.artifact) {
            artifact.last = progress;
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
        (held.progress.done, held.since) = (0, now);
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
        let Some(shards) = self.artifacts.get_mut(id).and_then(|a| a.open_mut()) else { return };
        let Some(leases) = shards.committed(committed) else { return };
        self.changed |= shards.is_complete();
        for lease in leases.into_iter().filter(|l| Some(*l) != by) {
            let Some(held) = self.leases.get_mut(&lease) else { continue };
            held.shards.retain(|s| *s != committed.shard);
            if held.shards.is_empty() && !held.revoked {
                held.revoked = true;
                actions.push(Action::Revoke(held.worker, lease, "another worker was faster".to_owned()));
            }
        }
    }

    /// What a lease held goes back; its end counts for the shard that was at work.
    pub(super) fn end_lease(&mut self, lease: LeaseId, end: End, reason: &str, actions: &mut Vec<Action>) {
        let Some(held) = self.leases.remove(&lease) else { return };
        if let Some(worker) = self.workers.get_mut(&held.worker).filter(|w| w.lease == Some(lease)) {
            worker.lease = None;
            if !worker.leaving {
                self.idle.insert(held.worker);
            }
        }
        let Some(artifact) = self.artifacts.get_mut(&held.artifact) else { return };
        let spare = artifact.can_spare_shards();
        artifact.retries += u32::from(end != End::Returned && !held.shards.is_empty());
        let Some(shards) = artifact.open_mut() else { return };
        for shard in &held.shards {
            shards.give_back(*shard, lease);
        }
        let Some(at_work) = held.shards.first() else { return };
        match end {
            End::Returned => {}
            End::Failed => {
                let count = shards.failed(*at_work);
                if count.times >= self.policy.max_failures {
                    let reason = match count.times {
                        1 => reason.to_owned(),
                        times => format!("failed {times} times, the last time: {reason}"),
                    };
                    self.fail_artifact(&held.artifact, reason);
                }
            }
            End::Lost => {
                let count = shards.lost(*at_work);
                let reason = format!("shard {} lost its worker {} times: {reason}", count.shard, count.times);
                if spare && count.times >= self.policy.quarantine_after {
                    if shards.condemn(count.shard) {
                        actions.push(Action::Quarantine(held.artifact, count.shard, reason));
                    }
                } else if !spare && count.times >= self.policy.max_losses {
                    self.fail_artifact(&held.artifact, reason);
                }
            }
        }
    }

    pub(super) fn fail_artifact(&mut self, id: &ArtifactId, reason: String) {
        self.break_artifact(id, FailureClass::Retry, reason);
        self.changed = true;
    }
}
