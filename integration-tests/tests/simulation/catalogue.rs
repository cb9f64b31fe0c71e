//! What is computed: a dataset that is prepared already, and two jobs that share the retrieval and train a ranker each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use coordinator::plan::PlannedStage;
use data::artifact::{ArtifactId, Attempt, Commit, FilePayload, Output, PartPayload, Plan, Spec, Stats, role};
use data::job::{Split, Stage};
use data::store::Store;
use data::tables::{
    CandidateRow, Footer, HistoryRow, MetricRow, RankingRow, Row, Table, TargetRankRow, encode_part, part_name,
};
use futures::FutureExt;
use object_store::memory::InMemory;
use serde_json::{Value, json};

/// The split that is scored.
pub(crate) const SPLIT: Split = Split::Test;

/// A dataset and the jobs over it.
pub(crate) struct Catalogue {
    /// Shards of users.
    pub(crate) shards: u32,
    /// The dataset's stage.
    pub(crate) prepare: PlannedStage,
    /// Jobs by name, in the order of their submission.
    pub(crate) jobs: Vec<(String, Vec<PlannedStage>)>,
}

impl Catalogue {
    pub(crate) fn new(shards: u32, jobs: usize) -> Self {
        let prepare = planned(Stage::Prepare, None, json!({"shards": shards}), &[]);
        let retrieve = planned(Stage::Retrieve, Some(SPLIT), json!({}), &[&prepare]);
        let job = |n: usize| {
            let train = planned(Stage::TrainRanker, None, json!({"variant": n}), &[&prepare]);
            let rank = planned(Stage::Rank, Some(SPLIT), json!({}), &[&prepare, &retrieve, &train]);
            let evaluate = planned(Stage::Evaluate, None, json!({}), &[&prepare, &retrieve, &rank]);
            (format!("job-{n}"), vec![prepare.clone(), train, retrieve.clone(), rank, evaluate])
        };
        Self { shards, jobs: (0..jobs).map(job).collect(), prepare }
    }

    /// The stages of a job.
    pub(crate) fn stages(&self, job: &str) -> Vec<PlannedStage> {
        self.jobs.iter().find(|(name, _)| name == job).map(|(_, stages)| stages.clone()).unwrap_or_default()
    }

    /// Every stage, each once.
    pub(crate) fn all_stages(&self) -> BTreeMap<ArtifactId, PlannedStage> {
        let stages = self.jobs.iter().flat_map(|(_, stages)| stages);
        stages.map(|stage| (stage.artifact.clone(), stage.clone())).collect()
    }

    /// A store in which the dataset is prepared.
    pub(crate) fn prepared(&self) -> Arc<InMemory> {
        static KNOWN: Mutex<BTreeMap<u32, Arc<InMemory>>> = Mutex::new(BTreeMap::new());
        let mut known = KNOWN.lock().expect("nothing panics while it holds this");
        let objects = known.entry(self.shards).or_insert_with(|| {
            let objects = Arc::new(InMemory::new());
            let store = Store::over(objects.clone(), "s3://shop");
            self.prepare_in(&store).now_or_never().expect("a store in memory answers at once");
            objects
        });
        Arc::new(objects.fork())
    }

    async fn prepare_in(&self, store: &Store) {
        let id = data::artifact::write_spec(store, &self.prepare.spec).await.expect("a fresh store takes anything");
        let plan = Plan { shards: 1, input_parts: vec![], outputs: vec![Output::Table(Table::Histories)] };
        data::artifact::write_plan(store, &id, &plan).await.expect("a fresh store takes anything");
        let footer = footer(&id, "prepare");
        let parts = (0..self.shards).map(|shard| {
            let row = |id| HistoryRow { user_id: id, items: vec!["a".into(), "b".into()], times: vec![1, 2] };
            let rows: Vec<HistoryRow> = users(shard).into_iter().map(row).collect();
            payload(&rows, part_name(shard, self.shards), &footer)
        });
        let attempt = Attempt { id: "prepare".into(), parts: parts.collect(), ..Attempt::default() };
        let commit = data::artifact::commit_shard(store, &id, &plan, attempt).await;
        assert!(matches!(commit, Ok(Commit::Won(_))), "{commit:?}");
        data::artifact::finish(store, &id).await.expect("every shard is done");
    }
}

fn planned(stage: Stage, split: Option<Split>, config: Value, needs: &[&PlannedStage]) -> PlannedStage {
    let inputs = needs.iter().map(|n| (role(n.artifact.stage, n.split), n.artifact.digest.clone())).collect();
    let spec = Spec { stage, split, format_version: 1, config, inputs };
    let needs = needs.iter().map(|n| n.artifact.clone()).collect();
    PlannedStage { artifact: ArtifactId { stage, digest: spec.digest() }, split, trial: None, spec, needs }
}

/// The users of a shard: one, two or three.
pub(crate) fn users(shard: u32) -> Vec<String> {
    (0..=shard % 3).map(|n| format!("user-{shard}-{n}")).collect()
}

/// The footer of an attempt's parts.
pub(crate) fn footer(id: &ArtifactId, attempt: &str) -> Footer {
    let (job, attempt) = ("job".to_owned(), attempt.to_owned());
    Footer { job, spec_digest: id.digest.to_string(), model_digest: None, attempt }
}

fn payload<R: Row>(rows: &[R], name: String, footer: &Footer) -> PartPayload {
    let bytes = encode_part(rows, footer).expect("rows that fit their schema");
    PartPayload { table: R::TABLE, name, rows: rows.len() as u64, bytes }
}

/// What an attempt at a shard computes.
pub(crate) fn compute(id: &ArtifactId, shard: u32, of: u32, attempt: &str) -> Attempt {
    let (footer, name) = (footer(id, attempt), part_name(shard, of));
    let users = users(shard);
    let (items, split) = (vec!["c".to_owned()], SPLIT);
    let parts = match id.stage {
        Stage::Retrieve => {
            let row =
                |user_id| CandidateRow { user_id, split, position: None, items: items.clone(), scores: vec![0.5] };
            let candidates: Vec<CandidateRow> = users.iter().cloned().map(row).collect();
            let rank = |user_id| TargetRankRow { user_id, split, rank: 1 };
            let ranks: Vec<TargetRankRow> = users.iter().cloned().map(rank).collect();
            vec![payload(&candidates, name.clone(), &footer), payload(&ranks, name, &footer)]
        }
        Stage::Rank => {
            let row = |user_id| RankingRow {
                user_id,
                split,
                items: items.clone(),
                scores: vec![0.5],
                probabilities: vec![1.0],
                retriever_ranks: vec![1],
            };
            let rows: Vec<RankingRow> = users.iter().cloned().map(row).collect();
            vec![payload(&rows, name, &footer)]
        }
        Stage::TrainRanker => vec![],
        _ => {
            let name_of = |text: &str| text.to_owned();
            let row = MetricRow {
                split,
                population: name_of("overall"),
                system: name_of("ranker"),
                metric: name_of("mrr"),
                k: 10,
                value: 0.5,
                low: 0.4,
                high: 0.6,
                users: 1,
            };
            vec![payload(&[row], name, &footer)]
        }
    };
    let rows = if matches!(id.stage, Stage::Evaluate | Stage::TrainRanker) { 1 } else { users.len() as u64 };
    let stats = Stats { rows, seconds: 1.0, ..Stats::default() };
    let model = FilePayload { name: "adapter.safetensors".into(), bytes: id.digest.to_string().into() };
    let files = if id.stage == Stage::TrainRanker { vec![model] } else { vec![] };
    Attempt { shard, id: attempt.to_owned(), parts, files, stats, ..Attempt::default() }
}
