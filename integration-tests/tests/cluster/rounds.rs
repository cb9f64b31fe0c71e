//! What a job keeps over its submissions and over coordinators, and what is left of one that was refused or removed.

use serde_json::Value;

use crate::cluster::{Cluster, until};

/// The override that publishes to a folder of the workshop.
fn publish(cluster: &Cluster, place: &str) -> String {
    format!("output.publish={:?}", cluster.workshop.path(place).display().to_string())
}

#[test]
fn what_is_taken_up_is_what_was_submitted_last() {
    let mut cluster = Cluster::new();
    let coordinator = cluster.coordinator();
    let first = cluster.resubmit(&["--set", &publish(&cluster, "first"), "--json"]).succeeded();
    let job = serde_json::from_str::<Value>(&first.stdout).unwrap()["job"].as_str().unwrap().to_owned();
    assert_eq!(cluster.json(&["cancel", &job])["state"], "cancelled");
    let _ = cluster.resubmit(&["--set", &publish(&cluster, "second")]).succeeded();
    let worker = cluster.worker();
    cluster.until_done(&job, "rank", 3);
    worker.kill();
    until("the job is some seconds old", || cluster.json(&["status", &job])["age_s"].as_u64().unwrap() >= 4);
    coordinator.kill();

    let _next = cluster.coordinator();
    let status = cluster.json(&["status", &job]);
    assert_eq!(status["state"], "running", "nothing is left to take up: make the job longer");
    assert!(status["age_s"].as_u64().unwrap() >= 4, "the age began anew: {status:#}");
    let stages = status["stages"].as_array().unwrap();
    assert!(stages.iter().any(|s| s["state"] == "done"), "{status:#}");
    assert!(stages.iter().all(|s| s["reused"] == false), "the job itself has made them: {status:#}");
    let _worker = cluster.worker();
    let _ = cluster.call(&["status", &job, "--watch"]).succeeded();
    assert!(cluster.workshop.path("second").join("_SUCCESS").is_file(), "published where it was submitted to last");
    // The place was looked at when the job was submitted to it, and nothing was put there.
    let first = std::fs::read_dir(cluster.workshop.path("first")).map_or(0, Iterator::count);
    assert_eq!(first, 0, "published to the place of the first submission");
}

#[test]
fn a_refused_job_is_not_at_work_and_a_removed_one_is_called_so() {
    let mut cluster = Cluster::new();
    let coordinator = cluster.coordinator();
    let place = cluster.workshop.path("taken");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("notes.txt"), "mine").unwrap();
    let refused = cluster.resubmit(&["--set", &publish(&cluster, "taken")]);
    assert!(refused.code == Some(65) && refused.stderr.contains("notes.txt"), "{}", refused.stderr);
    let listed = cluster.json(&["ps", "--all"])["jobs"].clone();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["state"]), (1, &"failed".into()), "{listed:#}");
    assert!(listed[0]["reason"].as_str().unwrap().contains("notes.txt"), "{listed:#}");

    let (code, _) = coordinator.terminate();
    assert_eq!(code, Some(143));
    let _next = cluster.coordinator();
    let shown = cluster.call(&["ps"]).succeeded().stdout;
    assert!(shown.contains("`mllm4rec ps --all` shows those that ended before"), "{shown}");

    let job = cluster.submit();
    assert_eq!(cluster.json(&["cancel", &job])["state"], "cancelled");
    let root = cluster.root().display().to_string();
    let removed = cluster.workshop.call(&["rm", "small", "--root", &root]).succeeded().stdout;
    assert!(removed.contains(&format!("job {job} is removed")), "{removed}");
    assert_eq!(cluster.json(&["ps"])["jobs"][0]["state"], "removed");
    assert!(cluster.call(&["ps", "--all"]).succeeded().stdout.contains("removed"));
    let status = cluster.call(&["status", &job]);
    assert!(status.code == Some(64) && status.stderr.contains("was removed"), "{}", status.stderr);
    assert_eq!(cluster.submit(), format!("{job}.2"), "the same file again is a new job");
    let jobs = cluster.json(&["ps", "--all"])["jobs"].clone();
    let states: Vec<&Value> = jobs.as_array().unwrap().iter().map(|job| &job["state"]).collect();
    assert_eq!(states, ["running", "removed"], "the newest first");
}
