//! A whole job of the real binary with its root on every cloud store: the same rows as in a folder.

use data::job::{Split, Stage};
use data::tables::{CandidateRow, MetricRow, RankingRow};
use mllm4rec_integration_tests::outputs::JobOutputs;
use mllm4rec_integration_tests::program::{Workshop, wait};
use mllm4rec_integration_tests::proxy::{Proxy, Trouble};
use mllm4rec_integration_tests::servers::{Cloud, Server};
use serde_json::Value;
use std::net::SocketAddr;

/// Runs the job into a bucket and opens what it wrote.
fn finish(workshop: &Workshop, server: &Server, through: SocketAddr) -> JobOutputs {
    let (job, root) = (workshop.job().display().to_string(), server.url("runs"));
    let mut command = workshop.command(&["run", &job, "--root", &root, "--workers", "2", "--json"]);
    command.envs(server.variables(through));
    let output = wait(command.spawn().unwrap());
    let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{:?}: {said}\n{complaint}", server.cloud);
    let said: Value = serde_json::from_str(&said).unwrap();
    JobOutputs::of(server.store("runs"), said["job"].as_str().unwrap())
}

fn assert_same(ours: &JobOutputs, wanted: &JobOutputs, cloud: Cloud) {
    let test = Some(Split::Test);
    let rankings: Vec<RankingRow> = ours.rows(Stage::Rank, test);
    assert!(!rankings.is_empty());
    assert_eq!(rankings, wanted.rows::<RankingRow>(Stage::Rank, test), "{cloud:?}");
    let candidates: Vec<CandidateRow> = ours.rows(Stage::Retrieve, test);
    assert_eq!(candidates, wanted.rows::<CandidateRow>(Stage::Retrieve, test), "{cloud:?}");
    let metrics: Vec<MetricRow> = ours.rows(Stage::Evaluate, None);
    assert_eq!(metrics, wanted.rows::<MetricRow>(Stage::Evaluate, None), "{cloud:?}");
}

/// One test, so that one job at a time uses the cores.
#[test]
fn a_job_in_a_bucket_leaves_the_rows_of_one_in_a_folder() {
    let workshop = Workshop::open();
    let local = workshop.finish("local", &["--workers", "2"]);
    for cloud in Cloud::ALL {
        let Some(server) = Server::of(cloud) else { continue };
        // One of them with trouble on the way: GCS, whose fake is quick enough for what has to be tried again.
        let trouble = Trouble { seed: 10, lost: 0.1, refused: 0.05, busy: 0.05, late: 0.02, cut: 0.05, deaf: false };
        let trouble = (cloud == Cloud::Gcs).then(|| Proxy::with_trouble(server.address, trouble));
        let through = trouble.as_ref().map_or(server.address, |proxy| proxy.address);
        assert_same(&finish(&workshop, server, through), &local, cloud);
        if let Some(proxy) = trouble {
            println!("{cloud:?}: {} requests, {} answers lost", proxy.counts.requests(), proxy.counts.lost());
            assert!(proxy.counts.lost() > 0);
        }
    }
}
