//! One artifact: its objects, and their removal in a safe order.

use data::artifact::{ArtifactId, SUCCESS};
use data::store::{Entry, Store};
use data::tables::Table;

use super::mark::Mark;
use super::registry::Registry;
use crate::Result;

/// Objects that are removed between two looks at the mark.
const BATCH: usize = 1000;

/// What became of an artifact.
pub(super) enum Outcome {
    /// So many objects and bytes are gone.
    Freed(u64, u64),
    /// This job names it.
    Kept(String),
}

/// Folders of an artifact, the control objects last.
fn folders(id: &ArtifactId) -> Vec<String> {
    let tables = Table::ALL.into_iter().map(|table| id.table_prefix(table));
    tables.chain([id.model_prefix(), id.control_prefix()]).collect()
}

/// Objects and bytes of an artifact.
pub(super) async fn size(store: &Store, id: &ArtifactId) -> Result<(u64, u64)> {
    Ok(total(&objects(store, id).await?))
}

pub(super) fn total(entries: &[Entry]) -> (u64, u64) {
    (entries.len() as u64, entries.iter().map(|entry| entry.size).sum())
}

async fn objects(store: &Store, id: &ArtifactId) -> Result<Vec<Entry>> {
    let mut objects = Vec::new();
    for folder in folders(id) {
        objects.extend(store.list(&folder).await?);
    }
    Ok(objects)
}

/// The step in which an object goes.
fn step(id: &ArtifactId, path: &str) -> u8 {
    let control = path.strip_prefix(&id.control_prefix());
    match control.map(|name| name.trim_start_matches('/')) {
        None if path.rsplit('/').next() == Some(SUCCESS) => 0,
        Some(name) if name.starts_with("done/") => 1,
        Some("plan.json" | "spec.json") => 3,
        _ => 2,
    }
}

/// Removes an artifact unless a job names it.
pub(super) async fn erase(store: &Store, registry: &mut Registry<'_>, id: &ArtifactId) -> Result<Outcome> {
    let mark = Mark::set(store, &id.digest).await?;
    registry.refresh().await?;
    if let Some(job) = registry.holder(&id.digest).map(str::to_owned) {
        mark.lift().await?;
        return Ok(Outcome::Kept(job));
    }
    let (mut freed, mut bytes) = (0, 0);
    // What a zombie writes meanwhile goes as well.
    loop {
        let objects = objects(store, id).await?;
        if objects.is_empty() {
            break;
        }
        for step_now in 0..=3 {
            let due: Vec<&Entry> = objects.iter().filter(|entry| step(id, &entry.path) == step_now).collect();
            for batch in due.chunks(BATCH) {
                if !mark.stands().await? {
                    return Ok(Outcome::Freed(freed, bytes)); // somebody else has ended it
                }
                let paths: Vec<String> = batch.iter().map(|entry| entry.path.clone()).collect();
                store.delete_all(&paths).await?;
                freed += batch.len() as u64;
                bytes += batch.iter().map(|entry| entry.size).sum::<u64>();
            }
        }
    }
    for folder in folders(id) {
        store.prune(&folder).await?;
    }
    mark.end().await?;
    Ok(Outcome::Freed(freed, bytes))
}
