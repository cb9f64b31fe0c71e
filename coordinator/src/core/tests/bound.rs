//! Workers that are for one job.

use super::*;

const OWN: WorkerId = WorkerId(1);
const ANY: WorkerId = WorkerId(2);

/// A core with two jobs of one stage each, of so many shards.
fn two_jobs(shards: usize) -> (Core, [ArtifactId; 2]) {
    let mut core = Core::new(Policy::default(), 1);
    let ids = ["first", "second"].map(|name| artifact(Stage::Rank, name));
    for (id, name) in ids.iter().zip(["first-1", "second-1"]) {
        core.handle(Event::Submitted { job: job(name), stages: vec![entry(id, &[])] }, at(0));
        core.handle(Event::Opened { artifact: id.clone(), rows: vec![10; shards], done: vec![] }, at(0));
    }
    (core, ids)
}

fn joins(worker: WorkerId, job: &str) -> Event {
    Event::Joined(worker, Joiner { job: Some(job.to_owned()), ..Joiner::default() })
}

/// The worker does all that it holds.
fn does(core: &mut Core, worker: WorkerId, lease: &Lease, now: Duration) -> Vec<Action> {
    let mut actions = Vec::new();
    for shard in &lease.shards {
        actions.extend(core.handle(Event::Said(worker, committed(lease.id, *shard, 10)), now));
    }
    actions.extend(core.handle(Event::Said(worker, FromWorker::Ended { lease: lease.id }), now));
    actions
}

#[test]
fn a_worker_of_one_job_takes_nothing_of_others_and_ends_with_it() {
    let (mut core, [first, second]) = two_jobs(1);
    assert_eq!(core.handle(joins(OWN, "third"), at(1)), [], "nobody has submitted that job yet");
    core.handle(Event::Left(OWN), at(1));
    let lease = granted(&core.handle(joins(OWN, "second"), at(1))).clone();
    assert_eq!((&lease.artifact, &lease.job), (&second, &job("second-1")), "the first job is served first otherwise");
    let actions = does(&mut core, OWN, &lease, at(2));
    assert_eq!(actions, [Action::Finish(second.clone())], "and nothing of the first job is granted");
    assert_eq!(core.only_for(&job("second-1")), [], "it runs");
    core.handle(Event::Finished(second), at(3));
    assert_eq!(core.only_for(&job("second-1")), [OWN]);
    assert_eq!(core.only_for(&job("first-1")), []);
    // Whoever is for any job finds the other one still waiting, whatever has idled beside it.
    assert_eq!(granted(&core.handle(joined(ANY), at(4))).artifact, first);
    core.handle(Event::Cancelled { job: job("first-1"), reason: String::new() }, at(5));
    assert_eq!(core.only_for(&job("first-1")), [], "nor does it end with a job");
}

#[test]
fn a_name_means_every_job_of_it_until_the_first_lease() {
    let (mut core, [first, _]) = two_jobs(1);
    core.handle(Event::Submitted { job: job("first-2"), stages: vec![entry(&artifact(Stage::Rank, "x"), &[])] }, at(0));
    assert_eq!(granted(&core.handle(joins(OWN, "first"), at(1))).artifact, first);
    core.handle(joins(WorkerId(3), "first"), at(1));
    assert_eq!(core.handle(joins(WorkerId(4), "fir"), at(1)), [], "the beginning of a name is another name");
    core.handle(Event::Cancelled { job: job("first-1"), reason: String::new() }, at(2));
    assert_eq!(
        core.only_for(&job("first-1")),
        [OWN],
        "the other one has worked for none, and another job of the name runs"
    );
    core.handle(Event::Cancelled { job: job("first-2"), reason: String::new() }, at(3));
    assert_eq!(core.only_for(&job("first-2")), [WorkerId(3)]);
    let waiting: Vec<WorkerId> = core.waiting_for_a_job().into_iter().map(|(worker, _)| worker).collect();
    assert_eq!(waiting, [OWN, WorkerId(3), WorkerId(4)]);
}

#[test]
fn who_is_for_a_job_alone_takes_it_before_who_is_for_all() {
    let (mut core, [first, second]) = two_jobs(0);
    core.handle(joined(ANY), at(1));
    core.handle(joins(WorkerId(5), "second"), at(1));
    let stages = vec![StageEntry { gang: 2, ..entry(&artifact(Stage::TrainRanker, "t"), &[]) }];
    core.handle(Event::Submitted { job: job("second-2"), stages }, at(2));
    let training = artifact(Stage::TrainRanker, "t");
    let actions = core.handle(Event::Opened { artifact: training.clone(), rows: vec![0], done: vec![] }, at(2));
    let takers: Vec<WorkerId> =
        actions.iter().filter_map(|a| if let Action::Grant(worker, _) = a { Some(*worker) } else { None }).collect();
    assert_eq!(takers, [WorkerId(5), ANY], "{first} and {second} have no shards");
    // A shard waits that the own worker would not take: the other one is handed back, though it came first.
    let waits = artifact(Stage::Rank, "waits");
    core.handle(Event::Submitted { job: job("third-1"), stages: vec![entry(&waits, &[])] }, at(3));
    core.handle(Event::Opened { artifact: waits, rows: vec![1], done: vec![] }, at(3));
    let mut revoked = Vec::new();
    for tick in 3..20 {
        for worker in [ANY, WorkerId(5)] {
            core.handle(Event::Said(worker, FromWorker::Heartbeat), at(tick));
        }
        let actions = core.handle(Event::Tick, at(tick));
        revoked.extend(actions.into_iter().filter_map(|a| if let Action::Revoke(w, ..) = a { Some(w) } else { None }));
    }
    assert_eq!(revoked, [ANY]);
}

#[test]
fn what_is_shared_is_granted_in_the_name_of_the_own_job() {
    let (mut core, [first, _]) = two_jobs(1);
    core.handle(Event::Submitted { job: job("third-1"), stages: vec![entry(&first, &[])] }, at(0));
    let actions = core.handle(joins(OWN, "third-1"), at(1));
    assert_eq!((&granted(&actions).artifact, &granted(&actions).job), (&first, &job("third-1")));
}

#[test]
fn slow_shards_and_trainings_are_for_their_own_too() {
    let (mut core, [first, _]) = two_jobs(1);
    let slow = granted(&core.handle(joins(OWN, "first"), at(1))).clone();
    assert_eq!(slow.artifact, first);
    core.handle(joins(WorkerId(3), "third"), at(1));
    let late = at(2) + Policy::default().duplicate_after;
    for worker in [OWN, WorkerId(3)] {
        core.handle(Event::Said(worker, FromWorker::Heartbeat), late);
    }
    assert_eq!(core.handle(Event::Tick, late), [], "it may not take what is not for it");
    let actions = core.handle(joins(WorkerId(4), "first"), late);
    assert_eq!(actions, []);
    assert_eq!(granted(&core.handle(Event::Tick, late)).artifact, first);

    let training = artifact(Stage::TrainRanker, "t");
    let gang = StageEntry { gang: 4, ..entry(&training, &[]) };
    core.handle(Event::Submitted { job: job("train-1"), stages: vec![gang] }, late);
    core.handle(Event::Opened { artifact: training.clone(), rows: vec![0], done: vec![] }, late);
    let actions = core.handle(joins(WorkerId(5), "train"), late);
    assert_eq!(granted(&actions).artifact, training);
    let actions = core.handle(joins(WorkerId(6), "train"), late);
    assert_eq!(granted(&actions).artifact, training, "it joins the gang");
    assert_eq!(core.handle(joins(WorkerId(7), "other"), late), []);
}

#[test]
fn those_who_may_not_take_a_stage_have_no_share_in_it() {
    let bundle = |others: u64| {
        let (mut core, _) = two_jobs(60);
        for worker in 0..others {
            core.handle(joins(WorkerId(10 + worker), "third"), at(1));
        }
        let one = granted(&core.handle(joins(OWN, "first"), at(1))).clone();
        // Now it is known how long a shard takes.
        granted(&does(&mut core, OWN, &one, at(2))).shards.len()
    };
    assert!(bundle(0) > 1);
    assert_eq!(bundle(7), bundle(0));
}

#[test]
fn a_job_whose_workers_are_all_for_others_says_so() {
    let (mut core, _) = two_jobs(1);
    let waiting = |core: &Core| core.status(&job("first-1"), at(3)).unwrap().waiting;
    assert_eq!(waiting(&core), "no worker is connected");
    core.handle(joins(OWN, "second"), at(1));
    assert_eq!(waiting(&core), "all workers are for other jobs (--job)");
    core.handle(joined(ANY), at(2));
    assert_eq!(waiting(&core), "");
}
