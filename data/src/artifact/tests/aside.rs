//! Shards that are put aside while a worker may be at them all the same.

use super::*;
use crate::tables::{CandidateRow, HistoryRow, RejectedRow};

const USERS: [&str; 2] = ["u1", "u2"];

fn footer(id: &ArtifactId, attempt: &str) -> Footer {
    Footer { spec_digest: id.digest.to_string(), attempt: attempt.into(), ..Footer::default() }
}

/// A stage of one shard, and its input in the store.
async fn one_shard(store: &Store) -> (ArtifactId, Plan) {
    let id = write_spec(store, &spec()).await.unwrap();
    let row = |user: &&str| HistoryRow { user_id: (*user).into(), items: vec!["a".into()], times: vec![1] };
    let rows: Vec<HistoryRow> = USERS.iter().map(row).collect();
    let bytes = encode_part(&rows, &Footer::default()).unwrap();
    let input = InputPart { path: "tables/histories/h/part".into(), rows: 2, sha256: Digest::of_bytes(&bytes) };
    store.create(&input.path, bytes).await.unwrap();
    let outputs = vec![Output::Table(Table::Candidates), Output::Table(Table::TargetRanks)];
    let plan = Plan { shards: 1, input_parts: vec![input], outputs };
    write_plan(store, &id, &plan).await.unwrap();
    (id, plan)
}

/// What a worker makes of it.
fn computed(id: &ArtifactId, name: &str) -> Attempt {
    let (footer, split) = (footer(id, name), Split::Test);
    let row = |user: &&str| CandidateRow {
        user_id: (*user).into(),
        split,
        position: None,
        items: vec!["b".into()],
        scores: vec![1.0],
    };
    let candidates: Vec<CandidateRow> = USERS.iter().map(row).collect();
    let rank = |user: &&str| TargetRankRow { user_id: (*user).into(), split, rank: 1 };
    let ranks: Vec<TargetRankRow> = USERS.iter().map(rank).collect();
    let part = |table, bytes| PartPayload { table, name: part_name(0, 1), rows: 2, bytes };
    let parts = vec![
        part(Table::Candidates, encode_part(&candidates, &footer).unwrap()),
        part(Table::TargetRanks, encode_part(&ranks, &footer).unwrap()),
    ];
    let stats = Stats { rows: 2, ..Stats::default() };
    Attempt { id: name.into(), parts, stats, ..Attempt::default() }
}

async fn put_aside(store: &Store, id: &ArtifactId, plan: &Plan) -> Aside {
    quarantine(store, id, Some(Split::Test), plan, 0, &footer(id, "aside")).await.unwrap()
}

async fn named_rejected(store: &Store, id: &ArtifactId) -> Vec<String> {
    let rows = read_all::<RejectedRow>(store, &id.table_prefix(Table::Rejected)).await.unwrap();
    rows.into_iter().filter_map(|row| row.user_id).collect()
}

#[tokio::test]
async fn a_shard_that_is_put_aside_is_done_and_its_users_are_named() {
    let store = FaultStore::with([]).store();
    let (id, plan) = one_shard(&store).await;
    let Aside::Done(done) = put_aside(&store, &id, &plan).await else { panic!("nobody has computed it") };
    assert_eq!((done.rows, done.rejected[QUARANTINED]), (0, 2));
    finish(&store, &id).await.unwrap();
    assert_eq!(users(&store, &id).await, Vec::<String>::new());
    assert_eq!(named_rejected(&store, &id).await, USERS);
}

#[tokio::test]
async fn a_shard_whose_worker_died_before_its_record_is_not_put_aside() {
    let store = FaultStore::with([]).store();
    let (id, plan) = one_shard(&store).await;
    let first = computed(&id, "dies").parts.swap_remove(0);
    write_part(&store, &id, first).await.unwrap();
    assert_eq!(put_aside(&store, &id, &plan).await, Aside::Computed);
    let commit = commit_shard(&store, &id, &plan, computed(&id, "next")).await.unwrap();
    assert!(matches!(commit, Commit::Won(_)));
    finish(&store, &id).await.unwrap();
    assert_eq!(users(&store, &id).await, USERS);
    assert_eq!(put_aside(&store, &id, &plan).await, Aside::Done(commit.done().clone()));
}

#[tokio::test]
async fn a_worker_that_comes_too_late_completes_that_its_shard_is_put_aside() {
    let store = FaultStore::with([]).store();
    let (id, plan) = one_shard(&store).await;
    // A coordinator wrote the first empty part and died.
    let bytes = encode_part::<CandidateRow>(&[], &footer(&id, "aside")).unwrap();
    let empty = PartPayload { table: Table::Candidates, name: part_name(0, 1), rows: 0, bytes };
    write_part(&store, &id, empty).await.unwrap();
    let late = commit_shard(&store, &id, &plan, computed(&id, "late")).await;
    assert!(matches!(late, Err(Error::PutAside { .. })), "{late:?}");
    assert!(matches!(put_aside(&store, &id, &plan).await, Aside::Done(done) if done.rows == 0));
    finish(&store, &id).await.unwrap();
    assert_eq!((users(&store, &id).await.len(), named_rejected(&store, &id).await.len()), (0, 2));
}

#[tokio::test]
async fn the_table_of_rejected_rows_is_complete_before_the_artifact_is() {
    let faults = FaultStore::with([]);
    let store = faults.store();
    let (id, plan) = one_shard(&store).await;
    put_aside(&store, &id, &plan).await;
    faults.fail_next([Fault::None, Fault::Full]);
    assert!(matches!(finish(&store, &id).await, Err(Error::DiskFull { .. })));
    assert!(store.exists(&format!("{}/{SUCCESS}", id.table_prefix(Table::Rejected))).await.unwrap());
    assert!(!is_complete(&store, &id).await.unwrap(), "so that it is finished again");
    finish(&store, &id).await.unwrap();
    assert!(is_complete(&store, &id).await.unwrap());
}
