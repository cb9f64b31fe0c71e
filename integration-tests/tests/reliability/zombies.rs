//! Processes that are taken for dead and are not.

use std::time::{Duration, Instant};

use mllm4rec_integration_tests::outputs::JobOutputs;
use serde_json::Value;

use crate::cluster::{Cluster, DEAD_AFTER, signal};
use crate::oracle::{Scores, records_describe_what_is_there};
use crate::population::{Population, SHARDS};
use crate::{sized, turn};

/// How long somebody is stopped.
const STOPPED: Duration = DEAD_AFTER.saturating_mul(3);
/// How long a coordinator may lead after another one has begun to.
const DEPOSED_AFTER: Duration = Duration::from_secs(10);

fn check(cluster: &Cluster, population: &Population, job: &str) {
    let outputs = JobOutputs::open(cluster.root(), job);
    let scores = Scores::of(cluster.root(), &outputs);
    assert!(scores == population.scores, "parts differ from those of the undisturbed run");
    scores.hold_every_user_once(cluster.root(), &outputs);
    records_describe_what_is_there(cluster.root(), &outputs);
}

/// How often a worker has said something.
fn times(cluster: &Cluster, worker: &str, message: &str) -> usize {
    let logs = cluster.logs("worker");
    let (_, log) = logs.iter().find(|(name, _)| name == worker).unwrap();
    log.iter().filter(|line| line["message"] == message).count()
}

#[test]
fn a_worker_that_wakes_up_doubles_nothing_and_works_on() {
    let _turn = turn();
    let population = Population::get();
    let rounds = sized(2, 20);
    let (mut dodged, mut longest) = (0, Duration::ZERO);
    for _ in 0..rounds {
        let mut cluster = Cluster::over(population, false, SHARDS);
        cluster.start(3);
        let job = cluster.submit(population);
        cluster.until("it is time", |cluster| cluster.done("rank") >= 10);
        let (pid, name) = (cluster.workers[0].pid(), cluster.workers[0].name.clone());
        signal(pid, "STOP");
        let stopped = Instant::now();
        cluster.until("it is taken for dead", |cluster| {
            cluster.logs("coordinator")[0].1.iter().any(|line| line["message"] == "worker evicted")
        });
        assert!(cluster.done("rank") < SHARDS as usize, "nothing is left to do: make the job longer");
        signal(pid, "CONT");
        longest = longest.max(stopped.elapsed());
        cluster.until("it registers again", |cluster| times(cluster, &name, "registered") == 2);
        let status = cluster.end_of(&job);
        assert_eq!(status["state"], "succeeded", "{status:#}");
        assert_eq!(cluster.deaths, 0);
        check(&cluster, population, &job);
        assert!(granted_after_waking(&cluster.logs("coordinator")[0].1), "who woke up got nothing more to do");
        dodged +=
            times(&cluster, &name, "done by another attempt") + times(&cluster, &name, "another attempt was first");
    }
    println!(
        "figure: zombie workers: {rounds} stopped until they were taken for dead, {:.1} s at most, nothing doubled, all worked on; \
         {dodged} of their shards were done by others",
        longest.as_secs_f64()
    );
}

/// Whether everybody who joined after the first was evicted got a lease.
fn granted_after_waking(log: &[Value]) -> bool {
    let evicted = log.iter().position(|line| line["message"] == "worker evicted");
    let later = evicted.map_or(&log[..0], |at| &log[at..]);
    let joined: Vec<&Value> =
        later.iter().filter(|line| line["message"] == "worker joined").map(|line| &line["worker"]).collect();
    let granted =
        |worker: &&Value| later.iter().any(|line| line["message"] == "lease granted" && line["worker"] == **worker);
    !joined.is_empty() && joined.iter().all(granted)
}

#[test]
fn a_coordinator_that_wakes_up_keeps_its_workers() {
    let _turn = turn();
    let population = Population::get();
    let rounds = sized(1, 10);
    for _ in 0..rounds {
        let mut cluster = Cluster::over(population, false, 100);
        cluster.start(2);
        let job = cluster.submit(population);
        cluster.until("it is time", |cluster| cluster.done("rank") >= 110);
        let pid = cluster.coordinator.as_ref().unwrap().pid();
        signal(pid, "STOP");
        std::thread::sleep(STOPPED);
        signal(pid, "CONT");
        let status = cluster.end_of(&job);
        assert_eq!(status["state"], "succeeded", "{status:#}");
        assert_eq!(cluster.deaths, 0);
        check(&cluster, population, &job);
    }
    println!("figure: zombie coordinators: {rounds} stopped for {} s each, nothing doubled", STOPPED.as_secs());
}

#[test]
fn two_coordinators_make_one_set_of_rows() {
    let _turn = turn();
    let population = Population::get();
    let rounds = sized(2, 20);
    let mut slowest = Duration::ZERO;
    for round in 0..rounds {
        let mut cluster = Cluster::over(population, true, 60);
        cluster.start(2);
        let job = cluster.submit(population);
        cluster.until("it is time", |cluster| cluster.done("rank") >= 145);
        // Every other time the first one sleeps while the second takes the lead.
        let mut first = cluster.coordinator.take().unwrap();
        let asleep = round % 2 == 1;
        if asleep {
            signal(first.pid(), "STOP");
        }
        cluster.move_away();
        cluster.coordinator = Some(cluster.new_coordinator());
        let heir = cluster.new_worker();
        cluster.workers.push(heir);
        cluster.until("the second leads", |cluster| cluster.status(&job).is_some());
        if asleep {
            std::thread::sleep(STOPPED);
            signal(first.pid(), "CONT");
        }
        let began = Instant::now();
        while first.code().is_none() {
            assert!(began.elapsed() < DEPOSED_AFTER, "it leads although another one does:\n{}", first.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        slowest = slowest.max(began.elapsed());
        assert_eq!(first.code(), Some(75), "{}", first.said());
        assert!(first.said().contains("another coordinator leads"), "{}", first.said());
        let status = cluster.end_of(&job);
        assert_eq!(status["state"], "succeeded", "{status:#}");
        check(&cluster, population, &job);
    }
    println!(
        "figure: two coordinators: {rounds} times, one set of rows, the first ended with 75 within {:.1} s at the latest",
        slowest.as_secs_f64()
    );
}
