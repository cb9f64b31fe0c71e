//! Workers: who is here, what they hold, what they say.

use std::time::Duration;

use data::artifact::ArtifactId;
use proto::{FailureClass, FromWorker, LeaseId, Progress, WorkerId};

use super::artifacts::{End, Phase};
use super::{Action, Core, Lease};

/// A connected worker.
#[derive(Debug)]
pub(super) struct Worker {
    last_heard: Duration,
    /// It has said that it goes: it gets nothing more, and its end is no loss.
    leaving: bool,
    pub(super) lease: Option<Held>,
}

/// A lease in a worker's hands.
#[derive(Debug)]
pub(super) struct Held {
    id: LeaseId,
    pub(super) artifact: ArtifactId,
    pub(super) progress: Progress,
    revoked: bool,
}

impl Worker {
    pub(super) fn new(now: Duration) -> Self {
        Self { last_heard: now, leaving: false, lease: None }
    }
}

impl Core {
    pub(super) fn hear(&mut self, id: WorkerId, message: FromWorker, now: Duration, actions: &mut Vec<Action>) {
        let Some(worker) = self.workers.get_mut(&id) else {
            actions.push(Action::Evict(id, "this session is over, register again".to_owned()));
            return;
        };
        worker.last_heard = now;
        match message {
            FromWorker::Register(_) | FromWorker::Heartbeat => {}
            FromWorker::Leaving => worker.leaving = true,
            FromWorker::Progress { lease, progress } => self.note_progress(id, lease, progress),
            FromWorker::Committed { lease, shard, rows } => self.note_committed(id, lease, shard, rows),
            FromWorker::Ended { lease } => self.end_lease(id, lease, End::Returned, ""),
            FromWorker::Failed { lease, class, reason } => match class {
                FailureClass::Returned => self.end_lease(id, lease, End::Returned, &reason),
                FailureClass::Retry => self.end_lease(id, lease, End::Failed, &reason),
                FailureClass::Fatal => self.fail_lease(id, lease, reason),
            },
        }
    }

    /// A worker's stream closed or it fell silent: what it held goes back. That counts against the shard, which may be
    /// what killed it, unless the worker had said that it goes.
    pub(super) fn lose(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.remove(&id) else { return };
        if let Some(held) = worker.lease {
            let limit = self.policy.max_losses;
            let end = if worker.leaving { End::Returned } else { End::Lost };
            if let Some(artifact) = self.artifacts.get_mut(&held.artifact) {
                artifact.give_back(held.id, end, limit, "the worker vanished");
            }
        }
    }

    pub(super) fn evict_silent(&mut self, now: Duration, actions: &mut Vec<Action>) {
        let limit = self.policy.dead_after;
        let silent: Vec<WorkerId> =
            self.workers.iter().filter(|(_, w)| now.saturating_sub(w.last_heard) >= limit).map(|(id, _)| *id).collect();
        for id in silent {
            self.lose(id);
            actions.push(Action::Evict(id, format!("silent for {} s", limit.as_secs())));
        }
    }

    /// Takes leases back that no running job wants any more.
    pub(super) fn revoke_unwanted(&mut self, actions: &mut Vec<Action>) {
        let wanted = self.wanted();
        for (id, worker) in &mut self.workers {
            if let Some(held) = worker.lease.as_mut().filter(|h| !h.revoked && !wanted.contains(&h.artifact)) {
                held.revoked = true;
                actions.push(Action::Revoke(*id, held.id, "no running job wants this any more".to_owned()));
            }
        }
    }

    /// Gives pending shards to idle workers: first job first, first stage first, first shard first.
    pub(super) fn grant_idle(&mut self, actions: &mut Vec<Action>) {
        let wanted = self.wanted();
        let is_idle = |w: &Worker| w.lease.is_none() && !w.leaving;
        let idle: Vec<WorkerId> = self.workers.iter().filter(|(_, w)| is_idle(w)).map(|(id, _)| *id).collect();
        for worker in idle {
            let Some(lease) = wanted.iter().find_map(|artifact| self.next_lease(artifact)) else { return };
            if let Some(worker) = self.workers.get_mut(&worker) {
                let (id, artifact) = (lease.id, lease.artifact.clone());
                worker.lease = Some(Held { id, artifact, progress: Progress::default(), revoked: false });
            }
            actions.push(Action::Grant(worker, lease));
        }
    }

    fn next_lease(&mut self, id: &ArtifactId) -> Option<Lease> {
        let job = self.wanted_by(id)?.clone();
        let artifact = self.artifacts.get_mut(id)?;
        let Phase::Open(shards) = &mut artifact.phase else { return None };
        let shard = shards.pending.pop_first()?;
        self.next_lease += 1;
        let lease = LeaseId(self.next_lease);
        shards.leased.insert(shard, lease);
        artifact.begun = true;
        let of = u32::try_from(shards.rows.len()).unwrap_or(u32::MAX);
        Some(Lease { id: lease, job, artifact: id.clone(), split: artifact.split, shards: vec![shard], of })
    }

    fn held(&mut self, worker: WorkerId, lease: LeaseId) -> Option<&mut Held> {
        self.workers.get_mut(&worker)?.lease.as_mut().filter(|h| h.id == lease)
    }

    fn note_progress(&mut self, worker: WorkerId, lease: LeaseId, progress: Progress) {
        let Some(held) = self.held(worker, lease) else { return };
        held.progress = progress.clone();
        let artifact = held.artifact.clone();
        if let Some(artifact) = self.artifacts.get_mut(&artifact) {
            artifact.last = progress;
        }
    }

    fn note_committed(&mut self, worker: WorkerId, lease: LeaseId, shard: u32, rows: u64) {
        let Some(held) = self.held(worker, lease) else { return };
        held.progress.done = 0;
        let artifact = held.artifact.clone();
        if let Some(artifact) = self.artifacts.get_mut(&artifact) {
            artifact.committed(shard, rows);
        }
    }

    fn end_lease(&mut self, worker: WorkerId, lease: LeaseId, end: End, reason: &str) {
        let limit = self.policy.max_failures;
        let Some(held) = self.held(worker, lease) else { return };
        let artifact = held.artifact.clone();
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.lease = None;
        }
        if let Some(artifact) = self.artifacts.get_mut(&artifact) {
            artifact.give_back(lease, end, limit, reason);
        }
    }

    fn fail_lease(&mut self, worker: WorkerId, lease: LeaseId, reason: String) {
        let Some(artifact) = self.held(worker, lease).map(|h| h.artifact.clone()) else { return };
        self.end_lease(worker, lease, End::Returned, &reason);
        self.break_artifact(&artifact, FailureClass::Fatal, reason);
    }
}
