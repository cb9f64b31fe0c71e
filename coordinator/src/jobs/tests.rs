#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::Options;
use crate::fixtures::{Mortal, plan};
use crate::leadership::Leadership;
use crate::removal::write_down;

const JOB: &str = r#"
schema_version = 1
name = "shop"
[dataset]
format = "table"
path = "/data"
[ranker]
base = "/models/base"
"#;

/// A coordinator without its loop: what reaches it is taken in when a test says so.
struct Desk {
    shell: Shell,
    inputs: mpsc::Receiver<Input>,
    /// Ends that are in the store, and of which the coordinator has not heard.
    settled: Vec<Input>,
}

impl Desk {
    async fn new(store: &Store) -> Self {
        let leadership = Leadership::take(store, "a coordinator").await.unwrap();
        let (inbox, inputs) = mpsc::channel(64);
        let options = Options { lasting: true, ..Options::default() };
        Self { shell: Shell::new(store.clone(), options, leadership, inbox), inputs, settled: vec![] }
    }

    /// Asks for a job that the store knows.
    fn resume(&mut self, job: &JobId) -> oneshot::Receiver<Result<(JobId, bool)>> {
        let (reply, answer) = oneshot::channel();
        self.shell.take(Input::Resume(job.clone(), reply));
        answer
    }

    /// Takes in what comes until nothing more does, but for the word that an end is in the store.
    async fn work(&mut self) {
        while let Ok(Some(input)) = tokio::time::timeout(Duration::from_millis(200), self.inputs.recv()).await {
            match input {
                Input::Settled(..) => self.settled.push(input),
                other => self.shell.take(other),
            }
        }
    }

    fn cancel(&mut self, job: &JobId) {
        self.shell.feed(Event::Cancelled { job: job.clone(), reason: "enough".to_owned() });
    }

    fn state(&self, job: &JobId) -> Option<JobState> {
        self.shell.core.state(job)
    }
}

/// A store that knows a job of which nothing is done.
async fn planned_job() -> (Store, JobId) {
    let store = Mortal::default().store("s3://shop");
    let mut plan = plan(1, 10, &BTreeMap::new());
    write_down(&store, &mut plan, JOB).await.unwrap();
    (store, plan.id)
}

#[tokio::test]
async fn a_job_that_is_wanted_again_while_its_end_is_noted_begins_its_next_round_behind_that() {
    let (store, id) = planned_job().await;
    let mut desk = Desk::new(&store).await;
    let mut first = desk.resume(&id);
    desk.work().await;
    assert!(matches!(first.try_recv(), Ok(Ok(_))));
    assert_eq!(desk.state(&id), Some(JobState::Running));
    desk.cancel(&id);
    let mut again = desk.resume(&id);
    desk.work().await;
    assert!(again.try_recv().is_err(), "nobody is thanked for a round that is over");
    assert_eq!(desk.state(&id), Some(JobState::Cancelled));
    for settled in std::mem::take(&mut desk.settled) {
        desk.shell.take(settled);
    }
    desk.work().await;
    assert!(matches!(again.try_recv(), Ok(Ok(_))));
    assert_eq!(desk.state(&id), Some(JobState::Running));
    let active = submissions::active(&store, vec![id.0.clone()]).await.unwrap();
    assert_eq!(active.iter().map(|a| (a.job.as_str(), a.round)).collect::<Vec<_>>(), [(id.0.as_str(), 2)]);
    assert!(desk.settled.is_empty(), "there is one end, of the first round");
}

#[tokio::test]
async fn a_submission_that_joined_a_round_ends_with_it_and_one_of_the_next_round_waits() {
    let (store, id) = planned_job().await;
    let mut desk = Desk::new(&store).await;
    drop(desk.resume(&id));
    desk.work().await;
    let of_round = async |round| Submission { round: Some(round), ..recorded(&store, &id.0).await.unwrap() };
    desk.cancel(&id);
    desk.work().await;
    // Both were admitted while the job ran, and are late.
    for round in [1, 2, 1] {
        desk.shell.submit(of_round(round).await);
        assert_eq!(desk.state(&id), Some(JobState::Cancelled));
    }
    desk.shell.settled(&id, Some(1));
    assert_eq!((desk.state(&id), desk.shell.jobs[&id].round), (Some(JobState::Running), Some(2)));
    desk.cancel(&id);
    desk.shell.settled(&id, Some(2));
    desk.shell.submit(of_round(2).await);
    assert_eq!(desk.state(&id), None, "its round has ended, and that is what it hears");
    let shown = desk.shell.ended.status(&id, desk.shell.now()).unwrap();
    assert_eq!((shown.state, shown.reason.as_str()), (JobState::Cancelled, "enough"));
}
