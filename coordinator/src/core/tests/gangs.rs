//! Trainings that several workers do together: who joins, who is lost, and what outlives a coordinator.

use proto::{Broken, Generation, GenerationId, Progress, Ready};

use super::*;

/// A core with a training of so many members at most.
fn training(most: u32) -> (Core, ArtifactId) {
    let mut core = Core::new(Policy::default(), 1);
    let id = submitted(&mut core, "a", most);
    core.handle(Event::Opened { artifact: id.clone(), rows: vec![0], done: vec![] }, at(0));
    (core, id)
}

fn submitted(core: &mut Core, name: &str, gang: u32) -> ArtifactId {
    let id = artifact(Stage::TrainRanker, name);
    let stages = vec![StageEntry { gang, ..entry(&id, &[]) }];
    let submitted = Event::Submitted { job: job(name), stages };
    assert_eq!(core.handle(submitted, at(0)), [Action::Open(id.clone())]);
    id
}

fn worker(n: u64) -> WorkerId {
    WorkerId(n)
}

fn named(n: u64) -> Event {
    let joiner = Joiner { name: format!("worker-{n}"), ..Joiner::default() };
    Event::Joined(worker(n), joiner)
}

/// Lets so many workers join, and returns their leases.
fn joined_all(core: &mut Core, workers: u64, now: Duration) -> Vec<LeaseId> {
    (1..=workers).map(|n| granted(&core.handle(named(n), now)).id).collect()
}

fn said(n: u64, word: FromWorker) -> Event {
    Event::Said(worker(n), word)
}

fn ready(lease: LeaseId, step: u64) -> FromWorker {
    let (address, about) = (format!("host-{}:7000", lease.0 & 0xff), format!("examples of step {}", step + 1));
    FromWorker::Ready(Ready { lease, address, certificate: vec![], step, about, broken: None })
}

fn broke(lease: LeaseId, step: u64, generation: GenerationId, unreachable: Option<LeaseId>) -> FromWorker {
    let FromWorker::Ready(ready) = ready(lease, step) else { unreachable!() };
    let broken = Some(Broken { generation, reason: "a stream ended".into(), unreachable });
    FromWorker::Ready(Ready { broken, ..ready })
}

fn failed(lease: LeaseId, class: FailureClass) -> FromWorker {
    FromWorker::Failed { lease, class, reason: "out of memory".into() }
}

/// The generation that begins, told to each of its members by rank.
fn begun(actions: &[Action]) -> Generation {
    let begins = actions.iter().filter_map(|a| if let Action::Begin(_, g) = a { Some(g) } else { None });
    let begins: Vec<&Generation> = begins.collect();
    assert!(!begins.is_empty(), "{actions:?}");
    for (rank, begin) in begins.iter().enumerate() {
        assert_eq!((begin.rank as usize, begin.lease), (rank, begin.members[rank].lease));
        assert_eq!((begin.number, &begin.members), (begins[0].number, &begins[0].members));
    }
    assert_eq!(begins.len(), begins[0].members.len());
    begins[0].clone()
}

fn leases_of(generation: &Generation) -> Vec<LeaseId> {
    generation.members.iter().map(|member| member.lease).collect()
}

fn aborted(actions: &[Action]) -> Vec<LeaseId> {
    actions.iter().filter_map(|a| if let Action::Abort(_, lease, ..) = a { Some(*lease) } else { None }).collect()
}

fn regrouped(actions: &[Action]) -> Vec<LeaseId> {
    actions.iter().filter_map(|a| if let Action::Regroup(_, lease, _) = a { Some(*lease) } else { None }).collect()
}

fn revoked(actions: &[Action]) -> Vec<(WorkerId, LeaseId)> {
    let revoked = |a: &Action| if let Action::Revoke(worker, lease, _) = a { Some((*worker, *lease)) } else { None };
    actions.iter().filter_map(revoked).collect()
}

/// All members say that they are ready; the last one's word opens a generation.
fn meet(core: &mut Core, members: &[(u64, LeaseId)], step: u64, now: Duration) -> Generation {
    let (last, others) = members.split_last().unwrap();
    for (n, lease) in others {
        assert_eq!(core.handle(said(*n, ready(*lease, step)), now), []);
    }
    begun(&core.handle(said(last.0, ready(last.1, step)), now))
}

/// So many workers that train together.
fn together(workers: u64) -> (Core, ArtifactId, Vec<LeaseId>, GenerationId) {
    let (mut core, id) = training(8);
    let leases = joined_all(&mut core, workers, at(1));
    let members: Vec<(u64, LeaseId)> = (1..=workers).zip(leases.iter().copied()).collect();
    let generation = meet(&mut core, &members, 0, at(2));
    assert_eq!(leases_of(&generation), leases);
    (core, id, leases, generation.number)
}

fn stage(core: &Core, name: &str) -> proto::StageStatus {
    core.status(&job(name), at(9)).unwrap().stages.remove(0)
}

#[test]
fn idle_workers_join_a_training_and_begin_together() {
    let (core, _, leases, number) = together(3);
    assert_eq!((leases.len(), number), (3, GenerationId::of(1, 1)));
    let stage = stage(&core, "a");
    assert_eq!((stage.members, stage.generations, stage.attempts, stage.shards.leased), (3, 1, 3, 1));
}

#[test]
fn a_training_takes_no_more_than_have_something_to_do() {
    let (mut core, _) = training(2);
    joined_all(&mut core, 2, at(1));
    assert_eq!(core.handle(named(3), at(1)), []);
}

#[test]
fn a_gang_has_done_what_its_furthest_member_has() {
    let (mut core, _, leases, _) = together(2);
    for (n, done) in [(1, 12), (2, 11)] {
        let progress = Progress { done, total: 100, unit: "steps".into(), note: format!("loss of {n}") };
        core.handle(said(n, FromWorker::Progress { lease: leases[n as usize - 1], progress }), at(3));
    }
    let progress = stage(&core, "a").progress;
    assert_eq!((progress.done, progress.total, progress.note.as_str()), (12, 100, "loss of 1"));
}

#[test]
fn when_one_dies_the_others_go_on_and_another_takes_its_place() {
    let (mut core, _, leases, number) = together(3);
    core.handle(named(4), at(3));
    let four = core.lease_of(worker(4)).unwrap();
    let actions = core.handle(Event::Left(worker(2)), at(4));
    assert_eq!(aborted(&actions), [leases[0], leases[2]]);
    assert_eq!(core.handle(said(1, broke(leases[0], 5, number, None)), at(5)), []);
    assert_eq!(core.handle(said(3, broke(leases[2], 5, number, None)), at(5)), [], "4 may be as far soon");
    let generation = begun(&core.handle(Event::Tick, at(8)));
    assert_eq!(leases_of(&generation), [leases[0], leases[2]]);
    assert!(generation.number > number);
    let actions = core.handle(said(4, ready(four, 0)), at(9));
    assert_eq!(regrouped(&actions), [leases[0], leases[2]]);
    let generation = meet(&mut core, &[(1, leases[0]), (3, leases[2])], 9, at(10));
    assert_eq!(leases_of(&generation), [leases[0], leases[2], four]);
    assert_eq!(stage(&core, "a").retries, 1);
}

#[test]
fn one_that_is_silent_is_given_up() {
    let (mut core, _, leases, _) = together(3);
    for n in [1, 3] {
        core.handle(said(n, FromWorker::Heartbeat), at(11));
    }
    let actions = core.handle(Event::Tick, at(12));
    assert_eq!(aborted(&actions), [leases[0], leases[2]]);
}

#[test]
fn one_that_leaves_in_order_is_neither_counted_nor_replaced_by_itself() {
    let (mut core, _, leases, _) = together(3);
    for round in 0..5 {
        assert_eq!(core.handle(said(2, FromWorker::Leaving), at(3)), []);
        if round == 0 {
            assert_eq!(core.handle(said(2, failed(leases[1], FailureClass::Returned)), at(3)), []);
        }
    }
    assert_eq!(core.handle(Event::Left(worker(2)), at(3)), []);
    let generation = meet(&mut core, &[(1, leases[0]), (3, leases[2])], 4, at(4));
    assert_eq!(leases_of(&generation), [leases[0], leases[2]]);
    assert_eq!(stage(&core, "a").retries, 0);
}

#[test]
fn when_all_are_lost_others_begin_where_the_store_is() {
    let (mut core, _, _, number) = together(2);
    core.handle(Event::Left(worker(1)), at(3));
    core.handle(Event::Left(worker(2)), at(3));
    let lease = granted(&core.handle(named(5), at(4))).id;
    let generation = begun(&core.handle(said(5, ready(lease, 100)), at(5)));
    assert!(generation.number > number);
}

#[test]
fn the_end_of_a_training_is_the_end_of_its_gang() {
    let (mut core, id, leases, _) = together(3);
    let actions = core.handle(said(1, committed(leases[0], 0, 1)), at(5));
    assert_eq!(revoked(&actions), [(worker(2), leases[1]), (worker(3), leases[2])]);
    assert_eq!(actions.last(), Some(&Action::Finish(id)));
    assert_eq!(core.handle(said(2, ready(leases[1], 100)), at(5)), []);
    for (n, lease) in (1..).zip(leases) {
        assert_eq!(core.handle(said(n, FromWorker::Ended { lease }), at(6)), []);
    }
    assert_eq!(stage(&core, "a").members, 0);
}

fn claim(id: &ArtifactId, lease: LeaseId, generation: Option<GenerationId>) -> Claim {
    let (stage, digest) = (id.stage.to_string(), id.digest.to_string());
    Claim { lease, stage, digest, shards: vec![0], generation }
}

fn back(n: u64, claim: Claim) -> Event {
    Event::Joined(worker(n), Joiner { name: format!("worker-{n}"), claims: vec![claim], ..Joiner::default() })
}

/// The next coordinator, at which those who train and those who wait say what they hold.
fn taken_over(training: u64, waiting: u64) -> (Core, ArtifactId, Vec<LeaseId>) {
    let mut core = Core::new(Policy::default(), 2);
    let id = submitted(&mut core, "a", 8);
    core.expect_claims(at(0));
    core.handle(Event::Opened { artifact: id.clone(), rows: vec![0], done: vec![] }, at(0));
    let leases: Vec<LeaseId> = (1..=training + waiting).map(|n| LeaseId::of(1, n)).collect();
    for (n, lease) in (1..).zip(&leases) {
        let generation = (n <= training).then_some(GenerationId::of(1, 7));
        assert_eq!(core.handle(back(n, claim(&id, *lease, generation)), at(1)), []);
    }
    (core, id, leases)
}

#[test]
fn a_new_coordinator_lets_a_gang_train_on_until_it_knows_who_is_there() {
    let (mut core, _, leases) = taken_over(3, 0);
    assert_eq!(core.handle(Event::Tick, at(4)), []);
    let actions = core.handle(Event::Tick, at(5));
    assert_eq!(regrouped(&actions), leases);
    let generation = meet(&mut core, &[(1, leases[0]), (2, leases[1]), (3, leases[2])], 50, at(6));
    assert_eq!((generation.number, leases_of(&generation)), (GenerationId::of(2, 1), leases));
}

#[test]
fn a_gang_of_which_some_have_gone_with_the_coordinator_goes_on_with_the_rest() {
    let (mut core, _, leases) = taken_over(2, 1);
    assert_eq!(core.handle(said(3, ready(leases[2], 50)), at(2)), []);
    let actions = core.handle(Event::Tick, at(5));
    assert_eq!(regrouped(&actions), leases[..2]);
    // Their ring has lost one whom this coordinator never knew.
    let generation = GenerationId::of(1, 7);
    assert_eq!(core.handle(said(1, broke(leases[0], 60, generation, None)), at(6)), []);
    let generation = begun(&core.handle(said(2, broke(leases[1], 60, generation, None)), at(6)));
    assert_eq!(leases_of(&generation), leases);
}

#[test]
fn a_session_that_breaks_does_not_cost_one_that_trains_alone_its_generation() {
    let (mut core, id, leases, number) = together(1);
    assert_eq!(core.handle(Event::Left(worker(1)), at(3)), []);
    assert_eq!(core.handle(back(11, claim(&id, leases[0], Some(number))), at(4)), []);
    assert_eq!((stage(&core, "a").members, stage(&core, "a").generations), (1, 1));
}

#[test]
fn a_session_that_breaks_among_others_brings_its_worker_back_into_the_next_generation() {
    let (mut core, id, leases, number) = together(2);
    let actions = core.handle(Event::Left(worker(2)), at(3));
    assert_eq!(aborted(&actions), [leases[0]]);
    let actions = core.handle(back(12, claim(&id, leases[1], Some(number))), at(3));
    assert_eq!(aborted(&actions), [leases[1]]);
    core.handle(said(1, broke(leases[0], 5, number, None)), at(4));
    let generation = begun(&core.handle(said(12, broke(leases[1], 5, number, None)), at(4)));
    assert_eq!(leases_of(&generation), leases);
    // It was no loss after all.
    let (mut core, id, leases, number) = (core, id, leases, generation.number);
    for session in 13..30 {
        core.handle(Event::Left(worker(session - 1)), at(5));
        core.handle(back(session, claim(&id, leases[1], Some(number))), at(5));
    }
    assert_eq!(stage(&core, "a").state, proto::StageState::Running);
}

#[test]
fn a_step_that_costs_three_members_fails_the_stage_with_its_examples() {
    let (mut core, _, leases, mut number) = together(4);
    let mut members: Vec<(u64, LeaseId)> = (1..).zip(leases).collect();
    let mut actions = Vec::new();
    for _ in 0..3 {
        let (lost, _) = members.remove(0);
        actions = core.handle(Event::Left(worker(lost)), at(3));
        let broken: Vec<Action> = members
            .iter()
            .flat_map(|(n, lease)| core.handle(said(*n, broke(*lease, 40, number, None)), at(4)))
            .collect();
        if let Some(Action::Begin(_, generation)) = broken.first() {
            number = generation.number;
        }
    }
    assert!(actions.contains(&Action::Ended(job("a"), JobState::Failed)), "{actions:?}");
    assert_eq!(revoked(&actions).len(), 1, "whoever is left is taken back");
    let status = core.status(&job("a"), at(5)).unwrap();
    assert_eq!(status.failure, Some(FailureClass::Retry));
    for part in ["train_ranker: step 41 lost members 3 times", "examples of step 41", "worker-3: the worker vanished"] {
        assert!(status.reason.contains(part), "no `{part}` in {}", status.reason);
    }
}

#[test]
fn who_failed_in_a_training_does_not_come_back_at_once_if_others_can() {
    let (mut core, _, leases, _) = together(2);
    let actions = core.handle(said(2, failed(leases[1], FailureClass::Retry)), at(3));
    assert_eq!(aborted(&actions), [leases[0]]);
    let mut actions = Vec::new();
    for second in 4..=63 {
        for n in [1, 2] {
            core.handle(said(n, FromWorker::Heartbeat), at(second));
        }
        assert!(core.lease_of(worker(2)).is_none(), "after {second} s");
        actions = core.handle(Event::Tick, at(second));
    }
    assert_eq!(granted(&actions).artifact.stage, Stage::TrainRanker);
}

#[test]
fn who_failed_in_a_training_tries_again_if_nobody_else_can() {
    let (mut core, _) = training(8);
    let lease = granted(&core.handle(named(1), at(1))).id;
    let lease = granted(&core.handle(said(1, failed(lease, FailureClass::Retry)), at(2))).id;
    core.handle(Event::Left(worker(1)), at(3));
    let other = granted(&core.handle(named(2), at(3))).id;
    let actions = core.handle(back(3, claim(&artifact(Stage::TrainRanker, "a"), lease, None)), at(3));
    assert_eq!(actions, [], "both are members now");
    assert_eq!(core.handle(said(2, failed(other, FailureClass::Retry)), at(4)), [], "3 can");
}

#[test]
fn two_that_cannot_reach_each_other_are_parted_and_the_other_goes_on() {
    let (mut core, _, leases, mut number) = together(2);
    let mut actions = Vec::new();
    for _ in 0..2 {
        core.handle(said(1, broke(leases[0], 0, number, Some(leases[1]))), at(3));
        actions = core.handle(said(2, broke(leases[1], 0, number, Some(leases[0]))), at(3));
        number = begun(&actions).number;
    }
    assert_eq!(revoked(&actions), [(worker(2), leases[1])]);
    assert_eq!(leases_of(&begun(&actions)), [leases[0]]);
    let returned = said(2, failed(leases[1], FailureClass::Returned));
    assert_eq!(core.handle(returned, at(4)), [], "it does not come back at once");
}

#[test]
fn trainings_side_by_side_share_the_workers() {
    let (mut core, _) = training(8);
    let second = submitted(&mut core, "b", 8);
    core.handle(Event::Opened { artifact: second, rows: vec![0], done: vec![] }, at(0));
    for n in 1..=5 {
        core.handle(named(n), at(1));
    }
    let working = |name: &str| core.workers().iter().filter(|w| w.job == Some(job(name))).count();
    assert_eq!((working("a"), working("b")), (3, 2));
}

#[test]
fn nobody_joins_a_training_while_another_opens() {
    let (mut core, first) = training(8);
    let second = submitted(&mut core, "b", 8);
    assert_eq!(granted(&core.handle(named(1), at(1))).artifact, first);
    assert_eq!(core.handle(named(2), at(1)), [], "there is work for it in a moment");
    let opened = core.handle(Event::Opened { artifact: second.clone(), rows: vec![0], done: vec![] }, at(1));
    assert_eq!(granted(&opened).artifact, second);
    core.handle(named(3), at(2));
    assert_eq!(core.workers().iter().filter(|w| w.job == Some(job("a"))).count(), 2, "nothing opens any more");
}

#[test]
fn what_waits_gets_a_member_of_the_largest_gang_and_the_gang_keeps_the_last() {
    let (mut core, _, leases, _) = together(3);
    let map = artifact(Stage::Rank, "m");
    core.handle(Event::Submitted { job: job("m"), stages: vec![entry(&map, &[])] }, at(3));
    core.handle(Event::Opened { artifact: map.clone(), rows: vec![10; 9], done: vec![] }, at(3));
    let mut taken = Vec::new();
    for second in 4..30 {
        for n in 1..=3 {
            core.handle(said(n, FromWorker::Heartbeat), at(second));
        }
        for (worker, lease) in revoked(&core.handle(Event::Tick, at(second))) {
            taken.push((second, lease));
            let returned = Event::Said(worker, failed(lease, FailureClass::Returned));
            let actions = core.handle(returned, at(second));
            assert_eq!(granted(&actions).artifact, map);
        }
    }
    assert_eq!(taken, [(9, leases[2]), (14, leases[1])]);
}

#[test]
fn a_worker_that_may_be_gone_gets_nothing_before_it_speaks() {
    let mut core = Core::new(Policy::default(), 1);
    core.handle(named(1), at(0));
    core.handle(Event::Tick, at(3));
    assert!(core.workers()[0].suspect);
    let id = submitted(&mut core, "a", 8);
    assert_eq!(core.handle(Event::Opened { artifact: id, rows: vec![0], done: vec![] }, at(3)), []);
    granted(&core.handle(said(1, FromWorker::Heartbeat), at(4)));
    assert!(!core.workers()[0].suspect);
}

#[test]
fn a_member_of_which_nothing_is_known_is_told_that_it_is_over() {
    let (mut core, _) = training(8);
    core.handle(named(1), at(1));
    let unknown = LeaseId::of(1, 99);
    assert_eq!(revoked(&core.handle(said(1, ready(unknown, 0)), at(2))), [(worker(1), unknown)]);
}
