//! What jobs rely on, on every store.

use bytes::Bytes;
use data::artifact::{Commit, done_records, finish};
use data::store::{Created, Store, probe};
use data::tables::{TargetRankRow, read_all};
use futures::future::join_all;
use futures::{StreamExt, TryStreamExt, stream};
use mllm4rec_integration_tests::servers::{Cloud, Server};

use crate::artifact::Begun;

fn body(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

/// The same test over every store; each has a folder of its own there.
macro_rules! over_every_store {
    ($($test:ident),* $(,)?) => {
        mod local {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let folder = tempfile::tempdir().unwrap();
                super::$test(super::Store::open(folder.path().to_str().unwrap()).unwrap()).await;
            })*
        }
        over_every_store!(@cloud s3 S3 $($test)*);
        over_every_store!(@cloud azure Azure $($test)*);
        over_every_store!(@cloud gcs Gcs $($test)*);
    };
    (@cloud $name:ident $cloud:ident $($test:ident)*) => {
        mod $name {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                let Some(server) = super::Server::of(super::Cloud::$cloud) else { return };
                super::$test(server.store(stringify!($test))).await;
            })*
        }
    };
}

over_every_store!(
    an_object_is_created_once_and_read_back,
    of_16_writers_one_wins,
    a_listing_shows_all_that_was_created,
    large_objects_and_empty_ones_come_in_chunks,
    what_is_deleted_is_gone,
    awkward_names_are_kept,
    a_shard_is_committed_once_by_attempts_at_once,
    a_coordinator_takes_it_at_its_start,
);

async fn an_object_is_created_once_and_read_back(store: Store) {
    assert_eq!(store.try_get("a/k").await.unwrap(), None);
    assert_eq!(store.stat("a/k").await.unwrap(), None);
    assert_eq!(store.create("a/k", body("ours")).await.unwrap(), Created::New);
    assert_eq!(store.create("a/k", body("ours")).await.unwrap(), Created::New, "the same bytes are our own write");
    assert_eq!(store.create("a/k", body("theirs")).await.unwrap(), Created::Exists);
    assert_eq!(store.create_or_read("a/k", body("theirs")).await.unwrap(), Some(body("ours")));
    assert_eq!(store.get("a/k").await.unwrap(), body("ours"));
    let before = store.stat("a/k").await.unwrap().unwrap();
    store.put("a/k", body("replaced")).await.unwrap();
    let after = store.stat("a/k").await.unwrap().unwrap();
    assert_eq!((store.get("a/k").await.unwrap(), after.size), (body("replaced"), 8));
    assert!(before.stamp != after.stamp, "another content has another stamp: {after:?}");
}

async fn of_16_writers_one_wins(store: Store) {
    for key in 0..40 {
        let path = format!("race/{key:02}");
        let ended = join_all((0..16).map(|w| store.create(&path, body(&w.to_string())))).await;
        let winners: Vec<usize> = (0..16).filter(|&w| *ended[w].as_ref().unwrap() == Created::New).collect();
        assert_eq!(winners.len(), 1, "{path}");
        assert_eq!(store.get(&path).await.unwrap(), body(&winners[0].to_string()), "{path}");
    }
}

/// More than a page of a listing, at each step of which nothing is late.
async fn a_listing_shows_all_that_was_created(store: Store) {
    for i in 0..10 {
        store.create(&format!("few/{i}"), body("x")).await.unwrap();
        assert_eq!(store.list("few").await.unwrap().len(), i + 1);
    }
    let names: Vec<String> = (0..1010).map(|i| format!("many/{:02}/{i:04}", i % 7)).collect();
    let written = stream::iter(&names).map(|name| store.create(name, body(name))).buffer_unordered(16);
    assert!(written.try_collect::<Vec<_>>().await.unwrap().iter().all(|c| *c == Created::New));
    let listed = store.list("many").await.unwrap();
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(listed.iter().map(|e| e.path.clone()).collect::<Vec<_>>(), sorted);
    assert!(listed.iter().all(|e| e.size == e.path.len() as u64));
    assert_eq!(store.list("man").await.unwrap(), [], "a folder is not a prefix of names");
}

async fn large_objects_and_empty_ones_come_in_chunks(store: Store) {
    let large: Bytes = (0..3_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (name, bytes) in [("large", large), ("empty", Bytes::new())] {
        store.create(name, bytes.clone()).await.unwrap();
        let chunks: Vec<Bytes> = store.stream(name).await.unwrap().try_collect().await.unwrap();
        assert!(chunks.concat() == bytes, "{name} is the same in chunks");
        assert!(store.get(name).await.unwrap() == bytes, "{name} is the same as a whole");
    }
}

async fn what_is_deleted_is_gone(store: Store) {
    for name in ["d/a", "d/b"] {
        store.create(name, body(name)).await.unwrap();
    }
    store.delete("d/a").await.unwrap();
    store.delete("d/a").await.unwrap();
    assert_eq!(store.try_get("d/a").await.unwrap(), None);
    let left: Vec<String> = store.list("d").await.unwrap().into_iter().map(|e| e.path).collect();
    assert_eq!(left, ["d/b"]);
    assert_eq!(store.create("d/a", body("again")).await.unwrap(), Created::New);
}

async fn awkward_names_are_kept(store: Store) {
    let names = ["a b", "plus+plus", "100%", "%41", "a&b=c", "it's", "ünï", "日本", "~", "semi;colon", "x=1,y=(2)"];
    let mut paths: Vec<String> = names.iter().map(|name| format!("names/{name}/{name}.json")).collect();
    for path in &paths {
        assert_eq!(store.create(path, body(path)).await.unwrap(), Created::New, "{path}");
    }
    paths.sort();
    assert_eq!(store.list("names").await.unwrap().into_iter().map(|e| e.path).collect::<Vec<_>>(), paths);
    for path in &paths {
        assert_eq!(store.get(path).await.unwrap(), body(path), "{path}");
        store.delete(path).await.unwrap();
    }
    assert_eq!(store.list("names").await.unwrap(), []);
}

async fn a_shard_is_committed_once_by_attempts_at_once(store: Store) {
    let artifact = Begun::with(&store, 6).await;
    let names: Vec<String> = (0..5).map(|i| format!("attempt-{i}")).collect();
    for shard in 0..6 {
        let commits = join_all(names.iter().map(|name| artifact.commit(&store, shard, name))).await;
        let commits: Vec<Commit> = commits.into_iter().map(Result::unwrap).collect();
        let won: Vec<&Commit> = commits.iter().filter(|c| matches!(c, Commit::Won(_))).collect();
        assert_eq!(won.len(), 1, "shard {shard}");
        assert!(commits.iter().all(|c| c.done() == won[0].done()), "all know the same record");
    }
    assert_eq!(done_records(&store, &artifact.id).await.unwrap().len(), 6);
    finish(&store, &artifact.id).await.unwrap();
    assert_eq!(read_all::<TargetRankRow>(&store, &artifact.folder()).await.unwrap().len(), 6);
}

async fn a_coordinator_takes_it_at_its_start(store: Store) {
    let started = std::time::Instant::now();
    probe::require_safe(&store).await.unwrap();
    println!("{}: tried in {} ms", store.url(), started.elapsed().as_millis());
    assert_eq!(store.list("").await.unwrap(), [], "and leaves it as it was");
}
