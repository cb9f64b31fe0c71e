#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::{accelerator, check_gradient, narrow_and_wide, noise_tensor, same_on_threads, weighted_sum};

const MASK: Mask = Mask { seed: 7, site: 3, rate: 0.2 };

fn keys(n: usize) -> Vec<u64> {
    (0..n as u64).map(|i| 1_000 + i).collect()
}

fn ones_after(mask: &Mask, n: usize, d: usize) -> Vec<f32> {
    let mut x = Tensor::from_f32(&[n, d], vec![1.0; n * d]).unwrap();
    apply(&mut x, mask, &keys(n)).unwrap();
    x.to_f32()
}

#[test]
fn elements_are_dropped_or_scaled_at_the_asked_rate() {
    for rate in [0.05, 0.2, 0.5] {
        let y = ones_after(&Mask { rate, ..MASK }, 500, 200);
        let kept = 1.0 / (1.0 - rate);
        assert!(y.iter().all(|&v| v == 0.0 || v == kept));
        let dropped = y.iter().filter(|&&v| v == 0.0).count() as f64 / y.len() as f64;
        // 100,000 draws: five standard deviations are at most 0.008.
        assert!((dropped - f64::from(rate)).abs() < 0.008, "{dropped} dropped at rate {rate}");
    }
}

#[test]
fn seeds_sites_rows_and_columns_draw_independently() {
    let base = ones_after(&MASK, 200, 100);
    let shifted = |by: usize| base.iter().skip(by).copied().collect::<Vec<_>>();
    let others = [
        ones_after(&Mask { seed: 8, ..MASK }, 200, 100),
        ones_after(&Mask { site: 4, ..MASK }, 200, 100),
        shifted(100), // the next row
        shifted(1),   // the next column
    ];
    for other in others {
        let both = base.iter().zip(&other).filter(|(a, b)| **a == 0.0 && **b == 0.0).count() as f64;
        let share = both / other.len() as f64;
        assert!((share - 0.04).abs() < 0.008, "both dropped: {share}, expected 0.04");
    }
}

#[test]
fn a_row_keeps_its_mask_wherever_it_stands() {
    let mut all = noise_tensor(1, &[5, 33]);
    let mut last = Tensor::from_f32(&[1, 33], all.f32().unwrap()[4 * 33..].to_vec()).unwrap();
    apply(&mut all, &MASK, &keys(5)).unwrap();
    apply(&mut last, &MASK, &keys(5)[4..]).unwrap();
    assert_eq!(all.f32().unwrap()[4 * 33..], *last.f32().unwrap());
}

#[test]
fn the_mask_is_fixed_for_good() {
    let row = MASK.row(1_000);
    let kept: Vec<bool> = (0..16).map(|c| reference::bits(row, c) >= MASK.threshold()).collect();
    let y = ones_after(&MASK, 1, 16);
    assert_eq!(kept, y.iter().map(|&v| v != 0.0).collect::<Vec<_>>());
}

#[test]
fn rate_zero_changes_nothing_and_rate_one_is_refused() {
    let mut x = noise_tensor(1, &[3, 4]);
    apply(&mut x, &Mask { rate: 0.0, ..MASK }, &keys(3)).unwrap();
    assert_eq!(x, noise_tensor(1, &[3, 4]));
    assert!(apply(&mut x, &Mask { rate: 1.0, ..MASK }, &keys(3)).unwrap_err().to_string().contains("rate is 1"));
    assert!(apply(&mut x, &MASK, &keys(2)).unwrap_err().to_string().contains("row_keys"));
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    same_on_threads(|| ones_after(&MASK, 300, 37));
}

#[test]
fn the_gradient_goes_through_the_same_mask() {
    let x = noise_tensor(1, &[9, 11]);
    let mut dx = noise_tensor(2, &[9, 11]);
    apply(&mut dx, &MASK, &keys(9)).unwrap();
    check_gradient("dx", &x, &dx, |x| {
        let mut y = x.clone();
        apply(&mut y, &MASK, &keys(9)).unwrap();
        weighted_sum(2, &y)
    });
}

#[test]
fn a_device_has_the_masks_of_the_host_to_the_bit() {
    let device = accelerator();
    let mask = Mask { seed: u64::MAX - 5, site: 77, rate: 0.3 };
    // Rows of elements and of fours; several of a block, more than one block, and wider than a block.
    for shape in [[0, 4], [3, 0], [1, 1], [7, 3], [129, 4], [33, 6], [5, 64], [3, 1100], [2, 2100], [1, 515]] {
        let mut x = noise_tensor(1, &shape);
        x.f32_mut().unwrap().iter_mut().step_by(3).for_each(|v| *v = f32::INFINITY);
        let keys: Vec<u64> = (0..shape[0] as u64).map(|i| i.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
        let mut found = device.put(&x).unwrap();
        apply(&mut found, &mask, &keys).unwrap();
        apply(&mut x, &mask, &keys).unwrap();
        assert!(found.stream().is_some());
        assert_eq!(found.to_le_bytes(), x.to_le_bytes(), "{shape:?}");

        let [mut narrow, mut wide] = narrow_and_wide(&noise_tensor(2, &shape));
        let mut found = device.put(&narrow).unwrap();
        [&mut narrow, &mut wide, &mut found].into_iter().for_each(|x| apply(x, &mask, &keys).unwrap());
        assert_eq!(narrow, wide.to_bf16());
        assert_eq!(found.to_le_bytes(), narrow.to_le_bytes(), "{shape:?} in bfloat16");
    }
    let mut x = device.put(&noise_tensor(1, &[2, 3])).unwrap();
    assert!(apply(&mut x, &mask, &keys(3)).unwrap_err().to_string().contains("row_keys"));
    apply(&mut x, &Mask { rate: 0.0, ..mask }, &keys(2)).unwrap();
    assert_eq!(x.to_f32(), noise_tensor(1, &[2, 3]).to_f32());
}
