//! For tests: a store in memory that dies after some changes, and jobs that are finished without a worker.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use data::artifact::{
    Attempt, Digest, FilePayload, Output, PartPayload, Plan, Spec, commit_shard, done_records, finish, is_complete,
    role, write_plan, write_spec,
};
use data::job::{Split, Stage};
use data::store::{Retry, Store};
use data::tables::{Table, part_name};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use proto::JobId;
use serde_json::json;

use crate::plan::{JobPlan, PlannedStage};
use crate::removal::{refuse_marked, write_down};

/// What happens in the middle of somebody's work, once.
type Meanwhile = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

#[derive(Default)]
struct State {
    /// Writes and deletes that still succeed; without a number, all.
    left: Option<usize>,
    meanwhile: Option<(usize, Meanwhile)>,
    log: Vec<String>,
    listings: usize,
    /// Listings do not come to an end.
    stalled: bool,
}

/// Objects in memory, and what is to happen to them.
#[derive(Clone, Default)]
pub(crate) struct Mortal {
    objects: Arc<InMemory>,
    state: Arc<Mutex<State>>,
}

impl Mortal {
    /// A store over the objects that gives up at once.
    pub(crate) fn store(&self, url: &str) -> Store {
        let once = Retry { attempts: 1, first: Duration::ZERO, longest: Duration::ZERO, deadline: Duration::ZERO };
        Store::over(Arc::new(self.clone()), url).with_retry(once)
    }

    /// Nothing can be changed any more after so many writes and deletes.
    pub(crate) fn dies_after(&self, changes: usize) {
        self.state.lock().unwrap().left = Some(changes);
    }

    /// Everything succeeds from now on.
    pub(crate) fn revive(&self) {
        let mut state = self.state.lock().unwrap();
        (state.left, state.meanwhile) = (None, None);
    }

    /// Does something before the change with this number, from 0.
    pub(crate) fn before(&self, change: usize, meanwhile: Meanwhile) {
        self.state.lock().unwrap().meanwhile = Some((change, meanwhile));
    }

    /// Whether that has not happened.
    pub(crate) fn still_waits(&self) -> bool {
        self.state.lock().unwrap().meanwhile.is_some()
    }

    /// What was written and deleted, in order: `+path`, `-path`.
    pub(crate) fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }

    /// How often it was asked for a list.
    pub(crate) fn listings(&self) -> usize {
        self.state.lock().unwrap().listings
    }

    /// Whoever asks for a list waits for ever.
    pub(crate) fn stall(&self) {
        self.state.lock().unwrap().stalled = true;
    }

    async fn change(&self, sign: char, path: &Path) -> Result<()> {
        let due = {
            let mut state = self.state.lock().unwrap();
            match &mut state.meanwhile {
                Some((0, _)) => state.meanwhile.take().map(|(_, meanwhile)| meanwhile),
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some(meanwhile) = due {
            meanwhile().await;
        }
        let mut state = self.state.lock().unwrap();
        match &mut state.left {
            Some(0) => {
                return Err(Error::PermissionDenied { path: path.to_string(), source: "the process is dead".into() });
            }
            Some(left) => *left -= 1,
            None => {}
        }
        state.log.push(format!("{sign}{path}"));
        Ok(())
    }
}

impl fmt::Debug for Mortal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mortal")
    }
}

impl fmt::Display for Mortal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mortal")
    }
}

#[async_trait]
impl ObjectStore for Mortal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.change('+', location).await?;
        self.objects.put_opts(location, payload, opts).await
    }

    async fn put_multipart_opts(&self, at: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(at, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.objects.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let delete = move |location: Result<Path>| {
            let this = this.clone();
            async move {
                let location = location?;
                this.change('-', &location).await?;
                let one = futures::stream::iter([Ok(location)]).boxed();
                this.objects.delete_stream(one).next().await.unwrap()
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let mut state = self.state.lock().unwrap();
        state.listings += 1;
        if state.stalled { futures::stream::pending().boxed() } else { self.objects.list(prefix) }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

/// A job of four stages over one of several datasets, with so many candidates: jobs over one dataset share what comes first.
pub(crate) fn plan(dataset: u32, candidates: u32, extra: &BTreeMap<String, Digest>) -> JobPlan {
    let mut stages: Vec<PlannedStage> = Vec::new();
    let mut add = |stage, split, config, needs: &[usize], more: &BTreeMap<String, Digest>| {
        let mut inputs: BTreeMap<String, Digest> = needs
            .iter()
            .map(|&n| {
                let needed: &PlannedStage = &stages[n];
                (role(needed.artifact.stage, needed.split), needed.artifact.digest.clone())
            })
            .collect();
        inputs.extend(more.clone());
        let spec = Spec { stage, split, format_version: 1, config, inputs };
        let needs = needs.iter().map(|&n| stages[n].artifact.clone()).collect();
        stages.push(PlannedStage { artifact: spec.id(), split, trial: None, spec, needs });
    };
    let none = BTreeMap::new();
    add(Stage::Prepare, None, json!({"dataset": dataset}), &[], &none);
    add(Stage::TrainRetriever, None, json!({}), &[0], &none);
    add(Stage::Retrieve, Some(Split::Test), json!({"candidates": candidates}), &[0, 1], extra);
    add(Stage::Rank, Some(Split::Test), json!({}), &[0, 2], &none);
    let digests: Vec<&str> = stages.iter().map(|s| s.artifact.digest.as_str()).collect();
    let id = JobId(format!("shop-{}", Digest::of_json(&json!(digests)).short()));
    JobPlan { id, stages }
}

/// Submits a job, as a coordinator does. Says which stages were done before.
pub(crate) async fn submit(store: &Store, plan: &mut JobPlan) -> crate::Result<Vec<bool>> {
    write_down(store, plan, "name = \"shop\"").await?;
    refuse_marked(store, &plan.stages).await?;
    let mut complete = Vec::new();
    for stage in &plan.stages {
        complete.push(is_complete(store, &stage.artifact).await?);
    }
    Ok(complete)
}

/// Does the work of a stage that is not done: three shards, and some of it before a worker died, if that is `torn`.
pub(crate) async fn work(store: &Store, stage: &PlannedStage, torn: bool) {
    let id = write_spec(store, &stage.spec).await.unwrap();
    let tables: &[Table] = match id.stage {
        Stage::Prepare => &[Table::Items, Table::Histories],
        Stage::Retrieve => &[Table::Candidates, Table::TargetRanks],
        Stage::Rank => &[Table::Rankings],
        _ => &[],
    };
    let shards = if tables.is_empty() { 1 } else { 3 };
    let mut outputs: Vec<Output> = tables.iter().map(|table| Output::Table(*table)).collect();
    if tables.is_empty() {
        outputs.push(Output::Model);
    }
    let cut = Plan { shards, input_parts: vec![], outputs };
    write_plan(store, &id, &cut).await.unwrap();
    for shard in 0..shards {
        let part = |table: &Table| {
            let text = format!("{} {id} {shard}", table.name());
            PartPayload { table: *table, name: part_name(shard, shards), rows: 2, bytes: text.into() }
        };
        let mut attempt =
            Attempt { shard, id: "a".into(), parts: tables.iter().map(part).collect(), ..Attempt::default() };
        if tables.is_empty() {
            let checkpoint = format!("{}/checkpoints/0/0000000010/MANIFEST.json", id.control_prefix());
            store.put(&checkpoint, "{}".into()).await.unwrap();
            attempt.files = vec![FilePayload { name: "model.safetensors".into(), bytes: format!("{id}").into() }];
        }
        if torn && shard + 1 == shards {
            for part in attempt.parts {
                data::artifact::write_part(store, &id, part).await.unwrap();
            }
            return;
        }
        commit_shard(store, &id, &cut, attempt).await.unwrap();
    }
    finish(store, &id).await.unwrap();
}

/// Submits a job and does all of its work.
pub(crate) async fn finished(store: &Store, mut plan: JobPlan) -> JobPlan {
    let complete = submit(store, &mut plan).await.unwrap();
    for (stage, complete) in plan.stages.iter().zip(complete) {
        if !complete {
            work(store, stage, false).await;
        }
    }
    store.put(&format!("jobs/{}/metrics.json", plan.id), "{}".into()).await.unwrap();
    plan
}

/// Whether every record of an artifact speaks of something that is there.
pub(crate) async fn is_sound(store: &Store, stage: &PlannedStage) -> bool {
    for done in done_records(store, &stage.artifact).await.unwrap() {
        let parts = done.parts.iter().map(|part| (&part.path, &part.sha256));
        for (path, sha256) in parts.chain(done.files.iter().map(|file| (&file.path, &file.sha256))) {
            let there = store.try_get(path).await.unwrap();
            if there.is_none_or(|bytes| Digest::of_bytes(&bytes) != *sha256) {
                return false;
            }
        }
    }
    true
}

/// Whether all of a job can be read.
pub(crate) async fn is_whole(store: &Store, plan: &JobPlan) -> bool {
    for stage in &plan.stages {
        if !is_complete(store, &stage.artifact).await.unwrap() || !is_sound(store, stage).await {
            return false;
        }
    }
    true
}

/// Runs a future of a test in the middle of another one.
pub(crate) fn boxed<F: Future<Output = ()> + Send + 'static>(future: F) -> Meanwhile {
    Box::new(move || future.boxed())
}
