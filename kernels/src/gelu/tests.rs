#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::{accelerator, check_gradient, largest_error, near, noise_tensor, same_on_threads, weighted_sum};

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

#[test]
fn a_device_agrees_with_the_host() {
    let device = accelerator();
    for shape in [[0, 3], [1, 1], [1, 3], [2, 2], [3, 7], [5, 211]] {
        let (mut x, dy) = (noise_tensor(1, &shape), noise_tensor(2, &shape));
        x.f32_mut().unwrap().iter_mut().for_each(|v| *v *= 5.0);
        let [placed, d_placed] = [&x, &dy].map(|t| device.put(t).unwrap());
        near(&forward(&placed).unwrap(), &forward(&x).unwrap(), 2e-6);
        let dx = backward(&d_placed, &placed).unwrap();
        near(&dx, &backward(&dy, &x).unwrap(), 2e-6);
        assert_eq!(dx, backward(&d_placed, &placed).unwrap());
        let refused = backward(&dy, &placed).unwrap_err().to_string();
        assert_eq!(refused, format!("gelu::backward: dy is on the host, expected on {}", device.name()));
    }
}

#[test]
fn what_is_not_finite_is_the_same_on_a_device() {
    let x = Tensor::from_f32(&[4], vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30]).unwrap();
    let (placed, ones) = (accelerator().put(&x).unwrap(), Tensor::from_f32(&[4], vec![1.0; 4]).unwrap());
    let words = |t: Tensor| t.to_f32().iter().map(f32::to_string).collect::<Vec<_>>();
    assert_eq!(words(forward(&placed).unwrap()), words(forward(&x).unwrap()));
    let found = backward(&ones.beside(&placed).unwrap(), &placed).unwrap();
    assert_eq!(words(found), words(backward(&ones, &x).unwrap()));
}
