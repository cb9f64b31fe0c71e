//! `rm`: a job, and what only this job names.

use std::collections::BTreeSet;

use data::artifact::ArtifactId;
use data::store::{Entry, Store};
use serde_json::json;

use super::erase::{Outcome, erase, size, total};
use super::registry::Registry;
use super::{Freed, Kept, Kind, Limits};
use crate::records::{self, StageRecord};
use crate::{Error, Result};

/// Removes a job: its tombstone comes first, then the artifacts that no other job names, then its own objects. Called
/// again, it goes on where it was cut off.
///
/// # Errors
/// [`Error::NoJob`]; [`Error::Active`] while somebody works on it; the store's own failures.
pub async fn remove_job(store: &Store, job: &str, limits: Limits) -> Result<Freed> {
    let mut registry = Registry::read(store, limits.in_use).await?;
    if !registry.life(job).is_some_and(|life| life.recorded || life.removed) {
        // Says which jobs there are.
        records::stages(store, job).await?;
    }
    refuse_active(&registry, job)?;
    if !limits.dry_run {
        let text = json!({"build": env!("CARGO_PKG_VERSION")}).to_string();
        store.create(&records::tombstone_path(job), text.into()).await?;
        registry.refresh().await?;
        refuse_active(&registry, job)?;
    }
    let mut freed = Freed { dry_run: limits.dry_run, ..Freed::default() };
    remove(store, &mut registry, job, &mut freed).await?;
    Ok(freed)
}

fn refuse_active(registry: &Registry<'_>, job: &str) -> Result<()> {
    if registry.is_active(job) { Err(Error::Active { job: job.to_owned() }) } else { Ok(()) }
}

/// Removes what is left of a job that has its tombstone, or adds up what would go.
pub(super) async fn remove(store: &Store, registry: &mut Registry<'_>, job: &str, freed: &mut Freed) -> Result<()> {
    let recorded = registry.life(job).is_some_and(|life| life.recorded);
    let stages = if recorded { records::read_stages(store, job).await? } else { Vec::new() };
    // What is made last goes first.
    let artifacts: BTreeSet<ArtifactId> = stages.iter().map(StageRecord::artifact).collect();
    for id in artifacts.into_iter().rev() {
        let outcome = match (freed.dry_run, registry.holder_but(&id.digest, job)) {
            (false, _) => erase(store, registry, &id).await?,
            (true, Some(other)) => Outcome::Kept(other.to_owned()),
            (true, None) => {
                let (objects, bytes) = size(store, &id).await?;
                Outcome::Freed(objects, bytes)
            }
        };
        match outcome {
            Outcome::Freed(objects, bytes) => freed.add(Kind::Artifact, id.to_string(), (objects, bytes)),
            Outcome::Kept(job) => freed.kept.push(Kept { name: id.to_string(), job }),
        }
    }
    let own = own_objects(store, job).await?;
    freed.add(Kind::Job, job, total(&own.concat()));
    if !freed.dry_run {
        for step in own {
            let paths: Vec<String> = step.into_iter().map(|entry| entry.path).collect();
            store.delete_all(&paths).await?;
        }
        store.prune(&format!("jobs/{job}")).await?;
        store.prune(&records::folder(job)).await?;
    }
    Ok(())
}

/// The objects of a job but for its tombstone, in the steps in which they go. Submissions go before their ends, or a job
/// that is half gone would look like one at work; the stages go last, for they say what else has to go.
async fn own_objects(store: &Store, job: &str) -> Result<[Vec<Entry>; 3]> {
    let mut steps = [store.list(&format!("jobs/{job}")).await?, Vec::new(), Vec::new()];
    for entry in store.list(&records::folder(job)).await? {
        let Some((_, file)) = records::job_and_file(&entry.path) else { continue };
        match file {
            records::TOMBSTONE => {}
            records::STAGES => steps[2].push(entry),
            file if file.starts_with("ended/") => steps[1].push(entry),
            _ => steps[0].push(entry),
        }
    }
    Ok(steps)
}
