//! The life of a job, as the coordinator's shell has it: submitted, taken up again, settled.

use coordinator::core::{Event, StageEntry};
use coordinator::submissions::{self, Submitted};
use data::artifact;
use proto::{JobId, JobState};
use tokio::sync::oneshot;

use super::{Coordinator, Input};
use crate::world::GANG;

impl Coordinator {
    /// Notes in the store that a job is wanted, then takes it in.
    pub(super) fn enter(&mut self, job: String, reply: oneshot::Sender<()>) {
        self.submissions += 1;
        let (term, order) = (self.leadership.term(), self.submissions);
        let submitted = Submitted { term, order, ..Submitted::default() };
        let (store, inbox, world) = (self.store.clone(), self.inbox.clone(), self.world.clone());
        self.world.sim.spawn(self.process, async move {
            let (admit, admitted) = oneshot::channel();
            let _ = inbox.send(Input::Admit(job.clone(), admit));
            if admitted.await.is_err() {
                return;
            }
            let mut complete = Vec::new();
            for stage in world.catalogue.stages(&job) {
                match artifact::is_complete(&store, &stage.artifact).await {
                    Ok(is) => complete.push(is),
                    Err(_) => return,
                }
            }
            if let Ok((round, _)) = submissions::begin(&store, &job, &submitted).await {
                let _ = inbox.send(Input::Planned(job, round, complete));
                let _ = reply.send(());
            }
        });
    }

    pub(super) fn submit(&mut self, job: &str, round: submissions::Round, complete: &[bool]) {
        let id = JobId(job.to_owned());
        let later = self.rounds.get(job).is_none_or(|known| round > *known);
        if later && self.core.state(&id).is_some() {
            self.next.insert(job.to_owned(), (round, complete.to_vec()));
        }
        if !later || self.core.state(&id).is_some() {
            return;
        }
        let stages = self.world.catalogue.stages(job);
        self.watch.forget(&stages);
        self.settled.remove(job);
        self.rounds.insert(job.to_owned(), round);
        let entry = |(stage, complete): (&coordinator::plan::PlannedStage, &bool)| StageEntry {
            artifact: stage.artifact.clone(),
            split: stage.split,
            trial: stage.trial.clone(),
            needs: stage.needs.clone(),
            complete: *complete,
            gang: GANG,
        };
        let stages = stages.iter().zip(complete).map(entry).collect();
        self.feed(Event::Submitted { job: id, stages });
    }

    /// Lets a submission go on, unless an end of the job is on its way.
    pub(super) fn admit(&mut self, job: String, reply: oneshot::Sender<()>) {
        let state = self.core.state(&JobId(job.clone()));
        if matches!(state, Some(JobState::Failed | JobState::Cancelled)) {
            self.again.push((job, reply));
        } else {
            let _ = reply.send(());
        }
    }

    pub(super) fn settled(&mut self, job: String, round: submissions::Round, state: JobState) {
        let id = JobId(job.clone());
        if (self.rounds.get(&job), self.core.state(&id)) != (Some(&round), Some(state)) {
            let what = format!("the end of round {round} of {job} for that of another");
            return self.world.sim.violated(format!("term {} takes {what}", self.leadership.term()));
        }
        self.core.forget(&id);
        self.settled.insert(job.clone(), (round, state));
        if let Some((round, complete)) = self.next.remove(&job) {
            self.submit(&job, round, &complete);
        }
        for (_, again) in self.again.extract_if(.., |(of, _)| *of == job) {
            let _ = again.send(());
        }
    }
}
