//! Every order of events of two coordinators and two workers over two shards, explored to the end.
//!
//! A coordinator lists the terms, creates the next one, lists what is done, grants, hears of commits and creates
//! `_SUCCESS`. A worker creates the part of a shard, then its done record, each by *create unless it exists* and reading back.
//! Anybody may die between two steps; an answer may be lost, a conflict may write nothing, a request may be carried out
//! after its sender has given up and even died; grants and words about commits arrive in any order, late or never, so a
//! coordinator may grant a shard again at any time, to a worker that wakes up late.
//!
//! What would never end is bounded: see [`Budget`]; `MLLM4REC_EXHAUSTIVE=1` explores the largest one too. The rules that make
//! it right can be broken one by one, and every one that is broken is found out.

mod model;

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use model::{Budget, RULES, Rules, State};

/// What a whole exploration came to.
struct Explored {
    states: usize,
    complete: usize,
    violation: Option<String>,
}

/// Every state that can be reached, depth first. A state is remembered by 64 bits of hash: that two of ten million have the
/// same has a chance of one in 300,000, and is the same in every run.
fn explore(budget: Budget, rules: Rules) -> Explored {
    let print = |state: &State| BuildHasherDefault::<DefaultHasher>::default().hash_one(state);
    let first = State::new(budget);
    let mut seen: HashSet<u64> = HashSet::from([print(&first)]);
    let mut frontier = vec![first];
    let mut complete = 0;
    while let Some(state) = frontier.pop() {
        if let Some(violation) = state.violation() {
            return Explored { states: seen.len(), complete, violation: Some(format!("{violation}: {state:?}")) };
        }
        complete += usize::from(state.complete());
        for state in state.next(rules) {
            if seen.insert(print(&state)) {
                frontier.push(state);
            }
        }
    }
    Explored { states: seen.len(), complete, violation: None }
}

fn holds(budget: Budget) {
    let explored = explore(budget, RULES);
    assert_eq!(explored.violation, None);
    println!("{} states, {} of them complete, with {budget:?}", explored.states, explored.complete);
    assert!(explored.complete > 1000, "{} states, {} complete", explored.states, explored.complete);
}

/// Three grants for two shards: one is granted twice.
const BUDGET: Budget = Budget { terms: 2, grants: 3, deaths: 1, faults: 1 };

#[test]
fn in_every_order_of_events_what_counts_is_there() {
    holds(Budget { deaths: 0, faults: 0, ..BUDGET });
    holds(Budget { grants: 2, ..BUDGET });
    holds(Budget { terms: 1, ..BUDGET });
    if std::env::var_os("MLLM4REC_EXHAUSTIVE").is_some() {
        holds(BUDGET);
    }
}

#[test]
fn every_rule_is_needed() {
    let broken = [
        (Rules { read_back: false, ..RULES }, "without the part"),
        (Rules { distinct_claims: false, ..RULES }, "two coordinators lead one term"),
        (Rules { success_last: false, ..RULES }, "_SUCCESS before"),
        (Rules { part_first: false, ..RULES }, "without the part"),
    ];
    for (rules, expected) in broken {
        let violation = explore(BUDGET, rules).violation.unwrap_or_default();
        assert!(violation.contains(expected), "{rules:?}: {violation}");
    }
}
