#![allow(clippy::unwrap_used)]

mod aside;

use std::collections::BTreeMap;
use std::fs;

use bytes::Bytes;
use futures::future::join_all;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::*;
use crate::Error;
use crate::job::Split;
use crate::store::Store;
use crate::store::faults::{Fault, FaultStore};
use crate::tables::{Footer, TargetRankRow, encode_part, part_name, read_all};

fn spec() -> Spec {
    Spec {
        stage: Stage::Retrieve,
        split: Some(Split::Test),
        format_version: 1,
        config: json!({"candidates": 20, "max_length": 50}),
        inputs: BTreeMap::from([("histories".to_owned(), Digest::of_bytes(b"h"))]),
    }
}

fn plan(shards: u32) -> Plan {
    Plan { shards, input_parts: vec![], outputs: vec![Output::Table(Table::TargetRanks)] }
}

/// An attempt at a shard of two users, of whom attempts disagree in the last digits only.
fn attempt(id: &ArtifactId, shard: u32, shards: u32, name: &str) -> Attempt {
    let row = |u: u32| TargetRankRow { user_id: format!("u{shard:03}-{u}"), split: Split::Test, rank: 1 + u };
    let rows = vec![row(0), row(1)];
    let footer = Footer { spec_digest: id.digest.to_string(), attempt: name.into(), ..Footer::default() };
    let bytes = encode_part(&rows, &footer).unwrap();
    let part = PartPayload { table: Table::TargetRanks, name: part_name(shard, shards), rows: 2, bytes };
    Attempt {
        shard,
        id: name.into(),
        parts: vec![part],
        stats: Stats { rows: 2, ..Stats::default() },
        ..Attempt::default()
    }
}

async fn begun(store: &Store, shards: u32) -> ArtifactId {
    let id = write_spec(store, &spec()).await.unwrap();
    write_plan(store, &id, &plan(shards)).await.unwrap();
    id
}

fn local() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap()).unwrap();
    (folder, store)
}

async fn users(store: &Store, id: &ArtifactId) -> Vec<String> {
    let rows = read_all::<TargetRankRow>(store, &id.table_prefix(Table::TargetRanks)).await.unwrap();
    rows.into_iter().map(|r| r.user_id).collect()
}

// Digests

#[test]
fn canonical_json_is_what_it_says() {
    let value = json!({"b": [1, 2.5, -0.001, true, null], "a": {"é\n": "x", "": 1e300}});
    let text = digest::canonical(&value);
    assert_eq!(text, "{\"a\":{\"\":1e+300,\"é\\n\":\"x\"},\"b\":[1,2.5,-0.001,true,null]}");
    assert_eq!(Digest::of_bytes(b"abc").as_str(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(Digest::of_bytes(b"abc").short(), "ba7816bf8f01");
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|i| Value::from(f64::from(i) / 1e4)),
        "[a-z\"é]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{0,3}", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// The same value with the keys of every object put in in the opposite order.
fn reversed(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.iter().rev().map(|(k, v)| (k.clone(), reversed(v))).collect::<Map<_, _>>())
        }
        Value::Array(list) => list.iter().map(reversed).collect(),
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn the_order_of_keys_does_not_count(value in values()) {
        prop_assert_eq!(Digest::of_json(&value), Digest::of_json(&reversed(&value)));
        let read: Value = serde_json::from_str(&digest::canonical(&value)).unwrap();
        prop_assert_eq!(read, value, "canonical JSON is JSON of the same value");
    }

    #[test]
    fn any_other_value_has_another_digest(a in values(), b in values()) {
        prop_assert_eq!(a == b, Digest::of_json(&a) == Digest::of_json(&b));
    }
}

#[test]
fn every_field_of_a_spec_counts() {
    let mut specs = vec![spec(); 7];
    specs[1].stage = Stage::Rank;
    specs[2].split = Some(Split::All);
    specs[3].split = None;
    specs[4].format_version = 2;
    specs[5].config = json!({"candidates": 21, "max_length": 50});
    specs[6].inputs.insert("histories".into(), Digest::of_bytes(b"other"));
    let mut digests: Vec<_> = specs.iter().map(Spec::digest).collect();
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), 7);
    assert_eq!(spec().id().to_string(), format!("retrieve/{}", spec().digest().short()));
}

#[tokio::test]
async fn spec_and_plan_are_written_once() {
    let store = FaultStore::with([]).store();
    let id = begun(&store, 3).await;
    assert_eq!(begun(&store, 3).await, id);
    assert_eq!(read_spec(&store, &id).await.unwrap(), Some(spec()));
    assert_eq!(read_plan(&store, &id).await.unwrap(), Some(plan(3)));
    let other = write_plan(&store, &id, &plan(4)).await.unwrap_err();
    assert!(matches!(&other, Error::Differs { object, .. } if object.ends_with("plan.json")), "{other}");
}

// The commit rule

#[tokio::test]
async fn two_attempts_at_once_leave_one_done_record() {
    let (_folder, store) = local();
    let (id, shards) = (begun(&store, 8).await, 8);
    for shard in 0..shards {
        let tries = ["a", "b", "c"].map(|name| {
            let (store, id) = (store.clone(), id.clone());
            async move { commit_shard(&store, &id, &plan(shards), attempt(&id, shard, shards, name)).await.unwrap() }
        });
        let ended = join_all(tries).await;
        assert_eq!(ended.iter().filter(|c| matches!(c, Commit::Won(_))).count(), 1);
        assert!(ended.iter().all(|c| c.done() == ended[0].done()), "all see the same record");
    }
    let records = finish(&store, &id).await.unwrap();
    assert_eq!(records.len(), 8);
    for part in records.iter().flat_map(|d| &d.parts) {
        let bytes = store.get(&part.path).await.unwrap();
        assert_eq!((bytes.len() as u64, Digest::of_bytes(&bytes)), (part.bytes, part.sha256.clone()));
    }
    assert!(is_complete(&store, &id).await.unwrap());
    assert_eq!(users(&store, &id).await.len(), 16);
}

#[tokio::test]
async fn a_part_of_an_attempt_that_died_is_kept_and_described() {
    let store = FaultStore::with([]).store();
    let id = begun(&store, 1).await;
    let dead = attempt(&id, 0, 1, "dead");
    let left = write_part(&store, &id, dead.parts[0].clone()).await.unwrap();
    let commit = commit_shard(&store, &id, &plan(1), attempt(&id, 0, 1, "alive")).await.unwrap();
    let Commit::Won(done) = commit else { panic!("nobody else has a record: {commit:?}") };
    assert_eq!((done.attempt.as_str(), &done.parts), ("alive", &vec![left]));
    finish(&store, &id).await.unwrap();
    assert_eq!(users(&store, &id).await, ["u000-0", "u000-1"]);
}

#[tokio::test]
async fn a_part_of_another_artifact_is_not_taken_for_ours() {
    let store = FaultStore::with([]).store();
    let id = begun(&store, 1).await;
    let stranger = ArtifactId { stage: Stage::Retrieve, digest: Digest::of_bytes(b"other") };
    let path = format!("{}/{}", id.table_prefix(Table::TargetRanks), part_name(0, 1));
    store.create(&path, attempt(&stranger, 0, 1, "x").parts[0].bytes.clone()).await.unwrap();
    let error = commit_shard(&store, &id, &plan(1), attempt(&id, 0, 1, "a")).await.unwrap_err();
    assert!(matches!(&error, Error::Differs { object, .. } if object.ends_with(&path)), "{error}");
    store.put(&path, Bytes::from_static(b"not parquet")).await.unwrap();
    let error = commit_shard(&store, &id, &plan(1), attempt(&id, 0, 1, "a")).await.unwrap_err();
    assert!(matches!(&error, Error::Part { file, .. } if file.ends_with(&path)), "{error}");
}

#[tokio::test]
async fn a_lost_answer_to_our_own_record_is_a_win() {
    for fault in [Fault::LostResponse, Fault::LostResponseThenExists] {
        let faults = FaultStore::with([]);
        let (store, id) = (faults.store(), begun(&faults.store(), 1).await);
        faults.fail_next([fault, fault]);
        let first = commit_shard(&store, &id, &plan(1), attempt(&id, 0, 1, "a")).await.unwrap();
        assert!(matches!(&first, Commit::Won(done) if done.attempt == "a"), "{fault:?}");
        let again = commit_shard(&store, &id, &plan(1), attempt(&id, 0, 1, "a")).await.unwrap();
        assert_eq!(first, again, "committing twice is committing once");
        let late = commit_shard(&store, &id, &plan(1), attempt(&id, 0, 1, "b")).await.unwrap();
        assert!(matches!(&late, Commit::AlreadyDone(done) if done.attempt == "a"));
    }
}

fn faults() -> impl Strategy<Value = Fault> {
    select(vec![Fault::None, Fault::LostResponse, Fault::LostResponseThenExists, Fault::Conflict, Fault::Busy])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_run_of_faults_leaves_one_record_a_shard(script in prop::collection::vec(faults(), 0..40), tries in 1usize..4) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let faults = FaultStore::with([]);
            let (store, id) = (faults.store(), begun(&faults.store(), 2).await);
            faults.fail_next(script);
            let names = ["a", "b", "c", "d"];
            let all = (0..2).flat_map(|shard| names[..tries].iter().map(move |name| (shard, *name)));
            let ended = join_all(all.map(|(shard, name)| {
                let (store, id) = (&store, &id);
                async move { (name, commit_shard(store, id, &plan(2), attempt(id, shard, 2, name)).await) }
            }))
            .await;
            let mut winners = 0;
            for (name, commit) in ended {
                match commit {
                    Ok(Commit::Won(done)) => { assert_eq!(done.attempt, name); winners += 1; }
                    Ok(Commit::AlreadyDone(done)) => assert_ne!(done.attempt, name),
                    Err(error) => assert_eq!(error.class(), crate::Class::Retry, "{error}"),
                }
            }
            let records = done_records(&store, &id).await.unwrap();
            assert!(winners <= records.len());
            if records.len() == 2 {
                assert_eq!(winners, 2, "no record without its winner");
                faults.heal();
                finish(&store, &id).await.unwrap();
                assert_eq!(users(&store, &id).await, ["u000-0", "u000-1", "u001-0", "u001-1"]);
            }
        });
    }
}

#[tokio::test]
async fn a_full_disk_is_said_so_and_the_shard_can_be_done_later() {
    let faults = FaultStore::with([]);
    let (store, id) = (faults.store(), begun(&faults.store(), 1).await);
    faults.fail_next([Fault::Full]);
    let error = commit_shard(&store, &id, &plan(1), attempt(&id, 0, 1, "a")).await.unwrap_err();
    assert!(matches!(&error, Error::DiskFull { object, .. } if object.contains("part-00000-of-00001")), "{error}");
    assert!(error.to_string().contains("free some space"), "{error}");
    assert!(matches!(commit_shard(&store, &id, &plan(1), attempt(&id, 0, 1, "b")).await.unwrap(), Commit::Won(_)));
}

#[tokio::test]
async fn what_cannot_be_committed_is_refused() {
    let store = FaultStore::with([]).store();
    let id = begun(&store, 1).await;
    let beyond = commit_shard(&store, &id, &plan(1), attempt(&id, 1, 2, "a")).await.unwrap_err();
    assert!(matches!(beyond, Error::NoSuchShard { shard: 1, shards: 1, .. }), "{beyond}");
    let mut named = attempt(&id, 0, 1, "a");
    named.parts[0].name = "notes.txt".into();
    assert!(matches!(commit_shard(&store, &id, &plan(1), named).await, Err(Error::Differs { .. })));
    let mut large = attempt(&id, 0, 1, "a");
    large.parts[0].bytes = vec![0; (64 << 20) + 1].into();
    let large = commit_shard(&store, &id, &plan(1), large).await.unwrap_err();
    assert!(large.to_string().contains("dataset.shard_users"), "{large}");
}

// The end

#[tokio::test]
async fn success_comes_last() {
    let (_folder, store) = local();
    let id = begun(&store, 3).await;
    for shard in [0, 2] {
        commit_shard(&store, &id, &plan(3), attempt(&id, shard, 3, "a")).await.unwrap();
    }
    assert_eq!(done_shards(&store, &id).await.unwrap(), [0, 2]);
    let error = finish(&store, &id).await.unwrap_err();
    assert!(matches!(error, Error::ShardsMissing { missing: 1, first: 1, shards: 3, .. }), "{error}");
    let success = format!("{}/{SUCCESS}", id.table_prefix(Table::TargetRanks));
    assert!(!store.exists(&success).await.unwrap() && !is_complete(&store, &id).await.unwrap());
    commit_shard(&store, &id, &plan(3), attempt(&id, 1, 3, "b")).await.unwrap();
    assert!(!is_complete(&store, &id).await.unwrap(), "all shards done, not yet finished");
    finish(&store, &id).await.unwrap();
    assert_eq!(store.stat(&success).await.unwrap().unwrap().size, 0);
    assert!(is_complete(&store, &id).await.unwrap());
    finish(&store, &id).await.unwrap();
}

#[tokio::test]
async fn left_overs_are_swept_before_success() {
    let (folder, store) = local();
    let id = begun(&store, 1).await;
    let table = id.table_prefix(Table::TargetRanks);
    commit_shard(&store, &id, &plan(1), attempt(&id, 0, 1, "a")).await.unwrap();
    fs::write(folder.path().join(&table).join("part-00000-of-00001.parquet#3"), "torn").unwrap();
    let stray = format!("{table}/{}", part_name(1, 2));
    store.create(&stray, attempt(&id, 1, 2, "x").parts[0].bytes.clone()).await.unwrap();
    finish(&store, &id).await.unwrap();
    let mut names: Vec<_> = fs::read_dir(folder.path().join(&table))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, [SUCCESS, "part-00000-of-00001.parquet"]);
}

#[tokio::test]
async fn a_part_that_vanished_keeps_success_away() {
    let store = FaultStore::with([]).store();
    let id = begun(&store, 1).await;
    let commit = commit_shard(&store, &id, &plan(1), attempt(&id, 0, 1, "a")).await.unwrap();
    store.delete(&commit.done().parts[0].path).await.unwrap();
    let error = finish(&store, &id).await.unwrap_err();
    assert!(matches!(&error, Error::PartMissing { part, .. } if part == &part_name(0, 1)), "{error}");
    assert!(!is_complete(&store, &id).await.unwrap());
}

#[tokio::test]
async fn an_empty_table_and_a_model_are_finished_too() {
    let store = FaultStore::with([]).store();
    let id = write_spec(&store, &spec()).await.unwrap();
    let plan = Plan { shards: 1, input_parts: vec![], outputs: vec![Output::Table(Table::Rejected), Output::Model] };
    write_plan(&store, &id, &plan).await.unwrap();
    let file = FilePayload { name: "config.json".into(), bytes: Bytes::from_static(b"{}") };
    let only = Attempt { shard: 0, id: "a".into(), files: vec![file], ..Attempt::default() };
    commit_shard(&store, &id, &plan, only).await.unwrap();
    finish(&store, &id).await.unwrap();
    assert!(
        read_all::<crate::tables::RejectedRow>(&store, &id.table_prefix(Table::Rejected)).await.unwrap().is_empty()
    );
    assert_eq!(store.get(&format!("{}/config.json", id.model_prefix())).await.unwrap(), "{}");
    assert!(store.exists(&format!("models/retrieve/{}/_SUCCESS", id.digest)).await.unwrap());
}

// Input files

#[tokio::test]
async fn an_input_counts_by_content_and_is_hashed_once() {
    let folder = tempfile::tempdir().unwrap();
    let (file, cache) = (folder.path().join("ratings.csv"), folder.path().join("cache/digests.json"));
    let name = file.to_str().unwrap();
    fs::write(&file, "abc").unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
    let mut digests = InputDigests::remembered_in(&cache);
    assert_eq!(digests.digest(name).await.unwrap(), Digest::of_bytes(b"abc"));
    digests.save().unwrap();
    // The same size and time: believed, without reading. Nobody does this by accident.
    fs::write(&file, "xyz").unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
    let mut digests = InputDigests::remembered_in(&cache);
    assert_eq!(digests.digest(name).await.unwrap(), Digest::of_bytes(b"abc"));
    assert_eq!(InputDigests::forgetful().digest(name).await.unwrap(), Digest::of_bytes(b"xyz"));
    // Another time: read again.
    fs::write(&file, "xyz").unwrap();
    assert_eq!(digests.digest(name).await.unwrap(), Digest::of_bytes(b"xyz"));
    fs::write(&cache, "broken").unwrap();
    assert_eq!(InputDigests::remembered_in(&cache).digest(name).await.unwrap(), Digest::of_bytes(b"xyz"));
    let missing = InputDigests::forgetful().digest("/nowhere/ratings.csv").await.unwrap_err();
    assert!(missing.to_string().contains("/nowhere/ratings.csv"), "{missing}");
}
