//! What a cluster refuses, in which words, and what a script may conclude from it.

use mllm4rec_integration_tests::program::Workshop;

use crate::cluster::Cluster;

#[test]
fn a_root_has_one_coordinator() {
    let mut cluster = Cluster::new();
    let coordinator = cluster.coordinator();
    let root = cluster.root().display().to_string();
    let second = cluster.workshop.call(&["coordinator", "--root", &root, "--listen", "127.0.0.1:0"]);
    assert_eq!(second.code, Some(75), "{}", second.stderr);
    assert!(second.stderr.contains("another `mllm4rec run`, `coordinator`"), "{}", second.stderr);

    // A coordinator of another machine, which no lock of this one keeps away.
    std::fs::write(cluster.root().join("_control/v1/leader/00000000000000000007.json"), "{}").unwrap();
    let (code, log) = coordinator.wait();
    assert_eq!(code, Some(75), "{log}");
    assert!(log.contains("term 7, this one led term 1"), "{log}");
}

#[test]
fn what_cannot_be_is_said_at_once() {
    let workshop = Workshop::open();
    let refused = |args: &[&str], code: i32, words: &str| {
        let ended = workshop.call(args);
        assert_eq!(ended.code, Some(code), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(words), "{args:?}: {}", ended.stderr);
    };
    let root = workshop.path("root").display().to_string();
    refused(
        &["coordinator", "--root", &root, "--listen", "0.0.0.0:0"],
        64,
        "0.0.0.0:0 can be reached from other machines",
    );
    refused(&["coordinator", "--root", &root, "--heartbeat", "5s"], 64, "--dead-after 10s is too short");
    let nobody = ["--coordinator", "http://127.0.0.1:9"];
    refused(&[&["ps"], &nobody[..]].concat(), 75, "start one with `mllm4rec coordinator`");
    refused(&["ps", "--coordinator", "nonsense://"], 64, "--coordinator nonsense://");
    let job = workshop.job().display().to_string();
    let absent = ["submit", &job, "--set", "dataset.path=\"here/is/nothing\""];
    refused(&[&absent[..], &nobody[..]].concat(), 65, "here/is/nothing");
}
