//! Workers: who is here, and what they say.

use std::time::Duration;

use data::artifact::ArtifactId;
use proto::{FailureClass, FromWorker, JobId, LeaseId, WorkerId};

use super::leases::End;
use super::{Action, Core, Joiner};

/// A connected worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) name: String,
    pub(super) device: String,
    last_heard: Duration,
    /// It has said that it goes: it gets nothing more, and its end is no loss.
    pub(super) leaving: bool,
    /// It has been silent for longer than is usual.
    pub(super) suspect: bool,
    pub(super) lease: Option<LeaseId>,
    /// The job that it is for: its id or its name. Any job if nothing is said.
    pub(super) job: Option<String>,
}

impl Worker {
    /// Whether it works for any job.
    pub(super) fn is_for_all(&self) -> bool {
        self.job.is_none()
    }

    /// Whether it works for a job.
    pub(super) fn is_for(&self, job: &JobId) -> bool {
        self.job.as_ref().is_none_or(|own| job.is_meant_by(own))
    }
}

impl Core {
    pub(super) fn join(&mut self, id: WorkerId, joiner: Joiner, now: Duration, actions: &mut Vec<Action>) {
        let Joiner { name, device, claims, job } = joiner;
        if claims.iter().any(|claim| LeaseId::term(claim.lease) > self.term) {
            let reason = "a coordinator of a later term leads".to_owned();
            actions.push(Action::Evict(id, reason));
            return;
        }
        let worker = Worker { name, device, last_heard: now, leaving: false, suspect: false, lease: None, job };
        if !worker.is_for_all() {
            self.bound.insert(id);
        }
        self.workers.insert(id, worker);
        self.rest(id);
        // A worker has one lease.
        if let Some(claim) = claims.into_iter().next() {
            self.claim(id, claim, now, actions);
        }
    }

    pub(super) fn hear(&mut self, id: WorkerId, message: FromWorker, now: Duration, actions: &mut Vec<Action>) {
        let Some(worker) = self.workers.get_mut(&id) else {
            actions.push(Action::Evict(id, "this session is over, register again".to_owned()));
            return;
        };
        worker.last_heard = now;
        if std::mem::take(&mut worker.suspect) {
            self.rest(id);
        }
        match message {
            FromWorker::Register(_) | FromWorker::Heartbeat => {}
            FromWorker::Leaving => self.let_go(id),
            FromWorker::Ready(ready) => self.note_ready(id, ready, actions),
            FromWorker::Progress { lease, progress } => self.note_progress(id, lease, progress),
            FromWorker::Committed { lease, committed } => self.note_committed(id, lease, &committed, now, actions),
            FromWorker::Ended { lease } => self.end_of(id, lease, End::Returned, "", actions),
            FromWorker::Failed { lease, class, reason } => match class {
                FailureClass::Returned => self.end_of(id, lease, End::Returned, &reason, actions),
                FailureClass::Retry => {
                    self.bar(id, lease, &reason, now);
                    self.end_of(id, lease, End::Failed, &reason, actions);
                }
                FailureClass::Fatal => self.fail_lease(id, lease, reason, now, actions),
            },
        }
    }

    /// A worker that has nothing in hand may get something, unless it goes or may be gone.
    pub(super) fn rest(&mut self, id: WorkerId) {
        if self.workers.get(&id).is_some_and(|w| w.lease.is_none() && !w.leaving && !w.suspect) {
            self.idle.insert(id);
            (self.pending, self.room) = (true, true);
        }
    }

    /// Whether a worker works for one of the jobs that want an artifact.
    pub(super) fn may_take(&self, worker: WorkerId, artifact: &ArtifactId) -> bool {
        self.workers
            .get(&worker)
            .is_some_and(|worker| worker.is_for_all() || self.wanting(artifact).any(|job| worker.is_for(job)))
    }

    /// The workers that were for a job which has ended, and for no other that runs.
    #[must_use]
    pub fn only_for(&self, ended: &JobId) -> Vec<WorkerId> {
        self.unwanted().filter(|(_, worker)| worker.is_for(ended)).map(|(id, _)| id).collect()
    }

    /// The workers that are for a job of which none runs, and what they say it is.
    #[must_use]
    pub fn waiting_for_a_job(&self) -> Vec<(WorkerId, String)> {
        self.unwanted().filter_map(|(id, worker)| Some((id, worker.job.clone()?))).collect()
    }

    fn unwanted(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        let runs = |worker: &Worker| self.jobs.iter().any(|(id, job)| !job.state.ended() && worker.is_for(id));
        let over = move |worker: &Worker| !worker.leaving && !runs(worker);
        let bound = self.bound.iter().filter_map(|id| Some((*id, self.workers.get(id)?)));
        bound.filter(move |(_, worker)| over(worker))
    }

    /// A worker takes no more leases.
    fn let_go(&mut self, id: WorkerId) {
        self.idle.remove(&id);
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.leaving = true;
        if let Some(lease) = worker.lease {
            self.note_leaving(lease);
        }
    }

    /// A worker's stream closed or it fell silent: what it held goes back. That counts against the shard, which may be
    /// what killed it, unless the worker had said that it goes.
    pub(super) fn lose(&mut self, id: WorkerId, reason: &str, actions: &mut Vec<Action>) {
        let Some(worker) = self.workers.remove(&id) else { return };
        self.idle.remove(&id);
        self.bound.remove(&id);
        if let Some(lease) = worker.lease {
            let end = if worker.leaving { End::Returned } else { End::Lost };
            self.end_lease(lease, end, reason, actions);
        }
    }

    /// The worker of a session has begun another one: this one is over, and its lease is in the other.
    pub(super) fn supersede(&mut self, id: WorkerId, actions: &mut Vec<Action>) {
        if self.workers.remove(&id).is_some() {
            self.idle.remove(&id);
            self.bound.remove(&id);
            actions.push(Action::Evict(id, "its worker has registered again".to_owned()));
        }
    }

    /// Those who have been silent for a while get nothing new, and those who have for long are lost.
    pub(super) fn evict_silent(&mut self, now: Duration, actions: &mut Vec<Action>) {
        for (id, worker) in &mut self.workers {
            if !worker.suspect && now.saturating_sub(worker.last_heard) >= self.policy.suspect_after {
                worker.suspect = true;
                self.idle.remove(id);
            }
        }
        let limit = self.policy.dead_after;
        let silent: Vec<WorkerId> =
            self.workers.iter().filter(|(_, w)| now.saturating_sub(w.last_heard) >= limit).map(|(id, _)| *id).collect();
        for id in silent {
            let reason = format!("silent for {} s", limit.as_secs());
            self.lose(id, &format!("the worker was {reason}"), actions);
            actions.push(Action::Evict(id, reason));
        }
    }

    /// A lease ends by the word of the one who holds it.
    fn end_of(&mut self, worker: WorkerId, lease: LeaseId, end: End, reason: &str, actions: &mut Vec<Action>) {
        if self.leases.get(&lease).is_some_and(|held| held.worker == worker) {
            self.end_lease(lease, end, reason, actions);
        }
    }

    fn fail_lease(
        &mut self,
        worker: WorkerId,
        lease: LeaseId,
        reason: String,
        now: Duration,
        actions: &mut Vec<Action>,
    ) {
        let Some(held) = self.leases.get(&lease).filter(|held| held.worker == worker) else { return };
        let artifact = held.artifact.clone();
        if self.gang_mut(&artifact).is_some_and(|gang| gang.trains_without(lease)) {
            // What this worker cannot do, others do.
            self.bar(worker, lease, &reason, now);
            return self.end_lease(lease, End::Failed, &reason, actions);
        }
        self.end_lease(lease, End::Returned, &reason, actions);
        self.break_artifact(&artifact, FailureClass::Fatal, reason);
        self.changed = true;
    }
}
