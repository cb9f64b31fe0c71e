//! Figures that must not promise too much, and keys that scripts rely on.

use std::time::Duration;

use proto::{FailureClass, JobId, JobState, JobStatus, Progress, ShardCounts, StageState, StageStatus};

use serde_json::json;

use super::{aside_by_report, aside_by_status, eta, page, percent, put_aside};

fn stage(state: StageState, done: u64, total: u64) -> StageStatus {
    StageStatus {
        stage: "rank".to_owned(),
        split: Some("test".to_owned()),
        trial: None,
        digest: "0123456789ab".to_owned(),
        state,
        progress: Progress { done, total, unit: "users".to_owned(), note: String::new() },
        reused: false,
        retries: 1,
        shards: ShardCounts { all: 10, done: 9, leased: 1 },
        attempts: 4,
        oldest_lease: Duration::from_secs(12),
        rate: 20.0,
        rejected: [("the shard killed its workers".to_owned(), 16)].into(),
        quarantined: vec![3],
        working: 5,
        members: 0,
        generations: 0,
    }
}

fn job(state: JobState, stage: StageStatus) -> JobStatus {
    JobStatus {
        job: JobId("shop-0123456789ab".to_owned()),
        state,
        stages: vec![stage],
        workers: 2,
        reason: String::new(),
        failure: None,
        waiting: "the store is away".to_owned(),
        age: Duration::from_secs(65),
    }
}

#[test]
fn all_percent_come_with_the_end_only() {
    assert_eq!(percent(&stage(StageState::Running, 99_999, 100_000)), Some(99.9));
    assert_eq!(percent(&stage(StageState::Running, 100_000, 100_000)), Some(99.9), "_SUCCESS is not written yet");
    assert_eq!(percent(&stage(StageState::Done, 100_000, 100_000)), Some(100.0));
    assert_eq!(percent(&stage(StageState::Done, 0, 0)), Some(100.0), "what was done before counts nothing");
    assert_eq!(percent(&stage(StageState::Waiting, 0, 0)), Some(0.0));
    assert_eq!(percent(&stage(StageState::Running, 7, 0)), None, "nobody knows of how many");
}

#[test]
fn an_end_is_told_where_one_is_in_sight() {
    let running = stage(StageState::Running, 60, 100);
    assert_eq!(eta(&running, 20.0), Some(Duration::from_secs(2)));
    assert_eq!(eta(&running, 0.0), None);
    assert_eq!(eta(&running, 1e-9), None);
    assert_eq!(eta(&stage(StageState::Done, 100, 100), 20.0), None);
    assert_eq!(eta(&stage(StageState::Running, 60, 0), 20.0), None);
}

#[test]
fn a_page_names_what_is_wrong() {
    let text = page(&job(JobState::Running, stage(StageState::Running, 60, 100)));
    for part in
        ["shop-0123456789ab: running", "waiting: the store is away", "9/10 +1", "60.0 %", "20/s", "0:02", "0:12"]
    {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    let gang = StageStatus { members: 3, generations: 5, ..stage(StageState::Running, 60, 100) };
    assert!(page(&job(JobState::Running, gang)).contains("3 workers"));
    assert!(text.contains("rank:test: put aside: 16 × the shard killed its workers (shards 3)"), "{text}");
}

#[test]
fn what_was_put_aside_is_told_by_stage_and_reason() {
    let status = job(JobState::Succeeded, stage(StageState::Done, 100, 100));
    let words = put_aside(&status.job.0, &aside_by_status(&status)).expect("rows were put aside");
    assert!(words.starts_with("complete with 16 rows put aside (rank:test: 16 × the shard killed"), "{words}");
    assert!(words.contains("outputs shop-0123456789ab"), "{words}");
    let report = json!({"put_aside": {"prepare": {"no number": 2}, "rank.test": {"a": 3, "b": 4}}});
    let words = put_aside("shop", &aside_by_report(&report).expect("it is in there")).expect("rows were put aside");
    assert!(words.contains("9 rows") && words.contains("rank:test: 3 × a, 4 × b"), "{words}");
    assert!(put_aside("shop", &[("prepare".to_owned(), [].into())].into()).is_none(), "nothing is missing");
}

#[test]
fn json_says_whether_a_retry_helps() {
    let failed = |failure| JobStatus { failure, ..job(JobState::Failed, stage(StageState::Failed, 60, 100)) };
    assert_eq!(super::job(&failed(Some(FailureClass::Retry)))["may_pass"], true);
    assert_eq!(super::job(&failed(Some(FailureClass::Fatal)))["may_pass"], false);
    let running = super::job(&job(JobState::Running, stage(StageState::Running, 60, 100)));
    assert!(running["may_pass"].is_null());
    assert_eq!((&running["stage"], &running["percent"]), (&"rank:test".into(), &60.0.into()));
    assert_eq!(running["stages"][0]["eta_s"], 2);
    assert_eq!(running["stages"][0]["shards"]["leased"], 1);
}
