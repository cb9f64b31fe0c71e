#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::{noise, noise_tensor, same_on_threads};

#[test]
fn three_four_five() {
    let tensors = [Tensor::from_f32(&[1], vec![3.0]).unwrap(), Tensor::from_f32(&[2], vec![0.0, -4.0]).unwrap()];
    assert_eq!(l2(&tensors).unwrap(), 5.0);
    assert_eq!(l2([]).unwrap(), 0.0);
}

#[test]
fn clipping_shrinks_long_gradients_only() {
    assert_eq!(clip_scale(1.0, 5.0), 1.0);
    assert!((clip_scale(10.0, 5.0) - 0.5).abs() < 1e-6);
    assert_eq!(clip_scale(0.0, 5.0), 1.0);
}

#[test]
fn agrees_with_one_plain_sum_and_over_threads() {
    for n in [0, 1, 7, 8, 1009, 16 * 1024 + 1, 100_003] {
        let wanted = reference::sum_of_squares(&noise(1, n)).sqrt();
        assert!((l2([&noise_tensor(1, &[n])]).unwrap() - wanted).abs() < 1e-9 * (1.0 + wanted));
    }
    same_on_threads(|| l2([&noise_tensor(1, &[100_003])]).unwrap().to_bits());
}
