#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::Rng;
use super::*;
use crate::Error;
use crate::job::{CandidateOrder, Negatives};

#[test]
fn numbers_are_a_function_of_the_key() {
    let draw = |key: &[u64]| {
        let mut rng = Rng::keyed(key);
        [rng.next_u64(), rng.next_u64(), rng.next_u64()]
    };
    assert_eq!(draw(&[1, 2]), draw(&[1, 2]));
    let keys: [&[u64]; 7] = [&[], &[0], &[0, 0], &[1], &[1, 2], &[2, 1], &[1, 2, 0]];
    let distinct: BTreeSet<_> = keys.iter().map(|key| draw(key)).collect();
    assert_eq!(distinct.len(), keys.len());
    // Written down once: another result would change every example of every job.
    assert_eq!(draw(&[42, 0, 7]), FIRST_OF_42_0_7);
}

const FIRST_OF_42_0_7: [u64; 3] = [0x3a81_0c0b_773c_ee9b, 0xfde6_9a63_f90f_5f3c, 0xbe39_10e7_da2c_e279];

#[test]
fn numbers_below_n_are_uniform() {
    let mut rng = Rng::keyed(&[3]);
    let mut seen = [0_u32; 7];
    for _ in 0..70_000 {
        seen[rng.below(7) as usize] += 1;
    }
    // Standard deviation 93.
    assert!(seen.iter().all(|n| n.abs_diff(10_000) < 450), "{seen:?}");
    let mean = (0..10_000).map(|_| rng.unit()).sum::<f64>() / 10_000.0;
    assert!((mean - 0.5).abs() < 0.015, "{mean}");
}

#[test]
fn every_order_of_a_shuffle_is_equally_likely() {
    let mut orders: BTreeMap<[u8; 4], u32> = BTreeMap::new();
    for key in 0..24_000 {
        let mut values = [0, 1, 2, 3];
        Rng::keyed(&[9, key]).shuffle(&mut values);
        *orders.entry(values).or_default() += 1;
    }
    assert_eq!(orders.len(), 24);
    assert!(orders.values().all(|n| n.abs_diff(1_000) < 160), "{orders:?}");
}

proptest! {
    #[test]
    fn permutations_are_bijections(n in 1..3_000_u64, seed in any::<u64>(), epoch in 0..1_000_u64) {
        let order = Permutation::new(n, seed, epoch);
        let values: BTreeSet<u64> = (0..n).map(|i| order.at(i)).collect();
        prop_assert_eq!(values.len() as u64, n);
        prop_assert_eq!(values.last().copied(), Some(n - 1));
    }

    #[test]
    fn permutations_differ_between_epochs_and_seeds(n in 200..3_000_u64, seed in any::<u64>(), epoch in 0..1_000_u64) {
        let order = |seed, epoch| { let p = Permutation::new(n, seed, epoch); (0..n).map(|i| p.at(i)).collect::<Vec<_>>() };
        let here = order(seed, epoch);
        for other in [order(seed, epoch + 1), order(seed.wrapping_add(1), epoch), (0..n).collect()] {
            let fixed = here.iter().zip(&other).filter(|(a, b)| a == b).count();
            prop_assert!(fixed < 15, "{fixed} of {n} positions agree, about one is expected");
        }
    }

    #[test]
    fn large_permutations_stay_in_range(n in (1_u64 << 40)..(1 << 62), at in any::<u64>()) {
        prop_assert!(Permutation::new(n, 1, 0).at(at % n) < n);
    }

    #[test]
    fn prefixes_are_numbered_without_gaps(lengths in prop::collection::vec(0..9_usize, 0..30)) {
        let prefixes = TrainingPrefixes::new(lengths.iter().copied());
        let expected: Vec<Prefix> = lengths
            .iter()
            .enumerate()
            .flat_map(|(user, n)| (2..=*n).map(move |length| Prefix { user, length }))
            .collect();
        prop_assert_eq!(prefixes.len(), expected.len() as u64);
        for (example, prefix) in expected.iter().enumerate() {
            prop_assert_eq!(prefixes.at(example as u64), *prefix);
        }
    }

    #[test]
    fn candidates_are_the_answer_and_distinct_unseen_items(
        history in prop::collection::vec(1..=60_u32, 2..30),
        retrieved in prop::collection::btree_set(1..=60_u32, 0..25),
        (seed, epoch, example) in any::<(u64, u64, u64)>(),
        candidates in 1..=20_u32,
        kind in prop::sample::select(vec![Negatives::Random, Negatives::Retrieved, Negatives::Mixed]),
        order in prop::sample::select(vec![CandidateOrder::Shuffled, CandidateOrder::Retrieved]),
    ) {
        let seen = Seen::new(&history);
        let answer = history[history.len() / 2];
        // What a retriever gives: unseen items, and perhaps the answer, in some order.
        let mut retrieved: Vec<u32> = retrieved.into_iter().filter(|i| *i == answer || !seen.contains(*i)).collect();
        Rng::keyed(&[example]).shuffle(&mut retrieved);
        let question = Question { example, answer, seen: &seen, retrieved: &retrieved };
        let recipe = Recipe { negatives: kind, order, candidates, catalogue_len: 60, seed };
        let choose = || choose_candidates(&recipe, epoch, &question).unwrap();
        let choice = choose();
        prop_assert_eq!(choice.items.len() as u32, candidates);
        prop_assert_eq!(choice.items[choice.answer], answer);
        let distinct: BTreeSet<u32> = choice.items.iter().copied().collect();
        prop_assert_eq!(distinct.len() as u32, candidates);
        for item in distinct.iter().filter(|i| **i != answer) {
            prop_assert!((1..=60).contains(item) && !seen.contains(*item), "{item} is no negative");
        }
        prop_assert_eq!(&choose(), &choice, "the same key gives the same candidates");
        let usable: Vec<u32> = retrieved.iter().copied().filter(|i| *i != answer).collect();
        let wrong = candidates as usize - 1;
        let hard = match kind {
            Negatives::Random => 0,
            Negatives::Retrieved => wrong.min(usable.len()),
            Negatives::Mixed => wrong.div_ceil(2).min(usable.len()),
        };
        prop_assert!(usable[..hard].iter().all(|i| distinct.contains(i)), "the retriever's best are among them");
        if order == CandidateOrder::Retrieved {
            let shown: Vec<u32> = choice.items.iter().copied().filter(|i| usable[..hard].contains(i)).collect();
            prop_assert_eq!(&shown, &usable[..hard], "in its order");
            let place = retrieved.iter().position(|i| *i == answer);
            prop_assert!(place.is_none_or(|place| place > wrong || choice.answer == place), "the answer at its own place");
        }
    }
}

fn recipe(negatives: Negatives, candidates: u32, catalogue_len: u32) -> Recipe {
    Recipe { negatives, order: CandidateOrder::Shuffled, candidates, catalogue_len, seed: 1 }
}

/// An answer at a place of its own would be learnt by its place: one that was not proposed, or behind all that are shown.
#[test]
fn an_answer_that_was_not_proposed_stands_anywhere() {
    let seen = Seen::new(&[5]);
    for retrieved in [&[7, 3, 9, 1][..], &[7, 3, 9, 1, 5, 2]] {
        let mut positions = [0_u32; 4];
        for example in 0..24_000 {
            let question = Question { example, answer: 5, seen: &seen, retrieved };
            let recipe = Recipe { order: CandidateOrder::Retrieved, ..recipe(Negatives::Retrieved, 4, 12) };
            positions[choose_candidates(&recipe, 0, &question).unwrap().answer] += 1;
        }
        assert!(positions.iter().all(|n| n.abs_diff(6_000) < 350), "{positions:?}");
    }
}

#[test]
fn random_negatives_are_uniform_and_the_answer_stands_anywhere() {
    let seen = Seen::new(&[2, 5, 6, 9]);
    let mut items = [0_u32; 13];
    let mut positions = [0_u32; 4];
    for example in 0..24_000 {
        let question = Question { example, answer: 5, seen: &seen, retrieved: &[] };
        let choice = choose_candidates(&recipe(Negatives::Random, 4, 12), 0, &question).unwrap();
        choice.items.iter().for_each(|i| items[*i as usize] += 1);
        positions[choice.answer] += 1;
    }
    for unseen in [1, 3, 4, 7, 8, 10, 11, 12] {
        assert!(items[unseen].abs_diff(9_000) < 400, "{items:?}");
    }
    assert_eq!((items[0], items[2], items[6], items[9]), (0, 0, 0, 0));
    assert!(positions.iter().all(|n| n.abs_diff(6_000) < 350), "{positions:?}");
}

#[test]
fn epochs_see_other_negatives() {
    let seen = Seen::new(&[1]);
    let question = Question { example: 3, answer: 1, seen: &seen, retrieved: &[] };
    let choose = |epoch| choose_candidates(&recipe(Negatives::Random, 20, 5_000), epoch, &question).unwrap();
    assert_ne!(choose(0), choose(1));
}

#[test]
fn a_catalogue_that_is_too_small_names_the_key() {
    let seen = Seen::new(&[1, 2, 3]);
    let question = Question { example: 0, answer: 2, seen: &seen, retrieved: &[4] };
    for kind in [Negatives::Random, Negatives::Retrieved, Negatives::Mixed] {
        assert!(
            choose_candidates(&recipe(kind, 8, 10), 0, &question).is_ok(),
            "seven unseen items are enough for eight candidates"
        );
        let error = choose_candidates(&recipe(kind, 9, 10), 0, &question).unwrap_err();
        assert!(matches!(error, Error::TooFewItems { unseen: 7, .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("`retriever.candidates` = 9") && text.contains("8 items") && text.contains("lower it to 8"),
            "{text}"
        );
    }
}
