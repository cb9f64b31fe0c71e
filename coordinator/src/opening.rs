//! What the coordinator looks up and writes down about stages before work on them can begin.

use std::path::Path;
use std::time::Duration;

use data::artifact::{self, ArtifactId, Done, InputDigests, InputPart, Output, PartRecord, Plan, Spec, role};
use data::job::{Job, Stage};
use data::store::Store;
use data::tables::Table;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};
use proto::{Committed, FailureClass, JobId};
use tracing::warn;

use crate::inbox::Submission;
use crate::plan::{self, JobPlan, PlannedStage};
use crate::submissions::READS;
use crate::{Earlier, Error, InputFiles, Result, admission, publish, records, removal, submissions};

/// Pauses between attempts at something that may succeed later; the store has been patient by itself before each.
#[cfg(not(test))]
const PAUSES: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];
#[cfg(test)]
const PAUSES: [Duration; 4] = [Duration::from_millis(1); 4];

/// Tries again what fails for a reason that may pass.
pub(crate) async fn patiently<'a, T>(what: &str, attempt: impl Fn() -> BoxFuture<'a, Result<T>>) -> Result<T> {
    for pause in PAUSES {
        match attempt().await {
            Err(e) if e.class() == FailureClass::Retry => {
                warn!(error = %e, "cannot {what}, will try again in {} ms", pause.as_millis());
                tokio::time::sleep(pause).await;
            }
            outcome => return outcome,
        }
    }
    attempt().await
}

/// The plan of a job, which is written down.
///
/// The job comes back with the settings of the models that it takes from earlier jobs.
pub(crate) async fn planned(store: &Store, job: &Job, cache: Option<&Path>) -> Result<(Box<Job>, JobPlan)> {
    let mut job = Box::new(job.clone());
    let earlier = Earlier::of(store, &mut job).await?;
    let mut known = cache.map_or_else(InputDigests::forgetful, InputDigests::remembered_in);
    let files = InputFiles::of(&job, earlier, &mut known).await?;
    if let Err(e) = known.save() {
        warn!(error = %e, "cannot remember the digests of the input files");
    }
    let mut plan = plan::plan(&job, &files);
    removal::write_down(store, &mut plan, &job.to_toml()).await?;
    Ok((job, plan))
}

/// Whether a job that is written down may run: nobody removes what it needs, and its places are free. Says which of its
/// stages are done.
pub(crate) async fn admitted(store: &Store, job: &Job, plan: &JobPlan) -> Result<Vec<bool>> {
    removal::refuse_marked(store, &plan.stages).await?;
    publish::begin(store, &plan.id.0, job, &records::of_stages(&plan.stages)).await?;
    complete(store, &plan.stages).await
}

/// A job as the store remembers it: what was planned when it was submitted, whatever its input files hold now, in the
/// spelling of its last submission.
pub(crate) async fn recorded(store: &Store, id: &str) -> Result<Submission> {
    let records = records::stages(store, id).await?;
    let last = submissions::last_round(store, id).await?;
    let job = admission::spelling(store, id, last.as_ref().map(|(_, submitted)| submitted)).await?;
    let path = || records::stages_path(id);
    let mut stages: Vec<PlannedStage> = Vec::new();
    for record in records {
        let artifact = record.artifact();
        let Some(spec) = record.spec else {
            let reason = "an earlier version of this program wrote it: submit the job file again";
            return Err(Error::Record { path: path(), reason: reason.to_owned() });
        };
        let is_input = |made: &&PlannedStage| spec.inputs.values().any(|digest| *digest == made.artifact.digest);
        let needs = stages.iter().filter(is_input).map(|made| made.artifact.clone()).collect();
        stages.push(PlannedStage { artifact, split: record.split, trial: record.trial, spec, needs });
    }
    let complete = complete(store, &stages).await?;
    Ok(Submission { id: JobId(id.to_owned()), job: Box::new(job), stages, complete, round: None, submitted: None })
}

/// Which stages are done.
pub(crate) async fn complete(store: &Store, stages: &[PlannedStage]) -> Result<Vec<bool>> {
    let mut complete = Vec::new();
    for stage in stages {
        complete.push(artifact::is_complete(store, &stage.artifact).await?);
    }
    Ok(complete)
}

/// Writes down what an artifact is, and finds its shards: rows of each, and which are done.
///
/// # Errors
/// Those of the store; [`data::Error::Differs`] where another version of this program has begun.
pub async fn open_artifact(
    store: &Store,
    stage: &PlannedStage,
    prepare: Option<&ArtifactId>,
) -> Result<(Vec<u64>, Vec<u32>)> {
    let id = &stage.artifact;
    artifact::write_spec(store, &stage.spec).await?;
    let mut prepared = Vec::new();
    if let Some(prepare) = prepare {
        prepared.extend(artifact::done_records(store, prepare).await?.into_iter().flat_map(|d| d.parts));
    }
    let mut input_parts = Vec::new();
    if is_map(id.stage) {
        let histories = prepared.iter().filter(|part| part.table == Table::Histories);
        let part = |p: &PartRecord| InputPart { path: p.path.clone(), rows: p.rows, sha256: p.sha256.clone() };
        input_parts.extend(histories.map(part));
    }
    let rows = match item_shards(stage, &prepared) {
        Some(rows) => rows,
        None if is_map(id.stage) => input_parts.iter().map(|p| p.rows).collect(),
        None => vec![0],
    };
    let shards = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let mut outputs = outputs(id.stage, stage.split.is_some_and(data::job::Split::has_target));
    if id.stage == Stage::Retrieve && is_foreign(store, &stage.spec).await? {
        outputs.push(Output::Table(Table::Rejected));
    }
    artifact::write_plan(store, id, &Plan { shards, input_parts, outputs }).await?;
    let done = artifact::done_shards(store, id).await?;
    Ok((rows, done))
}

/// What the records of shards that are done say of rejected rows, where they say something. Reading them takes long where
/// they are many: nothing waits for it.
///
/// # Errors
/// Those of the store.
pub async fn tally(store: &Store, id: &ArtifactId, done: &[u32]) -> Result<Vec<Committed>> {
    let read = |shard| async move { Ok::<_, Error>(artifact::done_record(store, id, shard).await?) };
    let records = stream::iter(done.to_vec()).map(read).buffered(READS);
    Ok(telling(records.try_filter_map(|record| std::future::ready(Ok(record))).try_collect::<Vec<_>>().await?))
}

/// Those of the records that say something of rejected rows.
pub(crate) fn telling(records: Vec<Done>) -> Vec<Committed> {
    records.into_iter().filter(|done| !done.rejected.is_empty()).map(committed).collect()
}

/// What a record says that a worker would have said.
pub(crate) fn committed(done: Done) -> Committed {
    Committed { shard: done.shard, rows: done.rows, took: Duration::ZERO, rejected: done.rejected }
}

/// Whether the retriever was trained on another catalogue, so that it may not know an item.
async fn is_foreign(store: &Store, spec: &Spec) -> Result<bool> {
    let Some(digest) = spec.inputs.get(&role(Stage::TrainRetriever, None)).cloned() else { return Ok(true) };
    let training = artifact::read_spec(store, &ArtifactId { stage: Stage::TrainRetriever, digest }).await?;
    let prepare = role(Stage::Prepare, None);
    Ok(training.is_none_or(|training| training.inputs.get(&prepare) != spec.inputs.get(&prepare)))
}

/// The items of every shard, of a stage that cuts the items.
fn item_shards(stage: &PlannedStage, prepared: &[PartRecord]) -> Option<Vec<u64>> {
    let shard = stage.spec.config["shard_items"].as_u64().filter(|&n| n > 0)?;
    let items: u64 = prepared.iter().filter(|part| part.table == Table::Items).map(|part| part.rows).sum();
    let shards = items.div_ceil(shard).max(1);
    Some((0..shards).map(|i| (i + 1) * items / shards - i * items / shards).collect())
}

/// Whether the users are cut into shards.
fn is_map(stage: Stage) -> bool {
    matches!(stage, Stage::Retrieve | Stage::Rank)
}

/// The tables and models of a stage.
fn outputs(stage: Stage, has_target: bool) -> Vec<Output> {
    match stage {
        Stage::Prepare => {
            vec![Output::Table(Table::Items), Output::Table(Table::Histories), Output::Table(Table::Rejected)]
        }
        Stage::Pictures => vec![Output::Table(Table::Pictures)],
        Stage::Caption => vec![Output::Table(Table::Captions)],
        Stage::TrainRetriever | Stage::TrainRanker => vec![Output::Model],
        Stage::Retrieve if has_target => vec![Output::Table(Table::Candidates), Output::Table(Table::TargetRanks)],
        Stage::Retrieve => vec![Output::Table(Table::Candidates)],
        Stage::Rank => vec![Output::Table(Table::Rankings)],
        Stage::Evaluate => vec![Output::Table(Table::Metrics)],
    }
}
