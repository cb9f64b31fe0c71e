//! Which settings a task works with, where its job has a sweep: those of its trial, or of the one that was chosen.

use data::artifact::{ArtifactId, Spec, role, sweep};
use data::job::{Job, ModelSection, Stage};
use data::store::Store;
use serde_json::json;

use crate::{Error, Result};

/// The job that an artifact is made for. A trial is known by the settings in its spec: nobody has to say which one it is,
/// and an artifact that a job of its own began is the same.
pub(crate) async fn job_of(store: &Store, job: Job, spec: &Spec) -> Result<Job> {
    if job.sweep.is_empty() {
        return Ok(job);
    }
    if let Some(section) = ModelSection::of_training(spec.stage) {
        let own = |job: &Job| match section {
            ModelSection::Retriever => json!(job.retriever),
            ModelSection::Ranker => json!(job.ranker),
        };
        // An artifact without a trial of its own is the choice, or has nothing to do with this section.
        let trials = job.trials(section);
        if trials.is_empty() || sweep::trials_of(spec).is_some() {
            return Ok(job);
        }
        let settings = spec.config.get(section.name());
        let trial = trials.into_iter().find(|trial| settings == Some(&own(&trial.job)));
        let unknown =
            || Error::Misfit { what: format!("no trial of the job's sweep has the settings of a {}", spec.stage) };
        return Ok(trial.ok_or_else(unknown)?.job);
    }
    chosen(store, job, spec).await
}

/// The job with the settings of the ranker that an artifact is made with: they decide over its prompts.
async fn chosen(store: &Store, job: Job, spec: &Spec) -> Result<Job> {
    let stage = Stage::TrainRanker;
    let Some(digest) = spec.inputs.get(&role(stage, None)).cloned() else { return Ok(job) };
    match sweep::choice(store, &ArtifactId { stage, digest }).await? {
        Some(choice) => Ok(job.with_settings(&choice.settings)?),
        None => Ok(job),
    }
}
