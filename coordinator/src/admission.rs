//! How a submission gets into the store, before anybody is told that it was taken.

use data::job::Job;
use data::store::Store;
use futures::FutureExt;
use proto::JobState;
use tracing::warn;

use crate::inbox::Submission;
use crate::leadership::Leadership;
use crate::opening::{complete, patiently};
use crate::plan::JobPlan;
use crate::submissions::{self, Ended, Round, Submitted};
use crate::{Error, Result, records, removal};

/// Notes in the store that a job is wanted, in this spelling; one that somebody waits for already stays as it was
/// submitted. What comes back is the submission that counts.
///
/// # Errors
/// [`Error::RunsOtherwise`]; [`Error::Removed`]; [`Error::BeingRemoved`]; [`Error::Deposed`]; those of the store.
pub(crate) async fn enter(
    store: &Store,
    leadership: &Leadership,
    submission: Submission,
    order: u64,
) -> Result<Submission> {
    let id = submission.id.0.clone();
    let wanted = wanted(&submission, leadership.term(), order);
    loop {
        let begin = || submissions::begin(store, &id, &wanted).boxed();
        let (round, noted) = patiently("note a job", begin).await?;
        // A coordinator that leads by now has listed what is wanted: it has seen this record, or is seen here.
        patiently("see who leads", || leadership.check(store).boxed()).await?;
        let own = noted.is_same_call(&wanted);
        let job = if own { submission.job.clone() } else { agreed(store, &submission, &noted).await? };
        // Whoever removes something looks who is at work after setting its mark: one of the two sees the other.
        match patiently("look who removes what a job needs", || still_there(store, &submission).boxed()).await {
            Err(refused) if own => {
                end(store, &id, round, &refused).await?;
                return Err(refused);
            }
            there => there?,
        }
        // Whoever has begun it may have been refused meanwhile.
        if own || !submissions::has_ended(store, &id, round).await? {
            return Ok(Submission { job, round: Some(round), submitted: Some(noted), ..submission });
        }
    }
}

fn wanted(submission: &Submission, term: u64, order: u64) -> Submitted {
    let stages = submission.stages.iter().zip(&submission.complete);
    let complete = stages.filter(|(_, is)| **is).map(|(s, _)| s.artifact.digest.clone()).collect();
    Submitted::now(term, order, submission.job.to_toml(), complete)
}

/// Whether nobody has removed the job or removes what it needs.
async fn still_there(store: &Store, submission: &Submission) -> Result<()> {
    if records::is_removed(store, &submission.id.0).await? {
        return Err(Error::Removed { job: submission.id.0.clone() });
    }
    removal::refuse_marked(store, &submission.stages).await
}

/// A job that is written down and is refused has ended before it began, or it would look like one at work. Comes back
/// with the reason.
pub(crate) async fn refuse(store: &Store, plan: &JobPlan, refused: Error) -> Error {
    if let Err(e) = end_unbegun(store, plan, &refused).await {
        warn!(job = %plan.id, error = %e, "cannot note that a job was refused: it looks like one at work");
    }
    refused
}

/// Ends a job that was never submitted. One that is done, by a run on one machine, stays so.
async fn end_unbegun(store: &Store, plan: &JobPlan, refused: &Error) -> Result<()> {
    let id = &plan.id.0;
    if submissions::last_round(store, id).await?.is_some() || complete(store, &plan.stages).await?.iter().all(|c| *c) {
        return Ok(());
    }
    let nobodys = Submitted::nobodys();
    match submissions::begin(store, id, &nobodys).await? {
        (round, noted) if noted.is_same_call(&nobodys) => end(store, id, round, refused).await,
        _ => Ok(()), // somebody has submitted it meanwhile
    }
}

async fn end(store: &Store, id: &str, round: Round, refused: &Error) -> Result<()> {
    let ended = Ended::of(JobState::Failed, &refused.to_string(), Some(refused.class()));
    submissions::end(store, id, round, &ended).await
}

/// The spelling of a job that somebody waits for. Another one is refused: it would be thanked for and forgotten.
async fn agreed(store: &Store, submission: &Submission, noted: &Submitted) -> Result<Box<Job>> {
    let (id, job) = (&submission.id.0, &submission.job);
    let running = spelling(store, id, Some(noted)).await?;
    let places = running.output.publish != job.output.publish;
    let differs = [("output.publish", places), ("limits", running.limits != job.limits)];
    match differs.into_iter().find(|(_, differs)| *differs) {
        Some((key, _)) => Err(Error::RunsOtherwise { job: id.clone(), key }),
        None => Ok(Box::new(running)),
    }
}

/// A job as it was submitted in a round, or else the first time.
///
/// # Errors
/// Those of the store; [`data::Error::Job`].
pub(crate) async fn spelling(store: &Store, id: &str, submitted: Option<&Submitted>) -> Result<Job> {
    let of_round = submitted.map(|s| s.job.clone()).filter(|job| !job.is_empty());
    let toml = match of_round {
        Some(toml) => toml,
        None => records::job_toml(store, id).await?,
    };
    Ok(Job::parse(&format!("the file of job {id}"), &toml, &[])?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use data::job::MaxRejected;
    use proto::FailureClass;

    use super::*;
    use crate::fixtures::{Mortal, boxed, finished, plan, submit};
    use crate::opening::recorded;
    use crate::submissions::Active;

    const LEADS: Leadership = Leadership::of_term(1);

    fn job(max_rejected: u64) -> Box<Job> {
        let text = format!(
            "schema_version = 1\nname = \"shop\"\nstages = [\"prepare\"]\n[dataset]\npath = \"log.csv\"\n\
             [limits]\nmax_rejected = {max_rejected}"
        );
        Box::new(Job::parse("job.toml", &text, &[]).unwrap())
    }

    /// A job that is planned and written down, in a spelling.
    async fn planned(store: &Store, max_rejected: u64) -> Submission {
        let mut plan = plan(1, 10, &BTreeMap::new());
        let complete = submit(store, &mut plan).await.unwrap();
        Submission { id: plan.id, job: job(max_rejected), stages: plan.stages, complete, round: None, submitted: None }
    }

    #[tokio::test]
    async fn a_round_has_its_own_spelling() {
        let store = Mortal::default().store("s3://shop");
        let entered = enter(&store, &LEADS, planned(&store, 1).await, 1).await.unwrap();
        let id = entered.id.0.clone();
        let ended = Ended::of(JobState::Cancelled, "enough", None);
        submissions::end(&store, &id, entered.round.unwrap(), &ended).await.unwrap();
        let second = enter(&store, &LEADS, planned(&store, 2).await, 2).await.unwrap();
        assert_eq!((entered.round, second.round), (Some(1), Some(2)));
        let taken_up = recorded(&store, &id).await.unwrap();
        assert_eq!(taken_up.job.limits.max_rejected, MaxRejected::Rows(2), "the first spelling came back");
        let [Active { round, .. }] = &submissions::active(&store, vec![id]).await.unwrap()[..] else { panic!() };
        assert_eq!(*round, 2);
    }

    #[tokio::test]
    async fn one_of_two_spellings_at_once_counts() {
        let store = Mortal::default().store("s3://shop");
        let (one, two) = (planned(&store, 1).await, planned(&store, 2).await);
        let same = planned(&store, 1).await;
        enter(&store, &LEADS, one, 1).await.unwrap();
        let refused = enter(&store, &LEADS, two, 2).await.err().unwrap();
        assert!(refused.to_string().contains("with another `limits`"), "{refused}");
        assert_eq!(enter(&store, &LEADS, same, 3).await.unwrap().round, Some(1), "the same again is the same");
    }

    /// A remover sets its mark, and sees nobody at work, just before the submission is noted.
    #[tokio::test]
    async fn a_submission_looks_at_the_marks_after_its_record() {
        let root = Mortal::default();
        let store = root.store("s3://shop");
        let submission = planned(&store, 1).await;
        let (id, digest) = (submission.id.0.clone(), submission.stages[0].artifact.digest.clone());
        let (other, mark) = (store.clone(), format!("_control/v1/removing/{digest}/1.json"));
        root.before(0, boxed(async move { other.put(&mark, "{}".into()).await.unwrap() }));
        let refused = enter(&store, &LEADS, submission, 1).await.err().unwrap();
        assert!(matches!(refused, Error::BeingRemoved { .. }), "{refused}");
        assert!(!submissions::is_active(&store, &id).await.unwrap(), "the next coordinator would take it up");
        let shown = crate::remembered(&store, &id).await.unwrap();
        assert_eq!((shown.state, shown.failure), (JobState::Failed, Some(FailureClass::Retry)));
    }

    #[tokio::test]
    async fn whoever_does_not_lead_any_more_thanks_for_nothing() {
        let store = Mortal::default().store("s3://shop");
        Leadership::take(&store, "one").await.unwrap();
        let submission = planned(&store, 1).await;
        Leadership::take(&store, "another").await.unwrap();
        let refused = enter(&store, &LEADS, submission, 1).await.err().unwrap();
        assert!(matches!(refused, Error::Deposed { own: 1, newer: 2 }), "{refused}");
    }

    #[tokio::test]
    async fn behind_a_round_that_was_refused_comes_the_next() {
        let store = Mortal::default().store("s3://shop");
        let submission = planned(&store, 1).await;
        let id = submission.id.0.clone();
        let (round, _) = submissions::begin(&store, &id, &Submitted { term: 9, ..Submitted::nobodys() }).await.unwrap();
        assert!(!submissions::has_ended(&store, &id, round).await.unwrap());
        end(&store, &id, round, &Error::BeingRemoved { artifact: "the artifact".to_owned() }).await.unwrap();
        assert!(submissions::has_ended(&store, &id, round).await.unwrap());
        assert_eq!(enter(&store, &LEADS, submission, 1).await.unwrap().round, Some(round + 1));
    }

    #[tokio::test]
    async fn a_refused_job_does_not_look_like_one_at_work() {
        let store = Mortal::default().store("s3://shop");
        let mut plan = plan(1, 10, &BTreeMap::new());
        submit(&store, &mut plan).await.unwrap();
        let refused = || Error::BeingRemoved { artifact: "the artifact".to_owned() };
        assert_eq!(crate::remembered(&store, &plan.id.0).await.unwrap().state, JobState::Running);
        refuse(&store, &plan, refused()).await;
        let shown = crate::remembered(&store, &plan.id.0).await.unwrap();
        assert!(shown.state == JobState::Failed && shown.reason.contains("is being removed"), "{shown:?}");
        let (_, noted) = submissions::last_round(&store, &plan.id.0).await.unwrap().unwrap();
        assert!(noted.at_ms > 0, "it has an age like any other");
        // A job at work, and one that is done, stay what they are.
        let entered = enter(&store, &LEADS, planned(&store, 1).await, 1).await.unwrap();
        assert_eq!(entered.round, Some(2));
        refuse(&store, &plan, refused()).await;
        assert!(submissions::is_active(&store, &plan.id.0).await.unwrap());
        let done = finished(&store, crate::fixtures::plan(2, 10, &BTreeMap::new())).await;
        refuse(&store, &done, refused()).await;
        assert_eq!(crate::remembered(&store, &done.id.0).await.unwrap().state, JobState::Succeeded);
    }

    #[tokio::test]
    async fn records_of_earlier_versions_have_the_first_spelling() {
        let store = Mortal::default().store("s3://shop");
        let submission = planned(&store, 1).await;
        let id = submission.id.0.clone();
        let toml = job(7).to_toml();
        store.put(&format!("{}/spec.toml", records::folder(&id)), toml.into()).await.unwrap();
        let old = format!("{}/submitted/00001.json", records::folder(&id));
        store.put(&old, r#"{"term":1,"order":1}"#.into()).await.unwrap();
        assert_eq!(recorded(&store, &id).await.unwrap().job.limits.max_rejected, MaxRejected::Rows(7));
    }
}
