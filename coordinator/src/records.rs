//! What the store remembers of a job: its file and the artifacts of its stages.

use data::artifact::{ArtifactId, Digest, Spec};
use data::job::{Split, Stage, nearest};
use data::store::Store;
use serde::{Deserialize, Serialize};

use crate::plan::JobPlan;
use crate::{Error, Result};

pub(crate) const PREFIX: &str = "_control/v1/jobs";

/// Which artifact a stage of a job is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// The stage.
    pub stage: Stage,
    /// The split, where it has one.
    pub split: Option<Split>,
    /// The digest of the artifact.
    pub digest: Digest,
    /// Everything that can change its result; records of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Spec>,
}

impl StageRecord {
    /// The artifact.
    #[must_use]
    pub fn artifact(&self) -> ArtifactId {
        ArtifactId { stage: self.stage, digest: self.digest.clone() }
    }
}

/// Writes down a job; the same job again finds what it wrote before.
///
/// # Errors
/// Those of the store.
pub async fn write(store: &Store, plan: &JobPlan, job_toml: &str) -> Result<()> {
    let stages: Vec<StageRecord> = plan
        .stages
        .iter()
        .map(|s| StageRecord {
            stage: s.artifact.stage,
            split: s.split,
            digest: s.artifact.digest.clone(),
            spec: Some(s.spec.clone()),
        })
        .collect();
    let text = serde_json::to_string_pretty(&stages)
        .map_err(|e| Error::Record { path: stages_path(&plan.id.0), reason: e.to_string() })?;
    // Same digests, other paths: the first spelling of the job stays.
    store.create(&format!("{PREFIX}/{}/spec.toml", plan.id), job_toml.to_owned().into()).await?;
    store.create(&stages_path(&plan.id.0), text.into()).await?;
    Ok(())
}

/// The stages of a job.
///
/// # Errors
/// [`Error::NoJob`] with the nearest id if there is no such job.
pub async fn stages(store: &Store, job: &str) -> Result<Vec<StageRecord>> {
    let path = stages_path(job);
    if !store.exists(&path).await? {
        let jobs = list(store).await?;
        let hint = match (nearest(job, jobs.iter().map(String::as_str)), jobs.is_empty()) {
            (Some(near), _) => format!("; did you mean {near}?"),
            (None, true) => "; no job has run there yet".to_owned(),
            (None, false) => format!("; there are {}", jobs.join(", ")),
        };
        return Err(Error::NoJob { job: job.to_owned(), root: store.url().to_owned(), hint });
    }
    let bytes = store.get(&path).await?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Record { path, reason: e.to_string() })
}

/// The file of a job, overrides included.
///
/// # Errors
/// Those of the store.
pub async fn job_toml(store: &Store, job: &str) -> Result<String> {
    let bytes = store.get(&format!("{PREFIX}/{job}/spec.toml")).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The ids of all jobs under a root.
///
/// # Errors
/// Those of the store.
pub async fn list(store: &Store) -> Result<Vec<String>> {
    let entries = store.list(PREFIX).await?;
    let mut jobs: Vec<String> = entries
        .iter()
        .filter_map(|e| e.path.strip_prefix(PREFIX)?.trim_start_matches('/').split_once('/'))
        .filter(|(_, file)| *file == "stages.json")
        .map(|(job, _)| job.to_owned())
        .collect();
    jobs.sort();
    jobs.dedup();
    Ok(jobs)
}

pub(crate) fn stages_path(job: &str) -> String {
    format!("{PREFIX}/{job}/stages.json")
}
