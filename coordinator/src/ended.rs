//! Jobs that have ended here: their last status, of the newest ones. Clients read
//! older ones from the store, as those of the coordinators before.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proto::{JobId, JobStatus};
use tokio::sync::watch;

use crate::submissions::Round;

/// Jobs that are remembered.
const MOST: usize = 1000;

/// A job that has ended, and whose end is in the store.
struct EndedJob {
    status: watch::Sender<JobStatus>,
    /// When that was its status; since then only its age has changed.
    at: Duration,
    /// Which submission it was that has this end, as far as the store knows.
    round: Option<Round>,
}

/// The newest of the jobs that have ended.
#[derive(Default)]
pub(crate) struct EndedJobs {
    jobs: BTreeMap<JobId, EndedJob>,
    /// In the order of their ends.
    order: VecDeque<JobId>,
}

impl EndedJobs {
    /// Keeps the last status of a job. Returns the job that is forgotten for it.
    pub(crate) fn keep(
        &mut self,
        id: JobId,
        status: watch::Sender<JobStatus>,
        round: Option<Round>,
        now: Duration,
    ) -> Option<JobId> {
        self.take_out(&id);
        self.order.push_back(id.clone());
        self.jobs.insert(id, EndedJob { status, at: now, round });
        let oldest = if self.order.len() > MOST { self.order.pop_front() } else { None };
        oldest.inspect(|oldest| drop(self.jobs.remove(oldest)))
    }

    /// A job is taken up again.
    pub(crate) fn take_out(&mut self, id: &JobId) {
        if self.jobs.remove(id).is_some() {
            self.order.retain(|known| known != id);
        }
    }

    /// How a job ended.
    pub(crate) fn status(&self, id: &JobId, now: Duration) -> Option<JobStatus> {
        let ended = self.jobs.get(id)?;
        let mut status = ended.status.borrow().clone();
        status.age += Duration::from_secs(now.saturating_sub(ended.at).as_secs());
        Some(status)
    }

    /// How the newest job of a name, or of an id, ended.
    pub(crate) fn last_of(&self, job: &str, now: Duration) -> Option<JobStatus> {
        self.status(self.order.iter().rev().find(|id| id.is_meant_by(job))?, now)
    }

    /// The same for whoever watches.
    pub(crate) fn watch(&mut self, id: &JobId, now: Duration) -> Option<watch::Receiver<JobStatus>> {
        let status = self.status(id, now)?;
        let ended = self.jobs.get_mut(id)?;
        ended.at = now;
        ended.status.send_replace(status);
        Some(ended.status.subscribe())
    }

    /// The submission of a job whose end is in the store.
    pub(crate) fn round(&self, id: &JobId) -> Option<Round> {
        self.jobs.get(id)?.round
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proto::JobState;

    use super::*;

    fn ended(id: &JobId) -> watch::Sender<JobStatus> {
        watch::Sender::new(JobStatus {
            job: id.clone(),
            state: JobState::Failed,
            stages: vec![],
            workers: 0,
            reason: "no route".to_owned(),
            failure: None,
            waiting: String::new(),
            age: Duration::from_secs(5),
        })
    }

    #[test]
    fn a_job_grows_older_after_its_end() {
        let (mut jobs, id) = (EndedJobs::default(), JobId("j".to_owned()));
        assert_eq!(jobs.keep(id.clone(), ended(&id), Some(2), Duration::from_secs(10)), None);
        assert_eq!(jobs.status(&id, Duration::from_secs(13)).unwrap().age, Duration::from_secs(8));
        let watched = jobs.watch(&id, Duration::from_secs(13)).unwrap();
        assert_eq!(watched.borrow().age, Duration::from_secs(8));
        assert_eq!(jobs.status(&id, Duration::from_secs(14)).unwrap().age, Duration::from_secs(9));
        jobs.take_out(&id);
        assert!(jobs.status(&id, Duration::from_secs(14)).is_none());
    }

    #[test]
    fn the_oldest_ends_are_forgotten() {
        let mut jobs = EndedJobs::default();
        let id = |n: usize| JobId(format!("j-{n}"));
        for n in 0..MOST {
            assert_eq!(jobs.keep(id(n), ended(&id(n)), None, Duration::ZERO), None);
        }
        // It has been taken up again and has ended again: it is the newest now.
        assert_eq!(jobs.keep(id(0), ended(&id(0)), None, Duration::ZERO), None);
        assert_eq!(jobs.keep(id(MOST), ended(&id(MOST)), None, Duration::ZERO), Some(id(1)));
        assert!(jobs.status(&id(1), Duration::ZERO).is_none() && jobs.status(&id(0), Duration::ZERO).is_some());
        assert_eq!((jobs.jobs.len(), jobs.order.len()), (MOST, MOST));
    }
}
