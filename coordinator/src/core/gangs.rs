//! Gangs within the core: what is heard of their members, and who joins or leaves them where.

use std::time::Duration;

use data::artifact::ArtifactId;
use proto::{LeaseId, Ready, WorkerId};

use super::artifacts::{Artifact, Phase};
use super::gang::Gang;
use super::leases::{End, Held};
use super::{Action, Core};

/// Why a lease is over of which nothing is known here.
const UNKNOWN: &str = "this lease is over";
/// Why a member is taken out of a gang that could go on with it.
const NEEDED: &str = "needed elsewhere";

impl Core {
    pub(super) fn note_ready(&mut self, worker: WorkerId, ready: Ready, actions: &mut Vec<Action>) {
        let Some(held) = self.leases.get_mut(&ready.lease).filter(|held| held.worker == worker) else {
            actions.push(Action::Revoke(worker, ready.lease, UNKNOWN.to_owned()));
            return;
        };
        held.heard_of = true;
        let artifact = held.artifact.clone();
        if let Some(gang) = self.gang_mut(&artifact) {
            gang.ready(ready);
            self.restless.insert(artifact);
        }
    }

    /// A worker goes: its gang counts with it no more.
    pub(super) fn note_leaving(&mut self, lease: LeaseId) {
        let Some(held) = self.leases.get(&lease) else { return };
        if let Some(gang) = self.artifacts.get_mut(&held.artifact).and_then(|artifact| artifact.gang.as_mut()) {
            gang.put_out(lease);
        }
    }

    /// A worker whose lease of a training failed does not get the next one, if somebody else can.
    pub(super) fn bar(&mut self, worker: WorkerId, lease: LeaseId, words: &str, now: Duration) {
        let Some(held) = self.leases.get(&lease).filter(|held| held.worker == worker) else { return };
        if let Some(gang) = self.artifacts.get_mut(&held.artifact).and_then(|artifact| artifact.gang.as_mut()) {
            gang.fail(lease, words, now, &self.policy);
        }
    }

    /// Whether a worker is kept out of a gang.
    pub(super) fn is_barred(&self, worker: WorkerId, gang: &Gang, now: Duration) -> bool {
        self.workers.get(&worker).is_some_and(|worker| gang.is_barred(&worker.name, now))
    }

    /// The lease of a training has ended before its time.
    pub(super) fn leave_gang(&mut self, held: &Held, lease: LeaseId, end: End, reason: &str) {
        let policy = self.policy;
        let Some(artifact) = self.artifacts.get_mut(&held.artifact) else { return };
        let Some(gang) = &mut artifact.gang else { return };
        self.restless.insert(held.artifact.clone());
        if end == End::Returned {
            return gang.leave(lease);
        }
        let counts = gang.lose(lease, held.heard_of, reason);
        if !matches!(artifact.phase, Phase::Open(_)) {
            return;
        }
        artifact.retries += u32::from(counts && held.heard_of);
        if let Some(reason) = gang.verdict(&policy) {
            self.fail_artifact(&held.artifact, reason);
        }
    }

    /// Decides what follows for gangs in which something has happened, once those who trained under an earlier coordinator
    /// have had time to say so.
    pub(super) fn review_gangs(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if now < self.hold_until {
            return;
        }
        for id in std::mem::take(&mut self.restless) {
            if !self.open.contains(&id) {
                continue;
            }
            let Some(gang) = self.artifacts.get_mut(&id).and_then(|artifact| artifact.gang.as_mut()) else { continue };
            let decided = gang.review(now, &self.policy, &mut self.generations);
            for action in &decided {
                if let Action::Revoke(_, lease, _) = action
                    && let Some(held) = self.leases.get_mut(lease)
                {
                    held.revoked = true;
                }
            }
            actions.extend(decided);
        }
    }

    /// Nothing waits for a worker, and nothing will in a moment: those who idle join trainings, that with the fewest members first.
    pub(super) fn join_gangs(&mut self, now: Duration, actions: &mut Vec<Action>) {
        if now < self.hold_until || self.pending || !self.room || self.idle.is_empty() {
            return;
        }
        // Trials of a sweep open one after the other: the second worker is for the second trial.
        if self.artifacts.values().any(Artifact::is_opening) {
            return;
        }
        while let Some((worker, id)) = self.next_to_join(now) {
            let lease = self.next_lease();
            if let Some(shards) = self.artifacts.get_mut(&id).and_then(Artifact::open_mut) {
                shards.join(0, lease);
            }
            self.grant(worker, lease, &id, vec![0], now, actions);
        }
        self.room = false;
    }

    fn next_to_join(&self, now: Duration) -> Option<(WorkerId, ArtifactId)> {
        let open = self.open_gangs().filter(|(_, gang)| gang.has_room());
        let joins = open.filter_map(|(id, gang)| {
            let fit = |worker: &WorkerId| !self.is_barred(*worker, gang, now);
            let worker = self.able(id).find(fit)?;
            Some((gang.size(), worker, id))
        });
        joins.min_by_key(|(size, ..)| *size).map(|(_, worker, id)| (worker, id.clone()))
    }

    /// What time brings about in gangs.
    pub(super) fn look_at_gangs(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let ids: Vec<ArtifactId> = self.open_gangs().map(|(id, _)| id.clone()).collect();
        self.room |= !ids.is_empty();
        self.restless.extend(ids);
        self.hand_back(now, actions);
    }

    /// A shard has waited for a worker for long enough, and a gang can do with a member less.
    fn hand_back(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let nobody = |id: &ArtifactId| self.able(id).next().is_none();
        let starved: Vec<&ArtifactId> = self.open.iter().filter(|id| self.has_pending(id) && nobody(id)).collect();
        let since = if starved.is_empty() { None } else { self.starved.or(Some(now)) };
        self.starved = since;
        if since.is_none_or(|since| now.saturating_sub(since) < self.policy.rebalance_every) {
            return;
        }
        // Whoever is handed back is to be of use.
        let useful = |lease: LeaseId| {
            let worker = self.leases.get(&lease).map(|held| held.worker);
            worker.is_some_and(|worker| starved.iter().any(|id| self.may_take(worker, id)))
        };
        let large = self.open_gangs().map(|(_, gang)| gang).filter(|gang| gang.size() > 1);
        let spare = large.filter_map(|gang| Some((gang.size(), gang.spare(useful)?)));
        let Some((_, lease)) = spare.max_by_key(|(size, _)| *size) else { return };
        self.starved = Some(now);
        self.note_leaving(lease);
        if let Some(held) = self.leases.get_mut(&lease) {
            held.revoked = true;
            actions.push(Action::Revoke(held.worker, lease, NEEDED.to_owned()));
        }
    }

    fn open_gangs(&self) -> impl Iterator<Item = (&ArtifactId, &Gang)> {
        self.open.iter().filter_map(|id| Some((id, self.artifacts.get(id)?.gang.as_ref()?)))
    }

    pub(super) fn gang_mut(&mut self, artifact: &ArtifactId) -> Option<&mut Gang> {
        self.artifacts.get_mut(artifact)?.gang.as_mut()
    }
}
