//! A store that is gone for a while: everybody waits, says why, and goes on by themselves.

use std::time::{Duration, Instant};

use mllm4rec_integration_tests::outputs::JobOutputs;

use crate::cluster::Cluster;
use crate::oracle::{Scores, records_describe_what_is_there};
use crate::population::{Population, SHARDS};
use crate::{sized, turn};

/// Shards that are to be scored.
const UNDONE: u32 = 100;
/// Work in hand may still end; nothing more is done from then on.
const SETTLE: Duration = Duration::from_secs(2);

/// A file system of its own is not needed: a folder that is there again later stands for one that is mounted again.
#[test]
fn jobs_wait_for_a_folder_that_is_not_mounted() {
    let _turn = turn();
    let population = Population::get();
    let gone = sized(Duration::from_secs(6), Duration::from_secs(60));
    let mut cluster = Cluster::over(population, false, UNDONE);
    cluster.start(2);
    let job = cluster.submit(population);
    cluster.until("ranking has begun", |cluster| cluster.done("rank") > (SHARDS - UNDONE) as usize + 5);
    let (root, away) = (cluster.root().to_owned(), cluster.path("away"));
    std::fs::rename(&root, &away).unwrap();
    std::fs::create_dir(&root).unwrap();
    let (began, mut reason) = (Instant::now(), String::new());
    while began.elapsed() < gone {
        cluster.tend();
        let status = cluster.status(&job).expect("the coordinator answers without a store");
        assert_eq!(status["state"], "running", "{status:#}");
        if let Some(waiting) = status["waiting"].as_str().filter(|waiting| !waiting.is_empty()) {
            reason = waiting.to_owned();
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(
        reason.contains("is its file system mounted?"),
        "the status does not say what the job waits for: `{reason}`"
    );
    std::fs::remove_dir(&root).expect("nobody has written where the root is not");
    std::fs::rename(&away, &root).unwrap();
    let status = cluster.end_of(&job);
    assert_eq!(status["state"], "succeeded", "{status:#}");
    assert_eq!(cluster.deaths, 0);
    let outputs = JobOutputs::open(cluster.root(), &job);
    assert!(
        Scores::of(cluster.root(), &outputs) == population.scores,
        "parts differ from those of the undisturbed run"
    );
    records_describe_what_is_there(cluster.root(), &outputs);
    println!("figure: folder of the root gone for {} s: no process was started again; `{reason}`", gone.as_secs());
}

#[test]
fn jobs_wait_for_a_store_that_is_gone() {
    let _turn = turn();
    let population = Population::get();
    let gone = sized(Duration::from_secs(15), Duration::from_secs(300));
    let mut cluster = Cluster::over(population, true, UNDONE);
    cluster.start(2);
    let job = cluster.submit(population);
    cluster.until("ranking has begun", |cluster| cluster.done("rank") > (SHARDS - UNDONE) as usize + 5);
    let workers: Vec<u32> = cluster.workers.iter().map(|worker| worker.pid()).collect();

    cluster.bucket().close();
    let began = Instant::now();
    std::thread::sleep(SETTLE);
    let done = cluster.done("rank");
    assert!(done < SHARDS as usize - 10, "nothing is left to do: make the job longer");
    let (mut said, mut reason) = (None, String::new());
    while began.elapsed() < gone {
        cluster.tend();
        let status = cluster.status(&job).expect("the coordinator answers without a store");
        assert_eq!(status["state"], "running", "{status:#}");
        let waiting = status["waiting"].as_str().unwrap();
        if said.is_none() && !waiting.is_empty() {
            (said, reason) = (Some(began.elapsed()), waiting.to_owned());
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    assert_eq!(cluster.done("rank"), done, "the store is not gone");
    assert!(reason.contains("s3://shop"), "the status does not say what the job waits for: `{reason}`");
    cluster.bucket().reopen();
    let back = Instant::now();
    cluster.until("work goes on", |cluster| cluster.done("rank") > done);
    let resumed = back.elapsed();
    let status = cluster.end_of(&job);
    assert_eq!((&status["state"], &status["waiting"]), (&"succeeded".into(), &"".into()), "{status:#}");
    assert!(cluster.workers.iter().map(|worker| worker.pid()).eq(workers), "a worker was started again");
    assert_eq!(cluster.deaths, 0);

    let outputs = JobOutputs::open(cluster.root(), &job);
    assert!(
        Scores::of(cluster.root(), &outputs) == population.scores,
        "parts differ from those of the undisturbed run"
    );
    records_describe_what_is_there(cluster.root(), &outputs);
    println!(
        "figure: store gone for {} s: status said why after {:.1} s, work went on {:.1} s after it was back, no process was \
         started again; `{reason}`",
        gone.as_secs(),
        said.unwrap_or_default().as_secs_f64(),
        resumed.as_secs_f64(),
    );
}
