//! Which job is meant, and where it is kept.

use std::time::Duration;

use anyhow::Result;
use coordinator::leadership::was_ever_led;
use coordinator::records;
use data::job::nearest;
use data::store::Store;
use proto::JobStatus;

use crate::client::Client;
use crate::connection::Reach;
use crate::exit::{BadRequest, NotNow};

/// How it is said that a job is not there.
const NO_JOB: &str = "there is no job";
/// How many jobs a message names at most.
const NAMED: usize = 8;
/// How long a store may take to answer before a client does without it.
const PATIENCE: Duration = Duration::from_secs(5);

/// The store of a root that was named, or else of the coordinator's.
pub(crate) async fn store(root: Option<&str>, reach: &Reach) -> Result<Store> {
    match root {
        Some(root) => Ok(Store::open_existing(root)?),
        None => store_of(&Client::connect(reach).await?.info().await?.root).await,
    }
}

/// The store of a coordinator's root, as this machine sees it. What is not there is not gone: a file system may not be
/// mounted.
pub(crate) async fn store_of(root: &str) -> Result<Store> {
    let look = async {
        let store = Store::open_existing(root)?;
        let led = was_ever_led(&store).await?;
        Ok::<_, anyhow::Error>((store, led))
    };
    let away = |why: String| NotNow(format!("cannot read the coordinator's root {root} from here: {why}"));
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(Ok((store, true))) => Ok(store),
        Ok(Ok((_, false))) => Err(away("nothing of it is there; is its file system mounted?".to_owned()).into()),
        Ok(Err(e)) => Err(away(format!("{e:#}")).into()),
        Err(_) => Err(away(format!("no answer within {} s", PATIENCE.as_secs())).into()),
    }
}

/// The job of a store that is meant.
pub(crate) async fn job_in(store: &Store, meant: &str) -> Result<String> {
    let jobs = records::list(store).await?;
    or_removed(store, meant, choose(meant, &jobs, store.url())).await
}

/// What was chosen, or that the job that is meant was removed.
async fn or_removed(store: &Store, meant: &str, chosen: Result<String, BadRequest>) -> Result<String> {
    if chosen.is_err() && !meant.is_empty() && !meant.contains('/') && records::is_removed(store, meant).await? {
        return Err(coordinator::Error::Removed { job: meant.to_owned() }.into());
    }
    Ok(chosen?)
}

/// The job of a coordinator that is meant: one that it has in hand, or one that only its store remembers, which comes back
/// with the second value.
pub(crate) async fn job_of(client: &mut Client, meant: &str) -> Result<(String, Option<Store>)> {
    let root = client.info().await?.root;
    let statuses = client.list().await?;
    let in_hand: Vec<String> = statuses.iter().map(|s| s.job.0.clone()).collect();
    // The id of a job at work needs no store, which may be away: that is when people look.
    if statuses.iter().any(|status| status.job.0 == meant && !status.state.ended()) {
        return Ok((meant.to_owned(), None));
    }
    let (store, jobs) = match kept(&root).await {
        Ok(kept) => kept,
        // A client without access to the store can still speak of what the coordinator has in hand.
        Err(e) => {
            let chosen = choose(meant, &in_hand, &root).map_err(|BadRequest(what)| match what.starts_with(NO_JOB) {
                true => e.context(format!("{what}; what only its store remembers cannot be seen")),
                false => BadRequest(what).into(),
            });
            return Ok((chosen?, None));
        }
    };
    // What has ended and is not in the store any more was removed.
    let removed = |status: &&JobStatus| status.state.ended() && !jobs.contains(&status.job.0);
    let removed: Vec<&String> = statuses.iter().filter(removed).map(|status| &status.job.0).collect();
    let there = in_hand.iter().filter(|job| !removed.contains(job));
    let known: Vec<String> = there.chain(jobs.iter().filter(|job| !in_hand.contains(job))).cloned().collect();
    let job = or_removed(&store, meant, choose(meant, &known, &root)).await?;
    let store = (!in_hand.contains(&job)).then_some(store);
    Ok((job, store))
}

/// The store of a coordinator's root and the jobs that are in it.
pub(crate) async fn kept(root: &str) -> Result<(Store, Vec<String>)> {
    let store = store_of(root).await?;
    let jobs = tokio::time::timeout(PATIENCE, records::list(&store)).await;
    let silent = |_| NotNow(format!("{root} stopped answering"));
    Ok((store, jobs.map_err(silent)??))
}

/// An id, a name that only one job has, or the beginning of one id only.
fn choose(meant: &str, jobs: &[String], root: &str) -> Result<String, BadRequest> {
    if jobs.iter().any(|job| job == meant) {
        return Ok(meant.to_owned());
    }
    let name = |job: &&String| records::name_of(job) == Some(meant);
    let begins = |job: &&String| !meant.is_empty() && job.starts_with(meant);
    let named: Vec<&String> = jobs.iter().filter(name).collect();
    let found = if named.is_empty() { jobs.iter().filter(begins).collect() } else { named };
    match found[..] {
        [job] => Ok(job.clone()),
        [] => {
            let near = nearest(meant, jobs.iter().map(String::as_str)).map(|near| format!("; did you mean {near}?"));
            let there = || match jobs.is_empty() {
                true => "; no job has been submitted yet".to_owned(),
                false => format!("; there are {}", listed(&jobs.iter().collect::<Vec<_>>())),
            };
            Err(BadRequest(format!("{NO_JOB} {meant} under {root}{}", near.unwrap_or_else(there))))
        }
        _ => Err(BadRequest(format!("{meant} may be {} jobs: {}; write more of the id", found.len(), listed(&found)))),
    }
}

fn listed(jobs: &[&String]) -> String {
    let mut text = jobs.iter().take(NAMED).map(|job| job.as_str()).collect::<Vec<_>>().join(", ");
    if jobs.len() > NAMED {
        text.push_str(&format!(" and {} more", jobs.len() - NAMED));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(meant: &str) -> Result<String, String> {
        let jobs = ["shop-0123456789ab", "shop-0199456789ab", "films-aa23456789ab", "films-long-bb23456789ab"];
        super::choose(meant, &jobs.map(str::to_owned), "/root").map_err(|e| e.to_string())
    }

    #[test]
    fn a_job_is_meant_by_its_id_its_name_or_a_beginning() {
        assert_eq!(choose("shop-0123456789ab"), Ok("shop-0123456789ab".to_owned()));
        assert_eq!(choose("shop-012"), Ok("shop-0123456789ab".to_owned()));
        assert_eq!(choose("films"), Ok("films-aa23456789ab".to_owned()), "its whole name, though another begins so");
        assert_eq!(choose("films-l"), Ok("films-long-bb23456789ab".to_owned()));
    }

    #[test]
    fn what_is_not_clear_is_asked_back() {
        let two = choose("shop").expect_err("two jobs have the name");
        assert!(two.contains("shop-0123456789ab, shop-0199456789ab"), "{two}");
        let near = choose("shop-0123456789aa").expect_err("there is no such job");
        assert!(near.contains("did you mean shop-0123456789ab?"), "{near}");
        let none = choose("").expect_err("nothing is no beginning");
        assert!(none.contains("there is no job"), "{none}");
    }
}
