//! A device that is lost in the midst of a shard costs an attempt at that shard, and no row.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coordinator::Options;
use coordinator::core::Policy;
use data::job::{Job, Split, Stage};
use data::tables::{CandidateRow, TargetRankRow};
use kernels::Device;
use mllm4rec_integration_tests::in_process::InProcess;
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::Workshop;
use mllm4rec_integration_tests::shop::USERS;
use proto::{FailureClass, JobState, JobStatus, StageState};

const TRAINED: &str = r#"stages=["prepare","train_retriever"]"#;
const RETRIEVED: &str = r#"stages=["prepare","train_retriever","retrieve"]"#;
/// More launches than the first shard takes and fewer than all eight of a split.
const LAUNCHES: usize = 100;

/// A trained retriever under a root of its own, and the job that retrieves with it.
fn trained(workshop: &Workshop, root: &str) -> Job {
    let _ = workshop.finish(root, &["--set", TRAINED]);
    workshop.parsed(root, &[RETRIEVED])
}

/// What the job makes where nothing is lost.
fn undisturbed(workshop: &Workshop) -> JobOutputs {
    let job = trained(workshop, "undisturbed");
    let cluster = InProcess::start(&workshop.path("undisturbed"), Options::default());
    let worker = cluster.worker("whole", Device::emulated);
    let id = cluster.submit(&job);
    let last = cluster.watch(&id, |_| false);
    assert_eq!((last.state, given_out_again(&last)), (JobState::Succeeded, 0), "{}", last.reason);
    cluster.close([worker], &id)
}

/// Opens a device that is lost, and a whole one the next time; counts how often.
fn lost_once(opened: &Arc<AtomicUsize>) -> impl FnMut() -> kernels::Result<Device> + Send + 'static {
    let opened = Arc::clone(opened);
    move || match opened.fetch_add(1, Ordering::Relaxed) {
        0 => Device::mortal(LAUNCHES),
        _ => Device::emulated(),
    }
}

/// Leases that ended badly.
fn given_out_again(status: &JobStatus) -> u32 {
    status.stages.iter().map(|stage| stage.retries).sum()
}

fn same_rows(found: &JobOutputs, wanted: &JobOutputs) {
    for split in [Split::Validation, Split::Test] {
        let [found_rows, wanted_rows] =
            [found, wanted].map(|job| job.rows::<CandidateRow>(Stage::Retrieve, Some(split)));
        assert!(!wanted_rows.is_empty() && found_rows == wanted_rows, "candidates of {split}");
        let [found_rows, wanted_rows] =
            [found, wanted].map(|job| job.rows::<TargetRankRow>(Stage::Retrieve, Some(split)));
        assert!(!wanted_rows.is_empty() && found_rows == wanted_rows, "target ranks of {split}");
    }
}

#[test]
fn a_worker_whose_device_is_lost_opens_it_anew_and_does_the_shard_again() {
    let workshop = Workshop::open();
    let job = trained(&workshop, "lost");
    let cluster = InProcess::start(&workshop.path("lost"), Options::default());
    let opened = Arc::default();
    let worker = cluster.worker("unlucky", lost_once(&opened));
    let id = cluster.submit(&job);
    let last = cluster.watch(&id, |_| false);
    assert_eq!(last.state, JobState::Succeeded, "{}", last.reason);
    assert_eq!((given_out_again(&last), opened.load(Ordering::Relaxed)), (1, 2));
    same_rows(&cluster.close([worker], &id), &undisturbed(&workshop));
}

#[test]
fn the_coordinator_hears_of_what_a_device_was_lost() {
    let workshop = Workshop::open();
    let job = trained(&workshop, "heard");
    // The first failure of a shard is its last, so that it is told.
    let options = Options { policy: Policy { max_failures: 1, ..Policy::default() }, ..Options::default() };
    let cluster = InProcess::start(&workshop.path("heard"), options);
    let worker = cluster.worker("unlucky", lost_once(&Arc::default()));
    let id = cluster.submit(&job);
    let failed = cluster.watch(&id, |_| false);
    assert_eq!((failed.state, failed.failure), (JobState::Failed, Some(FailureClass::Retry)), "{}", failed.reason);
    let cause = format!("the device is lost: launch {} on the emulated device went astray", LAUNCHES + 1);
    assert!(failed.reason.contains("retrieve") && failed.reason.contains(&cause), "{}", failed.reason);
    let stage = failed.stages.iter().find(|stage| stage.state == StageState::Failed).unwrap();
    let artifact = format!("heard/_control/v1/artifacts/retrieve/{}/done", stage.digest);
    let done = std::fs::read_dir(workshop.path(&artifact)).unwrap().count();
    assert!((1..USERS.div_ceil(16)).contains(&done), "{done} shards were done before");

    // The worker is there still, and so are the shards that were done before.
    assert_eq!(cluster.submit(&job), id);
    let last = cluster.watch(&id, |_| false);
    assert_eq!((last.state, given_out_again(&last)), (JobState::Succeeded, 0), "{}", last.reason);
    same_rows(&cluster.close([worker], &id), &undisturbed(&workshop));
}

#[test]
fn a_device_that_stays_lost_ends_its_worker_and_another_does_the_rest() {
    let workshop = Workshop::open();
    let job = trained(&workshop, "gone");
    let cluster = InProcess::start(&workshop.path("gone"), Options::default());
    let mut opened = 0;
    // As a card, it takes its time to be opened: long enough for the coordinator to give its worker something else.
    let open = move || {
        opened += 1;
        if opened == 1 {
            return Device::mortal(LAUNCHES);
        }
        std::thread::sleep(Duration::from_millis(300));
        Err(kernels::Error::Lost("it fell off the bus".to_owned()))
    };
    let lost = cluster.worker("lost", open);
    let id = cluster.submit(&job);
    let has_begun = |status: &JobStatus| {
        let running = |stage: &proto::StageStatus| stage.stage == "retrieve" && stage.state == StageState::Running;
        status.stages.iter().any(running)
    };
    let begun = cluster.watch(&id, has_begun);
    assert_eq!(begun.state, JobState::Running, "{}", begun.reason);
    let whole = cluster.worker("whole", Device::emulated);

    let ended = cluster.end_of(lost).unwrap_err();
    let said = ended.to_string();
    assert!(matches!(ended, worker::Error::DeviceLost(_)), "{said}");
    assert!(said.contains("went astray") && said.contains("it fell off the bus"), "{said}");
    let last = cluster.watch(&id, |_| false);
    assert_eq!(last.state, JobState::Succeeded, "{}", last.reason);
    assert_eq!(given_out_again(&last), 1, "one loss is one failure");
    same_rows(&cluster.close([whole], &id), &undisturbed(&workshop));
}
