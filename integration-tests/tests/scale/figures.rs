//! What a coordinator of a large cluster costs, and how long it takes.

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::{Duration, Instant};

use mllm4rec_integration_tests::fleet::{Report, now};
use proto::JobState;

use crate::cluster::{Cluster, Size};
use crate::process::{computed, memory};

/// Time that is measured, after everybody has got work.
const WINDOW: Duration = Duration::from_secs(60);

/// Runs the cluster through its life and says what was measured, a line each.
pub(crate) fn take(size: Size) -> String {
    let mut said = String::new();
    let Size { processes, connections, workers, shards, .. } = size;
    let all = (processes * workers) as u64;
    writeln!(said, "{all} workers on {} connections, {shards} shards", processes * connections).unwrap();
    let started = now();
    let mut cluster = Cluster::start(size);
    let joined = until(&mut cluster, |seen| seen.joined >= all && seen.granted >= all);
    writeln!(said, "all registered, from nothing (root included): {} s", seconds(joined.last_join - started)).unwrap();
    writeln!(said, "{}", window(&mut cluster)).unwrap();
    let half = u64::from(shards) / 2;
    cluster.wait(|status| u64::from(status.stages[2].shards.done) >= half);
    writeln!(said, "{}", restart(&mut cluster, all)).unwrap();
    let end = cluster.wait(|status| status.stages[2].shards.done == shards);
    assert_eq!(end.state, JobState::Running, "{}", end.reason);
    let complete = Instant::now();
    let end = cluster.wait(|_| false);
    assert_eq!(end.state, JobState::Succeeded, "{}", end.reason);
    let rest = cluster.heard();
    writeln!(said, "from the last shard to the end of the job: {:.1} s", complete.elapsed().as_secs_f64()).unwrap();
    writeln!(said, "after the restart: {} commits, {} for nothing", rest.committed, rest.redone).unwrap();
    let records = mllm4rec_integration_tests::prepared::records(&cluster.root(), "retrieve");
    assert_eq!(records.len(), shards as usize);
    let (now, most) = memory(cluster.pid());
    writeln!(said, "memory at the end: {now:.0} MiB, at most {most:.0} MiB").unwrap();
    said
}

/// A minute of ordinary work.
fn window(cluster: &mut Cluster) -> String {
    let _ = cluster.heard();
    let (begun, before) = (Instant::now(), computed(cluster.pid()));
    sleep(WINDOW);
    let mut seen = cluster.heard();
    let (time, cpu) = (begun.elapsed().as_secs_f64(), (computed(cluster.pid()) - before).as_secs_f64());
    let (now, most) = memory(cluster.pid());
    format!(
        "{time:.0} s of work: {} commits, {} leases, {:.0} % of a core, {now:.0} MiB, at most {most:.0} MiB\n\
         question and answer beside heartbeats, ms: {}\nend of a lease to the next, ms: {}\nbroken sessions: {}, for nothing: {}",
        seen.committed,
        seen.granted,
        100.0 * cpu / time,
        spread(&mut seen.answers),
        spread(&mut seen.waits),
        seen.broken,
        seen.redone
    )
}

/// Kills the coordinator and starts another.
fn restart(cluster: &mut Cluster, workers: u64) -> String {
    cluster.kill_the_coordinator();
    let killed = now();
    let _ = cluster.heard(); // what was granted before does not count
    cluster.start_the_coordinator();
    let listening = now();
    let mut seen = until(cluster, |seen| seen.joined >= workers && seen.first_grant > 0);
    format!(
        "after kill -9: listens after {} s, all workers are back after {} s, grants after {} s; for nothing: {}\n\
         question and answer meanwhile, ms: {}",
        seconds(listening - killed),
        seconds(seen.last_join - killed),
        seconds(seen.first_grant - killed),
        seen.redone,
        spread(&mut seen.answers),
    )
}

/// Adds up what is seen until it is enough.
fn until(cluster: &mut Cluster, enough: impl Fn(&Report) -> bool) -> Report {
    let begun = Instant::now();
    let mut seen = Report::default();
    loop {
        seen.add(cluster.heard());
        if enough(&seen) {
            return seen;
        }
        let state = (seen.joined, seen.granted, seen.broken);
        assert!(begun.elapsed() < Duration::from_secs(300), "joined, granted, broken: {state:?}");
        sleep(Duration::from_millis(100));
    }
}

fn seconds(milliseconds: u64) -> String {
    format!("{:.1}", milliseconds as f64 / 1000.0)
}

/// Median, 99th percentile, maximum and how many there are.
fn spread(times: &mut [f64]) -> String {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1)));
    let [median, p99, most] = [0.5, 0.99, 1.0].map(|share| at(share).copied().unwrap_or(f64::NAN));
    format!("p50 {median:.1}, p99 {p99:.1}, max {most:.1} (N = {})", times.len())
}
