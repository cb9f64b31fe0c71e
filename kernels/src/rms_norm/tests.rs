#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{check_gradient, largest_error, noise_tensor, same_on_threads, weighted_sum};

#[test]
fn a_row_by_hand() {
    let x = Tensor::from_f32(&[1, 2], vec![3.0, 4.0]).unwrap();
    let w = Tensor::from_f32(&[2], vec![1.0, 2.0]).unwrap();
    let (y, _) = forward(&x, &w, 0.0).unwrap();
    let root = 12.5f32.sqrt();
    let wanted = [3.0 / root, 8.0 / root];
    assert!(y.f32().unwrap().iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6));
}

#[test]
fn agrees_with_the_reference_on_awkward_shapes() {
    for (n, d) in [(0, 5), (1, 1), (1, 7), (3, 16), (65, 31), (130, 64)] {
        let (x, w) = (noise_tensor(1, &[n, d]), noise_tensor(2, &[d]));
        let (y, _) = forward(&x, &w, 1e-5).unwrap();
        let wanted = reference::forward(x.f32().unwrap(), w.f32().unwrap(), 1e-5);
        assert!(largest_error(y.f32().unwrap(), &wanted) < 1e-6, "{n} x {d}");
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let (x, w) = (noise_tensor(3, &[5, 9]), noise_tensor(4, &[9]));
    let loss = |x: &Tensor, w: &Tensor| weighted_sum(5, &forward(x, w, 1e-5).unwrap().0);
    let dy = noise_tensor(5, &[5, 9]);
    let (_, saved) = forward(&x, &w, 1e-5).unwrap();
    let mut dw = Tensor::zeros(&[9]);
    let dx = backward(&dy, &x, &saved, &w, Some(&mut dw)).unwrap();
    check_gradient("dx", &x, &dx, |x| loss(x, &w));
    check_gradient("dw", &w, &dw, |w| loss(&x, w));
}

#[test]
fn threads_do_not_change_the_bits() {
    let (x, w, dy) = (noise_tensor(6, &[300, 33]), noise_tensor(7, &[33]), noise_tensor(8, &[300, 33]));
    same_on_threads(|| {
        let (y, saved) = forward(&x, &w, 1e-6).unwrap();
        let mut dw = Tensor::zeros(&[33]);
        let dx = backward(&dy, &x, &saved, &w, Some(&mut dw)).unwrap();
        (y, dx, dw)
    });
}

#[test]
fn a_gain_of_another_width_is_refused() {
    let error = forward(&noise_tensor(1, &[2, 3]), &noise_tensor(2, &[4]), 1e-5).unwrap_err();
    assert_eq!(error.to_string(), "rms_norm: w has shape [4], expected [3]");
}
