//! How a submission gets into the store, before anybody is told that it was taken.

use std::collections::BTreeSet;

use data::job::Job;
use data::store::Store;
use futures::FutureExt;

use crate::inbox::Submission;
use crate::opening::patiently;
use crate::submissions::{self, Ended, Round, Submitted};
use crate::{Error, Result, records};
use proto::JobState;

/// Notes in the store that a job is wanted, in this spelling; one that somebody waits for already stays as it was
/// submitted. What comes back is the submission that counts.
///
/// # Errors
/// [`Error::RunsOtherwise`]; [`Error::Removed`]; those of the store.
pub(crate) async fn enter(store: &Store, submission: Submission, term: u64, order: u64) -> Result<Submission> {
    let id = submission.id.0.clone();
    let stages = submission.stages.iter().zip(&submission.complete);
    let complete: BTreeSet<_> = stages.filter(|(_, is)| **is).map(|(s, _)| s.artifact.digest.clone()).collect();
    let wanted = Submitted::now(term, order, submission.job.to_toml(), complete);
    let begin = || submissions::begin(store, &id, &wanted).boxed();
    let (round, noted) = patiently("note a job", begin).await?;
    let job = match noted.is_same_call(&wanted) {
        true => submission.job,
        false => Box::new(agreed(store, &id, &submission.job, &noted).await?),
    };
    let submission = Submission { job, round: Some(round), ..submission };
    if noted.is_same_call(&wanted) && records::is_removed(store, &id).await? {
        let refused = Error::Removed { job: id.clone() };
        end(store, &id, round, &refused).await?;
        return Err(refused);
    }
    Ok(submission)
}

async fn end(store: &Store, id: &str, round: Round, refused: &Error) -> Result<()> {
    let ended = Ended::of(JobState::Failed, &refused.to_string(), Some(refused.class()));
    submissions::end(store, id, round, &ended).await
}

/// The spelling of a job that somebody waits for. Another one is refused: it would be thanked for and forgotten.
async fn agreed(store: &Store, id: &str, job: &Job, noted: &Submitted) -> Result<Job> {
    let running = spelling(store, id, Some(noted)).await?;
    let places = running.output.publish != job.output.publish;
    let differs = [("output.publish", places), ("limits", running.limits != job.limits)];
    match differs.into_iter().find(|(_, differs)| *differs) {
        Some((key, _)) => Err(Error::RunsOtherwise { job: id.to_owned(), key }),
        None => Ok(running),
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

    use super::*;
    use crate::fixtures::{Mortal, plan, submit};
    use crate::opening::recorded;
    use crate::submissions::Active;

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
        Submission { id: plan.id, job: job(max_rejected), stages: plan.stages, complete, round: None }
    }

    #[tokio::test]
    async fn a_round_has_its_own_spelling() {
        let store = Mortal::default().store("s3://shop");
        let entered = enter(&store, planned(&store, 1).await, 1, 1).await.unwrap();
        let id = entered.id.0.clone();
        let ended = Ended::of(JobState::Cancelled, "enough", None);
        submissions::end(&store, &id, entered.round.unwrap(), &ended).await.unwrap();
        let second = enter(&store, planned(&store, 2).await, 1, 2).await.unwrap();
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
        enter(&store, one, 1, 1).await.unwrap();
        let refused = enter(&store, two, 1, 2).await.err().unwrap();
        assert!(refused.to_string().contains("with another `limits`"), "{refused}");
        assert_eq!(enter(&store, same, 1, 3).await.unwrap().round, Some(1), "the same again is the same");
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
