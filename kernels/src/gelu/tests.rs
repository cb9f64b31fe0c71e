#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::{check_gradient, largest_error, noise_tensor, same_on_threads, weighted_sum};

#[test]
fn known_values() {
    let x = Tensor::from_f32(&[5], vec![0.0, 1.0, -1.0, 10.0, -10.0]).unwrap();
    let y = forward(&x).unwrap();
    // Φ(1) = 0.8413447
    assert!(largest_error(y.f32().unwrap(), &[0.0, 0.841_344_7, -0.158_655_3, 10.0, 0.0]) < 1e-6);
}

#[test]
fn agrees_with_integration() {
    for n in [0, 1, 17, 1009] {
        let x: Vec<f32> = (0..n).map(|i| (i as f32 / n as f32 - 0.5) * 12.0).collect();
        let wanted: Vec<f64> = x.iter().map(|&x| reference::gelu(f64::from(x))).collect();
        let y = forward(&Tensor::from_f32(&[n], x).unwrap()).unwrap();
        assert!(largest_error(y.f32().unwrap(), &wanted) < 1e-6);
    }
}

#[test]
fn the_gradient_agrees_with_finite_differences() {
    let mut x = noise_tensor(1, &[7, 11]);
    x.f32_mut().unwrap().iter_mut().for_each(|v| *v *= 3.0);
    let dx = backward(&noise_tensor(2, &[7, 11]), &x).unwrap();
    check_gradient("x", &x, &dx, |x| weighted_sum(2, &forward(x).unwrap()));
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (x, dy) = (noise_tensor(1, &[20_001]), noise_tensor(2, &[20_001]));
    same_on_threads(|| (forward(&x).unwrap(), backward(&dy, &x).unwrap()));
}
