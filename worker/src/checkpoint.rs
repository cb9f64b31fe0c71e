//! Checkpoints of a training stage: what dies costs the steps since the last one, not the training.
//!
//! `checkpoints/<step>/` holds the files, then `MANIFEST.json` with their digests; a folder without a manifest does not
//! exist, and one whose files differ from it is damaged.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use data::artifact::{ArtifactId, Digest};
use data::store::Store;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::context::Context;
use crate::early_stopping::Course;
use crate::snapshot::Snapshot;
use crate::{Error, Result};

const MANIFEST: &str = "MANIFEST.json";
/// How many checkpoints stay.
const KEEP: usize = 2;
/// Time between two checkpoints, if no validation comes between them.
const EVERY: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize)]
struct Manifest {
    #[serde(flatten)]
    course: Course,
    /// The digests of the files.
    files: BTreeMap<String, Digest>,
}

/// The newest checkpoint that is whole, of a step that is not below `from`; a damaged one costs steps, not the training.
pub(crate) fn newest(cx: &Context, from: u64) -> Result<Option<Snapshot>> {
    let place = Place::of(cx);
    for (_, folder) in cx.wait(place.steps())?.into_iter().rev().take_while(|(step, _)| *step >= from) {
        let Some(manifest) = cx.wait(place.store.try_get(&format!("{folder}/{MANIFEST}")))? else { continue };
        match cx.wait(place.read(&folder, &manifest)) {
            Ok(snapshot) => return Ok(Some(snapshot)),
            Err(e @ Error::Damaged { .. }) => tracing::warn!(error = %e, "looking for an older checkpoint"),
            Err(e) => return Err(e),
        }
    }
    Ok(None)
}

/// Removes what lies beyond the step at which a training goes on: it was damaged or never completed.
pub(crate) fn discard_after(cx: &Context, step: u64) {
    if let Err(e) = cx.wait(Place::of(cx).remove_if(|s| s > step)) {
        tracing::warn!(error = %e, "cannot remove a damaged checkpoint");
    }
}

/// Removes every checkpoint: the model is committed. What cannot be removed costs space, not the model.
pub(crate) fn clear(cx: &Context) {
    if let Err(e) = cx.wait(Place::of(cx).remove_if(|_| true)) {
        tracing::warn!(error = %e, "cannot remove old checkpoints");
    }
}

/// Writes checkpoints beside the training, one at a time.
pub(crate) struct Saver {
    /// The step of the one that is being written.
    writing: Option<(u64, JoinHandle<Result<()>>)>,
    /// The step of the last one that was.
    step: u64,
    began: Instant,
}

impl Saver {
    /// For a training that goes on behind `step`, of which there is a checkpoint or which needs none.
    pub(crate) fn new(step: u64) -> Self {
        Self { writing: None, step, began: Instant::now() }
    }

    /// Whether one would bring something new.
    pub(crate) fn is_behind(&self, step: u64) -> bool {
        self.step != step
    }

    /// Whether the last one is old.
    pub(crate) fn is_due(&self) -> bool {
        self.began.elapsed() >= EVERY
    }

    /// Begins to write one. The one before is waited for: a store that is slower than the training slows it down.
    pub(crate) fn begin(&mut self, cx: &Context, snapshot: Snapshot) {
        self.end(cx);
        self.began = Instant::now();
        let step = snapshot.course.step;
        self.writing = Some((step, cx.runtime().spawn(Place::of(cx).write(snapshot))));
    }

    /// Waits for what is being written. A training does not end of a checkpoint that cannot be.
    pub(crate) fn end(&mut self, cx: &Context) {
        let Some((step, writing)) = self.writing.take() else { return };
        let written = cx.wait(writing).unwrap_or_else(|e| Err(Error::Panicked(e.to_string())));
        match written {
            Ok(()) => self.step = step,
            Err(e) => tracing::warn!(error = %e, step, "cannot write a checkpoint"),
        }
    }
}

/// Where the checkpoints of an artifact lie.
#[derive(Clone)]
struct Place {
    store: Store,
    prefix: String,
}

impl Place {
    fn of(cx: &Context) -> Self {
        Self { store: cx.store.clone(), prefix: prefix(&cx.artifact) }
    }

    async fn read(&self, folder: &str, manifest: &[u8]) -> Result<Snapshot> {
        let damaged = |what: String| Error::Damaged { folder: folder.to_owned(), what };
        let manifest: Manifest =
            serde_json::from_slice(manifest).map_err(|e| damaged(format!("{MANIFEST} cannot be read: {e}")))?;
        let mut files = BTreeMap::new();
        for (name, digest) in manifest.files {
            let path = format!("{folder}/{name}");
            let bytes = self.store.try_get(&path).await?.ok_or_else(|| damaged(format!("{name} is missing")))?;
            if Digest::of_bytes(&bytes) != digest {
                return Err(damaged(format!("{name} is not what was written")));
            }
            files.insert(name, bytes);
        }
        Ok(Snapshot { course: manifest.course, files })
    }

    /// Writes a checkpoint and removes older ones but for the last. Later steps are left alone: they are another worker's, if
    /// this one has lost its lease and does not know it yet.
    async fn write(self, snapshot: Snapshot) -> Result<()> {
        let step = snapshot.course.step;
        let folder = format!("{}/{step:010}", self.prefix);
        if self.holds(&folder, &snapshot).await? {
            return Ok(()); // another member was faster
        }
        self.store.delete(&format!("{folder}/{MANIFEST}")).await?;
        let mut digests = BTreeMap::new();
        for (name, bytes) in snapshot.files {
            digests.insert(name.clone(), Digest::of_bytes(&bytes));
            self.store.put(&format!("{folder}/{name}"), bytes).await?;
        }
        let manifest = Manifest { course: snapshot.course, files: digests };
        let text = serde_json::to_vec_pretty(&manifest).expect("a manifest has only string keys");
        self.store.put(&format!("{folder}/{MANIFEST}"), text.into()).await?;
        let known = self.steps().await?;
        let until = known.partition_point(|(s, _)| *s <= step);
        for (_, folder) in &known[..until.saturating_sub(KEEP)] {
            if let Err(e) = self.remove(folder).await {
                tracing::warn!(error = %e, "cannot remove an old checkpoint");
            }
        }
        Ok(())
    }

    /// Whether just this lies there.
    async fn holds(&self, folder: &str, snapshot: &Snapshot) -> Result<bool> {
        let manifest = self.store.try_get(&format!("{folder}/{MANIFEST}")).await?;
        let Some(there) = manifest.and_then(|bytes| serde_json::from_slice::<Manifest>(&bytes).ok()) else {
            return Ok(false);
        };
        let digests = snapshot.files.iter().map(|(name, bytes)| (name.clone(), Digest::of_bytes(bytes)));
        Ok(there.files == digests.collect())
    }

    /// The folders by step, ascending.
    async fn steps(&self) -> Result<Vec<(u64, String)>> {
        let prefix = &self.prefix;
        let entries = self.store.list(prefix).await?;
        let mut steps: Vec<(u64, String)> = entries
            .iter()
            .filter_map(|e| {
                let step = e.path.strip_prefix(prefix)?.trim_start_matches('/').split('/').next()?;
                Some((step.parse().ok()?, format!("{prefix}/{step}")))
            })
            .collect();
        steps.sort();
        steps.dedup();
        Ok(steps)
    }

    async fn remove_if(&self, unwanted: impl Fn(u64) -> bool) -> Result<()> {
        for (_, folder) in self.steps().await?.into_iter().filter(|(step, _)| unwanted(*step)) {
            self.remove(&folder).await?;
        }
        Ok(())
    }

    /// The manifest goes first, so that what is left never looks whole.
    async fn remove(&self, folder: &str) -> Result<()> {
        self.store.delete(&format!("{folder}/{MANIFEST}")).await?;
        for entry in self.store.list(folder).await? {
            self.store.delete(&entry.path).await?;
        }
        Ok(())
    }
}

fn prefix(artifact: &ArtifactId) -> String {
    format!("{}/checkpoints", artifact.control_prefix())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;

    use super::*;

    fn place(folder: &std::path::Path) -> Place {
        Place { store: Store::open(folder.to_str().unwrap()).unwrap(), prefix: "c/checkpoints".to_owned() }
    }

    fn snapshot(step: u64) -> Snapshot {
        let files = [("a".to_owned(), Bytes::from_static(b"weights")), ("b".to_owned(), Bytes::from(vec![7; 100]))];
        Snapshot { course: Course { step, ..Course::default() }, files: files.into() }
    }

    #[tokio::test]
    async fn the_last_two_stay_and_are_read_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        for step in [10, 20, 30] {
            place.clone().write(snapshot(step)).await.unwrap();
        }
        let steps = place.steps().await.unwrap();
        assert_eq!(steps.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [20, 30]);
        let manifest = place.store.get(&format!("{}/{MANIFEST}", steps[1].1)).await.unwrap();
        let read = place.read(&steps[1].1, &manifest).await.unwrap();
        assert_eq!((read.course.step, &read.files), (30, &snapshot(30).files));
        place.remove_if(|step| step > 20).await.unwrap();
        assert_eq!(place.steps().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_file_that_is_not_what_was_written_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        place.clone().write(snapshot(10)).await.unwrap();
        let (_, at) = place.steps().await.unwrap().remove(0);
        let manifest = place.store.get(&format!("{at}/{MANIFEST}")).await.unwrap();
        place.store.put(&format!("{at}/b"), Bytes::from(vec![8; 100])).await.unwrap();
        let said = place.read(&at, &manifest).await.unwrap_err().to_string();
        assert!(said.contains("b is not what was written"), "{said}");
        place.store.delete(&format!("{at}/a")).await.unwrap();
        assert!(place.read(&at, &manifest).await.unwrap_err().to_string().contains("a is missing"));
        assert!(place.read(&at, b"{}").await.is_err());
    }
}
