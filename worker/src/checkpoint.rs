//! Checkpoints of a training stage: a killed worker costs the steps since the last validation, not the training.
//!
//! `checkpoints/<generation>/<step>/` holds the files, then `MANIFEST.json`; a folder without a manifest does not exist.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::Result;
use crate::context::Context;

/// Until gangs come, there is one generation.
const GENERATION: u64 = 0;
const MANIFEST: &str = "MANIFEST.json";
/// How many checkpoints stay.
const KEEP: usize = 2;

/// A checkpoint that was found.
pub(crate) struct Checkpoint<M> {
    /// What the trainer wrote about it.
    pub(crate) manifest: M,
    folder: String,
}

impl<M> Checkpoint<M> {
    /// Where it lies.
    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }

    /// Reads one of its files.
    pub(crate) fn file(&self, cx: &Context, name: &str) -> Result<Bytes> {
        Ok(cx.wait(cx.store.get(&format!("{}/{name}", self.folder)))?)
    }
}

/// The checkpoints whose manifests can be read, the highest step first.
pub(crate) fn newest_first<M: DeserializeOwned>(cx: &Context) -> Result<Vec<Checkpoint<M>>> {
    let mut found = Vec::new();
    for (_, folder) in steps(cx)?.into_iter().rev() {
        let Some(bytes) = cx.wait(cx.store.try_get(&format!("{folder}/{MANIFEST}")))? else { continue };
        match serde_json::from_slice(&bytes) {
            Ok(manifest) => found.push(Checkpoint { manifest, folder }),
            Err(e) => tracing::warn!(folder, error = %e, "the manifest of a checkpoint is damaged"),
        }
    }
    Ok(found)
}

/// Writes a checkpoint and removes older ones but for the last. Later steps are left alone: they are another worker's, if
/// this one has lost its lease and does not know it yet.
pub(crate) fn save<M: Serialize>(cx: &Context, step: u64, manifest: &M, files: Vec<(String, Vec<u8>)>) -> Result<()> {
    let folder = format!("{}/{GENERATION}/{step:010}", prefix(cx));
    cx.wait(cx.store.delete(&format!("{folder}/{MANIFEST}")))?;
    for (name, bytes) in files {
        cx.wait(cx.store.put(&format!("{folder}/{name}"), bytes.into()))?;
    }
    let text = serde_json::to_vec_pretty(manifest).expect("a manifest has only string keys");
    cx.wait(cx.store.put(&format!("{folder}/{MANIFEST}"), text.into()))?;
    let known = steps(cx)?;
    let until = known.partition_point(|(s, _)| *s <= step);
    for (_, folder) in &known[..until.saturating_sub(KEEP)] {
        if let Err(e) = remove(cx, folder) {
            tracing::warn!(error = %e, "cannot remove an old checkpoint");
        }
    }
    Ok(())
}

/// Removes what lies beyond the step at which a training goes on: it was damaged or never completed.
pub(crate) fn discard_after(cx: &Context, step: u64) {
    let stray = steps(cx).map(|steps| steps.into_iter().filter(|(s, _)| *s > step).collect::<Vec<_>>());
    if let Err(e) = stray.and_then(|stray| stray.iter().try_for_each(|(_, folder)| remove(cx, folder))) {
        tracing::warn!(error = %e, "cannot remove a damaged checkpoint");
    }
}

/// Removes every checkpoint: the model is committed. What cannot be removed costs space, not the model.
pub(crate) fn clear(cx: &Context) {
    let removed = steps(cx).and_then(|steps| steps.iter().try_for_each(|(_, folder)| remove(cx, folder)));
    if let Err(e) = removed {
        tracing::warn!(error = %e, "cannot remove old checkpoints");
    }
}

/// The folders by step, ascending.
fn steps(cx: &Context) -> Result<Vec<(u64, String)>> {
    let prefix = format!("{}/{GENERATION}", prefix(cx));
    let entries = cx.wait(cx.store.list(&prefix))?;
    let mut steps: Vec<(u64, String)> = entries
        .iter()
        .filter_map(|e| {
            let step = e.path.strip_prefix(&prefix)?.trim_start_matches('/').split('/').next()?;
            Some((step.parse().ok()?, format!("{prefix}/{step}")))
        })
        .collect();
    steps.sort();
    steps.dedup();
    Ok(steps)
}

/// The manifest goes first, so that what is left never looks whole.
fn remove(cx: &Context, folder: &str) -> Result<()> {
    cx.wait(cx.store.delete(&format!("{folder}/{MANIFEST}")))?;
    for entry in cx.wait(cx.store.list(folder))? {
        cx.wait(cx.store.delete(&entry.path))?;
    }
    Ok(())
}

fn prefix(cx: &Context) -> String {
    format!("{}/checkpoints", cx.artifact.control_prefix())
}
