//! One coordinator and many workers: what it costs, and that nothing is done twice.
#![allow(clippy::unwrap_used)]

mod cluster;
mod figures;
mod process;

use std::collections::BTreeSet;
use std::time::Duration;

use cluster::{Cluster, Size};
use mllm4rec_integration_tests::prepared;
use proto::JobState;

#[test]
fn two_hundred_workers_and_a_coordinator_that_is_killed_half_way_do_every_shard_once() {
    let size = Size {
        processes: 1,
        connections: 10,
        workers: 200,
        shards: 2000,
        shard: Duration::from_millis(200),
        heartbeat: Duration::from_millis(200),
        grace: Duration::from_secs(2),
    };
    let mut cluster = Cluster::start(size);
    let half = cluster.wait(|status| status.stages[2].shards.done >= 1000);
    assert_eq!(half.state, JobState::Running, "it is killed while there is work");
    let before = cluster.heard();
    cluster.kill_the_coordinator();
    cluster.start_the_coordinator();
    let end = cluster.wait(|_| false);
    assert_eq!((end.state, end.reason.as_str()), (JobState::Succeeded, ""));
    let after = cluster.heard();
    assert_eq!((before.joined, after.joined), (200, 200), "every worker came back");
    assert_eq!(before.redone + after.redone, 0, "what is done, or in a hand that lives, is not given out again");
    let records = prepared::records(&cluster.root(), "retrieve");
    let shards: BTreeSet<u32> = records.iter().map(|done| done.shard).collect();
    assert_eq!((records.len(), shards.len()), (2000, 2000));
    assert_eq!(before.committed + after.committed, 2000, "one worker for each");
}

/// A hundred thousand shards among ten thousand workers. With `MLLM4REC_FULL=1`; prints what was measured.
#[test]
fn ten_thousand_workers() {
    if std::env::var_os("MLLM4REC_FULL").is_none() {
        return eprintln!("not run: it takes ten minutes, set MLLM4REC_FULL=1");
    }
    for connections in [25, 2500] {
        let size = Size {
            processes: 4,
            connections,
            workers: 2500,
            shards: 100_000,
            shard: Duration::from_secs(20),
            heartbeat: Duration::from_secs(1),
            grace: Duration::from_secs(5),
        };
        println!("{}", figures::take(size));
    }
}
