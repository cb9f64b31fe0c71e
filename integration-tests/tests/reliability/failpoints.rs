//! Every gap between two steps that last, with a death in it.

use std::collections::BTreeMap;
use std::time::Instant;

use mllm4rec_integration_tests::outputs::JobOutputs;

use crate::bucket::Moment::{After, Before};
use crate::bucket::Victim::{Caller, Coordinator};
use crate::bucket::{Failpoint, Moment, Victim};
use crate::cluster::Cluster;
use crate::oracle::{Scores, records_describe_what_is_there};
use crate::population::Population;
use crate::{sized, turn};

/// Shards that are left to be scored in a round.
const UNDONE: u32 = 8;
/// Deaths in a gap in a round, so that no other gap waits for the next one.
const IN_A_ROUND: u32 = 4;

type Gap = (&'static str, &'static str, &'static str, &'static [&'static str], Moment, Victim);

const GAPS: [Gap; 17] = [
    ("worker, a lease granted and nothing read", "worker", "GET", &["artifacts/rank/", "spec.json"], Before, Caller),
    ("worker, before a part", "worker", "PUT", &["tables/rankings/", "part-"], Before, Caller),
    ("worker, after a part", "worker", "PUT", &["tables/rankings/", "part-"], After, Caller),
    ("worker, between two parts", "worker", "PUT", &["tables/target_ranks/", "part-"], Before, Caller),
    ("worker, before a done record", "worker", "PUT", &["artifacts/rank/", "done/"], Before, Caller),
    ("worker, after a done record", "worker", "PUT", &["artifacts/rank/", "done/"], After, Caller),
    ("coordinator, before a term", "coordinator", "PUT", &["leader/"], Before, Caller),
    ("coordinator, after a term", "coordinator", "PUT", &["leader/"], After, Caller),
    ("coordinator, before a job is submitted", "coordinator", "PUT", &["submitted/"], Before, Caller),
    ("coordinator, after a job is submitted", "coordinator", "PUT", &["submitted/"], After, Caller),
    ("coordinator, a lease granted", "worker", "GET", &["artifacts/rank/", "spec.json"], Before, Coordinator),
    ("coordinator, a part written", "worker", "PUT", &["tables/rankings/", "part-"], After, Coordinator),
    ("coordinator, a done record written", "worker", "PUT", &["artifacts/rank/", "done/"], After, Coordinator),
    ("coordinator, before _SUCCESS", "coordinator", "PUT", &["tables/", "_SUCCESS"], Before, Caller),
    ("coordinator, after _SUCCESS", "coordinator", "PUT", &["tables/", "_SUCCESS"], After, Caller),
    ("coordinator, before the end of a job", "coordinator", "PUT", &["ended/"], Before, Caller),
    ("coordinator, after the end of a job", "coordinator", "PUT", &["ended/"], After, Caller),
];

#[test]
fn a_death_in_any_gap_changes_nothing() {
    let _turn = turn();
    let population = Population::get();
    let target: u32 = sized(2, 20);
    let (started, mut rounds) = (Instant::now(), 0);
    let mut hits: BTreeMap<&str, u32> = BTreeMap::new();
    let missing = |hits: &BTreeMap<&str, u32>| -> Vec<Failpoint> {
        let gap = |(name, by, method, path, moment, victim): &Gap| {
            let left = target.saturating_sub(hits.get(name).copied().unwrap_or_default()).min(IN_A_ROUND);
            Failpoint { name, by, method, path, moment: *moment, victim: *victim, left, unless: String::new() }
        };
        GAPS.iter().map(gap).filter(|point| point.left > 0).collect()
    };
    loop {
        let failpoints = missing(&hits);
        if failpoints.is_empty() {
            break;
        }
        rounds += 1;
        assert!(rounds <= target + 2, "not every gap is hit: {hits:#?}");
        for (name, more) in round(population, failpoints) {
            *hits.entry(name).or_default() += more;
        }
    }
    for (name, ..) in GAPS {
        println!("figure: failpoints: {name}: {} deaths", hits[name]);
    }
    println!("figure: failpoints: {rounds} rounds of {UNDONE} shards, {} s", started.elapsed().as_secs());
}

/// Scores some shards with deaths on the way. Returns how many there were in which gap.
fn round(population: &Population, failpoints: Vec<Failpoint>) -> BTreeMap<&'static str, u32> {
    let mut cluster = Cluster::over(population, true, UNDONE);
    cluster.bucket().arm(failpoints);
    cluster.start(2);
    let job = cluster.submit(population);
    let status = cluster.end_of(&job);
    assert_eq!(status["state"], "succeeded", "{status:#}");
    let outputs = JobOutputs::open(cluster.root(), &job);
    let scores = Scores::of(cluster.root(), &outputs);
    assert!(scores == population.scores, "parts differ from those of the undisturbed run");
    scores.hold_every_user_once(cluster.root(), &outputs);
    records_describe_what_is_there(cluster.root(), &outputs);
    // Who died at the very end is started again only now.
    cluster.tend();
    let hits = cluster.bucket().hits();
    assert_eq!(hits.values().sum::<u32>(), cluster.deaths, "somebody else died than whom a failpoint had killed");
    hits
}
