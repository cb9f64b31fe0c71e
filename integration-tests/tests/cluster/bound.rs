//! Workers that are for one job, as pods of a Kubernetes Job are: they end with it, and say how it ended.

use serde_json::Value;

use crate::cluster::{Cluster, until};

fn registered(cluster: &Cluster, workers: usize) -> bool {
    cluster.json(&["ps"])["workers"].as_array().is_some_and(|known| known.len() == workers)
}

#[test]
fn workers_end_with_the_job_that_they_are_for() {
    let mut cluster = Cluster::new();
    let coordinator = cluster.coordinator();
    let of_another = cluster.worker_with(&["--job", "nobodys"]);
    let own = cluster.worker_with(&["--count", "2", "--job", "small"]);
    until("three workers are there", || registered(&cluster, 3));
    let job = cluster.submit();
    assert!(job.starts_with("small-"));
    let (code, log) = own.wait();
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(cluster.json(&["status", &job])["state"], "succeeded");
    let (code, log) = cluster.worker_with(&["--job", &job]).wait();
    assert_eq!(code, Some(0), "nothing is left to do: {log}");

    // The next coordinator has never had the job in hand.
    drop(coordinator);
    let coordinator = cluster.coordinator();
    let (code, log) = cluster.worker_with(&["--job", &job]).wait();
    assert_eq!(code, Some(0), "{log}");
    until("the other one is back", || registered(&cluster, 1));
    let granted = |line: &Value| line["message"] == "lease granted";
    assert!(!coordinator.log().iter().any(granted));
    assert_eq!(of_another.terminate().0, Some(143), "it waits for a job of its own");
}

#[test]
fn workers_of_a_job_that_is_cancelled_say_so() {
    let mut cluster = Cluster::new();
    let _coordinator = cluster.coordinator();
    let job = cluster.submit();
    let own = cluster.worker_with(&["--count", "2", "--job", &job]);
    cluster.until_done(&job, "rank", 1);
    let _ = cluster.call(&["cancel", &job, "--reason", "enough"]).succeeded();
    let (code, log) = own.wait();
    assert_eq!(code, Some(65), "{log}");
    assert!(log.contains("did not succeed: enough"), "{log}");
}
