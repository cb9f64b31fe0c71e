//! Wall clocks that are a day ahead, a day behind, or jump between the two: nobody compares them, so nothing changes.
//!
//! Needs a C compiler, for the clock; says so and passes without.

use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use mllm4rec_integration_tests::outputs::JobOutputs;

use crate::cluster::Cluster;
use crate::oracle::{Scores, records_describe_what_is_there};
use crate::population::Population;
use crate::{sized, turn};

const DAY: i64 = 24 * 60 * 60;
/// Seconds between two jumps.
const JUMP: i64 = 2;

/// How the clocks of one side go.
#[derive(Clone, Copy, Debug)]
struct Clock {
    skew: i64,
    jump: i64,
}

impl Clock {
    fn by(skew: i64) -> Self {
        Self { skew, jump: 0 }
    }

    fn environment(self, library: &str) -> Vec<(String, String)> {
        let pairs = [
            ("LD_PRELOAD", library.to_owned()),
            ("TEST_CLOCK_SKEW", self.skew.to_string()),
            ("TEST_CLOCK_JUMP", self.jump.to_string()),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

#[test]
fn wrong_clocks_change_nothing() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let Some(library) = compiled(folder.path()) else {
        println!("SKIPPED wrong clocks: there is no C compiler `cc`");
        return;
    };
    let population = Population::get();
    let right = Clock::by(0);
    let jumping = Clock { skew: DAY, jump: JUMP };
    let all = [
        (Clock::by(DAY), Clock::by(-DAY)),
        (jumping, jumping),
        (Clock::by(-DAY), right),
        (right, Clock::by(-DAY)),
        (Clock::by(DAY), right),
        (right, Clock::by(DAY)),
        (Clock::by(-DAY), Clock::by(DAY)),
    ];
    let (cases, undone) = sized((2, 40), (all.len(), 200));
    for (coordinator, worker) in &all[..cases] {
        let mut cluster = Cluster::over(population, false, undone);
        cluster.environment.insert("coordinator", coordinator.environment(&library));
        cluster.environment.insert("worker", worker.environment(&library));
        // A busy machine must not be taken for a wrong clock.
        cluster.coordinator_args = ["--dead-after", "10s"].map(str::to_owned).into();
        cluster.start(2);
        let job = cluster.submit(population);
        // The next coordinator compares with what the one before wrote, if anybody does.
        cluster.until("ranking has begun", |cluster| cluster.done("rank") + undone as usize > 205);
        cluster.kill_coordinator();
        let status = cluster.end_of(&job);
        assert_eq!(status["state"], "succeeded", "{coordinator:?} {worker:?} {status:#}");
        assert_eq!(status["stages"].as_array().unwrap().iter().map(|s| s["retries"].as_u64().unwrap()).sum::<u64>(), 0);
        assert_eq!(cluster.deaths, 0);
        let outputs = JobOutputs::open(cluster.root(), &job);
        assert!(Scores::of(cluster.root(), &outputs) == population.scores, "{coordinator:?} {worker:?}: other parts");
        records_describe_what_is_there(cluster.root(), &outputs);
        shows(&cluster, "coordinator", *coordinator);
        shows(&cluster, "worker", *worker);
        println!(
            "figure: clocks: coordinator {coordinator:?}, workers {worker:?}: {undone} shards, parts equal, no retry"
        );
    }
}

/// Makes the wrong clock.
fn compiled(folder: &Path) -> Option<String> {
    let library = folder.join("clock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reliability/clock.c");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .arg(&library)
        .arg(source)
        .status();
    match status {
        Ok(status) => assert!(status.success(), "the clock does not compile"),
        Err(_) => return None,
    }
    Some(library.display().to_string())
}

/// The logs of a side show the time that its clock shows, or the clock would be no part of the test.
fn shows(cluster: &Cluster, role: &str, clock: Clock) {
    let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64 / DAY;
    let mut days: Vec<i64> = cluster
        .logs(role)
        .iter()
        .flat_map(|(_, log)| log)
        .map(|line| day(line["timestamp"].as_str().unwrap()) - today)
        .collect();
    days.sort_unstable();
    days.dedup();
    // Midnight may be between a line and now.
    let near = |skew: i64| days.iter().any(|d| (d - skew / DAY).abs() <= 1 && d.signum() == skew.signum());
    // A worker may have all of its work between two jumps of its clock; a coordinator writes for longer.
    let shown = match (clock.jump, role) {
        (0, _) => near(clock.skew),
        (_, "worker") => near(clock.skew) || near(-clock.skew),
        _ => near(clock.skew) && near(-clock.skew),
    };
    assert!(shown, "{role} {clock:?} shows {days:?}");
}

/// Days since 1970 of `2026-11-29T…`.
fn day(timestamp: &str) -> i64 {
    let numbers: Vec<i64> = timestamp[..10].split('-').map(|n| n.parse().unwrap()).collect();
    let [year, month, day] = numbers[..] else { panic!("{timestamp} is no time") };
    // The year begins in March, so that the day that not every year has is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468
}
