//! What a coordinator tells those who watch it: that its loop turns, that it leads, and figures of its jobs.

use std::time::Duration;

use async_trait::async_trait;
use observe::{Watched, figures};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use proto::{Info, JobState, JobStatus, StageState, StageStatus, WorkerStatus};
use tokio::sync::{mpsc, oneshot};

use crate::inbox::Input;

/// A loop that does not answer for so long hangs: a step of it takes milliseconds.
const HANGS: Duration = Duration::from_secs(10);
/// Who asks whether work may be sent here wants to know sooner.
const ANSWER: Duration = Duration::from_secs(2);

/// Asks a coordinator's loop.
#[derive(Clone, Debug)]
pub struct Observer {
    inbox: mpsc::Sender<Input>,
}

impl Observer {
    pub(crate) fn new(inbox: mpsc::Sender<Input>) -> Self {
        Self { inbox }
    }

    async fn ask<T>(&self, what: impl FnOnce(oneshot::Sender<T>) -> Input, within: Duration) -> Result<T, String> {
        let asked = async {
            let (reply, answer) = oneshot::channel();
            self.inbox.send(what(reply)).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(within, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err("the coordinator has ended".to_owned()),
            Err(_) => Err(format!("the coordinator has not answered for {} s", within.as_secs())),
        }
    }
}

#[async_trait]
impl Watched for Observer {
    async fn live(&self) -> Result<(), String> {
        self.ask(Input::Info, HANGS).await.map(drop)
    }

    /// It listens only while it leads, so whoever answers leads.
    async fn ready(&self) -> Result<(), String> {
        self.ask(Input::Info, ANSWER).await.map(drop)
    }

    async fn figures(&self) -> String {
        let info = self.ask(Input::Info, ANSWER).await.unwrap_or_default();
        let jobs = self.ask(Input::List, ANSWER).await.unwrap_or_default();
        page(&info, &jobs)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStage {
    job: String,
    stage: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    job: String,
    stage: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

/// The figures as Prometheus reads them.
fn page(info: &Info, jobs: &[JobStatus]) -> String {
    figures().page("coordinator", env!("CARGO_PKG_VERSION"), |registry| {
        let term: Gauge = Gauge::default();
        term.set(i64::try_from(info.term).unwrap_or(i64::MAX));
        registry.register("leader_epoch", "The term of this coordinator: how many have led the root", term);
        let waits: Gauge = Gauge::default();
        waits.set(i64::from(!info.waiting.is_empty()));
        registry.register("store_away", "1 while everything waits for the object store", waits);
        workers(registry, &info.workers);
        stages(registry, jobs);
    })
}

fn workers(registry: &mut Registry, workers: &[WorkerStatus]) {
    let states: Family<OfState, Gauge> = Family::default();
    for state in ["idle", "busy", "suspect", "leaving"] {
        states.get_or_create(&OfState { state }).set(0);
    }
    for worker in workers {
        let state = match worker {
            WorkerStatus { leaving: true, .. } => "leaving",
            WorkerStatus { suspect: true, .. } => "suspect",
            WorkerStatus { stage: Some(_), .. } => "busy",
            _ => "idle",
        };
        states.get_or_create(&OfState { state }).inc();
    }
    registry.register("workers", "Workers that are connected", states);
}

/// What is told of one stage.
type OfOneStage = fn(&StageStatus) -> i64;

/// Names, words and values of what each stage of a running job tells.
const OF_STAGES: [(&str, &str, OfOneStage); 9] = [
    ("shards_pending", "Shards that nobody has", |s| {
        count(s.shards.all.saturating_sub(s.shards.done).saturating_sub(s.shards.leased))
    }),
    ("shards_running", "Shards in the hands of workers", |s| count(s.shards.leased)),
    ("shards_done", "Shards that are committed", |s| count(s.shards.done)),
    ("shards_failed", "Shards that were put aside because they killed their workers", |s| {
        i64::try_from(s.quarantined.len()).unwrap_or(i64::MAX)
    }),
    ("retries", "Leases that were given out again", |s| count(s.retries)),
    ("rows_done", "Rows that are computed, committed or not", |s| big(s.progress.done + s.working)),
    ("rows", "Rows in all, 0 while that is not known", |s| big(s.progress.total)),
    ("members", "Workers that train together", |s| count(s.members)),
    ("generation", "Generations of the gang under this coordinator", |s| count(s.generations)),
];

fn count(n: u32) -> i64 {
    i64::from(n)
}

fn big(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn stages(registry: &mut Registry, jobs: &[JobStatus]) {
    let states: Family<OfState, Gauge> = Family::default();
    for state in [JobState::Running, JobState::Succeeded, JobState::Failed, JobState::Cancelled] {
        let here = jobs.iter().filter(|job| job.state == state).count();
        states.get_or_create(&OfState { state: word(state) }).set(i64::try_from(here).unwrap_or(i64::MAX));
    }
    registry.register("jobs", "Jobs of this coordinator by state", states);

    let running = jobs.iter().filter(|job| job.state == JobState::Running);
    let open: Vec<(OfStage, &StageStatus)> = running
        .flat_map(|job| job.stages.iter().map(move |stage| (job, stage)))
        .filter(|(_, stage)| stage.state == StageState::Running)
        .map(|(job, stage)| (OfStage { job: job.job.0.clone(), stage: name(stage) }, stage))
        .collect();
    for (figure, help, value) in OF_STAGES {
        let family: Family<OfStage, Gauge> = Family::default();
        for (of, stage) in &open {
            family.get_or_create(of).set(value(stage));
        }
        registry.register(figure, help, family);
    }
    let ages: Family<OfStage, Gauge> = Family::default();
    let aside: Family<OfReason, Gauge> = Family::default();
    for (of, stage) in &open {
        ages.get_or_create(of).set(big(stage.oldest_lease.as_secs()));
        for (reason, rows) in &stage.rejected {
            let OfStage { job, stage } = of.clone();
            aside.get_or_create(&OfReason { job, stage, reason: reason.clone() }).set(big(*rows));
        }
    }
    let help = "How long the lease that has committed nothing for the longest time has done so";
    registry.register_with_unit("lease_age", help, Unit::Seconds, ages);
    registry.register("bad_rows", "Rows that were put aside", aside);
}

fn word(state: JobState) -> &'static str {
    match state {
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

/// The stage as reports name it.
fn name(stage: &StageStatus) -> String {
    let split = stage.split.as_ref().map_or(String::new(), |split| format!(".{split}"));
    let trial = stage.trial.as_ref().map_or(String::new(), |trial| format!("[{trial}]"));
    format!("{}{split}{trial}", stage.stage)
}
