//! The end of an artifact: every shard done, every folder clean, `_SUCCESS` last.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::done::{Done, done_records, done_shards};
use super::spec::read_plan;
use super::{ArtifactId, Plan, SUCCESS};
use crate::store::Store;
use crate::tables::part_name_index;
use crate::{Error, Result};

/// Sizes of the objects that belong into a folder, by path.
type Contents = BTreeMap<String, u64>;

/// Whether every shard is done and every folder has its `_SUCCESS`.
///
/// # Errors
/// The store's own failures.
pub async fn is_complete(store: &Store, id: &ArtifactId) -> Result<bool> {
    let Some(plan) = read_plan(store, id).await? else { return Ok(false) };
    for folder in planned(id, &plan) {
        if !store.exists(&success(&folder)).await? {
            return Ok(false);
        }
    }
    Ok(first_missing(&done_shards(store, id).await?, plan.shards).is_none())
}

/// Ends an artifact whose shards are all done: removes what dead attempts left in its folders, checks that every part
/// is there, and creates the `_SUCCESS` objects. Safe to repeat, and at once with itself.
///
/// # Errors
/// [`Error::ShardsMissing`]; [`Error::PartMissing`] if a part is gone or has another size than its record says; the
/// store's own failures.
pub async fn finish(store: &Store, id: &ArtifactId) -> Result<Vec<Done>> {
    let plan =
        read_plan(store, id).await?.ok_or_else(|| Error::NotFound { object: store.name(&id.control("plan.json")) })?;
    let records = done_records(store, id).await?;
    let shards: Vec<u32> = records.iter().map(|d| d.shard).collect();
    if let Some(first) = first_missing(&shards, plan.shards) {
        let missing = plan.shards.saturating_sub(u32::try_from(shards.len()).unwrap_or(u32::MAX));
        return Err(Error::ShardsMissing { stage: id.stage, missing, first, shards: plan.shards });
    }
    let planned = planned(id, &plan);
    let (of_plan, others): (Vec<_>, Vec<_>) =
        folders(id, &plan, &records).into_iter().partition(|(folder, _)| planned.contains(folder));
    // Those of the plan make the artifact complete: whoever dies on the way must not leave another one behind them.
    for (folder, contents) in others.into_iter().chain(of_plan) {
        if !store.exists(&success(&folder)).await? {
            sweep(store, &folder, &contents).await?;
            check(store, &folder, &contents).await?;
            store.create(&success(&folder), Bytes::new()).await?;
        }
    }
    Ok(records)
}

fn success(folder: &str) -> String {
    format!("{folder}/{SUCCESS}")
}

fn planned(id: &ArtifactId, plan: &Plan) -> BTreeSet<String> {
    plan.outputs.iter().map(|output| output.folder(id)).collect()
}

/// The folders of the plan and those that a record names, with what belongs into each.
fn folders(id: &ArtifactId, plan: &Plan, records: &[Done]) -> BTreeMap<String, Contents> {
    let mut folders: BTreeMap<String, Contents> = planned(id, plan).into_iter().map(|f| (f, Contents::new())).collect();
    for done in records {
        for part in &done.parts {
            folders.entry(id.table_prefix(part.table)).or_default().insert(part.path.clone(), part.bytes);
        }
        for file in &done.files {
            folders.entry(id.model_prefix()).or_default().insert(file.path.clone(), file.bytes);
        }
    }
    folders
}

/// The smallest shard below `shards` that is not in the sorted list.
fn first_missing(done: &[u32], shards: u32) -> Option<u32> {
    let done: BTreeSet<u32> = done.iter().copied().collect();
    (0..shards).find(|s| !done.contains(s))
}

/// Removes staged files and parts that no done record names: they would be read as rows. Anything else was not made
/// by this program and stays, with a warning.
async fn sweep(store: &Store, folder: &str, contents: &Contents) -> Result<()> {
    for name in store.sweep_staged(folder).await? {
        tracing::warn!(folder = store.name(folder), name, "removed what a killed writer left");
    }
    for entry in store.list(folder).await? {
        let name = &entry.path[folder.len() + 1..];
        if contents.contains_key(&entry.path) || name == SUCCESS {
            continue;
        }
        let object = store.name(&entry.path);
        if part_name_index(name).is_some() {
            store.delete(&entry.path).await?;
            tracing::warn!(object, "removed a part that no done record names");
        } else {
            tracing::warn!(object, "this object is not ours; some readers of the folder will fail on it");
        }
    }
    Ok(())
}

async fn check(store: &Store, folder: &str, contents: &Contents) -> Result<()> {
    let there: Contents = store.list(folder).await?.into_iter().map(|e| (e.path, e.size)).collect();
    match contents.iter().find(|(path, bytes)| there.get(*path) != Some(bytes)) {
        None => Ok(()),
        Some((path, _)) => {
            Err(Error::PartMissing { folder: store.name(folder), part: path[folder.len() + 1..].to_owned() })
        }
    }
}
