//! Networks that break between workers and coordinator, and between workers and store, one way and both: nobody hangs, all
//! heals by itself, and every user has one row in the end.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod network;
mod site;

use std::time::{Duration, Instant};

use data::job::{Split, Stage};
use data::tables::{HistoryRow, RankingRow};
use network::Host::{Coordinator, Store, Workers};
use site::Site;

/// When silence counts as an end: of a worker for the coordinator, and of one request to the store.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How much later work must go on at the latest.
const SLACK: Duration = Duration::from_secs(5);

/// Which way packets are lost.
const CUTS: [(&str, &[(network::Host, network::Host)]); 6] = [
    ("workers to coordinator", &[(Workers, Coordinator)]),
    ("coordinator to workers", &[(Coordinator, Workers)]),
    ("workers and coordinator", &[(Workers, Coordinator), (Coordinator, Workers)]),
    ("workers to store", &[(Workers, Store)]),
    ("store to workers", &[(Store, Workers)]),
    ("workers and store", &[(Workers, Store), (Store, Workers)]),
];

/// Two seconds one way and fifteen both ways; with `MLLM4REC_FULL=1` those and two minutes each way. Prints what was
/// measured.
#[test]
fn cut_lines_heal_by_themselves() {
    let Some(site) = Site::start() else { return };
    let full = std::env::var_os("MLLM4REC_FULL").is_some();
    let mut slow = Vec::new();
    for (number, (what, ways)) in CUTS.iter().enumerate() {
        let seconds: &[u64] = match (full, ways.len()) {
            (true, _) => &[2, 15, 120],
            (false, 1) => &[2],
            (false, _) => &[15],
        };
        for (round, &seconds) in seconds.iter().enumerate() {
            let job = site.submit(100 * number + round);
            site.until("the ranking has begun", |site| site.done(&job).2 > 0);
            for (from, to) in *ways {
                site.network.cut(*from, *to);
            }
            std::thread::sleep(Duration::from_secs(seconds));
            for (from, to) in *ways {
                site.network.heal(*from, *to);
            }
            let healed = Instant::now();
            let (state, before, rank) = site.done(&job);
            site.until("work goes on", |site| {
                let (state, done, _) = site.done(&job);
                state != "running" || done > before
            });
            let took = healed.elapsed();
            println!(
                "{what}, {seconds} s: {state} with {rank} of 60 shards, goes on after {:.1} s",
                took.as_secs_f64()
            );
            if took > TIMEOUT + SLACK {
                slow.push((*what, seconds, took));
            }
            site.until("the job ends", |site| site.done(&job).0 != "running");
            assert_eq!(site.done(&job).0, "succeeded", "{what}, {seconds} s");
            every_user_once(&site, &job);
        }
    }
    assert!(slow.is_empty(), "{slow:?}");
}

fn every_user_once(site: &Site, job: &str) {
    let outputs = site.outputs(job);
    let users: Vec<String> = outputs.rows::<HistoryRow>(Stage::Prepare, None).into_iter().map(|h| h.user_id).collect();
    let ranked = outputs.rows::<RankingRow>(Stage::Rank, Some(Split::Test));
    assert!(ranked.iter().map(|r| &r.user_id).eq(&users), "a user is missing, twice there, or out of place");
}
