#![allow(clippy::unwrap_used)]

use proto::Broken;

use super::*;
use crate::core::Action;

const TERM: u64 = 2;

/// A gang under a clock.
struct Played {
    gang: Gang,
    numbers: Numbers,
    now: Duration,
}

fn lease(n: u64) -> LeaseId {
    LeaseId::of(TERM, n)
}

fn number(n: u64) -> GenerationId {
    GenerationId::of(TERM, n)
}

fn word(n: u64, step: u64) -> Ready {
    Ready {
        lease: lease(n),
        address: format!("host-{n}:7000"),
        certificate: vec![],
        step,
        about: format!("examples of step {}", step + 1),
        broken: None,
    }
}

fn broken(n: u64, step: u64, generation: u64, unreachable: Option<u64>) -> Ready {
    let reason = "a stream ended".to_owned();
    let broken = Broken { generation: number(generation), reason, unreachable: unreachable.map(lease) };
    Ready { broken: Some(broken), ..word(n, step) }
}

impl Played {
    fn new(most: u32) -> Self {
        Self { gang: Gang::new(most), numbers: Numbers::new(TERM), now: Duration::from_secs(100) }
    }

    /// A gang of so many that trains in generation 1.
    fn training(members: u64) -> Self {
        let mut played = Self::new(8);
        (1..=members).for_each(|n| played.come(n));
        (1..=members).for_each(|n| played.gang.ready(word(n, 0)));
        assert_eq!(played.told(), begun(1, &(1..=members).collect::<Vec<_>>()));
        played
    }

    fn come(&mut self, n: u64) {
        self.gang.hold(lease(n), WorkerId(n), &format!("worker-{n}"));
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    /// What is decided, in short.
    fn told(&mut self) -> Vec<String> {
        let actions = self.gang.review(self.now, &Policy::default(), &mut self.numbers);
        actions.iter().map(short).collect()
    }
}

fn of(id: LeaseId) -> u64 {
    id.0 & 0xffff_ffff
}

fn short(action: &Action) -> String {
    match action {
        Action::Begin(_, g) => {
            let members: Vec<String> = g.members.iter().map(|m| of(m.lease).to_string()).collect();
            assert_eq!(g.members[g.rank as usize].lease, g.lease, "its rank is its place");
            format!("{} begins {} with {}", of(g.lease), g.number.0 & 0xffff_ffff, members.join(" "))
        }
        Action::Regroup(_, lease, g) => format!("{} regroups {}", of(*lease), g.0 & 0xffff_ffff),
        Action::Abort(_, lease, g, _) => format!("{} aborts {}", of(*lease), g.0 & 0xffff_ffff),
        Action::Revoke(_, lease, _) => format!("{} is put out", of(*lease)),
        other => panic!("{other:?}"),
    }
}

fn begun(generation: u64, members: &[u64]) -> Vec<String> {
    let names: Vec<String> = members.iter().map(ToString::to_string).collect();
    members.iter().map(|n| format!("{n} begins {generation} with {}", names.join(" "))).collect()
}

fn each(members: &[u64], what: &str) -> Vec<String> {
    members.iter().map(|n| format!("{n} {what}")).collect()
}

#[test]
fn a_lone_member_begins_at_once() {
    let mut played = Played::new(1);
    played.come(1);
    assert!(played.told().is_empty());
    played.gang.ready(word(1, 0));
    assert_eq!(played.told(), begun(1, &[1]));
}

#[test]
fn all_begin_once_all_are_ready() {
    let mut played = Played::new(8);
    (1..=3).for_each(|n| played.come(n));
    played.gang.ready(word(3, 0));
    played.gang.ready(word(1, 0));
    assert!(played.told().is_empty());
    played.gang.ready(word(2, 0));
    assert_eq!(played.told(), begun(1, &[1, 2, 3]));
}

#[test]
fn who_loads_for_long_joins_later() {
    let mut played = Played::new(8);
    (1..=3).for_each(|n| played.come(n));
    played.gang.ready(word(1, 0));
    played.gang.ready(word(2, 0));
    assert!(played.told().is_empty());
    played.wait(2);
    assert!(played.told().is_empty(), "last call");
    played.wait(1);
    assert_eq!(played.told(), begun(1, &[1, 2]));
    played.gang.ready(word(3, 0));
    assert_eq!(played.told(), each(&[1, 2], "regroups 1"));
    assert!(played.told().is_empty(), "once");
    played.wait(60);
    assert!(played.told().is_empty(), "a step may take long");
    played.gang.ready(word(1, 7));
    assert!(played.told().is_empty());
    played.gang.ready(word(2, 7));
    assert_eq!(played.told(), begun(2, &[1, 2, 3]));
}

#[test]
fn a_member_that_is_lost_frees_the_others_at_once() {
    let mut played = Played::training(3);
    played.gang.lose(lease(2), true, "the worker vanished");
    assert_eq!(played.told(), each(&[1, 3], "aborts 1"));
    assert!(played.told().is_empty(), "once");
    played.gang.ready(broken(3, 4, 1, None));
    assert!(played.told().is_empty());
    played.gang.ready(broken(1, 5, 1, None));
    assert_eq!(played.told(), begun(2, &[1, 3]));
}

#[test]
fn one_that_says_that_it_broke_frees_the_others() {
    let mut played = Played::training(3);
    played.gang.ready(broken(2, 4, 1, None));
    assert_eq!(played.told(), each(&[1, 3], "aborts 1"));
    played.gang.ready(broken(1, 4, 1, None));
    played.gang.ready(broken(3, 4, 1, None));
    assert_eq!(played.told(), begun(2, &[1, 2, 3]));
}

#[test]
fn one_that_leaves_in_order_costs_nobody_a_step() {
    let mut played = Played::training(3);
    played.gang.put_out(lease(2));
    assert!(played.told().is_empty(), "it finishes the step at hand with the others");
    played.gang.ready(word(3, 5));
    assert!(played.told().is_empty());
    played.gang.leave(lease(2));
    assert!(played.told().is_empty());
    played.gang.ready(word(1, 5));
    assert_eq!(played.told(), begun(2, &[1, 3]));
}

#[test]
fn who_does_not_hear_that_another_has_left_is_told_after_a_while() {
    let mut played = Played::training(3);
    played.gang.leave(lease(2));
    assert!(played.told().is_empty());
    played.wait(3);
    assert_eq!(played.told(), each(&[1, 3], "aborts 1"));
}

#[test]
fn a_member_that_hangs_is_left_behind_and_comes_again() {
    let mut played = Played::training(3);
    played.gang.ready(broken(1, 5, 1, None));
    played.gang.ready(broken(2, 5, 1, None));
    assert_eq!(played.told(), each(&[3], "aborts 1"));
    played.wait(3);
    assert_eq!(played.told(), begun(2, &[1, 2]));
    played.gang.ready(broken(3, 5, 1, None));
    assert_eq!(played.told(), each(&[1, 2], "regroups 2"));
}

#[test]
fn new_members_do_not_begin_without_those_who_have_the_state() {
    let mut played = Played::training(2);
    played.come(3);
    played.gang.ready(word(3, 0));
    assert_eq!(played.told(), each(&[1, 2], "regroups 1"));
    played.gang.lose(lease(1), true, "the worker vanished");
    assert_eq!(played.told(), each(&[2], "aborts 1"));
    played.wait(60);
    assert!(played.told().is_empty(), "2 has what nobody else has");
    played.gang.ready(broken(2, 70, 1, None));
    assert_eq!(played.told(), begun(2, &[2, 3]));
}

#[test]
fn where_all_are_lost_whoever_comes_begins() {
    let mut played = Played::training(2);
    played.come(3);
    played.gang.lose(lease(1), true, "the worker vanished");
    played.gang.lose(lease(2), true, "the worker vanished");
    played.told();
    played.gang.ready(word(3, 40));
    assert_eq!(played.told(), begun(2, &[3]));
}

#[test]
fn a_word_of_before_the_generation_is_not_taken_for_its_end() {
    let mut played = Played::training(2);
    played.gang.ready(broken(1, 4, 1, None));
    played.gang.ready(broken(2, 4, 1, None));
    assert_eq!(played.told(), begun(2, &[1, 2]));
    // It was told to abort when it had said that it is ready, and says so again.
    played.gang.ready(broken(2, 4, 1, None));
    assert!(played.told().is_empty());
}

#[test]
fn a_claim_of_the_generation_that_goes_on_changes_nothing() {
    let mut played = Played::training(2);
    played.gang.hold(lease(2), WorkerId(12), "worker-2");
    played.gang.claim(lease(2), Some(number(1)));
    assert!(played.told().is_empty());
    assert_eq!(played.gang.training(), 2);
}

#[test]
fn one_that_trains_alone_goes_on_when_its_session_is_back() {
    let mut played = Played::training(1);
    played.gang.lose(lease(1), true, "its stream broke");
    assert!(played.told().is_empty());
    played.come(1);
    played.gang.claim(lease(1), Some(number(1)));
    assert!(played.told().is_empty());
    assert_eq!(played.gang.training(), 1);
}

#[test]
fn one_whose_session_is_back_after_the_others_were_freed_is_freed_too() {
    let mut played = Played::training(3);
    played.gang.lose(lease(2), true, "its stream broke");
    assert_eq!(played.told(), each(&[1, 3], "aborts 1"));
    played.come(2);
    played.gang.claim(lease(2), Some(number(1)));
    assert_eq!(played.told(), each(&[2], "aborts 1"));
    for n in [3, 1, 2] {
        played.gang.ready(broken(n, 6, 1, None));
    }
    assert_eq!(played.told(), begun(2, &[1, 2, 3]));
}

#[test]
fn one_that_the_others_have_given_up_is_called_back() {
    let mut played = Played::training(2);
    played.gang.lose(lease(2), true, "its stream broke");
    played.told();
    played.gang.ready(broken(1, 6, 1, None));
    assert_eq!(played.told(), begun(2, &[1]));
    played.come(2);
    played.gang.claim(lease(2), Some(number(1)));
    assert_eq!(played.told(), each(&[2], "aborts 1"));
    played.gang.ready(broken(2, 6, 1, None));
    assert_eq!(played.told(), each(&[1], "regroups 2"));
}

#[test]
fn one_that_claims_to_be_in_no_generation_has_left_the_one_that_goes_on() {
    let mut played = Played::training(2);
    played.gang.hold(lease(2), WorkerId(12), "worker-2");
    played.gang.claim(lease(2), None);
    assert_eq!(played.told(), each(&[1], "aborts 1"));
}

#[test]
fn members_of_an_earlier_coordinator_finish_their_step_and_meet_again() {
    let mut played = Played::new(8);
    let before = GenerationId::of(TERM - 1, 9);
    for n in 1..=2 {
        played.come(n);
        played.gang.claim(lease(n), Some(before));
    }
    assert_eq!(played.told(), each(&[1, 2], "regroups 9"));
    assert!(played.told().is_empty(), "once");
    // One who has just come does not begin before them.
    played.come(3);
    played.gang.ready(word(3, 0));
    played.wait(60);
    assert!(played.told().is_empty());
    played.gang.ready(word(1, 30));
    played.gang.ready(word(2, 30));
    assert_eq!(played.told(), begun(1, &[1, 2, 3]));
}

#[test]
fn two_that_cannot_reach_each_other_twice_are_parted() {
    let mut played = Played::training(3);
    for generation in 1..=2 {
        for (n, missed) in [(1, None), (2, Some(3)), (3, None)] {
            played.gang.ready(broken(n, 0, generation, missed));
        }
        if generation == 1 {
            assert_eq!(played.told(), begun(2, &[1, 2, 3]));
        }
    }
    let actions = played.gang.review(played.now, &Policy::default(), &mut played.numbers);
    let Action::Revoke(worker, out, reason) = &actions[0] else { panic!("{actions:?}") };
    assert_eq!((*worker, *out), (WorkerId(3), lease(3)), "the one that came last");
    for part in ["worker-3 (host-3:7000)", "worker-2 (host-2:7000)", "60 s"] {
        assert!(reason.contains(part), "no `{part}` in {reason}");
    }
    assert_eq!(actions[1..].iter().map(short).collect::<Vec<_>>(), begun(3, &[1, 2]));
    assert!(played.gang.is_barred("worker-3", played.now + Duration::from_secs(59)));
    assert!(!played.gang.is_barred("worker-3", played.now + Duration::from_secs(60)));
}

#[test]
fn of_those_that_cannot_be_reached_the_one_goes_that_most_others_miss() {
    let mut played = Played::training(3);
    for generation in 1..=2 {
        played.told();
        for (n, missed) in [(1, None), (2, Some(1)), (3, Some(1))] {
            played.gang.ready(broken(n, 0, generation, missed));
        }
    }
    assert_eq!(played.told(), [each(&[1], "is put out"), begun(3, &[2, 3])].concat());
}

#[test]
fn a_step_in_between_forgets_who_could_not_be_reached() {
    let mut played = Played::training(2);
    for generation in 1..=4 {
        played.gang.reached(lease(1), 10 * generation);
        played.gang.ready(broken(1, 10 * generation, generation, Some(2)));
        played.told();
        played.gang.ready(broken(2, 10 * generation, generation, None));
        assert_eq!(played.told(), begun(generation + 1, &[1, 2]));
    }
}

/// Loses the first member of generations `from..` at a step, each time with another of the same kind to come.
fn lose_at(played: &mut Played, step: u64, rounds: std::ops::Range<u64>) {
    for round in rounds {
        played.gang.lose(lease(round), true, "the worker vanished");
        played.told();
        let rest: Vec<u64> = (round + 1..=10).collect();
        for n in &rest {
            played.gang.ready(broken(*n, step, round, None));
        }
        assert_eq!(played.told(), begun(round + 1, &rest));
    }
}

#[test]
fn a_step_that_costs_a_member_three_times_fails_the_training_and_is_named() {
    let mut played = Played::training(10);
    lose_at(&mut played, 40, 1..3);
    assert_eq!(played.gang.verdict(&Policy::default()), None);
    lose_at(&mut played, 40, 3..4);
    let reason = played.gang.verdict(&Policy::default()).unwrap();
    for part in ["step 41 lost members 3 times", "worker-1: the worker vanished", "worker-3", "examples of step 41"] {
        assert!(reason.contains(part), "no `{part}` in {reason}");
    }
}

#[test]
fn losses_are_forgotten_once_the_gang_gets_further() {
    let mut played = Played::training(10);
    for round in 1..8 {
        lose_at(&mut played, 40 + round, round..round + 1);
        assert_eq!(played.gang.verdict(&Policy::default()), None);
    }
}

#[test]
fn members_that_are_lost_together_count_once() {
    let mut played = Played::training(5);
    (1..=4).for_each(|n| assert!(played.gang.lose(lease(n), true, "its machine is gone")));
    assert_eq!(played.gang.verdict(&Policy::default()), None);
}

#[test]
fn members_that_are_lost_together_before_they_train_count_once_and_their_followers_again() {
    let mut played = Played::new(8);
    for (round, verdict) in [(0, false), (1, false), (2, true)] {
        let leases = 10 * round + 1..=10 * round + 4;
        leases.clone().for_each(|n| played.come(n));
        leases.for_each(|n| assert!(played.gang.lose(lease(n), true, "its machine is gone")));
        assert_eq!(played.gang.verdict(&Policy::default()).is_some(), verdict, "round {round}");
    }
}

#[test]
fn who_dies_behind_the_generation_of_another_is_lost_with_it() {
    let mut played = Played::training(3);
    played.gang.lose(lease(1), true, "its machine is gone");
    played.told();
    for n in [2, 3] {
        played.gang.ready(broken(n, 40, 1, None));
        played.gang.lose(lease(n), true, "its machine is gone");
    }
    assert_eq!(played.gang.verdict(&Policy::default()), None);
}

#[test]
fn others_train_without_one() {
    let mut played = Played::training(2);
    assert!(played.gang.trains_without(lease(2)));
    played.gang.lose(lease(1), true, "its machine is gone");
    assert!(!played.gang.trains_without(lease(2)));
}

#[test]
fn a_worker_that_cannot_load_says_nothing_of_the_step_of_others() {
    let mut played = Played::training(2);
    for n in 3..=9 {
        played.come(n);
        assert!(!played.gang.lose(lease(n), true, "out of memory"));
    }
    assert_eq!((played.told(), played.gang.verdict(&Policy::default())), (vec![], None));
    let mut played = Played::new(8);
    for n in 1..=3 {
        assert_eq!(played.gang.verdict(&Policy::default()), None);
        played.come(n);
        assert!(played.gang.lose(lease(n), true, "out of memory"), "nobody can");
    }
    assert!(played.gang.verdict(&Policy::default()).unwrap().contains("out of memory"));
}

#[test]
fn a_loss_is_taken_back_when_its_worker_is() {
    let mut played = Played::training(1);
    for _ in 0..9 {
        played.gang.lose(lease(1), true, "its stream broke");
        assert_eq!(played.gang.verdict(&Policy::default()), None);
        played.come(1);
        played.gang.claim(lease(1), Some(number(1)));
        assert!(played.told().is_empty());
    }
}

#[test]
fn nothing_begins_behind_the_end() {
    let mut played = Played::training(3);
    played.gang.finish();
    played.gang.lose(lease(1), true, "the worker vanished");
    played.gang.ready(broken(2, 90, 1, None));
    played.wait(60);
    assert!(played.told().is_empty());
}

#[test]
fn the_member_to_spare_is_one_that_does_not_train_yet() {
    let mut played = Played::training(2);
    assert_eq!(played.gang.spare(|_| true), Some(lease(2)), "the last that came");
    played.come(4);
    played.come(3);
    assert_eq!(played.gang.spare(|_| true), Some(lease(4)));
    played.gang.put_out(lease(4));
    assert_eq!((played.gang.spare(|_| true), played.gang.size()), (Some(lease(3)), 3));
}
