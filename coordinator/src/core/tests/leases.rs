//! Bundles, duplicates, shards that are put aside, claims and what is forgiven.

use data::artifact::QUARANTINED;

use super::*;

const WORKERS: [WorkerId; 4] = [WorkerId(1), WorkerId(2), WorkerId(3), WorkerId(4)];

/// A core with one map stage of so many shards of 10 rows.
fn map_stage(shards: usize) -> (Core, ArtifactId) {
    let mut core = Core::new(Policy::default(), 1);
    let id = submitted(&mut core);
    core.handle(Event::Opened { artifact: id.clone(), rows: vec![10; shards], done: vec![] }, at(0));
    (core, id)
}

fn submitted(core: &mut Core) -> ArtifactId {
    let id = artifact(Stage::Rank, "a");
    let stages = vec![entry(&id, &[])];
    assert_eq!(core.handle(Event::Submitted { job: job("j"), stages }, at(0)), [Action::Open(id.clone())]);
    id
}

fn ended(worker: WorkerId, lease: LeaseId) -> Event {
    Event::Said(worker, FromWorker::Ended { lease })
}

fn claim(lease: &Lease, shards: &[u32]) -> Claim {
    let (stage, digest) = (lease.artifact.stage.to_string(), lease.artifact.digest.to_string());
    Claim { lease: lease.id, stage, digest, shards: shards.to_vec(), generation: None }
}

fn back(worker: WorkerId, claim: Claim) -> Event {
    Event::Joined(worker, Joiner { claims: vec![claim], ..Joiner::default() })
}

fn beat(core: &mut Core, worker: WorkerId, now: Duration) {
    assert_eq!(core.handle(Event::Said(worker, FromWorker::Heartbeat), now), []);
}

/// A worker says that it has taken its lease up.
fn take_up(core: &mut Core, worker: WorkerId) {
    let lease = core.lease_of(worker).unwrap();
    let word = FromWorker::Progress { lease, progress: proto::Progress::default() };
    assert_eq!(core.handle(Event::Said(worker, word), at(1)), []);
}

/// Loses a worker with the shard that it works on.
fn die(core: &mut Core, worker: WorkerId, now: Duration) -> Vec<Action> {
    take_up(core, worker);
    core.handle(Event::Left(worker), now)
}

/// Loses a worker with the shard that it works on, and gives the shard to the next one.
fn lose(core: &mut Core, worker: WorkerId, next: WorkerId) -> Vec<Action> {
    let mut actions = die(core, worker, at(1));
    actions.extend(core.handle(joined(next), at(1)));
    actions
}

#[test]
fn a_lease_holds_what_takes_about_a_minute() {
    let (mut core, _) = map_stage(1000);
    let lease = granted(&core.handle(joined(WORKERS[0]), at(1))).clone();
    assert_eq!(lease.shards, [0], "nothing is known of how long a shard takes");
    core.handle(Event::Said(WORKERS[0], committed(lease.id, 0, 10)), at(2));
    let lease = granted(&core.handle(ended(WORKERS[0], lease.id), at(2))).clone();
    assert_eq!(lease.shards, (1..61).collect::<Vec<u32>>(), "a shard takes a second");
}

#[test]
fn leases_shrink_towards_the_end() {
    let (mut core, _) = map_stage(9);
    let lease = granted(&core.handle(joined(WORKERS[0]), at(1))).clone();
    core.handle(Event::Said(WORKERS[0], committed(lease.id, 0, 10)), at(2));
    let lease = granted(&core.handle(ended(WORKERS[0], lease.id), at(2))).clone();
    assert_eq!(lease.shards.len(), 4, "half of what is left for one worker");
    assert_eq!(granted(&core.handle(joined(WORKERS[1]), at(2))).shards.len(), 1, "a quarter of 4 for one of two");
}

#[test]
fn a_shard_that_cost_a_worker_goes_alone() {
    let (mut core, _) = map_stage(1000);
    let lease = granted(&core.handle(joined(WORKERS[0]), at(1))).clone();
    core.handle(Event::Said(WORKERS[0], committed(lease.id, 0, 10)), at(2));
    let lease = granted(&core.handle(ended(WORKERS[0], lease.id), at(2))).clone();
    assert!(lease.shards.len() > 1);
    assert_eq!(granted(&lose(&mut core, WORKERS[0], WORKERS[1])).shards, [1]);
    let lease = granted(&core.handle(joined(WORKERS[2]), at(3))).clone();
    assert_eq!(lease.shards.first(), Some(&2), "the others go on together");
    assert!(lease.shards.len() > 1);
}

#[test]
fn at_the_tail_an_idle_worker_tries_what_another_is_slow_with_and_the_first_commit_counts() {
    let (mut core, _) = map_stage(1);
    let slow = granted(&core.handle(joined(WORKERS[0]), at(0))).clone();
    core.handle(joined(WORKERS[1]), at(5));
    core.handle(joined(WORKERS[2]), at(5));
    for worker in &WORKERS[..3] {
        beat(&mut core, *worker, at(9));
    }
    assert_eq!(core.handle(Event::Tick, at(9)), [], "not slow yet");
    let fast = granted(&core.handle(Event::Tick, at(10))).clone();
    assert_eq!(fast.shards, [0]);
    for worker in WORKERS {
        core.handle(Event::Said(worker, FromWorker::Heartbeat), at(18));
    }
    assert_eq!(core.handle(Event::Tick, at(25)), [], "two are enough");
    let actions = core.handle(Event::Said(WORKERS[1], committed(fast.id, 0, 10)), at(26));
    assert!(matches!(&actions[0], Action::Revoke(worker, lease, _) if (*worker, *lease) == (WORKERS[0], slow.id)));
    assert!(matches!(actions[1], Action::Finish(_)), "{actions:?}");
    let half = proto::Progress { done: 4, total: 10, ..proto::Progress::default() };
    core.handle(Event::Said(WORKERS[0], FromWorker::Progress { lease: slow.id, progress: half }), at(27));
    assert_eq!(core.status(&job("j"), at(27)).unwrap().stages[0].progress.done, 10, "it is done, whoever is slower");
    assert_eq!(core.handle(Event::Said(WORKERS[0], committed(slow.id, 0, 10)), at(27)), [], "too late, and no harm");
}

#[test]
fn a_shard_that_kills_three_workers_is_put_aside_and_the_job_goes_on() {
    let (mut core, id) = map_stage(2);
    core.handle(joined(WORKERS[0]), at(1));
    assert_eq!(granted(&lose(&mut core, WORKERS[0], WORKERS[1])).shards, [0]);
    assert_eq!(granted(&lose(&mut core, WORKERS[1], WORKERS[2])).shards, [0]);
    let actions = lose(&mut core, WORKERS[2], WORKERS[3]);
    assert!(matches!(&actions[0], Action::Quarantine(artifact, 0, _) if *artifact == id), "{actions:?}");
    let lease = granted(&actions[1..]).clone();
    assert_eq!(lease.shards, [1]);
    let rejected = [(QUARANTINED.to_owned(), 10)].into();
    let aside = Committed { shard: 0, rejected, ..Committed::default() };
    assert_eq!(core.handle(Event::Quarantined { artifact: id.clone(), committed: aside }, at(2)), []);
    let actions = core.handle(Event::Said(WORKERS[3], committed(lease.id, 1, 10)), at(3));
    assert_eq!(actions, [Action::Finish(id)]);
    let stage = core.status(&job("j"), at(4)).unwrap().stages.remove(0);
    assert_eq!((stage.quarantined, stage.rejected[QUARANTINED]), (vec![0], 10));
}

#[test]
fn what_was_put_aside_under_the_coordinator_before_is_shown_once_its_records_are_read() {
    let mut core = Core::new(Policy::default(), 2);
    let artifact = submitted(&mut core);
    let opened = Event::Opened { artifact: artifact.clone(), rows: vec![10; 3], done: vec![0, 1] };
    core.handle(opened, at(0));
    let lease = granted(&core.handle(joined(WORKERS[0]), at(1))).id;
    let record = |shard, reason: &str| {
        let rejected = [(reason.to_owned(), 10)].into();
        Committed { shard, rejected, ..Committed::default() }
    };
    let records = vec![record(0, "bad"), record(1, QUARANTINED)];
    // Shard 2 is heard of from its worker and from its record, and another reading may be under way.
    let committed = FromWorker::Committed { lease, committed: record(2, "bad") };
    let tallied = Event::Tallied { artifact: artifact.clone(), records: [records, vec![record(2, "bad")]].concat() };
    core.handle(tallied.clone(), at(2));
    assert_eq!(core.handle(Event::Said(WORKERS[0], committed), at(2)), [Action::Finish(artifact)]);
    core.handle(tallied, at(3));
    let stage = core.status(&job("j"), at(4)).unwrap().stages.remove(0);
    assert_eq!((stage.quarantined, stage.shards.done), (vec![1], 3));
    assert_eq!((stage.rejected["bad"], stage.rejected[QUARANTINED]), (20, 10));
}

#[test]
fn a_shard_that_somebody_has_computed_is_not_put_aside() {
    let (mut core, artifact) = map_stage(1);
    core.handle(joined(WORKERS[0]), at(1));
    lose(&mut core, WORKERS[0], WORKERS[1]);
    lose(&mut core, WORKERS[1], WORKERS[2]);
    assert!(matches!(lose(&mut core, WORKERS[2], WORKERS[3])[..], [Action::Quarantine(..)]));
    let lease = granted(&core.handle(Event::Spared { artifact, shard: 0 }, at(2))).clone();
    assert_eq!(lease.shards, [0], "whoever comes completes it");
}

#[test]
fn what_nobody_wants_any_more_is_not_put_aside_but_kept_for_the_next_submission() {
    let (mut core, id) = map_stage(1);
    core.handle(joined(WORKERS[0]), at(1));
    lose(&mut core, WORKERS[0], WORKERS[1]);
    lose(&mut core, WORKERS[1], WORKERS[2]);
    core.handle(Event::Cancelled { job: job("j"), reason: "enough".into() }, at(2));
    assert_eq!(die(&mut core, WORKERS[2], at(2)), [], "nobody would answer");
    core.handle(joined(WORKERS[3]), at(3));
    let stages = vec![entry(&id, &[])];
    assert_eq!(core.handle(Event::Submitted { job: job("j"), stages }, at(3)), [Action::Open(id.clone())]);
    let opened = Event::Opened { artifact: id, rows: vec![10], done: vec![] };
    assert_eq!(granted(&core.handle(opened, at(3))).shards, [0]);
}

#[test]
fn nothing_is_granted_before_those_who_hold_something_have_spoken() {
    let mut core = Core::new(Policy::default(), 2);
    let id = submitted(&mut core);
    core.expect_claims(at(0));
    core.handle(Event::Opened { artifact: id.clone(), rows: vec![10; 3], done: vec![0] }, at(0));
    assert_eq!(core.handle(joined(WORKERS[0]), at(1)), []);
    let old = Lease { id: LeaseId::of(1, 7), job: job("j"), artifact: id, split: None, shards: vec![1], of: 3 };
    assert_eq!(core.handle(back(WORKERS[1], claim(&old, &[1])), at(2)), []);
    beat(&mut core, WORKERS[0], at(4));
    assert_eq!(core.handle(Event::Tick, at(4)), []);
    assert_eq!(granted(&core.handle(Event::Tick, at(5))).shards, [2], "0 is done and 1 in the hands of its holder");
}

#[test]
fn a_commit_that_was_heard_of_before_the_shards_were_listed_is_not_forgotten() {
    let mut core = Core::new(Policy::default(), 2);
    let id = submitted(&mut core);
    let old = Lease { id: LeaseId::of(1, 7), job: job("j"), artifact: id, split: None, shards: vec![0, 1], of: 2 };
    core.handle(back(WORKERS[0], claim(&old, &[1])), at(0));
    core.handle(Event::Said(WORKERS[0], committed(old.id, 0, 10)), at(0));
    // The listing was made before the commit.
    let opened = Event::Opened { artifact: old.artifact.clone(), rows: vec![10; 2], done: vec![] };
    core.handle(opened, at(1));
    assert_eq!(core.handle(joined(WORKERS[1]), at(1)), [], "0 is done and 1 is held");
    let actions = core.handle(Event::Said(WORKERS[0], committed(old.id, 1, 10)), at(2));
    assert_eq!(actions, [Action::Finish(old.artifact)]);
}

#[test]
fn a_claim_of_what_nobody_wants_is_taken_back() {
    let (mut core, _) = map_stage(1);
    let unknown = artifact(Stage::Rank, "other");
    let old = Lease { id: LeaseId::of(0, 7), job: job("k"), artifact: unknown, split: None, shards: vec![0], of: 1 };
    let actions = core.handle(back(WORKERS[0], claim(&old, &[0])), at(1));
    assert!(matches!(actions[0], Action::Revoke(_, lease, _) if lease == old.id), "{actions:?}");
    assert_eq!(granted(&actions).shards, [0], "and its worker gets something else");
}

#[test]
fn a_claim_of_what_others_have_done_is_taken_back() {
    let (mut core, _) = map_stage(2);
    let lost = granted(&core.handle(joined(WORKERS[0]), at(1))).clone();
    let actions = lose(&mut core, WORKERS[0], WORKERS[1]);
    let lease = granted(&actions).id;
    core.handle(Event::Said(WORKERS[1], committed(lease, 0, 10)), at(2));
    let actions = core.handle(back(WORKERS[2], claim(&lost, &[0])), at(3));
    assert!(matches!(actions[..], [Action::Revoke(worker, lease, _)] if (worker, lease) == (WORKERS[2], lost.id)));
}

#[test]
fn a_worker_that_registers_again_takes_its_lease_along() {
    let (mut core, _) = map_stage(2);
    let lease = granted(&core.handle(joined(WORKERS[0]), at(1))).clone();
    // From here its first session still looks alive.
    let actions = core.handle(back(WORKERS[1], claim(&lease, &[0])), at(2));
    assert!(matches!(actions[..], [Action::Evict(worker, _)] if worker == WORKERS[0]), "{actions:?}");
    assert_eq!(core.handle(Event::Left(WORKERS[0]), at(3)), [], "nothing is lost with a session that is over");
    core.handle(Event::Said(WORKERS[1], committed(lease.id, 0, 10)), at(4));
    let status = core.status(&job("j"), at(5)).unwrap();
    assert_eq!((status.stages[0].retries, status.stages[0].shards.done), (0, 1));
}

#[test]
fn a_shard_whose_commit_was_on_its_way_when_the_worker_died_is_granted_again() {
    let (mut core, _) = map_stage(2);
    let lease = granted(&core.handle(joined(WORKERS[0]), at(1))).clone();
    // Shard 0 is committed, so that the claim is of nothing; the word of it is lost with the worker.
    core.handle(back(WORKERS[1], claim(&lease, &[])), at(2));
    core.handle(Event::Left(WORKERS[1]), at(3));
    assert_eq!(granted(&core.handle(joined(WORKERS[2]), at(4))).shards, [0]);
}

#[test]
fn a_loss_is_forgiven_once_its_worker_is_back_wherever_it_is() {
    let (mut core, _) = map_stage(3);
    let lease = granted(&core.handle(joined(WORKERS[0]), at(1))).clone();
    core.handle(Event::Said(WORKERS[0], committed(lease.id, 0, 10)), at(2));
    let lease = granted(&core.handle(ended(WORKERS[0], lease.id), at(2))).clone();
    assert_eq!(lease.shards, [1]);
    core.handle(Event::Left(WORKERS[0]), at(3));
    // It has committed shard 1 meanwhile: what it is at now was never lost.
    core.handle(back(WORKERS[1], claim(&lease, &[])), at(4));
    core.handle(Event::Said(WORKERS[1], committed(lease.id, 1, 10)), at(4));
    core.handle(ended(WORKERS[1], lease.id), at(4));
    // Losses of shard 2 count from the first one: none of another lease was taken from them.
    let last = [WorkerId(5), WorkerId(6)];
    assert_eq!(granted(&lose(&mut core, WORKERS[1], last[0])).shards, [2]);
    assert_eq!(granted(&lose(&mut core, last[0], last[1])).shards, [2]);
    assert!(matches!(die(&mut core, last[1], at(9))[..], [Action::Quarantine(_, 2, _)]));
}

#[test]
fn a_grant_that_never_arrived_costs_its_shard_nothing() {
    let (mut core, _) = map_stage(1);
    for worker in (1..=5).map(WorkerId) {
        assert_eq!(granted(&core.handle(joined(worker), at(1))).shards, [0]);
        assert_eq!(core.handle(Event::Left(worker), at(1)), []);
    }
    let stage = core.status(&job("j"), at(2)).unwrap().stages.remove(0);
    assert_eq!((stage.retries, stage.attempts), (0, 5));
    core.handle(joined(WORKERS[0]), at(3));
    lose(&mut core, WORKERS[0], WORKERS[1]);
    lose(&mut core, WORKERS[1], WORKERS[2]);
    let actions = die(&mut core, WORKERS[2], at(3));
    assert!(matches!(actions[..], [Action::Quarantine(_, 0, _)]), "three that had taken it up: {actions:?}");
}

#[test]
fn a_shard_that_kills_before_anybody_can_speak_is_put_aside_in_the_end() {
    let (mut core, _) = map_stage(1);
    let Policy { max_losses, quarantine_after, .. } = Policy::default();
    for worker in (1..max_losses + quarantine_after).map(|n| WorkerId(n.into())) {
        core.handle(joined(worker), at(1));
        assert_eq!(core.handle(Event::Left(worker), at(1)), []);
    }
    core.handle(joined(WorkerId(99)), at(1));
    assert!(matches!(core.handle(Event::Left(WorkerId(99)), at(1))[..], [Action::Quarantine(_, 0, _)]));
}

#[test]
fn a_lease_that_was_not_heard_of_is_as_good_as_lost_once_it_is_claimed() {
    let (mut core, _) = map_stage(1);
    let lease = granted(&core.handle(joined(WORKERS[0]), at(1))).clone();
    core.handle(Event::Left(WORKERS[0]), at(1));
    core.handle(back(WORKERS[1], claim(&lease, &[0])), at(2));
    core.handle(Event::Left(WORKERS[1]), at(3));
    assert_eq!(core.status(&job("j"), at(4)).unwrap().stages[0].retries, 1);
}

#[test]
fn a_failure_that_is_said_again_to_the_next_session_has_happened_once() {
    let (mut core, _) = map_stage(2);
    let lease = granted(&core.handle(joined(WORKERS[0]), at(1))).clone();
    let failed = FromWorker::Failed { lease: lease.id, class: FailureClass::Retry, reason: "no route".into() };
    core.handle(Event::Said(WORKERS[0], failed.clone()), at(2));
    core.handle(Event::Left(WORKERS[0]), at(2));
    for session in 11..20 {
        core.handle(back(WorkerId(session), claim(&lease, &[0])), at(session));
        core.handle(Event::Said(WorkerId(session), failed.clone()), at(session));
        core.handle(Event::Left(WorkerId(session)), at(session));
    }
    let status = core.status(&job("j"), at(30)).unwrap();
    assert_eq!((status.state, status.stages[0].retries), (JobState::Running, 1));
}

#[test]
fn a_shard_that_broken_streams_interrupt_is_never_put_aside() {
    let (mut core, _) = map_stage(1);
    let lease = granted(&core.handle(joined(WorkerId(1)), at(1))).clone();
    for session in 1..20 {
        assert_eq!(core.handle(Event::Left(WorkerId(session)), at(session)), []);
        core.handle(back(WorkerId(session + 1), claim(&lease, &[0])), at(session));
    }
    let stage = core.status(&job("j"), at(30)).unwrap().stages.remove(0);
    assert_eq!((stage.state, stage.quarantined.len()), (proto::StageState::Running, 0));
}

#[test]
fn a_coordinator_that_leads_no_more_takes_no_claims() {
    let (mut core, id) = map_stage(1);
    let later = Lease { id: LeaseId::of(2, 1), job: job("j"), artifact: id, split: None, shards: vec![0], of: 1 };
    let actions = core.handle(back(WORKERS[0], claim(&later, &[0])), at(1));
    assert!(matches!(actions[..], [Action::Evict(worker, _)] if worker == WORKERS[0]), "{actions:?}");
    assert_eq!(granted(&core.handle(joined(WORKERS[1]), at(2))).shards, [0]);
}

#[test]
fn what_is_done_does_not_fail_any_more() {
    let (mut core, artifact) = map_stage(1);
    core.handle(Event::Finished(artifact.clone()), at(1));
    let reason = "a call of before".to_owned();
    core.handle(Event::Broken { artifact: artifact.clone(), class: FailureClass::Retry, reason }, at(2));
    let stages = vec![StageEntry { complete: true, ..entry(&artifact, &[]) }];
    let actions = core.handle(Event::Submitted { job: job("k"), stages }, at(3));
    assert_eq!(actions, [Action::Ended(job("k"), JobState::Succeeded)]);
}

/// `rm` works beside a coordinator that remembers what it removes.
#[test]
fn what_was_removed_from_the_store_is_made_anew() {
    let (mut core, artifact) = map_stage(1);
    core.handle(Event::Finished(artifact.clone()), at(1));
    let stages = vec![entry(&artifact, &[])];
    let actions = core.handle(Event::Submitted { job: job("j.2"), stages }, at(3));
    assert_eq!(actions, [Action::Open(artifact)]);
}
