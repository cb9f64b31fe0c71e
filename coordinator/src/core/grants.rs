//! Grants: which worker gets which shards.

use std::time::Duration;

use data::artifact::ArtifactId;
use proto::{JobId, LeaseId, Progress, WorkerId};

use super::artifacts::Artifact;
use super::leases::Held;
use super::shards::Shards;
use super::{Action, Core, Lease};

impl Core {
    /// Gives pending shards to idle workers: first job first, first stage first, first shard first.
    pub(super) fn grant_idle(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if now < self.hold_until {
            return; // those who hold something from before speak first
        }
        while self.pending && !self.idle.is_empty() {
            let waits = |id: &&ArtifactId| self.has_pending(id);
            let Some((id, worker)) =
                self.open.iter().filter(waits).find_map(|id| Some((id.clone(), self.taker(id, now)?)))
            else {
                self.pending = false;
                return;
            };
            let lease = self.next_lease();
            let most = self.fair_share(&id);
            let target = self.policy.lease_target;
            let Some(shards) = self.artifacts.get_mut(&id).and_then(|a| a.open_mut()) else { return };
            let taken = shards.take(lease, target, most);
            self.grant(worker, lease, &id, taken, now, actions);
        }
    }

    /// Whether a shard of an artifact waits for a worker.
    pub(super) fn has_pending(&self, id: &ArtifactId) -> bool {
        self.artifacts.get(id).and_then(Artifact::open).is_some_and(|shards| !shards.pending.is_empty())
    }

    /// The idle worker that takes something up: one that is for its job alone if there is one, and one that has failed there only if
    /// nobody else can.
    fn taker(&self, id: &ArtifactId, now: Duration) -> Option<WorkerId> {
        let gang = self.artifacts.get(id).and_then(|artifact| artifact.gang.as_ref());
        let fit = |worker: &WorkerId| gang.is_none_or(|gang| !self.is_barred(*worker, gang, now));
        self.able(id).find(fit).or_else(|| self.able(id).next())
    }

    /// The idle workers that work for one of the jobs that want an artifact, those first that work for nothing else.
    pub(super) fn able(&self, id: &ArtifactId) -> impl Iterator<Item = WorkerId> {
        let own = self.bound.iter().filter(|worker| self.idle.contains(worker) && self.may_take(**worker, id));
        own.chain(self.idle.iter().filter(|worker| !self.bound.contains(worker))).copied()
    }

    /// When nothing is left to begin with, idle workers try what others are slow with; the first commit counts.
    pub(super) fn duplicate_slow(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if now < self.hold_until || self.idle.is_empty() {
            return;
        }
        for (id, shard) in self.slow(now) {
            let Some(worker) = self.able(&id).next() else { continue };
            let lease = self.next_lease();
            if let Some(shards) = self.artifacts.get_mut(&id).and_then(|a| a.open_mut()) {
                shards.join(shard, lease);
            }
            self.grant(worker, lease, &id, vec![shard], now, actions);
        }
    }

    /// The shards that one worker alone has had for long enough, the one that will be done last first. Of a lease over
    /// several it is the last one, which its holder would begin with last; the next ones follow at the next look.
    fn slow(&self, now: Duration) -> Vec<(ArtifactId, u32)> {
        let mut slow = Vec::new();
        for id in &self.open {
            let Some(artifact) = self.artifacts.get(id).filter(|a| a.is_map()) else { continue };
            let Some(shards) = artifact.open().filter(|s| s.pending.is_empty()) else { continue };
            for held in artifact.leases.iter().filter_map(|lease| self.leases.get(lease)) {
                let waited = now.saturating_sub(held.since);
                if waited < self.policy.duplicate_after {
                    continue;
                }
                let Some(shard) = held.shards.iter().rev().find(|s| shards.hands(**s) == 1) else { continue };
                let takes = shards.estimate(*shard).unwrap_or_default();
                // A shard that is at work for less time than it needs is not slow.
                if held.shards.len() == 1 && waited.as_secs_f64() < 1.5 * takes {
                    continue;
                }
                slow.push((takes * held.shards.len() as f64 + waited.as_secs_f64(), id, *shard));
            }
        }
        slow.sort_by(|a, b| b.0.total_cmp(&a.0));
        slow.into_iter().map(|(_, id, shard)| (id.clone(), shard)).collect()
    }

    /// The most shards of a lease, so that all workers who may take some end at about the same time.
    fn fair_share(&self, id: &ArtifactId) -> usize {
        let Some(artifact) = self.artifacts.get(id) else { return 1 };
        let pending = artifact.open().map_or(0, |s| s.pending.len());
        let elsewhere = self.bound.iter().filter(|worker| !self.may_take(**worker, id)).count();
        let workers = self.workers.len().saturating_sub(elsewhere).max(1);
        pending.div_ceil(2 * workers).clamp(1, self.policy.max_bundle)
    }

    pub(super) fn next_lease(&mut self) -> LeaseId {
        self.leases_granted += 1;
        LeaseId::of(self.term, self.leases_granted)
    }

    pub(super) fn grant(
        &mut self,
        worker: WorkerId,
        id: LeaseId,
        artifact: &ArtifactId,
        shards: Vec<u32>,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let of = |job: &&JobId| self.workers.get(&worker).is_none_or(|worker| worker.is_for(job));
        let job = self.wanting(artifact).find(of).cloned();
        let Some((known, job)) = self.artifacts.get_mut(artifact).zip(job) else { return };
        if let Some(own) = self.workers.get_mut(&worker).and_then(|worker| worker.job.as_mut()) {
            // Of several of one name it ends with this one.
            own.clone_from(&job.0);
        }
        known.attempts += 1;
        let (split, of) = (known.split, known.open().map_or(0, Shards::all));
        actions.push(Action::Grant(
            worker,
            Lease { id, job, artifact: artifact.clone(), split, shards: shards.clone(), of },
        ));
        self.hold(worker, id, artifact, shards, now);
    }

    /// A lease is in a worker's hands.
    pub(super) fn hold(
        &mut self,
        worker: WorkerId,
        id: LeaseId,
        artifact: &ArtifactId,
        shards: Vec<u32>,
        now: Duration,
    ) {
        self.idle.remove(&worker);
        let known = self.workers.get_mut(&worker).map(|known| {
            known.lease = Some(id);
            known.name.as_str()
        });
        if let Some(artifact) = self.artifacts.get_mut(artifact) {
            artifact.leases.insert(id);
            artifact.begun = true;
            if let Some(gang) = &mut artifact.gang {
                gang.hold(id, worker, known.unwrap_or_default());
            }
        }
        let (artifact, progress) = (artifact.clone(), Progress::default());
        let held = Held { worker, artifact, shards, since: now, progress, heard_of: false, revoked: false };
        self.leases.insert(id, held);
    }
}
