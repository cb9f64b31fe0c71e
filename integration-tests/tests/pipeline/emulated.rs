//! A whole job whose tensors lie in the memory of a card that the CPU plays: what the stages do there is what they do on a
//! card, but for its speed.

use std::time::Duration;

use coordinator::{Coordinator, Options};
use data::job::{Job, Split, Stage};
use data::store::Store;
use data::tables::{CandidateRow, MetricRow, RankingRow};
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::{Workshop, binary};
use proto::pb::{SubmitRequest, WatchRequest, jobs_client::JobsClient};
use proto::{Endpoint, JobState, JobStatus};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use worker::devices::Place;

/// Little work, for it is slow.
const SETS: [&str; 4] = ["retriever.max_epochs=2", "ranker.max_steps=2", "ranker.validate_every=2", "ranker.history=1"];

#[test]
fn a_job_on_an_emulated_card_ends_as_on_the_cpu() {
    let workshop = Workshop::open();
    let sets: Vec<&str> = SETS.iter().flat_map(|set| ["--set", set]).collect();
    let wanted = workshop.finish("cpu", &sets);
    let found = run_emulated(&workshop, "emulated");

    for split in [Split::Validation, Split::Test] {
        let [wanted, found] = [&wanted, &found].map(|job| job.rows::<CandidateRow>(Stage::Retrieve, Some(split)));
        assert_eq!(wanted.len(), found.len());
        let pairs = || wanted.iter().zip(&found).flat_map(|(w, f)| w.items.iter().zip(&f.items));
        let same = pairs().filter(|(wanted, found)| wanted == found).count();
        assert!(same * 50 >= pairs().count() * 49, "{same} of {} candidates in their places", pairs().count());
    }
    let [wanted_rows, found_rows] = [&wanted, &found].map(|job| job.rows::<RankingRow>(Stage::Rank, Some(Split::Test)));
    let same: Vec<_> = wanted_rows.iter().zip(&found_rows).filter(|(w, f)| w.items == f.items).collect();
    assert!(same.len() * 10 >= wanted_rows.len() * 8, "{} of {} users alike", same.len(), wanted_rows.len());
    for (wanted, found) in same {
        let apart = wanted.scores.iter().zip(&found.scores).map(|(w, f)| (w - f).abs()).fold(0.0, f32::max);
        assert!(apart < 2e-2, "{}: {apart}", wanted.user_id);
    }
    let [wanted, found] = [&wanted, &found].map(|job| job.rows::<MetricRow>(Stage::Evaluate, None));
    assert_eq!(wanted.len(), found.len());
    for (wanted, found) in wanted.iter().zip(&found) {
        assert!((wanted.value - found.value).abs() < 0.05, "{wanted:?} and {found:?}");
    }
}

/// Runs the workshop's job by a coordinator and a worker of this process.
fn run_emulated(workshop: &Workshop, root: &str) -> JobOutputs {
    let root = workshop.path(root);
    std::fs::create_dir(&root).unwrap();
    let text = std::fs::read_to_string(workshop.job()).unwrap();
    let mut sets: Vec<String> = SETS.iter().map(|&set| set.to_owned()).collect();
    sets.push(format!("output.root={:?}", root.display().to_string()));
    let mut job = Job::parse("job.toml", &text, &sets).unwrap();
    job.inline_template(model::ranker::DEFAULT_TEMPLATE.to_owned());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let id = runtime.block_on(async {
        let store = Store::open(&job.output.root).unwrap();
        let coordinator = Coordinator::start(store, Options::default()).await.unwrap();
        let stop = CancellationToken::new();
        let options = worker::Options {
            coordinator: Endpoint::open(format!("http://{}", coordinator.address())),
            name: "emulated".to_owned(),
            place: Place::Emulated,
            threads: 1,
            spool: workshop.path("spool"),
            patience: Duration::from_secs(10),
            decoder: worker::decoders::DecoderCommand {
                program: binary().into(),
                args: vec!["decode-pictures".into()],
            },
        };
        let own = options.coordinator.clone();
        let working = tokio::spawn(worker::run(options, stop.clone()));
        let id = tokio::time::timeout(Duration::from_secs(280), submitted(own, &job)).await.expect("the job ends");
        stop.cancel();
        working.await.unwrap().unwrap();
        coordinator.stop().await.unwrap();
        id
    });
    JobOutputs::open(&root, &id)
}

/// Submits the job and waits until it has succeeded.
async fn submitted(coordinator: Endpoint, job: &Job) -> String {
    let mut client = JobsClient::new(coordinator.connect().await.unwrap());
    let id = client.submit(SubmitRequest { job_toml: job.to_toml() }).await.unwrap().into_inner().job_id;
    let mut statuses = client.watch(WatchRequest { job_id: id.clone() }).await.unwrap().into_inner();
    while let Some(status) = statuses.next().await {
        let status = JobStatus::try_from(status.unwrap()).unwrap();
        if status.state.ended() {
            assert_eq!(status.state, JobState::Succeeded, "{}", status.reason);
            break;
        }
    }
    id
}
