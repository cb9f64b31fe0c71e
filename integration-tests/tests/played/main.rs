//! The manifests of `k8s/`, played: what a node and the controllers of Kubernetes would do with them, done by a few hundred lines. Every
//! pod is a process in a network namespace with an address of its own and a file system as its manifest says, under the user that
//! it names, with its arguments, variables, secrets, probes and grace. A bucket behind them obeys the policies of `docs/policies.md`,
//! by service account.
//!
//! This is no cluster: there is no API server and no scheduler, limits of memory and network policies bind nobody, and the
//! image is this machine's file system with the program in its place.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod bucket;
mod controllers;
mod manifest;
mod node;
mod pod;
mod service;
mod site;

use std::time::Duration;

use data::job::{Split, Stage};
use data::tables::{HistoryRow, RankingRow};
use site::Site;

/// A job is trained by a gang of its own and scored by a pool that grows, shrinks, is drained, killed and renewed meanwhile, as is the
/// coordinator. In the end every user has one row, the client has been told so, and nobody had to be killed for not leaving.
#[test]
fn a_night_on_a_cluster() {
    let Some(mut site) = Site::start() else { return };
    site.bucket.brake();
    site.apply_base(1);
    let job = site.apply_job(3);
    site.until("the gang trains", |site| site.members(&job) >= 2);
    site.train().kill(0);
    site.until("the lost one is replaced and trains", |site| site.train().replaced() == 1 && site.members(&job) >= 3);
    site.train().evict(1);
    site.until("and so is one that was evicted", |site| site.train().replaced() == 2);

    site.until("the ranking has begun", |site| site.ranked(&job) > 0);
    site.pool().scale(8);
    site.until("eight workers are ready", |site| site.pool().ready() == 8);
    site.pool().kill();
    site.roll_coordinator();
    site.until("the killed one is back", |site| site.pool().ready() == 8);
    site.drain();
    site.pool().scale(2);
    site.pool().roll();
    site.pool().scale(0);
    let left = site.shards(&job) - site.ranked(&job);
    println!("{left} of {} shards are left to the gang", site.shards(&job));
    site.bucket.release();

    site.until("the client knows", |site| site.submit().ended());
    assert_eq!(site.submit().codes(), [0], "{}", site.submit().log());
    site.until("the gang has ended", |site| site.train().ended());
    site.check_secrets();
    site.check_ends();
    assert!(left > 0, "nothing was left to do while the pool changed: brake harder");
    let outputs = site.outputs(&job);
    let users: Vec<String> = outputs.rows::<HistoryRow>(Stage::Prepare, None).into_iter().map(|h| h.user_id).collect();
    let ranked = outputs.rows::<RankingRow>(Stage::Rank, Some(Split::Test));
    assert!(ranked.iter().map(|r| &r.user_id).eq(&users), "a user is missing, twice there, or out of place");
    // A client that finds no coordinator looks into the bucket, and does without where it may not.
    for account in ["coordinator", "worker"] {
        assert_eq!(site.bucket.denied_to(account), "", "{account} needs more rights than docs/policies.md gives");
    }
    assert!(site.took() < Duration::from_secs(600));
}

/// Pods of a job that somebody cancels fail what made them, and are not replaced: the same again would end the same.
#[test]
fn a_cancelled_training_is_not_tried_again() {
    let Some(mut site) = Site::start() else { return };
    site.apply_base(1);
    let job = site.apply_job(2);
    site.until("the gang trains", |site| site.members(&job) >= 2);
    let [train, submit] = site.cancel(&job);
    assert!(train.ends_with("has ended with 65"), "{train}");
    assert!(submit.ends_with("has ended with 130"), "{submit}");
    assert_eq!((site.train().replaced(), site.submit().replaced()), (0, 0));
}

/// What is asked of the bucket beyond a role's policy is refused, so that the test above shows something.
#[test]
fn policies_are_policies() {
    let Some(site) = Site::start() else { return };
    bucket::refuses_what_no_policy_allows(&site.bucket);
}
