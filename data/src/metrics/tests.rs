#![allow(clippy::unwrap_used)]

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

/// The definition, user by user.
fn slow(ranks: &[Rank], metric: Metric, k: u32) -> f64 {
    let mut sum = 0.0;
    for rank in ranks {
        let Some(rank) = *rank else { continue };
        if rank > k {
            continue;
        }
        sum += match metric {
            Metric::Recall => 1.0,
            Metric::Mrr => 1.0 / f64::from(rank),
            Metric::Ndcg => std::f64::consts::LN_2 / f64::from(rank + 1).ln(),
        };
    }
    if ranks.is_empty() { 0.0 } else { sum / ranks.len() as f64 }
}

fn find(figures: &[Figure], name: &str) -> Figure {
    *figures.iter().find(|f| f.name() == name).unwrap()
}

#[test]
fn one_case_by_hand() {
    let figures = measure(&[Some(1), Some(3), Some(11), None], &[1, 10], 42);
    let names: Vec<_> = figures.iter().map(Figure::name).collect();
    assert_eq!(names, ["recall@1", "recall@10", "mrr@1", "mrr@10", "ndcg@1", "ndcg@10"]);
    assert_eq!(find(&figures, "recall@1").value, 0.25);
    assert_eq!(find(&figures, "recall@10").value, 0.5);
    assert!((find(&figures, "mrr@10").value - (1.0 + 1.0 / 3.0) / 4.0).abs() < 1e-15);
    assert!((find(&figures, "ndcg@10").value - (1.0 + 0.5) / 4.0).abs() < 1e-15);
}

#[test]
fn nobody_gives_zeros() {
    for figure in measure(&[], &[1, 5], 1) {
        assert_eq!((figure.value, figure.low, figure.high, figure.users), (0.0, 0.0, 0.0, 0));
    }
    assert!(measure(&[Some(1)], &[], 1).is_empty());
}

#[test]
fn all_hits_leave_no_doubt() {
    let figure = find(&measure(&[Some(1); 50], &[1], 1), "recall@1");
    assert_eq!((figure.low, figure.value, figure.high), (1.0, 1.0, 1.0));
}

#[test]
fn the_interval_is_that_of_a_binomial_share() {
    // 1,000 users, 30 % hits: the normal approximation gives 0.3 ± 1.96 · sqrt(0.3 · 0.7 / 1000) = ± 0.0284.
    let ranks: Vec<Rank> = (0..1000).map(|u| (u % 10 < 3).then_some(1)).collect();
    let figure = find(&measure(&ranks, &[1], 42), "recall@1");
    assert!((figure.low - 0.2716).abs() < 0.004, "{figure:?}");
    assert!((figure.high - 0.3284).abs() < 0.004, "{figure:?}");
    assert_eq!(measure(&ranks, &[1], 42), measure(&ranks, &[1], 42));
    assert_ne!(measure(&ranks, &[1], 42), measure(&ranks, &[1], 43));
}

#[test]
fn ranks_are_found_cut_and_filtered() {
    assert_eq!(rank_of(&["b", "a"], "a"), Some(2));
    assert_eq!(rank_of(&["b", "a"], "c"), None);
    assert_eq!(within(&[Some(20), Some(21), None], 20), [Some(20), None, None]);
    assert_eq!(retrieved(&[Some(20), None]), [Some(20)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn means_follow_the_definition(ranks in vec(option::of(1u32..80), 0..60), ks in vec(1u32..60, 1..4), seed: u64) {
        for figure in measure(&ranks, &ks, seed) {
            prop_assert!((figure.value - slow(&ranks, figure.metric, figure.k)).abs() < 1e-12);
            prop_assert!(figure.low <= figure.high);
            prop_assert!((0.0..=1.0 + 1e-12).contains(&figure.low) && figure.high <= 1.0 + 1e-12);
            prop_assert_eq!(figure.users, ranks.len() as u64);
        }
    }

    #[test]
    fn overall_is_the_subset_weighed_by_its_size(ranks in vec(option::of(1u32..21), 1..60)) {
        let (overall, subset) = (measure(&ranks, &[10], 1), measure(&retrieved(&ranks), &[10], 1));
        let share = retrieved(&ranks).len() as f64 / ranks.len() as f64;
        for (o, s) in overall.iter().zip(&subset) {
            prop_assert!((o.value - s.value * share).abs() < 1e-12);
        }
    }
}
