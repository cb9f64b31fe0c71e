//! Workers that are for one job, and end with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::{FailureClass, JobId, JobState, JobStatus, ToWorker, WorkerId};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::shell::Shell;
use crate::submissions::{self, Ended};

/// How long a worker waits for somebody to submit the job that it is for.
const PATIENCE: Duration = Duration::from_secs(600);

/// Since when workers wait for a job that does not run.
pub(crate) type Waiting = BTreeMap<WorkerId, Duration>;

impl Shell {
    /// Lets those go who were for a job alone, now that the store has its end.
    pub(crate) fn let_go_with(&mut self, ended: &JobStatus) {
        for worker in self.core.only_for(&ended.job) {
            info!(%worker, job = %ended.job, "the worker ends with its job");
            self.tell(worker, of_status(ended));
        }
    }

    /// Lets those go for whose job nobody has asked for long: with the verdict of the last one that has ended here, if there is one.
    pub(crate) fn let_go_of_the_forgotten(&mut self) {
        let (now, waiting) = (self.now(), self.core.waiting_for_a_job());
        let known: BTreeSet<WorkerId> = waiting.iter().map(|(worker, _)| *worker).collect();
        self.waiting.retain(|worker, _| known.contains(worker));
        for (worker, job) in waiting {
            let since = *self.waiting.entry(worker).or_insert(now);
            if now.saturating_sub(since) < PATIENCE {
                continue;
            }
            let reason = format!("no such job has run here for {} minutes", PATIENCE.as_secs() / 60);
            // Somebody still may submit it.
            let nobody = ToWorker::JobEnded { job: JobId(job.clone()), succeeded: false, reason, may_pass: true };
            let word = self.ended.last_of(&job, now).map_or(nobody, |status| of_status(&status));
            info!(%worker, job, "the job that the worker is for does not run");
            self.tell(worker, word);
        }
    }

    /// Tells a worker that comes back for a job which has ended meanwhile, under an earlier coordinator it may be. Of a name nobody
    /// can say whether its last job was the one that is meant.
    pub(crate) fn tell_of_end(&self, job: String, to: mpsc::Sender<ToWorker>) {
        let id = JobId(job.clone());
        if self.core.state(&id).is_some_and(|state| !state.ended()) {
            return;
        }
        if let Some(status) = self.ended.status(&id, self.now()) {
            // A channel that is new has room for its second message.
            let _ = to.try_send(of_status(&status));
            return;
        }
        let store = self.store.clone();
        tokio::spawn(async move {
            match submissions::last_end(&store, &job).await {
                Ok(Some(ended)) => drop(to.send(of_record(job, ended)).await),
                // It runs, or nobody has submitted it yet, or this is only a name.
                Ok(None) => {}
                Err(e) => warn!(job, error = %e, "cannot tell a worker whether its job has ended"),
            }
        });
    }
}

fn of_status(ended: &JobStatus) -> ToWorker {
    let may_pass = ended.failure == Some(FailureClass::Retry);
    let succeeded = ended.state == JobState::Succeeded;
    ToWorker::JobEnded { job: ended.job.clone(), succeeded, reason: ended.reason.clone(), may_pass }
}

fn of_record(job: String, ended: Ended) -> ToWorker {
    let succeeded = ended.state == JobState::Succeeded.name();
    ToWorker::JobEnded { job: JobId(job), succeeded, reason: ended.reason, may_pass: ended.may_pass }
}
