//! Members that come and go, in order or not.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::training::{Training, What};
use crate::cluster::signal;
use crate::{sized, turn};

/// The time that a worker has to leave once it is told to.
const NOTICE: Duration = Duration::from_secs(15);

#[test]
fn a_ranker_is_the_same_from_any_gang_and_when_workers_are_killed() {
    let _turn = turn();
    for (workers, kills) in [(3, 0), (3, sized(2, 10))] {
        let mut training = Training::begin(What::Ranker, workers);
        for kill in 0..kills {
            let Some(step) = training.until("the training is on its way", |step| step > 0) else { break };
            training.cluster.kill_worker(kill % workers);
            training.until("it goes on", |now| now > step + 2);
        }
        training.ends_as_if_nothing_had_happened();
        let worlds = worlds(&training);
        assert!(worlds.contains(&(workers as u64)), "gangs were of {worlds:?} workers");
    }
}

#[test]
fn who_is_told_to_leave_costs_no_step() {
    let _turn = turn();
    let mut training = Training::begin(What::Retriever, 3);
    let step = training.until("the training is on its way", |step| step > 20).expect("it has hardly begun");
    let told = Instant::now();
    signal(training.cluster.workers[1].pid(), "TERM");
    let code = loop {
        if let Some(code) = training.cluster.workers[1].code() {
            break code;
        }
        assert!(told.elapsed() < NOTICE, "it is still there\n{}", training.cluster.last_words());
        std::thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(code, 143);
    training.until("the others go on", |now| now > step + 20);
    let broken = said(&training, "generation broken");
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(worlds(&training).contains(&2), "the others are {:?}", worlds(&training));
    training.ends_as_if_nothing_had_happened();
}

#[test]
fn when_all_are_told_to_leave_the_next_ones_go_on_from_there() {
    let _turn = turn();
    let mut training = Training::begin(What::Retriever, 3);
    training.until("the training is on its way", |step| step > 25).expect("it has hardly begun");
    training.cluster.workers.iter().for_each(|worker| signal(worker.pid(), "TERM"));
    let told = Instant::now();
    while training.cluster.workers.iter_mut().any(|worker| worker.code().is_none()) {
        assert!(told.elapsed() < NOTICE, "somebody is still there\n{}", training.cluster.last_words());
        std::thread::sleep(Duration::from_millis(20));
    }
    let left = said(&training, "generation begins").len();
    training.cluster.revive();
    let began = Instant::now();
    let begins = loop {
        let begins = said(&training, "generation begins");
        if begins.len() > left {
            break begins;
        }
        assert!(began.elapsed() < NOTICE, "nobody trains\n{}", training.cluster.last_words());
        std::thread::sleep(Duration::from_millis(20));
    };
    let step = begins[left]["step"].as_u64().unwrap();
    assert!(step > 20, "they begin anew at step {step}");
    training.ends_as_if_nothing_had_happened();
}

#[test]
fn a_training_goes_on_while_coordinators_change() {
    let _turn = turn();
    let mut training = Training::begin(What::Retriever, 3);
    for _ in 0..sized(2, 10) {
        let Some(step) = training.until("the training is on its way", |step| step > 5) else { break };
        training.cluster.kill_coordinator();
        training.until("it goes on", |now| now > step + 5);
    }
    let broken = said(&training, "generation broken");
    assert!(broken.is_empty(), "{broken:#?}");
    training.ends_as_if_nothing_had_happened();
}

/// The sizes of the gangs that were.
fn worlds(training: &Training) -> BTreeSet<u64> {
    said(training, "generation begins").iter().filter_map(|line| line["world"].as_u64()).collect()
}

/// Lines of the workers' logs.
fn said(training: &Training, message: &str) -> Vec<Value> {
    let logs = training.cluster.logs("worker").into_iter().flat_map(|(_, log)| log);
    logs.filter(|line| line["message"] == message).collect()
}
