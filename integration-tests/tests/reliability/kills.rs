//! Workers and coordinators killed at random points.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use data::job::Stage;
use mllm4rec_integration_tests::outputs::JobOutputs;
use serde_json::Value;

use crate::cluster::Cluster;
use crate::oracle::{Records, SCORED, Scores, records, records_describe_what_is_there};
use crate::population::{Population, SHARDS};
use crate::random::Random;
use crate::{sized, turn};

const SEED: u64 = 20_261_129;
const WORKERS: usize = 3;
/// Shards that are still to be done after the last kill, or nearly so.
const TAIL: usize = 6 * WORKERS;
/// The longest that a kill waits beyond its turn, so that it comes at any point of the work.
const JITTER_MS: usize = 400;

#[derive(Clone, Copy, PartialEq)]
enum Kill {
    Worker,
    Coordinator,
}

/// What a coordinator could know when it began: the records that were there when the one before was killed.
#[derive(Default)]
struct Seen {
    /// By the number of coordinators until then.
    before: BTreeMap<usize, Records>,
}

#[test]
fn nothing_is_lost_or_done_twice_when_anybody_is_killed() {
    let _turn = turn();
    let population = Population::get();
    let (workers, coordinators) = sized((20, 20), (300, 150));
    let mut random = Random(SEED);
    let mut kills = [vec![Kill::Worker; workers], vec![Kill::Coordinator; coordinators]].concat();
    random.shuffle(&mut kills);

    let started = Instant::now();
    let mut cluster = Cluster::over(population, false, SHARDS);
    cluster.start(WORKERS);
    let job = cluster.submit(population);
    let outputs = JobOutputs::open(cluster.root(), &job);
    let mut seen = Seen::default();
    let mut coordinator = 1;
    for (turn, kill) in kills.iter().enumerate() {
        let due = |turn: usize| turn * (SHARDS as usize - TAIL) / kills.len();
        cluster.until("the next kill is due", |cluster| cluster.done("rank") >= due(turn));
        let (since, jitter) = (Instant::now(), Duration::from_millis(random.below(JITTER_MS) as u64));
        // Work that runs ahead of the kills would be over before the last of them.
        cluster.until("it comes at any point", |cluster| {
            since.elapsed() >= jitter || cluster.done("rank") > due(turn + 1) + WORKERS
        });
        match kill {
            Kill::Worker => cluster.kill_worker(random.below(WORKERS)),
            Kill::Coordinator => {
                seen.before.insert(coordinator, records(cluster.root(), &outputs));
                cluster.kill_coordinator();
                coordinator += 1;
            }
        }
    }
    let open = SHARDS as usize - cluster.done("rank");
    assert!(open > 0, "the last kill came too late");
    let status = cluster.end_of(&job);
    assert_eq!(status["state"], "succeeded", "{status:#}");
    assert_eq!(cluster.deaths, 0, "somebody died whom nobody had killed");

    let scores = Scores::of(cluster.root(), &outputs);
    assert!(scores == population.scores, "parts differ from those of the undisturbed run");
    scores.hold_every_user_once(cluster.root(), &outputs);
    records_describe_what_is_there(cluster.root(), &outputs);
    let faults = Faults::of(&cluster, &seen, &records(cluster.root(), &outputs));
    println!(
        "figure: kills: {workers} workers and {coordinators} coordinators, seed {SEED}, {} s, {} shards: {} parts equal, {faults}",
        started.elapsed().as_secs(),
        2 * SHARDS,
        scores.parts.len(),
    );
    faults.have_hit(workers, coordinators);
}

/// What the kills did, as the logs of all processes say.
struct Faults {
    /// Grants of shards that the coordinator's predecessor could have known as done.
    granted_again: usize,
    /// Shards that were given out again because their worker had died.
    lost: usize,
    /// Leases that a worker brought to the next coordinator.
    claims: usize,
    /// Shards that a worker found done when their turn came.
    skipped: usize,
    /// Shards that two workers had computed at once.
    races: usize,
}

impl Faults {
    fn of(cluster: &Cluster, seen: &Seen, last: &Records) -> Self {
        for (key, bytes) in seen.before.values().flatten() {
            assert_eq!(last.get(key), Some(bytes), "the record of {key:?} has changed");
        }
        let coordinators = cluster.logs("coordinator");
        let mut granted_again = 0;
        for (number, (_, log)) in coordinators.iter().enumerate() {
            let Some(before) = seen.before.get(&number) else { continue };
            let done: BTreeSet<(Stage, u32)> = before.keys().copied().collect();
            granted_again +=
                SCORED.iter().flat_map(|stage| granted(log, *stage)).filter(|key| done.contains(key)).count();
        }
        let count = |logs: &[(String, Vec<Value>)], message: &str| {
            logs.iter().flat_map(|(_, log)| log).filter(|line| line["message"] == message).count()
        };
        let claims = coordinators.iter().flat_map(|(_, log)| log);
        let claims = claims.filter(|line| line["message"] == "worker joined" && line["claims"] == 1).count();
        let workers = cluster.logs("worker");
        let grants =
            coordinators.iter().flat_map(|(_, log)| SCORED.map(|stage| granted(log, stage).len())).sum::<usize>();
        Self {
            granted_again,
            lost: grants.saturating_sub(2 * SHARDS as usize),
            claims,
            skipped: count(&workers, "done by another attempt"),
            races: count(&workers, "another attempt was first"),
        }
    }

    fn have_hit(&self, workers: usize, coordinators: usize) {
        assert_eq!(self.granted_again, 0, "shards that were done were given out again");
        assert!(self.claims >= coordinators / 2, "too few coordinators were killed while somebody worked: {self}");
        assert!(self.lost >= workers / 2, "too few workers were killed at work: {self}");
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { granted_again, lost, claims, skipped, races } = self;
        write!(
            f,
            "{granted_again} done shards given out again, {lost} lost shards given out again, {claims} claimed, {skipped} shards found done, \
             {races} computed twice at once"
        )
    }
}

/// Shards that a log says were given out.
fn granted(log: &[Value], stage: Stage) -> Vec<(Stage, u32)> {
    let of_stage = |line: &&Value| {
        line["message"] == "lease granted" && line["artifact"].as_str().is_some_and(|a| a.starts_with(stage.as_str()))
    };
    let shards = |line: &Value| serde_json::from_str::<Vec<u32>>(line["shards"].as_str().unwrap()).unwrap();
    log.iter().filter(of_stage).flat_map(shards).map(|shard| (stage, shard)).collect()
}
