#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{accelerator, check_gradient, largest_error, near, noise_tensor, same_on_threads, weighted_sum};

fn update(x: &Tensor, a: &Tensor, b: &Tensor, scale: f32) -> Tensor {
    let mut y = Tensor::zeros(&[x.rows(), b.rows()]);
    forward(x, a, b, scale, &mut y).unwrap();
    y
}

/// Three loops in double precision.
fn reference(x: &Tensor, a: &Tensor, b: &Tensor, scale: f64) -> Vec<f64> {
    let (rank, d_in) = (a.rows(), a.cols());
    let value = |t: &Tensor, i: usize, j: usize| f64::from(t.f32().unwrap()[i * t.cols() + j]);
    let mut y = Vec::new();
    for i in 0..x.rows() {
        let inner: Vec<f64> = (0..rank).map(|r| (0..d_in).map(|k| value(x, i, k) * value(a, r, k)).sum()).collect();
        y.extend((0..b.rows()).map(|o| scale * (0..rank).map(|r| inner[r] * value(b, o, r)).sum::<f64>()));
    }
    y
}

#[test]
fn an_update_by_hand() {
    let x = Tensor::from_f32(&[1, 2], vec![1.0, 2.0]).unwrap();
    let a = Tensor::from_f32(&[1, 2], vec![3.0, 4.0]).unwrap();
    let b = Tensor::from_f32(&[2, 1], vec![5.0, 6.0]).unwrap();
    let mut y = Tensor::from_f32(&[1, 2], vec![1.0, 1.0]).unwrap();
    let inner = forward(&x, &a, &b, 2.0, &mut y).unwrap();
    assert_eq!(inner.f32().unwrap(), [11.0]);
    assert_eq!(y.f32().unwrap(), [111.0, 133.0]);
}

#[test]
fn agrees_with_the_reference_on_awkward_shapes() {
    for (n, d_in, rank, d_out) in [(0, 3, 1, 2), (1, 1, 1, 1), (5, 7, 3, 11), (131, 48, 8, 20)] {
        let (x, a, b) = (noise_tensor(1, &[n, d_in]), noise_tensor(2, &[rank, d_in]), noise_tensor(3, &[d_out, rank]));
        let y = update(&x, &a, &b, 4.0);
        assert!(largest_error(y.f32().unwrap(), &reference(&x, &a, &b, 4.0)) < 1e-5);
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let (x, a, b) = (noise_tensor(4, &[5, 6]), noise_tensor(5, &[2, 6]), noise_tensor(6, &[7, 2]));
    let dy = noise_tensor(7, &[5, 7]);
    let mut y = Tensor::zeros(&[5, 7]);
    let inner = forward(&x, &a, &b, 0.5, &mut y).unwrap();
    let (mut da, mut db) = (Tensor::zeros(&[2, 6]), Tensor::zeros(&[7, 2]));
    let dx = backward(&dy, &x, &inner, &a, &b, 0.5, &mut da, &mut db).unwrap();
    check_gradient("dx", &x, &dx, |x| weighted_sum(7, &update(x, &a, &b, 0.5)));
    check_gradient("da", &a, &da, |a| weighted_sum(7, &update(&x, a, &b, 0.5)));
    check_gradient("db", &b, &db, |b| weighted_sum(7, &update(&x, &a, b, 0.5)));
}

#[test]
fn threads_do_not_change_the_bits() {
    let (x, a, b) = (noise_tensor(4, &[300, 60]), noise_tensor(5, &[8, 60]), noise_tensor(6, &[70, 8]));
    same_on_threads(|| update(&x, &a, &b, 2.0));
}

#[test]
fn a_result_of_another_shape_is_refused() {
    let (x, a, b) = (noise_tensor(4, &[3, 6]), noise_tensor(5, &[2, 6]), noise_tensor(6, &[7, 2]));
    let error = forward(&x, &a, &b, 1.0, &mut Tensor::zeros(&[3, 6])).unwrap_err();
    assert_eq!(error.to_string(), "lora: y has shape [3, 6], expected [3, 7]");
}

#[test]
fn a_device_agrees_with_the_host() {
    let device = accelerator();
    for (n, d_in, rank, d_out) in [(0, 3, 1, 2), (5, 7, 3, 11), (131, 48, 8, 20)] {
        let [x, dy] = [(1, d_in), (2, d_out)].map(|(seed, width)| noise_tensor(seed, &[n, width]));
        let [a, da] = [3, 4].map(|seed| noise_tensor(seed, &[rank, d_in]));
        let [b, db] = [5, 6].map(|seed| noise_tensor(seed, &[d_out, rank]));
        let run = |[x, dy, a, mut da, b, mut db]: [Tensor; 6]| {
            let mut y = dy.clone();
            let inner = forward(&x, &a, &b, 2.0, &mut y).unwrap();
            let dx = backward(&dy, &x, &inner, &a, &b, 2.0, &mut da, &mut db).unwrap();
            [y, inner, dx, da, db]
        };
        let operands = [x, dy, a, da, b, db];
        let found = run(operands.each_ref().map(|t| device.put(t).unwrap()));
        for (found, wanted) in found.iter().zip(run(operands)) {
            near(found, &wanted, 1e-5);
        }
    }
}
