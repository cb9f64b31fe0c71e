//! A job from its submission to its tables, as its user sees it.

use std::path::Path;
use std::time::Duration;

use data::job::{Split, Stage};
use data::tables::RankingRow;
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::shop::USERS;
use serde_json::Value;

use crate::cluster::{Cluster, until};

/// Whether an object has exactly these keys.
fn keys(value: &Value, expected: &[&str]) {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    let mut expected = expected.to_vec();
    keys.sort_unstable();
    expected.sort_unstable();
    assert_eq!(keys, expected, "docs/cluster.md promises these keys");
}

const SUMMARY: [&str; 11] = [
    "job",
    "state",
    "reason",
    "may_pass",
    "waiting",
    "age_s",
    "workers",
    "stages_done",
    "stages_total",
    "stage",
    "percent",
];
const STAGE: [&str; 22] = [
    "stage",
    "split",
    "trial",
    "digest",
    "state",
    "reused",
    "unit",
    "done",
    "total",
    "working",
    "percent",
    "rate",
    "eta_s",
    "shards",
    "attempts",
    "retries",
    "oldest_lease_s",
    "members",
    "generations",
    "rejected",
    "quarantined",
    "note",
];

#[test]
fn a_job_is_submitted_cancelled_and_taken_up_again() {
    let mut cluster = Cluster::new();
    let coordinator = cluster.coordinator();
    let job = cluster.submit();
    assert_eq!(cluster.submit(), job, "the same job again is the same job");
    let elsewhere = cluster.workshop.path("elsewhere").display().to_string();
    let refused = cluster.resubmit(&["--set", &format!("output.publish={elsewhere:?}")]);
    assert_eq!(refused.code, Some(75), "{}", refused.stderr);
    assert!(refused.stderr.contains("with another `output.publish`"), "{}", refused.stderr);
    waits_for_a_worker(&cluster, &job);

    let worker = cluster.worker();
    cluster.until_done(&job, "rank", 3);
    at_work(&cluster, &job);
    cancel(&cluster, &job);
    the_end_is_told(&cluster, &job);

    let resumed = cluster.call(&["resume", &job[..8], "--wait", "--json"]).succeeded();
    let resumed: Value = serde_json::from_str(&resumed.stdout).unwrap();
    assert_eq!((&resumed["state"], &resumed["percent"]), (&"succeeded".into(), &100.0.into()));
    let rank = cluster.stage(&job, "rank");
    assert_eq!((&rank["percent"], &rank["done"], &rank["total"]), (&100.0.into(), &USERS.into(), &USERS.into()));
    same_rows_as_on_one_machine(&cluster, &job);
    everything_is_found(&cluster, &job);

    let (code, _) = coordinator.terminate();
    assert_eq!(code, Some(143));
    the_store_remembers(&mut cluster, &job);
    let (code, took) = worker.terminate();
    assert_eq!(code, Some(143), "a worker waits for the next coordinator, and leaves when it is told");
    assert!(took < Duration::from_secs(5), "leaving took {took:?} though nobody was there to be told");
}

/// Without a coordinator, and under one that was not there.
fn the_store_remembers(cluster: &mut Cluster, job: &str) {
    let root = cluster.root().display().to_string();
    let whole = |status: &Value| {
        assert_eq!((&status["state"], &status["stages_done"]), (&"succeeded".into(), &status["stages_total"]));
        let stages = status["stages"].as_array().unwrap();
        let rank = stages.iter().find(|s| s["stage"] == "rank").unwrap();
        assert_eq!((&rank["done"], &rank["shards"]["done"]), (&USERS.into(), &60.into()));
    };
    let alone = cluster.workshop.call(&["status", job, "--root", &root, "--json"]).succeeded();
    whole(&serde_json::from_str(&alone.stdout).unwrap());
    let _next = cluster.coordinator();
    whole(&cluster.json(&["status", "small"]));
    assert_eq!(cluster.json(&["ps"])["jobs"].as_array().unwrap().len(), 0, "nothing is left to do");
    assert_eq!(cluster.json(&["ps", "--all"])["jobs"][0]["job"], job);
    assert_eq!(cluster.json(&["cancel", job])["before"], "succeeded");
}

fn waits_for_a_worker(cluster: &Cluster, job: &str) {
    until("the job waits for a worker", || {
        let ps = cluster.json(&["ps"]);
        keys(&ps, &["root", "term", "build", "waiting", "jobs", "workers"]);
        let jobs = ps["jobs"].as_array().unwrap();
        assert_eq!((jobs.len(), &jobs[0]["job"], &jobs[0]["state"]), (1, &job.into(), &"running".into()));
        keys(&jobs[0], &SUMMARY);
        jobs[0]["waiting"] == "no worker is connected"
    });
    let shown = cluster.call(&["ps", "--workers"]).succeeded().stdout;
    assert!(shown.contains(job) && shown.contains("no worker is connected"), "{shown}");
}

fn at_work(cluster: &Cluster, job: &str) {
    let status = cluster.json(&["status", &job[..10]]);
    let all: Vec<&str> = SUMMARY.into_iter().chain(["stages"]).collect();
    keys(&status, &all);
    for stage in status["stages"].as_array().unwrap() {
        keys(stage, &STAGE);
        let ended = stage["state"] == "done";
        assert!(ended || stage["percent"].as_f64().is_none_or(|percent| percent < 100.0), "{stage:#}");
    }
    let rank = cluster.stage("small", "rank");
    assert_eq!((&rank["unit"], &rank["total"], &rank["shards"]["all"]), (&"users".into(), &USERS.into(), &60.into()));
    let ps = cluster.json(&["ps"]);
    let worker = &ps["workers"][0];
    keys(worker, &["worker", "name", "device", "leaving", "suspect", "job", "stage", "shards"]);
    assert_eq!((&worker["device"], &worker["job"]), (&"cpu".into(), &job.into()));
    let page = cluster.call(&["status", job]).succeeded().stdout;
    assert!(page.contains("running") && page.contains("rank:test") && page.contains("/60"), "{page}");
}

fn cancel(cluster: &Cluster, job: &str) {
    let ended = cluster.call(&["cancel", job, "--reason", "enough", "--json"]).succeeded();
    assert!(ended.took < Duration::from_secs(5), "cancelling took {:?}", ended.took);
    let said: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&said["state"], &said["before"]), (&"cancelled".into(), &"running".into()));
    // No job wants its stage any more from now on, but the worker is idle only when it has given its lease back.
    until("the worker is idle", || cluster.json(&["ps"])["workers"][0]["stage"].is_null());
    let done = cluster.records(job, "rank");
    assert!(done.len() < 60, "the job had ended before it was cancelled: make it longer");
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(cluster.records(job, "rank"), done, "somebody works on a cancelled job");
}

fn the_end_is_told(cluster: &Cluster, job: &str) {
    let watched = cluster.call(&["status", job, "--watch"]);
    assert_eq!(watched.code, Some(130), "{}", watched.stderr);
    assert!(watched.stderr.contains("was cancelled: enough"), "{}", watched.stderr);
    let again = cluster.call(&["cancel", job]).succeeded();
    assert!(again.stdout.contains("had ended before: cancelled"), "{}", again.stdout);
    let unknown = cluster.call(&["status", &job.replace("small", "smell")]);
    assert_eq!(unknown.code, Some(64), "{}", unknown.stderr);
    assert!(unknown.stderr.contains(&format!("did you mean {job}?")), "{}", unknown.stderr);
}

fn same_rows_as_on_one_machine(cluster: &Cluster, job: &str) {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo-base");
    let sets = cluster.sets(&base);
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let straight = cluster.workshop.finish("straight", &sets);
    let here = JobOutputs::open(&cluster.root(), job);
    let rows = |outputs: &JobOutputs| outputs.rows::<RankingRow>(Stage::Rank, Some(Split::Test));
    assert!(rows(&here) == rows(&straight), "a job that was cancelled and taken up again ends with other rows");
    assert_eq!(rows(&here).len(), USERS);
}

fn everything_is_found(cluster: &Cluster, job: &str) {
    let outputs = cluster.json(&["outputs", "small"]);
    let folder = |table: &str| outputs.as_array().unwrap().iter().find(|o| o["table"] == table).unwrap().clone();
    assert_eq!((&folder("rankings")["rows"], &folder("rankings")["split"]), (&USERS.into(), &"test".into()));
    assert!(folder("items")["split"].is_null());
    assert!(Path::new(folder("rankings")["folder"].as_str().unwrap()).is_dir());

    let logs = cluster.json(&["logs", job]);
    for entry in logs.as_array().unwrap() {
        assert!(entry["at_ms"].is_u64() && entry["level"].is_string() && entry["text"].is_string(), "{entry}");
    }
    let texts: Vec<&str> = logs.as_array().unwrap().iter().map(|e| e["text"].as_str().unwrap()).collect();
    for part in ["submitted", "ended: enough", "shard 0 done: 2 rows", "1 shard, 0 done before", "all stages are done"]
    {
        assert!(texts.iter().any(|text| text.contains(part)), "no `{part}` in {texts:#?}");
    }
    let followed = cluster.call(&["logs", "-f", job, "--json"]).succeeded().stdout;
    assert_eq!(followed.lines().count(), texts.len(), "the job has ended: there is nothing to wait for");

    let submission = cluster.submission();
    let args: Vec<&str> = submission.iter().map(String::as_str).chain(["--wait"]).collect();
    let again = cluster.call(&args).succeeded();
    assert!(again.stdout.contains("complete with 5 rows put aside (prepare: "), "{}", again.stdout);
}
