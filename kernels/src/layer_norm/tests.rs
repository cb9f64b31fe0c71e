#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::{accelerator, check_gradient, largest_error, near, noise_tensor, same_on_threads, weighted_sum};

#[test]
fn a_row_by_hand() {
    let x = Tensor::from_f32(&[1, 2], vec![1.0, 3.0]).unwrap();
    let w = Tensor::from_f32(&[2], vec![2.0, 2.0]).unwrap();
    let b = Tensor::from_f32(&[2], vec![0.5, 0.5]).unwrap();
    let (y, _) = forward(&x, &w, &b, 0.0).unwrap();
    assert_eq!(y.f32().unwrap(), [-1.5, 2.5]);
}

#[test]
fn agrees_with_the_reference_on_awkward_shapes() {
    for (n, d) in [(0, 5), (1, 1), (1, 7), (3, 16), (65, 31), (130, 64)] {
        let (x, w, b) = (noise_tensor(1, &[n, d]), noise_tensor(2, &[d]), noise_tensor(3, &[d]));
        let (y, _) = forward(&x, &w, &b, 1e-5).unwrap();
        let wanted = reference::forward(x.f32().unwrap(), w.f32().unwrap(), b.f32().unwrap(), 1e-5);
        assert!(largest_error(y.f32().unwrap(), &wanted) < 5e-6, "{n} x {d}");
        assert_eq!(forward_rounded(&x, &w, &b, 1e-5).unwrap(), y.to_bf16(), "{n} x {d}");
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let (x, w, b) = (noise_tensor(3, &[5, 9]), noise_tensor(4, &[9]), noise_tensor(5, &[9]));
    let loss = |x: &Tensor, w: &Tensor, b: &Tensor| weighted_sum(6, &forward(x, w, b, 1e-2).unwrap().0);
    let (_, saved) = forward(&x, &w, &b, 1e-2).unwrap();
    let (mut dw, mut db) = (Tensor::zeros(&[9]), Tensor::zeros(&[9]));
    let dx = backward(&noise_tensor(6, &[5, 9]), &x, &saved, &w, &mut dw, &mut db).unwrap();
    check_gradient("dx", &x, &dx, |x| loss(x, &w, &b));
    check_gradient("dw", &w, &dw, |w| loss(&x, w, &b));
    check_gradient("db", &b, &db, |b| loss(&x, &w, b));
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (x, w, dy) = (noise_tensor(6, &[300, 33]), noise_tensor(7, &[33]), noise_tensor(8, &[300, 33]));
    same_on_threads(|| {
        let (y, saved) = forward(&x, &w, &w, 1e-5).unwrap();
        let (mut dw, mut db) = (Tensor::zeros(&[33]), Tensor::zeros(&[33]));
        let dx = backward(&dy, &x, &saved, &w, &mut dw, &mut db).unwrap();
        (y, dx, dw, db)
    });
}

#[test]
fn a_weight_of_another_width_is_refused() {
    let (x, w) = (noise_tensor(1, &[2, 3]), noise_tensor(2, &[4]));
    let error = forward(&x, &w, &w, 1e-5).unwrap_err().to_string();
    assert_eq!(error, "layer_norm::forward: weight has shape [4], expected [3]");
}

#[test]
fn a_device_agrees_with_the_host() {
    let device = accelerator();
    for (n, d) in [(0, 5), (1, 1), (1, 7), (3, 16), (65, 31), (130, 200)] {
        let [x, dy] = [1, 2].map(|seed| noise_tensor(seed, &[n, d]));
        let [w, b, dw, db] = [3, 4, 5, 6].map(|seed| noise_tensor(seed, &[d]));
        let run = |[x, dy, w, b, mut dw, mut db]: [Tensor; 6]| {
            let (y, saved) = forward(&x, &w, &b, 1e-5).unwrap();
            let dx = backward(&dy, &x, &saved, &w, &mut dw, &mut db).unwrap();
            [y, forward_rounded(&x, &w, &b, 1e-5).unwrap(), dx, dw, db]
        };
        let operands = [x, dy, w, b, dw, db];
        let found = run(operands.each_ref().map(|t| device.put(t).unwrap()));
        for ((found, wanted), tolerance) in found.iter().zip(run(operands)).zip([1e-5, 5e-3, 1e-5, 1e-5, 1e-5]) {
            near(found, &wanted, tolerance);
        }
    }
}
