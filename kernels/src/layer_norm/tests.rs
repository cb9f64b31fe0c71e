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
fn the_sum_is_normalised_as_if_it_had_been_there() {
    let [x, y] = [1, 2].map(|seed| noise_tensor(seed, &[3, 5]));
    let [w, b] = [3, 4].map(|seed| noise_tensor(seed, &[5]));
    let (mut sum, mut found) = (x.clone(), x.clone());
    sum.add(&y).unwrap();
    let (normal, saved) = add_then_forward(&mut found, &y, &w, &b, 1e-5).unwrap();
    let (wanted, wanted_saved) = forward(&sum, &w, &b, 1e-5).unwrap();
    assert_eq!((&found, normal, saved), (&sum, wanted, wanted_saved));
    let error = add_then_forward(&mut found, &noise_tensor(2, &[3, 4]), &w, &b, 1e-5).unwrap_err();
    assert_eq!(error.to_string(), "layer_norm::add_then_forward: y has shape [3, 4], expected [3, 5]");
    assert_eq!(found, sum);
}

/// All results on operands `x`, `y`, weight, bias and their gradients, wherever they are: `y` is the gradient, too. The last
/// is rounded.
fn all([x, y, w, b, mut dw, mut db]: [Tensor; 6]) -> Vec<Tensor> {
    let (normal, saved) = forward(&x, &w, &b, 1e-5).unwrap();
    let dx = backward(&y, &x, &saved, &w, &mut dw, &mut db).unwrap();
    let rounded = forward_rounded(&x, &w, &b, 1e-5).unwrap();
    let mut sum = x;
    let (of_sum, sum_saved) = add_then_forward(&mut sum, &y, &w, &b, 1e-5).unwrap();
    let statistics = [saved.mean, saved.inverse_deviation, sum_saved.mean, sum_saved.inverse_deviation];
    [vec![normal, dx, dw, db, sum, of_sum], statistics.to_vec(), vec![rounded]].concat()
}

#[test]
fn a_device_agrees_with_the_host() {
    let device = accelerator();
    // Lanes of a warp, warps, more than they keep; quads and single elements; several bands.
    let narrow = [(0, 5), (1, 1), (1, 7), (3, 16), (65, 31), (130, 128), (2100, 4), (33, 200), (35, 260), (9, 511)];
    let wide = [(35, 516), (17, 1023), (2, 8200), (3, 8197)];
    for (n, d) in narrow.into_iter().chain(wide) {
        let [x, y] = [1, 2].map(|seed| noise_tensor(seed, &[n, d]));
        let [w, b, dw, db] = [3, 4, 5, 6].map(|seed| noise_tensor(seed, &[d]));
        let operands = [x, y, w, b, dw, db];
        let there = operands.each_ref().map(|t| device.put(t).unwrap());
        let found = all(there.clone());
        let wanted = all(operands);
        for (found, wanted) in found.iter().zip(&wanted).take(10) {
            near(found, wanted, 1e-5);
        }
        near(&found[10], &wanted[10], 5e-3);
        assert!(found == all(there), "{n} x {d}: the same again");
    }
}

#[test]
fn operands_in_other_memory_are_refused() {
    let device = accelerator();
    let (host, row) = (noise_tensor(1, &[2, 8]), noise_tensor(2, &[8]));
    let [x, w] = [&host, &row].map(|t| device.put(t).unwrap());
    let refused = |what: &str, result: Result<()>| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(&format!(": {what} is on the host")), "{error}");
    };
    refused("weight", forward(&x, &row, &w, 1e-5).map(drop));
    refused("bias", forward_rounded(&x, &w, &row, 1e-5).map(drop));
    refused("y", add_then_forward(&mut x.clone(), &host, &w, &w, 1e-5).map(drop));
    let [saved, elsewhere] = [(&x, &w), (&host, &row)].map(|(x, w)| forward(x, w, w, 1e-5).unwrap().1);
    refused("dy", backward(&host, &x, &saved, &w, &mut w.clone(), &mut w.clone()).map(drop));
    refused("d_bias", backward(&x, &x, &saved, &w, &mut w.clone(), &mut row.clone()).map(drop));
    refused("saved", backward(&x, &x, &elsewhere, &w, &mut w.clone(), &mut w.clone()).map(drop));
}
