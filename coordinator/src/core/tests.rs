#![allow(clippy::unwrap_used)]

mod bound;
mod gangs;
mod leases;
mod scale;
mod trials;

use data::artifact::Digest;
use proto::{Claim, Committed, FailureClass, FromWorker, JobState};

use super::*;

fn artifact(stage: Stage, name: &str) -> ArtifactId {
    ArtifactId { stage, digest: Digest::of_bytes(name.as_bytes()) }
}

fn entry(artifact: &ArtifactId, needs: &[&ArtifactId]) -> StageEntry {
    StageEntry {
        artifact: artifact.clone(),
        split: None,
        trial: None,
        needs: needs.iter().map(|a| (*a).clone()).collect(),
        complete: false,
        gang: 1,
    }
}

fn job(name: &str) -> JobId {
    JobId(name.to_owned())
}

fn joined(worker: WorkerId) -> Event {
    Event::Joined(worker, Joiner::default())
}

fn committed(lease: LeaseId, shard: u32, rows: u64) -> FromWorker {
    let took = Duration::from_secs(1);
    FromWorker::Committed { lease, committed: Committed { shard, rows, took, ..Committed::default() } }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A core with one job of two stages, the first one opened with one shard.
fn begun() -> (Core, ArtifactId, ArtifactId) {
    let (first, second) = (artifact(Stage::Prepare, "a"), artifact(Stage::Retrieve, "b"));
    let mut core = Core::new(Policy::default(), 1);
    let stages = vec![entry(&first, &[]), entry(&second, &[&first])];
    let actions = core.handle(Event::Submitted { job: job("j"), stages }, at(0));
    assert_eq!(actions, [Action::Open(first.clone())]);
    core.handle(Event::Opened { artifact: first.clone(), rows: vec![0], done: vec![] }, at(0));
    (core, first, second)
}

fn granted(actions: &[Action]) -> &Lease {
    let grants: Vec<&Lease> =
        actions.iter().filter_map(|a| if let Action::Grant(_, l) = a { Some(l) } else { None }).collect();
    assert_eq!(grants.len(), 1, "{actions:?}");
    grants[0]
}

#[test]
fn a_job_runs_from_the_first_stage_to_its_end() {
    let (mut core, first, second) = begun();
    let worker = WorkerId(1);
    let lease = granted(&core.handle(joined(worker), at(1))).clone();
    assert_eq!((lease.artifact.clone(), lease.shards.clone()), (first.clone(), vec![0]));
    let word = committed(lease.id, 0, 9);
    assert_eq!(core.handle(Event::Said(worker, word), at(2)), [Action::Finish(first.clone())]);
    core.handle(Event::Said(worker, FromWorker::Ended { lease: lease.id }), at(2));
    assert_eq!(core.handle(Event::Finished(first), at(3)), [Action::Open(second.clone())]);
    let opened = Event::Opened { artifact: second.clone(), rows: vec![4, 5], done: vec![0] };
    let lease = granted(&core.handle(opened, at(4))).clone();
    assert_eq!(lease.shards, [1], "shard 0 was done before");
    core.handle(Event::Said(worker, committed(lease.id, 1, 5)), at(5));
    core.handle(Event::Said(worker, FromWorker::Ended { lease: lease.id }), at(5));
    let actions = core.handle(Event::Finished(second), at(6));
    assert_eq!(actions, [Action::Ended(job("j"), JobState::Succeeded)]);
}

#[test]
fn a_silent_worker_loses_its_lease_to_another() {
    let (mut core, ..) = begun();
    let first = granted(&core.handle(joined(WorkerId(1)), at(1))).clone();
    assert_eq!(core.handle(joined(WorkerId(2)), at(9)), []);
    let actions = core.handle(Event::Tick, at(11));
    assert!(matches!(actions[0], Action::Evict(WorkerId(1), _)), "{actions:?}");
    assert_eq!(granted(&actions).shards, first.shards);
    let late = committed(first.id, 0, 1);
    assert!(matches!(core.handle(Event::Said(WorkerId(1), late), at(12))[0], Action::Evict(WorkerId(1), _)));
}

#[test]
fn a_failure_is_tried_again_and_then_told() {
    let (mut core, ..) = begun();
    let mut actions = core.handle(joined(WorkerId(1)), at(1));
    for round in 0..3 {
        let lease = granted(&actions).id;
        let failed = FromWorker::Failed { lease, class: FailureClass::Retry, reason: "no route".into() };
        actions = core.handle(Event::Said(WorkerId(1), failed), at(2 + round));
    }
    assert_eq!(actions, [Action::Ended(job("j"), JobState::Failed)]);
    let status = core.status(&job("j"), at(9)).unwrap();
    assert_eq!(status.reason, "prepare: failed 3 times, the last time: no route");
    assert_eq!(status.failure, Some(FailureClass::Retry), "the same job may succeed later");
}

#[test]
fn a_fatal_failure_ends_the_job_at_once_and_a_new_submission_tries_again() {
    let (mut core, first, second) = begun();
    let lease = granted(&core.handle(joined(WorkerId(1)), at(1))).id;
    let failed = FromWorker::Failed { lease, class: FailureClass::Fatal, reason: "bad file".into() };
    assert_eq!(core.handle(Event::Said(WorkerId(1), failed), at(2)), [Action::Ended(job("j"), JobState::Failed)]);
    let stages = vec![entry(&first, &[]), entry(&second, &[&first])];
    assert_eq!(core.handle(Event::Submitted { job: job("j"), stages }, at(3)), [Action::Open(first)]);
}

#[test]
fn workers_that_leave_in_order_cost_the_shard_nothing() {
    let (mut core, ..) = begun();
    for worker in (1..=20).map(WorkerId) {
        let lease = granted(&core.handle(joined(worker), at(1))).id;
        assert_eq!(core.handle(Event::Said(worker, FromWorker::Leaving), at(1)), []);
        if worker.0.is_multiple_of(2) {
            let returned = FromWorker::Failed { lease, class: FailureClass::Returned, reason: "leaving".into() };
            assert_eq!(core.handle(Event::Said(worker, returned), at(1)), [], "who leaves gets nothing more");
        }
        core.handle(Event::Left(worker), at(1));
    }
    let status = core.status(&job("j"), at(9)).unwrap();
    assert_eq!((status.state, status.stages[0].retries), (JobState::Running, 0));
    assert_eq!(status.stages[0].state, proto::StageState::Running, "it was begun, whoever goes on with it");
}

#[test]
fn a_report_that_cannot_be_written_fails_the_job_until_it_is_submitted_again() {
    let (mut core, first, second) = begun();
    let stages = |complete: bool| {
        vec![StageEntry { complete, ..entry(&first, &[]) }, StageEntry { complete, ..entry(&second, &[&first]) }]
    };
    let succeeded = [Action::Ended(job("k"), JobState::Succeeded)];
    let submitted = core.handle(Event::Submitted { job: job("k"), stages: stages(true) }, at(1));
    assert_eq!(submitted, [], "prepare is at work for another job");
    core.handle(Event::Finished(first.clone()), at(2));
    assert_eq!(core.handle(Event::Finished(second.clone()), at(2)).last(), succeeded.last());
    let (class, reason) = (FailureClass::Retry, "disk full".to_owned());
    core.handle(Event::Unreported { job: job("k"), class, reason }, at(3));
    let status = core.status(&job("k"), at(9)).unwrap();
    assert_eq!((status.state, status.reason.as_str()), (JobState::Failed, "report: disk full"));
    assert_eq!(core.handle(Event::Submitted { job: job("k"), stages: stages(true) }, at(4)), succeeded);
}

#[test]
fn a_job_that_is_forgotten_takes_along_what_only_it_had_and_can_be_submitted_again() {
    let (mut core, first, second) = begun();
    let lease = granted(&core.handle(joined(WorkerId(1)), at(1))).id;
    let other = artifact(Stage::Retrieve, "c");
    let stages = vec![entry(&first, &[]), entry(&other, &[&first])];
    core.handle(Event::Submitted { job: job("k"), stages: stages.clone() }, at(1));
    core.forget(&job("j"));
    assert_eq!(core.state(&job("j")), Some(JobState::Running), "a running job is not forgotten");
    core.handle(Event::Cancelled { job: job("j"), reason: "enough".into() }, at(2));
    core.forget(&job("j"));
    assert_eq!((core.state(&job("j")), core.status(&job("j"), at(2))), (None, None));
    assert_eq!((core.jobs(), core.knows(&first), core.knows(&second)), (&[job("k")][..], true, false));
    // The lease keeps what it works on until it comes back, and stops nobody who wants it again.
    core.handle(Event::Cancelled { job: job("k"), reason: "enough".into() }, at(3));
    core.forget(&job("k"));
    assert_eq!((core.knows(&first), core.knows(&other)), (true, false));
    assert_eq!(core.handle(Event::Submitted { job: job("k"), stages }, at(4)), [Action::Open(first.clone())]);
    core.handle(Event::Opened { artifact: first.clone(), rows: vec![0], done: vec![] }, at(4));
    let actions = core.handle(Event::Said(WorkerId(1), committed(lease, 0, 1)), at(5));
    assert_eq!(actions, [Action::Finish(first)]);
}

#[test]
fn cancelling_takes_the_lease_back() {
    let (mut core, ..) = begun();
    let lease = granted(&core.handle(joined(WorkerId(1)), at(1))).id;
    let actions = core.handle(Event::Cancelled { job: job("j"), reason: "enough".into() }, at(2));
    assert_eq!(actions[0], Action::Ended(job("j"), JobState::Cancelled));
    assert!(matches!(actions[1], Action::Revoke(WorkerId(1), l, _) if l == lease), "{actions:?}");
    let returned = FromWorker::Failed { lease, class: FailureClass::Returned, reason: "taken back".into() };
    assert_eq!(core.handle(Event::Said(WorkerId(1), returned), at(3)), []);
}

#[test]
fn jobs_share_what_they_have_in_common() {
    let (mut core, first, _) = begun();
    let other = artifact(Stage::Retrieve, "c");
    let stages = vec![entry(&first, &[]), entry(&other, &[&first])];
    assert_eq!(core.handle(Event::Submitted { job: job("k"), stages }, at(1)), [], "prepare is already open");
    granted(&core.handle(joined(WorkerId(1)), at(1)));
}
