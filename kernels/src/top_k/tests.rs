#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;
use crate::testing::{noise_tensor, same_on_threads};

/// Small integers, so that scores are exact and ties are many.
fn integers(seed: u64, shape: &[usize]) -> Tensor {
    let mut t = noise_tensor(seed, shape);
    t.f32_mut().unwrap().iter_mut().for_each(|v| *v = (*v * 3.0).round());
    t
}

fn excluded(n: usize, classes: usize) -> Vec<Vec<u32>> {
    (0..n)
        .map(|i| {
            let mut ids: Vec<u32> = (0..i % 40).map(|j| ((j * j * 17 + i * 5) % classes) as u32).collect();
            ids.sort_unstable();
            ids
        })
        .collect()
}

#[test]
fn a_row_by_hand() {
    let x = Tensor::from_f32(&[1, 1], vec![1.0]).unwrap();
    let w = Tensor::from_f32(&[5, 1], vec![9.0, 2.0, 3.0, 3.0, 1.0]).unwrap();
    let best = top_k(&x, &w, None, 1, &[&[]], 3).unwrap();
    assert_eq!(best[0].iter().map(|s| (s.id, s.score)).collect::<Vec<_>>(), [(2, 3.0), (3, 3.0), (1, 2.0)]);
    let best = top_k(&x, &w, None, 1, &[&[2, 4]], 9).unwrap();
    assert_eq!(best[0].iter().map(|s| s.id).collect::<Vec<_>>(), [3, 1]);
    assert_eq!(ranks(&x, &w, None, 1, &[&[]], &[3]).unwrap(), [2]);
    assert_eq!(ranks(&x, &w, None, 1, &[&[2, 3]], &[3]).unwrap(), [1]);
}

#[test]
fn agrees_with_sorting_everything_where_ties_are_many() {
    for (n, classes, d, k) in [(0, 7, 3, 5), (1, 1, 1, 1), (3, 2, 4, 20), (65, 1031, 5, 20), (130, 513, 7, 600)] {
        let (x, w, bias) = (integers(1, &[n, d]), integers(2, &[classes, d]), integers(3, &[classes]));
        let exclude = excluded(n, classes);
        let exclude: Vec<&[u32]> = exclude.iter().map(Vec::as_slice).collect();
        let problem = Problem::new("test", &x, &w, Some(&bias), 1, &exclude).unwrap();
        let best = top_k(&x, &w, Some(&bias), 1, &exclude, k).unwrap();
        for (row, best) in best.iter().enumerate() {
            let mut wanted = reference::order(&problem, row);
            wanted.truncate(k);
            assert_eq!(*best, wanted, "row {row} of {n} x {classes}");
        }
    }
}

#[test]
fn ranks_agree_with_sorting_everything() {
    let (n, classes, d) = (130, 1100, 5);
    let (x, w) = (integers(1, &[n, d]), integers(2, &[classes, d]));
    let exclude = excluded(n, classes);
    let exclude: Vec<&[u32]> = exclude.iter().map(Vec::as_slice).collect();
    let targets: Vec<u32> = (0..n).map(|i| 1 + ((i * 641) % (classes - 1)) as u32).collect();
    let found = ranks(&x, &w, None, 1, &exclude, &targets).unwrap();
    for row in 0..n {
        // The target counts even where it is excluded.
        let kept: Vec<u32> = exclude[row].iter().copied().filter(|&id| id != targets[row]).collect();
        let lists: Vec<&[u32]> = vec![&kept; n];
        let problem = Problem::new("test", &x, &w, None, 1, &lists).unwrap();
        let place = reference::order(&problem, row).iter().position(|s| s.id == targets[row]).unwrap();
        assert_eq!(found[row], place as u32 + 1, "row {row}");
    }
}

#[test]
fn ranks_and_lists_agree_on_real_scores() {
    let (n, classes, d) = (70, 2000, 64);
    let (x, w) = (noise_tensor(1, &[n, d]), noise_tensor(2, &[classes, d]));
    let exclude: Vec<&[u32]> = vec![&[]; n];
    let best = top_k(&x, &w, None, 1, &exclude, 50).unwrap();
    for place in [0, 19, 49] {
        let targets: Vec<u32> = best.iter().map(|row| row[place].id).collect();
        assert!(ranks(&x, &w, None, 1, &exclude, &targets).unwrap().iter().all(|&r| r as usize == place + 1));
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (x, w) = (noise_tensor(1, &[200, 16]), noise_tensor(2, &[1000, 16]));
    let exclude: Vec<&[u32]> = vec![&[]; 200];
    same_on_threads(|| top_k(&x, &w, None, 0, &exclude, 10).unwrap());
}

#[test]
fn unsorted_exclusions_and_targets_outside_are_refused() {
    let (x, w) = (noise_tensor(1, &[1, 2]), noise_tensor(2, &[5, 2]));
    let error = top_k(&x, &w, None, 1, &[&[3, 2]], 1).unwrap_err().to_string();
    assert!(error.contains("row 0 are not sorted"), "{error}");
    assert!(matches!(ranks(&x, &w, None, 1, &[&[]], &[0]), Err(Error::Setting { .. })));
    assert!(matches!(ranks(&x, &w, None, 1, &[&[]], &[5]), Err(Error::Index { .. })));
}

#[test]
fn a_target_whose_score_is_not_a_number_ranks_last() {
    let x = Tensor::from_f32(&[1, 1], vec![1.0]).unwrap();
    let w = Tensor::from_f32(&[4, 1], vec![0.5, -3.0, 0.1, f32::NAN]).unwrap();
    assert_eq!(ranks(&x, &w, None, 0, &[&[]], &[3]).unwrap(), [4]);
    let nothing = Tensor::from_f32(&[1, 1], vec![f32::NAN]).unwrap();
    for target in 1..4 {
        assert_eq!(ranks(&nothing, &w, None, 1, &[&[]], &[target]).unwrap(), [target], "all tie, by id");
    }
    assert_eq!(ranks(&nothing, &w, None, 1, &[&[1, 3]], &[2]).unwrap(), [1]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn lists_and_ranks_are_those_of_sorting_everything(
        seed in any::<u64>(), n in 0_usize..9, classes in 2_usize..300, d in 1_usize..9, k in 0_usize..40, share in 0_u64..4,
    ) {
        let (x, w) = (integers(seed, &[n, d]), integers(seed ^ 1, &[classes, d]));
        let hidden = |row: usize| (0..classes as u32).filter(move |id| (u64::from(*id) * 7 + row as u64) % 4 < share);
        let exclude: Vec<Vec<u32>> = (0..n).map(|row| hidden(row).collect()).collect();
        let exclude: Vec<&[u32]> = exclude.iter().map(Vec::as_slice).collect();
        let problem = Problem::new("test", &x, &w, None, 1, &exclude).unwrap();
        let targets: Vec<u32> = (0..n).map(|row| 1 + (row * 31 % (classes - 1)) as u32).collect();
        let best = top_k(&x, &w, None, 1, &exclude, k).unwrap();
        let places = ranks(&x, &w, None, 1, &exclude, &targets).unwrap();
        for row in 0..n {
            let all = reference::order(&problem, row);
            prop_assert_eq!(&best[row], &all[..k.min(all.len())]);
            if let Some(place) = all.iter().position(|s| s.id == targets[row]) {
                prop_assert_eq!(places[row] as usize, place + 1);
            }
        }
    }
}
