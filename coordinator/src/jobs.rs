//! The life of a job around the core: submitted, taken up again, settled.

use data::artifact::sweep;
use data::job::{Job, Stage};
use data::store::Store;
use futures::FutureExt;
use proto::{FailureClass, JobId, JobState, JobStatus};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::core::{Event, StageEntry};
use crate::inbox::{Input, Reply, Submission};
use crate::opening::{admitted, patiently, planned, recorded};
use crate::plan::PlannedStage;
use crate::shell::{KnownJob, Shell};
use crate::submissions::{self, Active, Ended, Round};
use crate::{Error, Result, admission, observer, publish, records, removal, report};

#[cfg(test)]
mod tests;

impl Shell {
    /// Takes up the jobs that an earlier coordinator of this root left unfinished.
    pub(crate) async fn take_up(&mut self) -> Result<()> {
        if !self.options.lasting {
            return Ok(());
        }
        let jobs = records::list(&self.store).await?;
        for Active { job, round, submitted } in submissions::active(&self.store, jobs).await? {
            match recorded(&self.store, &job).await {
                Ok(submission) => {
                    info!(job, "job taken up");
                    self.submit(Submission { round: Some(round), submitted: Some(submitted), ..submission });
                }
                // One job that cannot be read must not keep the others.
                Err(e) => {
                    warn!(job, error = %e, "cannot take up a job");
                    let ended = Ended::of(JobState::Failed, &e.to_string(), Some(e.class()));
                    submissions::end(&self.store, &job, round, &ended).await?;
                    observer::job_ended(JobState::Failed);
                }
            }
        }
        if !self.jobs.is_empty() {
            let now = self.now();
            self.core.expect_claims(now);
        }
        Ok(())
    }

    /// Plans a job and asks the store what is done, beside the loop.
    pub(crate) fn look_up(&mut self, job: Box<Job>, reply: Reply<(JobId, bool)>) {
        let (store, cache) = (self.store.clone(), self.options.digest_cache.clone());
        let lasting = self.options.lasting;
        self.enter(reply, async move {
            let (job, plan) = patiently("look up a job", || planned(&store, &job, cache.as_deref()).boxed()).await?;
            let complete = match patiently("look up a job", || admitted(&store, &job, &plan).boxed()).await {
                Err(refused) if lasting => return Err(admission::refuse(&store, &plan, refused).await),
                complete => complete?,
            };
            Ok(Submission { id: plan.id, job, stages: plan.stages, complete, round: None, submitted: None })
        });
    }

    /// Takes up a job that the store knows.
    pub(crate) fn resume(&mut self, id: JobId, reply: Reply<(JobId, bool)>) {
        let store = self.store.clone();
        self.enter(reply, async move { patiently("look up a job", || resumed(&store, &id.0).boxed()).await });
    }

    /// Notes in the store that a job is wanted, before anybody is told so; then hands it to the loop.
    fn enter(
        &mut self,
        reply: Reply<(JobId, bool)>,
        look_up: impl Future<Output = Result<Submission>> + Send + 'static,
    ) {
        self.submissions += 1;
        let (leadership, order) = (self.leadership.clone(), self.submissions);
        let (store, inbox, lasting) = (self.store.clone(), self.inbox.clone(), self.options.lasting);
        tokio::spawn(async move {
            let entered = async {
                let mut submission = look_up.await?;
                let (id, complete) = (submission.id.clone(), submission.complete.iter().all(|c| *c));
                let stopping = || Error::Server("the coordinator is stopping".to_owned());
                let (admit, admitted) = oneshot::channel();
                inbox.send(Input::Admit(id.clone(), admit)).await.map_err(|_| stopping())?;
                admitted.await.map_err(|_| stopping())?;
                if lasting {
                    submission = admission::enter(&store, &leadership, submission, order).await?;
                }
                inbox.send(Input::Planned(Box::new(submission))).await.map_err(|_| stopping())?;
                Ok((id, complete))
            };
            let _ = reply.send(entered.await);
        });
    }

    /// Lets a submission go on, unless the job's end is on its way to the store: the next round begins behind it. One that
    /// has succeeded is not begun again: its report is what is waited for.
    pub(crate) fn admit(&mut self, id: &JobId, reply: oneshot::Sender<()>) {
        let over = matches!(self.core.state(id), Some(JobState::Failed | JobState::Cancelled));
        match self.jobs.get_mut(id).filter(|_| over) {
            Some(known) => known.again.push(reply),
            None => drop(reply.send(())),
        }
    }

    /// Takes a submission in, unless it has joined a round that runs, or that has ended since it was noted.
    pub(crate) fn submit(&mut self, submission: Submission) {
        if let Some(known) = self.jobs.get_mut(&submission.id) {
            if submission.round > known.round {
                known.next = Some(Box::new(submission));
            }
            return;
        }
        if self.ended.round(&submission.id).is_some_and(|ended| submission.round <= Some(ended)) {
            return;
        }
        let Submission { id, job, stages, complete, round, submitted } = submission;
        let entries = stages.iter().zip(&complete).map(|(s, complete)| StageEntry {
            artifact: s.artifact.clone(),
            split: s.split,
            trial: s.trial.clone(),
            needs: s.needs.clone(),
            complete: *complete,
            gang: most_members(s, &job),
        });
        let event = Event::Submitted { job: id.clone(), stages: entries.collect() };
        for stage in stages {
            self.stages.insert(stage.artifact.clone(), stage);
        }
        let done = complete.iter().filter(|c| **c).count();
        info!(job = %id, stages = complete.len(), done, "job submitted");
        let here = submitted.as_ref().is_none_or(|submitted| submitted.term == self.leadership.term());
        let what = if here { "submitted" } else { "taken up by another coordinator" };
        self.note_job(&id, "info", format!("{what}: {done} of {} stages were done before", complete.len()));
        self.ended.take_out(&id);
        self.listed.retain(|known| *known != id);
        self.listed.push(id.clone());
        self.jobs.insert(id.clone(), KnownJob::new(job, round, submitted, unseen(id)));
        self.feed(event);
        self.publish();
    }

    /// Writes down how a job ended before anybody hears of it.
    pub(crate) fn settle(&mut self, id: JobId, state: JobState) {
        let reason = self.core.status(&id, self.now()).map(|s| s.reason).unwrap_or_default();
        let level = if state == JobState::Failed { "error" } else { "info" };
        let text = if reason.is_empty() { "all stages are done".to_owned() } else { format!("ended: {reason}") };
        self.note_job(&id, level, text);
        let Some(known) = self.jobs.get(&id) else { return };
        if state != JobState::Succeeded {
            self.end(&id);
            return;
        }
        let (store, inbox, job) = (self.store.clone(), self.inbox.clone(), known.job.clone());
        tokio::spawn(async move {
            let outcome = patiently("write the report of a job", || write_report(&store, &id, &job).boxed()).await;
            let _ = inbox.send(Input::Reported(id, outcome)).await;
        });
    }

    pub(crate) fn reported(&mut self, id: &JobId, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.end(id),
            Err(e) => {
                error!(job = %id, error = %e, "cannot write the report of a job whose stages are all done");
                self.note_job(id, "error", format!("report: {e}"));
                self.feed(Event::Unreported { job: id.clone(), class: e.class(), reason: e.to_string() });
                self.end(id);
            }
        }
    }

    /// Puts the end of a job into the store, where it is kept, and its journal; then it may be shown.
    fn end(&mut self, id: &JobId) {
        let round = self.jobs.get(id).and_then(|known| known.round);
        let ended = self.core.status(id, self.now()).map(|s| (s.state, Ended::of(s.state, &s.reason, s.failure)));
        let written = self.writer.write(self.journal.take(Some(id)));
        let (store, inbox, id) = (self.store.clone(), self.inbox.clone(), id.clone());
        tokio::spawn(async move {
            written.await;
            let mut noted = None;
            if let Some((round, (state, ended))) = round.zip(ended) {
                let end = || submissions::end(&store, &id.0, round, &ended).boxed();
                match patiently("note the end of a job", end).await {
                    Ok(()) => {
                        noted = Some(round);
                        observer::job_ended(state);
                    }
                    Err(e) => {
                        error!(job = %id, error = %e, "cannot note the end of a job: the next coordinator takes it up again");
                    }
                }
            }
            let _ = inbox.send(Input::Settled(id, noted)).await;
        });
    }

    /// The end of a job is in the store and may be shown: only its last status is kept here.
    pub(crate) fn settled(&mut self, id: &JobId, noted: Option<Round>) {
        let now = self.now();
        let Some((known, mut status)) = self.jobs.remove(id).zip(self.core.status(id, now)) else { return };
        known.amend(&mut status);
        known.status.send_replace(status.clone());
        self.core.forget(id);
        self.stages.retain(|stage, _| self.core.knows(stage));
        self.quarantines.forget(|stage| self.core.knows(stage));
        if let Some(oldest) = self.ended.keep(id.clone(), known.status, noted, now) {
            self.listed.retain(|listed| *listed != oldest);
        }
        if let Some(next) = known.next {
            self.submit(*next);
        }
        // Whoever wants it again, or finds that its end was never noted, needs them still.
        if known.again.is_empty() && (noted.is_some() || !self.options.lasting) {
            self.let_go_with(&status);
        }
        for again in known.again {
            let _ = again.send(());
        }
        for watch in known.watches {
            self.watch(id, watch);
        }
    }
}

/// A job as the store remembers it, as long as nobody removes what it needs and its places are free.
async fn resumed(store: &Store, id: &str) -> Result<Submission> {
    let submission = recorded(store, id).await?;
    removal::refuse_marked(store, &submission.stages).await?;
    publish::begin(store, id, &submission.job, &records::of_stages(&submission.stages)).await?;
    Ok(submission)
}

/// The status of a job that the core has not taken in yet.
fn unseen(job: JobId) -> JobStatus {
    let failure: Option<FailureClass> = None;
    let (state, age) = (JobState::Running, std::time::Duration::ZERO);
    JobStatus { job, state, stages: vec![], workers: 0, reason: String::new(), failure, waiting: String::new(), age }
}

/// The most workers that have something to do in a stage together: in a training as many as it has slices, and none but one
/// to choose among trials.
fn most_members(stage: &PlannedStage, job: &Job) -> u32 {
    match stage.artifact.stage {
        _ if sweep::trials_of(&stage.spec).is_some() => 1,
        Stage::TrainRetriever => job.retriever.slices,
        Stage::TrainRanker => job.ranker.slices,
        _ => 1,
    }
}

async fn write_report(store: &Store, id: &JobId, job: &Job) -> Result<()> {
    let stages = records::stages(store, &id.0).await?;
    let published = publish::publish(store, &id.0, job, &stages).await?;
    report::write(store, &id.0, job, &stages, &published).await
}
