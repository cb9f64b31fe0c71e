//! What a coordinator tells those who watch it: that its loop turns, that it leads, and figures of its jobs.

use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use observe::{Watched, certificate, figures};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use proto::{Info, JobState, JobStatus, StageStatus, WorkerStatus};
use tokio::sync::{mpsc, oneshot};

use crate::access::ShownCertificate;
use crate::inbox::Input;

/// A loop that does not answer for so long hangs: a step of it takes milliseconds.
const HANGS: Duration = Duration::from_secs(10);
/// Who asks whether work may be sent here wants to know sooner.
const ANSWER: Duration = Duration::from_secs(2);

/// Asks a coordinator's loop.
#[derive(Clone, Debug)]
pub struct Observer {
    inbox: mpsc::Sender<Input>,
    certificate: ShownCertificate,
}

impl Observer {
    pub(crate) fn new(inbox: mpsc::Sender<Input>, certificate: ShownCertificate) -> Self {
        Self { inbox, certificate }
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
        let told =
            async { Ok::<_, String>((self.ask(Input::Info, ANSWER).await?, self.ask(Input::List, ANSWER).await?)) };
        // A loop that hangs has no figures, rather than those of an empty coordinator.
        page(told.await.ok().as_ref(), self.certificate.end())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfStage {
    job_id: String,
    stage: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReason {
    job_id: String,
    stage: String,
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfState {
    state: &'static str,
}

/// Jobs that have ended under this coordinator, by state; those are there from the start, as a count that begins with one has not grown.
static ENDED: LazyLock<Family<OfState, Counter>> = LazyLock::new(|| {
    let ended = Family::default();
    for state in [JobState::Succeeded, JobState::Failed, JobState::Cancelled] {
        drop(ended.get_or_create(&OfState { state: state.name() }));
    }
    ended
});

/// Counts a job whose end is in the store.
pub(crate) fn job_ended(state: JobState) {
    ENDED.get_or_create(&OfState { state: state.name() }).inc();
}

/// The figures as Prometheus reads them.
fn page(told: Option<&(Info, Vec<JobStatus>)>, certificate_end: Option<i64>) -> String {
    figures().page("coordinator", env!("CARGO_PKG_VERSION"), |registry| {
        certificate::tell(registry, certificate_end);
        registry.register("jobs_ended", "Jobs that have ended under this coordinator", ENDED.clone());
        let Some((info, jobs)) = told else { return };
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
    ("generations", "Generations of the gang under this coordinator", |s| count(s.generations)),
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
        states.get_or_create(&OfState { state: state.name() }).set(i64::try_from(here).unwrap_or(i64::MAX));
    }
    registry.register("jobs", "Jobs of this coordinator by state", states);

    let running = jobs.iter().filter(|job| job.state == JobState::Running);
    let open: Vec<(OfStage, &StageStatus)> = running
        .flat_map(|job| job.stages.iter().map(move |stage| (job, stage)))
        // Those that are done keep telling what was put aside, as long as their job runs; of others nothing is known yet.
        .filter(|(_, stage)| stage.shards.all > 0 && !stage.reused)
        .map(|(job, stage)| (OfStage { job_id: job.job.0.clone(), stage: name(stage) }, stage))
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
            let OfStage { job_id, stage } = of.clone();
            aside.get_or_create(&OfReason { job_id, stage, reason: reason.clone() }).set(big(*rows));
        }
    }
    let help = "How long the lease that has committed nothing for the longest time has done so";
    registry.register_with_unit("lease_age", help, Unit::Seconds, ages);
    registry.register("rows_put_aside", "Rows that were put aside", aside);
}

/// The stage as reports name it.
fn name(stage: &StageStatus) -> String {
    let split = stage.split.as_ref().map_or(String::new(), |split| format!(".{split}"));
    let trial = stage.trial.as_ref().map_or(String::new(), |trial| format!("[{trial}]"));
    format!("{}{split}{trial}", stage.stage)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proto::{JobId, Progress, ShardCounts, StageState};

    use super::*;

    fn stage(state: StageState, done: u32) -> StageStatus {
        StageStatus {
            stage: "rank".to_owned(),
            split: Some("test".to_owned()),
            trial: None,
            digest: String::new(),
            state,
            progress: Progress { done: 5, total: 40, unit: "users".to_owned(), note: String::new() },
            reused: false,
            retries: 1,
            shards: ShardCounts { all: 8, done, leased: 0 },
            attempts: 0,
            oldest_lease: Duration::from_secs(3),
            rate: 0.0,
            rejected: [("no number".to_owned(), 2)].into(),
            quarantined: vec![7],
            working: 1,
            members: 0,
            generations: 0,
        }
    }

    fn job(stages: Vec<StageStatus>) -> JobStatus {
        JobStatus {
            job: JobId("shop-1".to_owned()),
            state: JobState::Running,
            stages,
            workers: 0,
            reason: String::new(),
            failure: None,
            waiting: String::new(),
            age: Duration::ZERO,
        }
    }

    #[test]
    fn stages_that_wait_and_stages_that_are_done_are_told_of() {
        let page_of =
            |stages| page(Some(&(Info { term: 3, ..Info::default() }, vec![job(stages)])), Some(1_800_000_000));
        // Nobody has begun: that shards wait for workers is what an operator wants to hear of.
        let waiting = page_of(vec![stage(StageState::Waiting, 0)]);
        let done = page_of(vec![stage(StageState::Done, 8)]);
        let labels = "{job_id=\"shop-1\",stage=\"rank.test\"}";
        for (page, line) in [
            (&waiting, format!("mllm4rec_shards_pending{labels} 8")),
            (&waiting, "mllm4rec_leader_epoch 3".to_owned()),
            (&waiting, "mllm4rec_certificate_expiration_timestamp_seconds 1800000000".to_owned()),
            (&waiting, "mllm4rec_jobs_ended_total{state=\"failed\"} ".to_owned()),
            (&done, format!("mllm4rec_shards_pending{labels} 0")),
            (&done, format!("mllm4rec_shards_failed{labels} 1")),
            (&done, format!("mllm4rec_rows_done{labels} 6")),
            (&done, format!("mllm4rec_lease_age_seconds{labels} 3")),
            (&done, "mllm4rec_rows_put_aside{job_id=\"shop-1\",stage=\"rank.test\",reason=\"no number\"} 2".to_owned()),
        ] {
            assert!(page.contains(&line), "{line} is not in\n{page}");
        }
        // Prometheus has labels of these names itself.
        assert!(!done.contains("{job=") && !done.contains(",job=") && !done.contains("instance="), "{done}");
    }

    #[tokio::test]
    async fn a_loop_that_hangs_is_not_an_empty_coordinator() {
        let (inbox, _unread) = mpsc::channel(8);
        let observer = Observer::new(inbox, ShownCertificate::NONE);
        assert!(observer.ready().await.unwrap_err().contains("has not answered for 2 s"));
        let page = observer.figures().await;
        assert!(page.contains("mllm4rec_build_info") && !page.contains("leader_epoch"), "{page}");
    }
}
