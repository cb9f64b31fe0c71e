//! Every fault in every phase of a gang, one after the other.

use std::fs;
use std::time::{Duration, Instant};

use super::training::{Training, What};
use crate::cluster::signal;
use crate::random::Random;
use crate::{sized, turn};

const SEED: u64 = 20_261_129;
const FAULTS: [&str; 7] = ["kill", "exit", "panic", "hang", "abort", "nan", "slow"];
const PHASES: [&str; 6] = ["join", "sync", "forward", "all_reduce", "commit", "checkpoint"];
/// The longest that a gang may take to go on.
const RECOVERED: Duration = Duration::from_secs(15);

#[test]
fn a_gang_learns_the_same_whatever_happens_to_its_members() {
    let (worlds, each, rounds) = sized((&[3][..], 9, 1), (&[2, 3, 4, 8][..], usize::MAX, 3));
    learns_the_same(What::Retriever, worlds, each, rounds);
}

#[test]
fn so_does_one_that_shares_items_out() {
    let (worlds, each, rounds) = sized((&[3][..], 6, 1), (&[3, 8][..], usize::MAX, 1));
    learns_the_same(What::SharedItems, worlds, each, rounds);
}

/// Gangs of so many workers, to each of which every fault happens in so many rounds, but so many faults at most.
fn learns_the_same(what: What, worlds: &[usize], each: usize, rounds: usize) {
    let _turn = turn();
    let mut random = Random(SEED);
    for world in worlds {
        let mut faults: Vec<String> = (0..rounds).flat_map(|_| all()).collect();
        random.shuffle(&mut faults);
        faults.truncate(each);
        let (count, began, mut trainings, mut times) = (faults.len(), Instant::now(), 0, Vec::new());
        while !faults.is_empty() {
            trainings += 1;
            let mut training = Training::begin(what, *world);
            while let Some(fault) = faults.last() {
                let Some(time) = happens(&mut training, fault, *world) else { break };
                times.push(time);
                faults.pop();
            }
            training.ends_as_if_nothing_had_happened();
        }
        times.sort();
        let secs = |time: Duration| time.as_secs_f64();
        let (median, longest) = (secs(times[times.len() / 2]), secs(times[times.len() - 1]));
        println!(
            "figure: gangs: {what:?}, {world} workers, seed {SEED}: {count} faults in {trainings} trainings, {} s: went on after {median:.1} s \
             (median), {longest:.1} s (longest); every model equal to the bit",
            began.elapsed().as_secs(),
        );
        assert_eq!(times.len(), count);
    }
}

/// The faults that do something where they happen: gradients are only made in one phase, and nobody who joins has streams.
fn all() -> impl Iterator<Item = String> {
    let makes_sense = |fault: &str, phase: &str| match fault {
        "nan" => phase == "forward",
        "abort" => phase != "join",
        _ => true,
    };
    FAULTS.iter().flat_map(move |fault| {
        PHASES.iter().filter(move |phase| makes_sense(fault, phase)).map(move |phase| format!("{fault}@{phase}"))
    })
}

/// Lets a fault happen, and waits until the gang has gone on. Returns how long that took, or nothing if the training was over before it
/// came to the fault.
fn happens(training: &mut Training, fault: &str, world: usize) -> Option<Duration> {
    // Losses at one step add up.
    let step = training.until("the training is on its way", |step| step > 0)?;
    training.until("the training goes on", |now| now > step + 2)?;
    let file = training.faults.join(fault);
    fs::write(&file, "").unwrap();
    if fault.ends_with("join") || fault.ends_with("sync") {
        training.cluster.kill_worker(world - 1); // its place is taken, and members meet
    }
    let there = file.clone();
    let step = training.until("the fault happens", |_| !there.exists());
    if step.is_none() {
        return fs::remove_file(&file).is_err().then_some(Duration::ZERO); // it was the last thing that happened
    }
    let (began, step) = (Instant::now(), step?);
    training.until("the gang goes on", |now| now > step + 2);
    let took = began.elapsed();
    assert!(took <= RECOVERED, "{fault}: the gang went on after {took:?}\n{}", training.cluster.last_words());
    replace(training, fault);
    Some(took)
}

/// Ends the process in which a fault has left something behind: one that hangs where nobody misses it, or is not wanted for a while.
fn replace(training: &mut Training, fault: &str) {
    for entry in fs::read_dir(&training.faults).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Some(pid) = name.strip_prefix("fired-").and_then(|name| name.strip_suffix(&format!("-{fault}"))) else {
            continue;
        };
        let pid: u32 = pid.parse().unwrap();
        if training.cluster.workers.iter().any(|worker| worker.pid() == pid) && crate::cluster::alive(pid) {
            signal(pid, "KILL");
        }
        fs::remove_file(&path).unwrap();
    }
}
