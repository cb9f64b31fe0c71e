//! Whoever dies, a job goes on, and what is done is not done again.

use std::collections::BTreeSet;
use std::time::Duration;

use data::job::{Split, Stage};
use data::tables::{HistoryRow, RankingRow};
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::wait;
use mllm4rec_integration_tests::shop::USERS;
use serde_json::Value;

use crate::cluster::{Cluster, granted, until};

/// Every user of a job has one row, and no other user has.
fn every_user_once(cluster: &Cluster, job: &str) {
    let outputs = JobOutputs::open(&cluster.root(), job);
    let users: Vec<String> = outputs.rows::<HistoryRow>(Stage::Prepare, None).into_iter().map(|h| h.user_id).collect();
    let ranked = outputs.rows::<RankingRow>(Stage::Rank, Some(Split::Test));
    assert_eq!(users.len(), USERS);
    assert!(ranked.iter().map(|r| &r.user_id).eq(&users), "a user is missing, twice there, or out of place");
}

#[test]
fn a_job_outlives_its_coordinator() {
    let mut cluster = Cluster::new();
    let coordinator = cluster.coordinator();
    let _workers = [cluster.worker(), cluster.worker()];
    let job = cluster.submit();
    let waiting = cluster.start(&["status", &job, "--watch"]);
    cluster.until_done(&job, "rank", 8);
    let (digest_of, before) = (cluster.stage(&job, "rank")["digest"].clone(), cluster.records(&job, "rank"));
    let first = coordinator.kill();
    assert!(before.len() < 50, "nothing is left to do: make the job longer");

    let second = cluster.coordinator();
    let _late = cluster.worker();
    let ended = wait(waiting);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("looking for it") && said.contains("the coordinator is back"), "{said}");

    let after = cluster.records(&job, "rank");
    assert_eq!(after.len(), 60);
    for record in &before {
        assert!(after.contains(record), "the record of shard {} has changed", record.0);
    }
    let done: BTreeSet<u32> = before.iter().map(|(shard, _)| shard.parse().unwrap()).collect();
    let again: Vec<u32> = granted(&second.log(), "rank").into_iter().filter(|shard| done.contains(shard)).collect();
    assert_eq!(again, [0_u32; 0], "shards that were done were given out again");
    assert!(!granted(&first, "rank").is_empty(), "the log does not say what is given out");
    leases_were_kept(&second.log());
    let rank = cluster.stage(&job, "rank");
    assert_eq!((&rank["retries"], &rank["digest"]), (&0.into(), &digest_of));
    let ps = cluster.json(&["ps"]);
    assert_eq!((ps["term"].as_u64(), ps["workers"].as_array().unwrap().len()), (Some(2), 3), "{ps:#}");
    every_user_once(&cluster, &job);
}

/// At least one worker came back with what it had in hand.
fn leases_were_kept(log: &[Value]) {
    let claims = |line: &&Value| line["message"] == "worker joined" && line["claims"].as_u64() == Some(1);
    assert!(log.iter().any(|line| claims(&line)), "no worker kept its lease: {log:#?}");
}

#[test]
fn a_job_outlives_its_workers() {
    let mut cluster = Cluster::new();
    let _coordinator = cluster.coordinator();
    let job = cluster.submit();
    let told = cluster.worker();
    cluster.until_done(&job, "rank", 3);
    let (code, took) = told.terminate();
    assert_eq!(code, Some(143), "it left in order");
    assert!(took < Duration::from_secs(10), "leaving took {took:?}");
    for stage in cluster.json(&["status", &job])["stages"].as_array().unwrap() {
        assert_eq!(stage["retries"], 0, "a worker that leaves in order costs nothing: {stage:#}");
    }
    until("nobody holds a lease", || cluster.stage(&job, "rank")["shards"]["leased"] == 0);

    let killed = cluster.worker();
    cluster.until_done(&job, "rank", 10);
    until("the worker has a lease", || cluster.stage(&job, "rank")["shards"]["leased"] != 0);
    let before = cluster.records(&job, "rank").len();
    killed.kill();
    until("what it held is free again", || cluster.stage(&job, "rank")["shards"]["leased"] == 0);
    assert!(before < 50, "nothing is left to do: make the job longer");
    let waiting = cluster.json(&["status", &job])["waiting"].clone();
    assert_eq!(waiting, "no worker is connected");

    let _heir = cluster.worker();
    let ended = cluster.call(&["status", &job, "--watch", "--json"]).succeeded();
    let states: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(states.last().unwrap()["state"], "succeeded");
    let done = |state: &Value| state["stages"].as_array().unwrap().last().unwrap()["done"].as_u64().unwrap();
    assert!(states.windows(2).all(|pair| done(&pair[0]) <= done(&pair[1])), "progress went back");
    let rank = cluster.stage(&job, "rank");
    assert_eq!((&rank["retries"], &rank["quarantined"]), (&1.into(), &Value::Array(vec![])), "one worker was lost");
    every_user_once(&cluster, &job);
}

/// Two workers of one machine: they are started again when they die, and leave together.
#[test]
fn a_fleet_is_kept_and_leaves_together() {
    let mut cluster = Cluster::new();
    let _coordinator = cluster.coordinator();
    let fleet = cluster.workers(2);
    let names = |cluster: &Cluster| -> Vec<String> {
        let ps = cluster.json(&["ps"]);
        ps["workers"].as_array().unwrap().iter().map(|w| w["name"].as_str().unwrap().to_owned()).collect()
    };
    until("both workers are there", || names(&cluster).len() == 2);
    fleet.kill_child();
    until("one is gone", || names(&cluster).len() == 1);
    until("it is started again", || names(&cluster).len() == 2);
    let mut both = names(&cluster);
    both.sort();
    assert!(both[0].ends_with("-1") && both[1].ends_with("-2"), "{both:?}");
    let (code, took) = fleet.terminate();
    assert_eq!(code, Some(143));
    assert!(took < Duration::from_secs(5), "leaving took {took:?}");
    until("both have left", || names(&cluster).is_empty());
}
