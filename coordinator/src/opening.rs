//! What the coordinator looks up and writes down about stages before work on them can begin.

use std::path::Path;
use std::time::Duration;

use data::artifact::{self, ArtifactId, InputDigests, InputPart, Output, PartRecord, Plan};
use data::job::{Job, Stage};
use data::store::Store;
use data::tables::Table;
use futures::future::BoxFuture;
use proto::FailureClass;
use tracing::warn;

use crate::plan::{self, JobPlan, PlannedStage};
use crate::{InputFiles, Result, publish, records, removal};

/// Pauses between attempts at something that may succeed later; the store has been patient by itself before each.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(15)];

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

/// The plan of a job and which of its stages are done.
pub(crate) async fn planned(store: &Store, job: &Job, cache: Option<&Path>) -> Result<(JobPlan, Vec<bool>)> {
    let mut known = cache.map_or_else(InputDigests::forgetful, InputDigests::remembered_in);
    let files = InputFiles::of(job, &mut known).await?;
    if let Err(e) = known.save() {
        warn!(error = %e, "cannot remember the digests of the input files");
    }
    let mut plan = plan::plan(job, &files);
    removal::admit(store, &mut plan, &job.to_toml()).await?;
    publish::begin(store, &plan.id.0, job, &records::of_plan(&plan)).await?;
    let mut complete = Vec::new();
    for stage in &plan.stages {
        complete.push(artifact::is_complete(store, &stage.artifact).await?);
    }
    Ok((plan, complete))
}

/// Writes down what an artifact is, and finds its shards: rows of each, and which are done.
pub(crate) async fn open_artifact(
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
    let outputs = outputs(id.stage, stage.split.is_some_and(data::job::Split::has_target));
    artifact::write_plan(store, id, &Plan { shards, input_parts, outputs }).await?;
    let done = artifact::done_shards(store, id).await?;
    Ok((rows, done))
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
