#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use data::artifact::Digest;
use proptest::prelude::*;
use proto::{FailureClass, JobState};

use super::*;

fn artifact(stage: Stage, name: &str) -> ArtifactId {
    ArtifactId { stage, digest: Digest::of_bytes(name.as_bytes()) }
}

fn entry(artifact: &ArtifactId, needs: &[&ArtifactId]) -> StageEntry {
    StageEntry {
        artifact: artifact.clone(),
        split: None,
        needs: needs.iter().map(|a| (*a).clone()).collect(),
        complete: false,
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
    assert_eq!(core.handle(joined(WorkerId(2)), at(8)), []);
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

/// A cluster in a test tube: workers commit, fail, vanish and join as a seed wishes; a store remembers done shards.
struct Simulation {
    core: Core,
    now: Duration,
    random: u64,
    next_worker: u64,
    leases: BTreeMap<WorkerId, Lease>,
    idle: BTreeSet<WorkerId>,
    shards: BTreeMap<ArtifactId, usize>,
    done: BTreeMap<ArtifactId, BTreeSet<u32>>,
    finished: Vec<ArtifactId>,
    ended: Vec<JobState>,
    log: Vec<String>,
}

impl Simulation {
    fn run(seed: u64, shards: usize) -> Self {
        let names = [Stage::Prepare, Stage::Retrieve, Stage::Rank, Stage::Evaluate];
        let ids: Vec<ArtifactId> = names.iter().map(|s| artifact(*s, s.as_str())).collect();
        let sizes = [1, shards, shards, 1];
        let policy =
            Policy { max_failures: u32::MAX, max_losses: u32::MAX, quarantine_after: u32::MAX, ..Policy::default() };
        let mut sim = Self {
            core: Core::new(policy, 1),
            now: Duration::ZERO,
            random: seed,
            next_worker: 0,
            leases: BTreeMap::new(),
            idle: BTreeSet::new(),
            shards: ids.iter().cloned().zip(sizes).collect(),
            done: BTreeMap::new(),
            finished: Vec::new(),
            ended: Vec::new(),
            log: Vec::new(),
        };
        let stages = (0..4).map(|i| entry(&ids[i], &ids[..i].iter().collect::<Vec<_>>())).collect();
        sim.feed(Event::Submitted { job: job("j"), stages });
        for _ in 0..20_000 {
            if !sim.ended.is_empty() {
                break;
            }
            sim.turn();
        }
        sim
    }

    fn draw(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % n
    }

    fn turn(&mut self) {
        let pause = self.draw(1500);
        self.now += Duration::from_millis(pause);
        match self.draw(10) {
            0 | 1 if self.leases.len() + self.idle.len() < 4 => {
                self.next_worker += 1;
                self.idle.insert(WorkerId(self.next_worker));
                self.feed(joined(WorkerId(self.next_worker)));
            }
            2 => self.one(|sim, worker, lease| {
                let class = if sim.draw(2) == 0 { FailureClass::Retry } else { FailureClass::Returned };
                sim.idle.insert(worker);
                sim.feed(Event::Said(worker, FromWorker::Failed { lease: lease.id, class, reason: "x".into() }));
            }),
            3 => self.one(|sim, worker, _| sim.feed(Event::Left(worker))),
            // Dies after the commit, before it says so.
            4 => self.one(|sim, worker, lease| {
                sim.commit(&lease);
                sim.feed(Event::Left(worker));
            }),
            // Falls silent: nobody hears of it until it is evicted.
            5 => self.one(|_, _, _| {}),
            6 => self.feed(Event::Tick),
            _ => self.one(|sim, worker, lease| {
                sim.commit(&lease);
                for shard in &lease.shards {
                    sim.feed(Event::Said(worker, committed(lease.id, *shard, 1)));
                }
                sim.idle.insert(worker);
                sim.feed(Event::Said(worker, FromWorker::Ended { lease: lease.id }));
            }),
        }
        for worker in self.idle.clone() {
            self.feed(Event::Said(worker, FromWorker::Heartbeat));
        }
    }

    /// Something happens to a worker that holds a lease.
    fn one(&mut self, happens: impl FnOnce(&mut Self, WorkerId, Lease)) {
        let n = self.leases.len() as u64;
        if n > 0 {
            let at = self.draw(n) as usize;
            let worker = *self.leases.keys().nth(at).unwrap();
            let lease = self.leases.remove(&worker).unwrap();
            happens(self, worker, lease);
        }
    }

    fn commit(&mut self, lease: &Lease) {
        self.done.entry(lease.artifact.clone()).or_default().extend(&lease.shards);
    }

    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            for action in self.core.handle(event, self.now) {
                self.log.push(format!("{action:?}"));
                match action {
                    Action::Open(artifact) => {
                        let rows = vec![1; self.shards[&artifact]];
                        let done = self.done.get(&artifact).into_iter().flatten().copied().collect();
                        events.push(Event::Opened { artifact, rows, done });
                    }
                    Action::Finish(artifact) => {
                        assert_eq!(self.done[&artifact].len(), self.shards[&artifact], "finished with shards missing");
                        self.finished.push(artifact.clone());
                        events.push(Event::Finished(artifact));
                    }
                    Action::Grant(worker, lease) => {
                        assert!(self.idle.remove(&worker), "{worker} was not idle");
                        self.leases.insert(worker, lease);
                    }
                    Action::Revoke(worker, lease, _) => {
                        if self.leases.remove(&worker).is_some() {
                            self.idle.insert(worker);
                        }
                        let class = FailureClass::Returned;
                        events.push(Event::Said(worker, FromWorker::Failed { lease, class, reason: "taken".into() }));
                    }
                    Action::Evict(worker, _) => {
                        self.leases.remove(&worker);
                        self.idle.remove(&worker);
                    }
                    Action::Quarantine(..) => panic!("nothing is put aside here"),
                    Action::Ended(_, state) => self.ended.push(state),
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_happens_every_stage_finishes_once_and_in_order(seed in any::<u64>(), shards in 1_usize..9) {
        let sim = Simulation::run(seed, shards);
        prop_assert_eq!(&sim.ended, &[JobState::Succeeded]);
        let stages: Vec<Stage> = sim.finished.iter().map(|a| a.stage).collect();
        prop_assert_eq!(stages, [Stage::Prepare, Stage::Retrieve, Stage::Rank, Stage::Evaluate]);
        let again = Simulation::run(seed, shards);
        prop_assert_eq!(sim.log, again.log, "the same seed must give the same decisions");
    }
}
