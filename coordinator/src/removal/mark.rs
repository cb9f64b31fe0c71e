//! Marks: who is removing an artifact, and the submissions that wait for it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use data::artifact::Digest;
use data::store::{Created, Store};

use super::registry::needs;
use crate::plan::{JobPlan, PlannedStage};
use crate::{Error, Result, records};

const PREFIX: &str = "_control/v1/removing";

/// A mark as old as this is that of a process that died; a removal takes seconds for each artifact.
pub(super) const DEAD: Duration = Duration::from_secs(10 * 60);

/// The mark of this process on one artifact.
pub(super) struct Mark<'a> {
    store: &'a Store,
    digest: Digest,
    path: String,
}

impl<'a> Mark<'a> {
    /// Marks an artifact. Others may do so too.
    pub(super) async fn set(store: &'a Store, digest: &Digest) -> Result<Self> {
        loop {
            let path = format!("{PREFIX}/{digest}/{}.json", number());
            if store.create(&path, path.clone().into()).await? == Created::New {
                return Ok(Self { store, digest: digest.clone(), path });
            }
        }
    }

    /// Whether nobody has ended the removal meanwhile.
    pub(super) async fn stands(&self) -> Result<bool> {
        Ok(self.store.exists(&self.path).await?)
    }

    /// Takes the mark away: the artifact stays.
    pub(super) async fn lift(self) -> Result<()> {
        self.store.delete(&self.path).await?;
        prune(self.store).await
    }

    /// Takes every mark of the artifact away: nothing of it is left, so whoever else removes it has to stop.
    pub(super) async fn end(self) -> Result<()> {
        let marks = self.store.list(&format!("{PREFIX}/{}", self.digest)).await?;
        let paths: Vec<String> = marks.into_iter().map(|mark| mark.path).collect();
        self.store.delete_all(&paths).await?;
        prune(self.store).await
    }
}

async fn prune(store: &Store) -> Result<()> {
    Ok(store.prune(PREFIX).await?)
}

/// A number that no other mark has: not even a process with the same id on another machine.
fn number() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{now}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The marks that stand: digest, path, when it was set.
pub(super) async fn standing(store: &Store) -> Result<Vec<(String, String, SystemTime)>> {
    let marks = store.list_stamped(PREFIX).await?;
    let parts = |(path, stat): (String, data::store::Stat)| {
        let digest = path.strip_prefix(PREFIX)?.trim_start_matches('/').split('/').next()?.to_owned();
        Some((digest, path, stat.modified))
    };
    Ok(marks.into_iter().filter_map(parts).collect())
}

/// Writes down a job before anything that it needs is looked up, under the next id if it was removed before.
///
/// # Errors
/// The store's own failures.
pub(crate) async fn write_down(store: &Store, plan: &mut JobPlan, job_toml: &str) -> Result<()> {
    let first = plan.id.0.clone();
    let mut life = 1;
    loop {
        if !records::is_removed(store, &plan.id.0).await? {
            records::write(store, plan, job_toml).await?;
            // It may have been removed between the question and the record.
            if !records::is_removed(store, &plan.id.0).await? {
                return Ok(());
            }
        }
        life += 1;
        plan.id.0 = format!("{first}.{life}");
    }
}

/// Looks whether somebody removes what a job needs.
///
/// # Errors
/// [`Error::BeingRemoved`]; the store's own failures.
pub(crate) async fn refuse_marked(store: &Store, stages: &[PlannedStage]) -> Result<()> {
    let marks: BTreeSet<String> = standing(store).await?.into_iter().map(|(digest, ..)| digest).collect();
    if marks.is_empty() {
        return Ok(());
    }
    let needed = needs(store, &records::of_stages(stages)).await?;
    match needed.iter().find(|digest| marks.contains(digest.as_str())) {
        None => Ok(()),
        Some(digest) => {
            Err(Error::BeingRemoved { artifact: format!("the artifact {} of {}", digest.short(), store.url()) })
        }
    }
}
