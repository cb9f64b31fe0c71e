//! Which settings a task works with, where its job has a sweep: those of its trial, or of the one that was chosen.

use data::artifact::{ArtifactId, Spec, role, sweep};
use data::job::{Job, ModelSection, Stage};
use data::store::Store;
use serde_json::json;

use crate::Result;

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
        let trial =
            job.trials(section).into_iter().find(|trial| spec.config.get(section.name()) == Some(&own(&trial.job)));
        return Ok(trial.map_or(job, |trial| trial.job));
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
