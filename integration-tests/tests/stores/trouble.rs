//! Stores that answer late, wrongly or not at all: nothing is lost that was written, and nobody wins twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use data::artifact::{Commit, done_records, finish};
use data::store::{Created, Retry, Store};
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt, stream};
use mllm4rec_integration_tests::proxy::{Proxy, Trouble};
use mllm4rec_integration_tests::servers::{Cloud, Server};

use crate::artifact::Begun;

/// Commits that are under way at once.
const AT_ONCE: usize = 48;

/// Whether the long loops are asked for.
fn full() -> bool {
    std::env::var_os("MLLM4REC_FULL").is_some()
}

/// A store with quick pauses, for a proxy on the same machine.
fn hasty(store: Store) -> Store {
    store.with_retry(Retry {
        attempts: 40,
        first: Duration::from_millis(2),
        longest: Duration::from_millis(40),
        deadline: Duration::from_secs(60),
    })
}

/// What became of all attempts at one shard.
#[derive(Debug, Default)]
struct Tally {
    won: u32,
    /// Attempts that gave up and were made again.
    gave_up: u32,
}

/// Commits every shard, every third one by two attempts at once, and counts what must not be.
async fn commit_all(store: &Store, artifact: &Begun, shards: u32) -> Tally {
    let tallies = stream::iter(0..shards).map(|shard| async move {
        let rivals = if shard % 3 == 0 { 2 } else { 1 };
        let ended = join_all((0..rivals).map(|rival| commit(store, artifact, shard, rival))).await;
        let winners: Vec<&String> = ended.iter().filter(|(c, ..)| matches!(c, Commit::Won(_))).map(|e| &e.1).collect();
        // A false loss: nobody believes to have won. A double win: two do.
        assert_eq!(winners.len(), 1, "shard {shard}: {ended:?}");
        for (commit, ..) in &ended {
            assert_eq!(&commit.done().attempt, winners[0], "shard {shard}: all name the one that won");
        }
        Tally { won: 1, gave_up: ended.iter().map(|e| e.2).sum() }
    });
    let add =
        |all: Tally, one: Tally| async move { Tally { won: all.won + one.won, gave_up: all.gave_up + one.gave_up } };
    tallies.buffer_unordered(AT_ONCE).fold(Tally::default(), add).await
}

/// One attempt, which begins again where patience ended.
async fn commit(store: &Store, artifact: &Begun, shard: u32, rival: u32) -> (Commit, String, u32) {
    let name = format!("{shard}-{rival}");
    let mut gave_up = 0;
    loop {
        match artifact.commit(store, shard, &name).await {
            Ok(commit) => return (commit, name, gave_up),
            Err(e) if e.may_pass() && gave_up < 20 => gave_up += 1,
            Err(e) => panic!("shard {shard}: {e}"),
        }
    }
}

/// Commits through trouble, checks every record afterwards without it, and says what was seen. Commits per second.
async fn commits(cloud: Cloud, shards: u32, trouble: Trouble) -> Option<f64> {
    let server = Server::of(cloud)?;
    let folder = format!("commits-{}-{shards}-{}", trouble.seed, trouble.busy);
    let artifact = Begun::with(&server.store(&folder), shards).await;
    let proxy = Proxy::with_trouble(server.address, trouble);
    let started = Instant::now();
    let tally = commit_all(&hasty(server.store_through(proxy.address, &folder)), &artifact, shards).await;
    let took = started.elapsed().as_secs_f64();
    let records = done_records(&server.store(&folder), &artifact.id).await.unwrap();
    let by_shard: BTreeMap<u32, String> = records.into_iter().map(|done| (done.shard, done.attempt)).collect();
    assert_eq!(by_shard.len(), shards as usize, "every shard has one record");
    assert_eq!(tally.won, shards);
    finish(&server.store(&folder), &artifact.id).await.unwrap();
    let counts = &proxy.counts;
    println!(
        "{cloud:?}: {shards} commits, seed {}: 0 false losses, 0 double wins; {} requests, {} answers lost, {} refused; \
         {} attempts made again; {took:.1} s, {:.0} commits/s",
        trouble.seed,
        counts.requests(),
        counts.lost(),
        counts.refused(),
        tally.gave_up,
        f64::from(shards) / took
    );
    Some(f64::from(shards) / took)
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_survive_lost_answers() {
    let trouble = |seed| Trouble { seed, lost: 0.3, ..Trouble::default() };
    let [many, few] = if full() { [10_000, 1_000] } else { [500, 60] };
    commits(Cloud::Gcs, many, trouble(1)).await;
    commits(Cloud::Azure, few, trouble(2)).await;
    commits(Cloud::S3, few, trouble(3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_survive_every_trouble_at_once() {
    let trouble = |seed| Trouble { seed, lost: 0.1, refused: 0.2, busy: 0.05, late: 0.05, cut: 0.1, deaf: false };
    let [many, few] = if full() { [4_000, 400] } else { [200, 40] };
    commits(Cloud::Gcs, many, trouble(4)).await;
    commits(Cloud::Azure, few, trouble(5)).await;
    commits(Cloud::S3, few, trouble(6)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_store_is_slower_and_not_wrong() {
    let shards = if full() { 4_000 } else { 300 };
    for cloud in [Cloud::Gcs, Cloud::S3] {
        let shards = if cloud == Cloud::Gcs { shards } else { shards / 5 };
        let calm = commits(cloud, shards, Trouble { seed: 7, ..Trouble::default() }).await;
        let busy = commits(cloud, shards, Trouble { seed: 7, busy: 0.1, ..Trouble::default() }).await;
        if let (Some(calm), Some(busy)) = (calm, busy) {
            println!("{cloud:?} at 10 % of 503: {busy:.0} commits/s, {:.0} % of {calm:.0}", 100.0 * busy / calm);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_end_early_are_read_to_their_end() {
    for cloud in Cloud::ALL {
        let Some(server) = Server::of(cloud) else { continue };
        let bytes: Bytes = (0..400_000u32).map(|i| (i % 251) as u8).collect();
        server.store("cut").create("k", bytes.clone()).await.unwrap();
        let proxy = Proxy::with_trouble(server.address, Trouble { seed: 8, cut: 0.4, ..Trouble::default() });
        let store = hasty(server.store_through(proxy.address, "cut"));
        for _ in 0..15 {
            assert!(store.get("k").await.unwrap() == bytes, "{cloud:?}: the whole object");
            let chunks: Vec<Bytes> = store.stream("k").await.unwrap().try_collect().await.unwrap();
            assert!(chunks.concat() == bytes, "{cloud:?}: the same in chunks");
        }
        assert!(proxy.counts.cut() > 3, "{cloud:?}: {} bodies were cut", proxy.counts.cut());
    }
}

/// A conflict says that the object exists while nothing was written; the client believes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_not_taken_for_a_loss() {
    for cloud in Cloud::ALL {
        let Some(server) = Server::of(cloud) else { continue };
        let proxy = Proxy::with_trouble(server.address, Trouble { seed: 9, refused: 0.6, ..Trouble::default() });
        let store = hasty(server.store_through(proxy.address, "refused"));
        for i in 0..20 {
            let path = format!("k{i}");
            assert_eq!(store.create(&path, Bytes::from("ours")).await.unwrap(), Created::New, "{cloud:?} {path}");
            assert_eq!(server.store("refused").get(&path).await.unwrap(), "ours", "{cloud:?} {path}");
        }
        assert!(proxy.counts.refused() > 10);
    }
}
