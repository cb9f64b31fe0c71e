#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;
use crate::testing::{accelerator, noise_tensor, same_on_threads};

/// Small integers, so that scores are exact and ties are many.
fn integers(seed: u64, shape: &[usize]) -> Tensor {
    let mut t = noise_tensor(seed, shape);
    t.f32_mut().unwrap().iter_mut().for_each(|v| *v = (*v * 3.0).round());
    t
}

/// The operands with padding left out.
fn problem<'a>(x: &'a Tensor, weight: &'a Tensor, bias: Option<&'a Tensor>, exclude: &'a [&'a [u32]]) -> Problem<'a> {
    let operands = Operands { x, weight, bias, exclude, first_class: 1 };
    operands.check("test").unwrap();
    operands.on_host().unwrap()
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
        let problem = problem(&x, &w, Some(&bias), &exclude);
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
        let problem = problem(&x, &w, None, &lists);
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
        let problem = problem(&x, &w, None, &exclude);
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

/// Lists and ranks on a device and on the host: the same bits.
fn same_on_a_device(given: [&Tensor; 3], first_class: u32, exclude: &[Vec<u32>], k: usize) {
    let device = accelerator();
    let exclude: Vec<&[u32]> = exclude.iter().map(Vec::as_slice).collect();
    let there = given.map(|t| device.put(t).unwrap());
    let classes = given[1].rows() as u32;
    let targets: Vec<u32> = (0..exclude.len() as u32).map(|i| classes - 1 - i * 31 % (classes - first_class)).collect();
    let run = |[x, w, bias]: [&Tensor; 3]| {
        let best = top_k(x, w, Some(bias), first_class, &exclude, k).unwrap();
        (best, ranks(x, w, Some(bias), first_class, &exclude, &targets).unwrap())
    };
    let (found, wanted) = (run(there.each_ref()), run(given));
    assert!(found == wanted, "{:?} x {:?} by {k}\n{found:?}\n{wanted:?}", given[0].shape(), given[1].shape());
    assert!(run(there.each_ref()) == found, "twice");
    let lists = |x, w| top_k(x, w, None, first_class, &exclude, 3).unwrap();
    assert_eq!(lists(&there[0], &there[1]), lists(given[0], given[1]), "without a bias");
}

#[test]
fn a_device_finds_what_the_host_finds() {
    for (n, classes, d, first, k) in [
        (0, 7, 3, 1, 5),
        (1, 1, 1, 0, 1),
        (3, 2, 4, 1, 20),
        (65, 129, 16, 0, 10),
        (7, 2100, 33, 5, 64),
        (3, 300, 600, 1, 7),
    ] {
        let (x, w, bias) = (noise_tensor(1, &[n, d]), noise_tensor(2, &[classes, d]), noise_tensor(3, &[classes]));
        same_on_a_device([&x, &w, &bias], first, &excluded(n, classes), k);
    }
}

#[test]
fn a_device_orders_ties_as_the_host_does_and_finds_more_than_a_pass() {
    for (n, classes, d, k) in [(65, 700, 5, 20), (66, 140, 3, 130), (2, 2100, 2, 130)] {
        let (x, w, bias) = (integers(1, &[n, d]), integers(2, &[classes, d]), integers(3, &[classes]));
        same_on_a_device([&x, &w, &bias], 1, &excluded(n, classes), k);
    }
    // All scores are the same.
    let [x, w, bias] = [Tensor::zeros(&[2, 4]), noise_tensor(1, &[400, 4]), Tensor::zeros(&[400])];
    same_on_a_device([&x, &w, &bias], 0, &[vec![0, 1, 2, 70], (0..300).collect()], 70);
}

#[test]
fn scores_that_are_no_numbers_and_classes_that_do_not_exist_are_the_same_on_a_device() {
    let (mut x, mut w, mut bias) = (noise_tensor(1, &[5, 8]), noise_tensor(2, &[200, 8]), noise_tensor(3, &[200]));
    x.f32_mut().unwrap()[0] = f32::NAN;
    x.f32_mut().unwrap()[8..16].fill(f32::INFINITY);
    x.f32_mut().unwrap()[16..24].fill(0.0);
    w.f32_mut().unwrap()[7 * 8] = f32::NAN;
    w.f32_mut().unwrap()[9 * 8] = f32::NEG_INFINITY;
    bias.f32_mut().unwrap()[11] = f32::NEG_INFINITY;
    bias.f32_mut().unwrap()[13..15].copy_from_slice(&[-0.0, 0.0]);
    bias.f32_mut().unwrap()[14] = f32::INFINITY;
    // Excluded are repeated ids, those that no list has, and all.
    let exclude = [vec![3, 3, 4, 900], vec![], (0..200).collect(), (0..195).collect(), vec![0, 0, u32::MAX]];
    same_on_a_device([&x, &w, &bias], 2, &exclude, 198);
}

/// Rows that were searched anew, after what was found by rough scores was compared with the host.
fn searched_anew(plan: cuda::Plan, given: [&Tensor; 3], exclude: &[Vec<u32>], k: usize) -> usize {
    let exclude: Vec<&[u32]> = exclude.iter().map(Vec::as_slice).collect();
    let [x, weight, bias] = given;
    let wanted = top_k(x, weight, Some(bias), 1, &exclude, k).unwrap();
    let device = accelerator();
    let [x, weight, bias] = given.map(|t| device.put(t).unwrap());
    let operands = Operands { x: &x, weight: &weight, bias: Some(&bias), exclude: &exclude, first_class: 1 };
    let on = operands.check("test").unwrap().unwrap();
    let (found, anew) = cuda::by_rough_scores(&on, &operands, k, plan).unwrap();
    assert!(found == wanted, "{plan:?}\n{found:?}\n{wanted:?}");
    anew
}

/// A sample of two ranges of three tiles, and ranges of four tiles.
fn small_plan(width: usize, warps: usize, classes: usize) -> cuda::Plan {
    let sample = cuda::Ranges { width: 3, count: 2 };
    let others = cuda::Ranges { width: 4, count: (classes.div_ceil(64) - 6).div_ceil(4) };
    cuda::Plan { width, warps, sample, others }
}

#[test]
fn candidates_by_rough_scores_are_proven_to_suffice() {
    for (n, classes, d, width, warps, k) in [
        (70, 1100, 24, 64, 2, 20),
        (3, 449, 7, 64, 4, 1),
        (65, 700, 100, 128, 2, 24),
        (390, 449, 7, 64, 12, 1),
        (260, 449, 100, 128, 8, 1),
    ] {
        let (x, w, bias) = (noise_tensor(1, &[n, d]), noise_tensor(2, &[classes, d]), noise_tensor(3, &[classes]));
        let plan = small_plan(width, warps, classes);
        let anew = searched_anew(plan, [&x, &w, &bias], &excluded(n, classes), k);
        assert!(anew <= n / 10, "{anew} of {n} rows were not proven");
    }
}

#[test]
fn rows_whose_candidates_are_not_proven_are_searched_anew() {
    // Classes that differ by less than rounding does.
    let (n, classes, d) = (5, 500, 8);
    let (x, one, mut w) = (noise_tensor(1, &[n, d]), noise_tensor(2, &[d]), noise_tensor(3, &[classes, d]));
    let values = w.f32_mut().unwrap();
    values
        .chunks_exact_mut(d)
        .for_each(|row| row.iter_mut().zip(one.to_f32()).for_each(|(v, one)| *v = one + *v * 1e-5));
    let bias = Tensor::zeros(&[classes]);
    let plan = small_plan(64, 2, classes);
    assert_eq!(searched_anew(plan, [&x, &w, &bias], &excluded(n, classes), 20), n);
    // All the same: who goes first is decided by the ids, which rough scores do not get wrong but cannot prove.
    assert_eq!(searched_anew(plan, [&Tensor::zeros(&[n, d]), &w, &bias], &excluded(n, classes), 20), n);
}

#[test]
fn only_rows_that_are_not_finite_are_searched_anew() {
    let (n, classes, d) = (6, 600, 9);
    let (mut x, mut w, mut bias) =
        (noise_tensor(1, &[n, d]), noise_tensor(2, &[classes, d]), noise_tensor(3, &[classes]));
    x.f32_mut().unwrap()[d] = f32::NAN;
    x.f32_mut().unwrap()[3 * d + 2] = f32::INFINITY;
    x.f32_mut().unwrap()[5 * d..].fill(1e20);
    bias.f32_mut().unwrap()[77] = f32::NEG_INFINITY;
    bias.f32_mut().unwrap()[78] = f32::INFINITY;
    let plan = small_plan(64, 2, classes);
    let exclude = vec![vec![]; n];
    assert_eq!(searched_anew(plan, [&x, &w, &bias], &exclude, 10), 3);
    // Nothing is left to choose from but a few: exact scores say so.
    let few: Vec<Vec<u32>> = vec![(9..600).collect(); n];
    assert_eq!(searched_anew(plan, [&x, &w, &bias], &few, 10), n);
    for bad in [f32::NAN, f32::INFINITY, 1e30] {
        w.f32_mut().unwrap()[100 * d] = bad;
        assert_eq!(searched_anew(plan, [&x, &w, &bias], &exclude, 10), n, "{bad} in the weight");
    }
}

#[test]
fn rough_scores_are_for_many_rows_and_classes_and_few_wanted() {
    let plan = |n, classes, d, k, shared| cuda::Plan::new([n, classes, d], k, shared);
    let (hopper, ampere, ada) = (227 << 10, 163 << 10, 99 << 10);
    let found = plan(4096, 10_000_000, 64, 20, hopper).unwrap();
    let ranges = [cuda::Ranges { width: 306, count: 8 }, cuda::Ranges { width: 6409, count: 24 }];
    assert_eq!((found.width, found.warps, [found.sample, found.others]), (64, 12, ranges));
    let warps = |d, shared| plan(4096, 10_000_000, d, 20, shared).map(|plan| (plan.width, plan.warps));
    assert_eq!([hopper, ampere, ada].map(|shared| warps(33, shared)), [Some((64, 12)), Some((64, 8)), Some((64, 4))]);
    assert_eq!([hopper, ampere, ada].map(|shared| warps(128, shared)), [Some((128, 8)), Some((128, 4)), None]);
    assert!(warps(129, hopper).is_none());
    for (n, classes, k) in [(100, 10_000_000, 20), (4096, 57_290, 20), (4096, 10_000_000, 25)] {
        assert_eq!(plan(n, classes, 64, k, hopper), None);
    }
}

#[test]
fn operands_of_a_search_in_different_places_are_refused() {
    let device = accelerator();
    let (x, w, bias) = (noise_tensor(1, &[1, 2]), noise_tensor(2, &[5, 2]), noise_tensor(3, &[5]));
    let [there_x, there_w] = [&x, &w].map(|t| device.put(t).unwrap());
    let error = top_k(&there_x, &w, Some(&bias), 0, &[&[]], 1).unwrap_err().to_string();
    assert!(error.starts_with("top_k::top_k: weight is on the host"), "{error}");
    let error = ranks(&there_x, &there_w, Some(&bias), 0, &[&[]], &[1]).unwrap_err().to_string();
    assert!(error.starts_with("top_k::ranks: bias is on the host"), "{error}");
}

#[test]
fn ranges_cover_every_class_and_can_be_merged() {
    for (classes, narrowest, width, count) in [
        (0, 2048, 2048, 0),
        (1, 2048, 2048, 1),
        (12_101, 2048, 2048, 6),
        (1_000_000, 2048, 32_768, 31),
        (10, 64, 64, 1),
    ] {
        assert_eq!(cuda::Ranges::new(classes, narrowest), cuda::Ranges { width, count }, "{classes}");
    }
}
