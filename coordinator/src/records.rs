//! What the store remembers of a job: its file and the artifacts of its stages.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use data::artifact::{ArtifactId, Digest, Spec};
use data::job::{Split, Stage, nearest};
use data::store::Store;
use serde::{Deserialize, Serialize};

use crate::plan::{JobPlan, PlannedStage};
use crate::{Error, Result};

pub(crate) const PREFIX: &str = "_control/v1/jobs";
pub(crate) const STAGES: &str = "stages.json";
pub(crate) const TOMBSTONE: &str = "removed.json";

/// Which artifact a stage of a job is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageRecord {
    /// The stage.
    pub stage: Stage,
    /// The split, where it has one.
    pub split: Option<Split>,
    /// The settings of a trial of the sweep, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<String>,
    /// The digest of the artifact.
    pub digest: Digest,
    /// Everything that can change its result: what of other jobs this one needs is known from here on. Records of earlier
    /// versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Spec>,
}

impl StageRecord {
    /// Whether this is what others mean by a stage and a split of the job: no trial is.
    #[must_use]
    pub fn is(&self, stage: Stage, split: Option<Split>) -> bool {
        self.stage == stage && self.split == split && self.trial.is_none()
    }

    /// The name of the stage in reports: `rank.test`, `train_retriever[dropout=0.1]`.
    #[must_use]
    pub fn role(&self) -> String {
        let role = data::artifact::role(self.stage, self.split);
        self.trial.as_ref().map_or_else(|| role.clone(), |trial| format!("{role}[{trial}]"))
    }

    /// The artifact.
    #[must_use]
    pub fn artifact(&self) -> ArtifactId {
        ArtifactId { stage: self.stage, digest: self.digest.clone() }
    }
}

/// The stages of a plan, as a job's record has them.
#[must_use]
pub fn of_stages(stages: &[PlannedStage]) -> Vec<StageRecord> {
    let record = |s: &PlannedStage| StageRecord {
        stage: s.artifact.stage,
        split: s.split,
        trial: s.trial.clone(),
        digest: s.artifact.digest.clone(),
        spec: Some(s.spec.clone()),
    };
    stages.iter().map(record).collect()
}

/// Writes down a job; the same job again finds what it wrote before.
///
/// # Errors
/// Those of the store.
pub async fn write(store: &Store, plan: &JobPlan, job_toml: &str) -> Result<()> {
    let text = serde_json::to_string_pretty(&of_stages(&plan.stages))
        .map_err(|e| Error::Record { path: stages_path(&plan.id.0), reason: e.to_string() })?;
    // Same digests, other paths: the first spelling of the job stays.
    store.create(&format!("{PREFIX}/{}/spec.toml", plan.id), job_toml.to_owned().into()).await?;
    store.create(&stages_path(&plan.id.0), text.into()).await?;
    Ok(())
}

/// The stages of a job.
///
/// # Errors
/// [`Error::NoJob`] with the nearest id if there is no such job; [`Error::Removed`].
pub async fn stages(store: &Store, job: &str) -> Result<Vec<StageRecord>> {
    let path = stages_path(job);
    if is_removed(store, job).await? {
        return Err(Error::Removed { job: job.to_owned() });
    }
    if !store.exists(&path).await? {
        let jobs = list(store).await?;
        let hint = match (nearest(job, jobs.iter().map(String::as_str)), jobs.is_empty()) {
            (Some(near), _) => format!("; did you mean {near}?"),
            (None, true) => "; no job has run there yet".to_owned(),
            (None, false) => format!("; there are {}", jobs.join(", ")),
        };
        return Err(Error::NoJob { job: job.to_owned(), root: store.url().to_owned(), hint });
    }
    read_stages(store, job).await
}

/// The stages of a job that has been written down, removed or not.
pub(crate) async fn read_stages(store: &Store, job: &str) -> Result<Vec<StageRecord>> {
    let path = stages_path(job);
    let bytes = store.get(&path).await?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Record { path, reason: e.to_string() })
}

/// Whether somebody has removed a job. Its tombstone stays for ever.
///
/// # Errors
/// Those of the store.
pub async fn is_removed(store: &Store, job: &str) -> Result<bool> {
    Ok(store.exists(&tombstone_path(job)).await?)
}

/// The file of a job, overrides included.
///
/// # Errors
/// Those of the store.
pub async fn job_toml(store: &Store, job: &str) -> Result<String> {
    let bytes = store.get(&format!("{PREFIX}/{job}/spec.toml")).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The ids of all jobs under a root that nobody has removed.
///
/// # Errors
/// Those of the store.
pub async fn list(store: &Store) -> Result<Vec<String>> {
    Ok(written(store).await?.into_keys().collect())
}

/// The jobs of a name that nobody has removed, the newest first, by the store's clock.
///
/// # Errors
/// Those of the store.
pub async fn newest_of_name(store: &Store, name: &str) -> Result<Vec<String>> {
    let mut jobs: Vec<(String, SystemTime)> = written(store).await?.into_iter().collect();
    jobs.retain(|(job, _)| name_of(job) == Some(name));
    jobs.sort_unstable_by(|(job, at), (other, then)| (then, other).cmp(&(at, job)));
    Ok(jobs.into_iter().map(|(job, _)| job).collect())
}

/// The jobs that nobody has removed, and when each was written down.
async fn written(store: &Store) -> Result<BTreeMap<String, SystemTime>> {
    let entries = store.list_stamped(PREFIX).await?;
    let files: Vec<(&str, &str, SystemTime)> = entries
        .iter()
        .filter_map(|(path, stat)| job_and_file(path).map(|(job, file)| (job, file, stat.modified)))
        .collect();
    let having = |name: &'static str| files.iter().filter(move |(_, file, _)| *file == name);
    let removed: BTreeSet<&str> = having(TOMBSTONE).map(|(job, ..)| *job).collect();
    let live = having(STAGES).filter(|(job, ..)| !removed.contains(job));
    Ok(live.map(|(job, _, at)| ((*job).to_owned(), *at)).collect())
}

/// The name in the id of a job, `<name>-<12 hex>`, with a number behind it where one of that id was removed.
#[must_use]
pub fn name_of(id: &str) -> Option<&str> {
    let is_number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let id = id.rsplit_once('.').filter(|(_, number)| is_number(number)).map_or(id, |(id, _)| id);
    let (name, digest) = id.rsplit_once('-')?;
    (digest.len() == 12 && digest.bytes().all(|b| b.is_ascii_hexdigit())).then_some(name)
}

/// The folder of a job's control objects.
pub(crate) fn folder(job: &str) -> String {
    format!("{PREFIX}/{job}")
}

/// The job whose control object lies at a path, and its name in the job's folder.
pub(crate) fn job_and_file(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix(PREFIX)?.trim_start_matches('/').split_once('/')
}

/// The object that says that a job was removed.
pub(crate) fn tombstone_path(job: &str) -> String {
    format!("{PREFIX}/{job}/{TOMBSTONE}")
}

pub(crate) fn stages_path(job: &str) -> String {
    format!("{PREFIX}/{job}/{STAGES}")
}
