//! A shard that kills whoever works on it: put aside with its users named, as far as the job allows.

use data::job::Stage;
use data::tables::{CandidateRow, HistoryRow, RankingRow, RejectedRow};
use mllm4rec_integration_tests::outputs::JobOutputs;

use crate::bucket::{Failpoint, Moment, Victim};
use crate::cluster::Cluster;
use crate::oracle::TEST;
use crate::population::{Population, SHARD_USERS, SHARDS, USERS};
use crate::turn;

const UNDONE: u32 = 20;
/// The shard that kills.
const SHARD: usize = 3;
/// Workers that a shard may cost.
const WORKERS: u32 = 3;

/// A cluster in which the shard kills all workers that retrieve for it.
fn cluster(population: &Population) -> Cluster {
    let mut cluster = Cluster::over(population, true, UNDONE);
    cluster.bucket().arm(vec![Failpoint {
        name: "the users of a shard",
        by: "worker",
        method: "GET",
        path: &["tables/histories/", "part-00003-of-"],
        moment: Moment::Before,
        victim: Victim::Caller,
        left: u32::MAX,
        // Ranking reads them too.
        unless: population.record(Stage::Retrieve, SHARD),
    }]);
    cluster.coordinator_args = ["--quarantine-after", "3"].map(str::to_owned).into();
    cluster.start(2);
    cluster
}

#[test]
fn a_shard_that_kills_its_workers_is_put_aside() {
    let _turn = turn();
    let population = Population::get();
    let mut cluster = cluster(population);
    let job = cluster.submit(population);
    let status = cluster.end_of(&job);
    assert_eq!(status["state"], "succeeded", "{status:#}");
    let deaths = cluster.deaths;
    assert_eq!(cluster.bucket().hits().values().sum::<u32>(), deaths);
    // A worker's last words may die with it; then the shard before, which is done, is taken for the one that killed it.
    assert!((WORKERS..2 * WORKERS).contains(&deaths), "{deaths} workers died");

    let outputs = JobOutputs::open(cluster.root(), &job);
    let histories: Vec<HistoryRow> = outputs.rows(Stage::Prepare, None);
    let users: Vec<String> = histories.into_iter().map(|row| row.user_id).collect();
    let (lost, kept): (Vec<_>, Vec<_>) = users.iter().enumerate().partition(|(place, _)| place / SHARD_USERS == SHARD);
    let ids = |users: Vec<(usize, &String)>| users.into_iter().map(|(_, id)| id.clone()).collect::<Vec<String>>();
    let (lost, kept) = (ids(lost), ids(kept));
    for (stage, reason) in
        [(Stage::Retrieve, "the shard killed its workers"), (Stage::Rank, "put aside by the stage before")]
    {
        let rejected: Vec<RejectedRow> = outputs.rows(stage, TEST);
        let named: Vec<String> = rejected.iter().filter_map(|row| row.user_id.clone()).collect();
        assert_eq!(named, lost, "{stage}");
        assert!(rejected.iter().all(|row| row.reason == reason), "{stage}: {rejected:?}");
    }
    let candidates: Vec<CandidateRow> = outputs.rows(Stage::Retrieve, TEST);
    let rankings: Vec<RankingRow> = outputs.rows(Stage::Rank, TEST);
    assert!(candidates.iter().map(|row| &row.user_id).eq(&kept));
    assert!(rankings.iter().map(|row| &row.user_id).eq(&kept));

    let stages = status["stages"].as_array().unwrap();
    let retrieved = stages.iter().find(|s| s["stage"] == "retrieve" && s["split"] == "test").unwrap();
    assert_eq!(retrieved["quarantined"], serde_json::json!([SHARD]));
    assert_eq!(retrieved["rejected"]["the shard killed its workers"], SHARD_USERS);
    assert!(stages.iter().all(|s| s["state"] == "done"), "later stages go on: {status:#}");
    println!(
        "figure: quarantine: shard {SHARD} of {SHARDS} killed {deaths} workers and was put aside with {} users; {} of {USERS} users \
         have rows",
        lost.len(),
        kept.len()
    );
}

#[test]
fn a_job_that_may_lose_nobody_fails_with_words() {
    let _turn = turn();
    let population = Population::get();
    let mut cluster = cluster(population);
    let job = cluster.submit_with(population, &["limits.max_rejected=1"]);
    let status = cluster.end_of(&job);
    assert_eq!(status["state"], "failed", "{status:#}");
    let reason = status["reason"].as_str().unwrap();
    for word in ["shard 3", "max_rejected"] {
        assert!(reason.contains(word), "no {word} in `{reason}`");
    }
    println!("figure: quarantine over the limit: `{reason}`");
}
