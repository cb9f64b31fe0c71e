//! What a worker keeps between leases: models, plans and lists of parts cost more than the shards of a lease do.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use data::artifact::{self, ArtifactId, Plan, Spec};
use data::store::Store;
use tracing::info;

use crate::context::Context;
use crate::{Error, Result};

/// A device that had nothing to do for so long gives back the memory of what is kept.
pub(crate) const IDLE: Duration = Duration::from_secs(300);

/// What makes the things of one lease fit another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fits {
    /// URL of the root.
    pub(crate) root: String,
    /// What is made.
    pub(crate) artifact: ArtifactId,
    /// The job file: another job may want the same and find its models elsewhere.
    pub(crate) job_toml: String,
    /// The attempt that trained the model: a stage that was removed may have been trained again.
    pub(crate) trained_by: Option<String>,
}

/// What the device's thread keeps of the last artifact: one, since two may be more than there is memory.
#[derive(Default)]
pub(crate) struct Kept(Option<(Fits, Box<dyn Any + Send>)>);

impl Kept {
    /// What was opened for an earlier lease of the same artifact; opens it if there is none.
    pub(crate) fn or_open<T: Any + Send>(
        &mut self,
        cx: &mut Context,
        open: impl FnOnce(&mut Context) -> Result<T>,
    ) -> Result<&mut T> {
        let fits = cx.fits()?;
        self.or_else(fits, || {
            let opened = open(cx)?;
            info!(artifact = %cx.artifact, "model and tables opened");
            Ok(opened)
        })
    }

    /// The same with what makes it fit.
    pub(crate) fn or_else<T: Any + Send>(&mut self, fits: Fits, open: impl FnOnce() -> Result<T>) -> Result<&mut T> {
        if !self.0.as_ref().is_some_and(|(known, thing)| *known == fits && thing.is::<T>()) {
            self.forget();
            self.0 = Some((fits, Box::new(open()?)));
        }
        let thing = self.0.as_mut().and_then(|(_, thing)| thing.downcast_mut());
        Ok(thing.expect("it has been looked at, or was put there, right now"))
    }

    /// Gives everything back.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }
}

/// Spec and plan of an artifact.
pub(crate) type Planned = (Arc<Spec>, Arc<Plan>);

/// Spec and plan of the last artifact: a plan has a line for every shard, of which there may be 100,000.
#[derive(Clone, Default)]
pub(crate) struct KnownPlan(Arc<Mutex<Option<(String, ArtifactId, Planned)>>>);

impl KnownPlan {
    /// Those of the last lease if they are of the same artifact, or reads them. Neither changes but where an artifact is removed
    /// and made anew: the sums of input parts may then be others, which a worker does not look at.
    pub(crate) async fn or_read(&self, store: &Store, id: &ArtifactId) -> Result<Planned> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, _, planned)) = known.filter(|(root, known, _)| root == store.url() && known == id) {
            return Ok(planned);
        }
        let missing = |what: &str| Error::Input { stage: id.stage, role: what.to_owned() };
        let spec = artifact::read_spec(store, id).await?.ok_or_else(|| missing("spec.json"))?;
        let plan = artifact::read_plan(store, id).await?.ok_or_else(|| missing("plan.json"))?;
        let planned = (Arc::new(spec), Arc::new(plan));
        let kept = (store.url().to_owned(), id.clone(), planned.clone());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok(planned)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use data::artifact::Digest;
    use data::job::Stage;

    use super::*;

    pub(crate) fn fits(artifact: &str) -> Fits {
        let artifact = ArtifactId { stage: Stage::Rank, digest: Digest::of_bytes(artifact.as_bytes()) };
        Fits { root: "s3://b".to_owned(), artifact, job_toml: "job".to_owned(), trained_by: Some("a".to_owned()) }
    }

    #[test]
    fn one_thing_is_kept_and_opened_once() {
        let (mut kept, mut opened) = (Kept::default(), 0);
        let mut get = |kept: &mut Kept, fits: Fits| {
            *kept
                .or_else(fits, || {
                    opened += 1;
                    Ok(opened)
                })
                .unwrap()
        };
        assert_eq!((get(&mut kept, fits("x")), get(&mut kept, fits("x"))), (1, 1));
        assert_eq!((get(&mut kept, fits("y")), get(&mut kept, fits("x"))), (2, 3));
        for other in [
            Fits { root: "s3://c".to_owned(), ..fits("x") },
            Fits { job_toml: "another".to_owned(), ..fits("x") },
            Fits { trained_by: Some("b".to_owned()), ..fits("x") },
        ] {
            let before = get(&mut kept, fits("x"));
            assert_eq!(get(&mut kept, other), before + 1);
        }
        let before = get(&mut kept, fits("x"));
        kept.forget();
        assert_eq!(get(&mut kept, fits("x")), before + 1);
    }

    #[test]
    fn what_cannot_be_opened_is_tried_again_and_drops_what_was_there() {
        let mut kept = Kept::default();
        kept.or_else(fits("x"), || Ok(1)).unwrap();
        assert!(kept.or_else::<i32>(fits("y"), || Err(Error::Stopped("no".to_owned()))).is_err());
        assert_eq!(*kept.or_else(fits("x"), || Ok(2)).unwrap(), 2);
    }

    #[tokio::test]
    async fn a_plan_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().display().to_string()).unwrap();
        let (config, inputs) = (serde_json::json!({}), std::collections::BTreeMap::new());
        let spec = Spec { stage: Stage::Rank, split: None, format_version: 1, config, inputs };
        let id = artifact::write_spec(&store, &spec).await.unwrap();
        let known = KnownPlan::default();
        assert!(matches!(known.or_read(&store, &id).await, Err(Error::Input { .. })), "it is not planned yet");
        let plan = Plan { shards: 3, input_parts: Vec::new(), outputs: Vec::new() };
        artifact::write_plan(&store, &id, &plan).await.unwrap();
        let (_, first) = known.or_read(&store, &id).await.unwrap();
        std::fs::remove_dir_all(folder.path().join("_control")).unwrap();
        let (read, second) = known.or_read(&store, &id).await.unwrap();
        assert!(Arc::ptr_eq(&first, &second) && *read == spec && *second == plan);
        let elsewhere = Store::open(&folder.path().join("other").display().to_string()).unwrap();
        assert!(known.or_read(&elsewhere, &id).await.is_err(), "another root has a plan of its own");
    }
}
