#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{
    BF16, accelerator, check_gradient, largest_error, near, noise_tensor, same_on_threads, weighted_sum,
};

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

#[test]
fn the_sum_is_normalised_as_if_it_had_been_there() {
    let [x, y] = [1, 2].map(|seed| noise_tensor(seed, &[3, 5]));
    let w = noise_tensor(3, &[5]);
    let (mut sum, mut found) = (x.clone(), x.clone());
    sum.add(&y).unwrap();
    let (normal, saved) = add_then_forward(&mut found, &y, &w, 1e-5).unwrap();
    let (wanted, wanted_saved) = forward(&sum, &w, 1e-5).unwrap();
    assert_eq!((&found, normal, saved), (&sum, wanted, wanted_saved));
    let error = add_then_forward(&mut found, &noise_tensor(2, &[3, 4]), &w, 1e-5).unwrap_err();
    assert_eq!(error.to_string(), "rms_norm: y has shape [3, 4], expected [3, 5]");
    assert_eq!(found, sum);
}

/// All results on operands `x`, `y`, `w` and `dw`, wherever they are: `y` is the gradient, too.
fn all([x, y, w, dw]: [Tensor; 4]) -> Vec<Tensor> {
    let (normal, saved) = forward(&x, &w, 1e-5).unwrap();
    let mut gain = dw.clone();
    let dx = backward(&y, &x, &saved, &w, Some(&mut gain)).unwrap();
    let frozen = backward(&y, &x, &saved, &w, None).unwrap();
    let mut sum = x.clone();
    let (of_sum, of_sum_saved) = add_then_forward(&mut sum, &y, &w, 1e-5).unwrap();
    vec![normal, saved.scale, dx, frozen, gain, sum, of_sum, of_sum_saved.scale]
}

#[test]
fn a_device_agrees_with_the_host() {
    let device = accelerator();
    // Lanes of a warp, warps, more than they keep; quads and single elements; several bands.
    let narrow = [(0, 5), (1, 1), (1, 7), (3, 16), (65, 31), (130, 128), (2100, 4), (33, 200), (35, 260), (9, 511)];
    let wide = [(35, 516), (17, 1023), (2, 8200), (3, 8197)];
    for (n, d) in narrow.into_iter().chain(wide) {
        let [x, y] = [1, 2].map(|seed| noise_tensor(seed, &[n, d]));
        let operands = [x, y, noise_tensor(3, &[d]), noise_tensor(4, &[d])];
        let there = operands.each_ref().map(|t| device.put(t).unwrap());
        let found = all(there.clone());
        for (found, wanted) in found.iter().zip(all(operands)) {
            near(found, &wanted, 1e-5);
        }
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
        assert!(error.contains(&format!("rms_norm: {what} is on the host")), "{error}");
    };
    refused("w", forward(&x, &row, 1e-5).map(drop));
    refused("y", add_then_forward(&mut x.clone(), &host, &w, 1e-5).map(drop));
    let saved = forward(&x, &w, 1e-5).unwrap().1;
    refused("dy", backward(&host, &x, &saved, &w, None).map(drop));
    refused("dw", backward(&x, &x, &saved, &w, Some(&mut row.clone())).map(drop));
    refused("saved scales", backward(&x, &x, &forward(&host, &row, 1e-5).unwrap().1, &w, None).map(drop));
}

#[test]
fn a_rounded_result_is_the_same_rounded_once() {
    let device = accelerator();
    for (n, d) in [(0, 5), (1, 7), (3, 16), (35, 260), (3, 8197)] {
        let [x, y] = [1, 2].map(|seed| noise_tensor(seed, &[n, d]));
        let w = noise_tensor(3, &[d]);
        let [x_there, y_there, w_there] = [&x, &y, &w].map(|t| device.put(t).unwrap());
        let (wide, wanted_saved) = forward(&x, &w, 1e-5).unwrap();
        let (rounded, saved) = forward_rounded(&x, &w, 1e-5).unwrap();
        assert_eq!((&rounded, saved), (&wide.to_bf16(), wanted_saved));
        let (found, saved) = forward_rounded(&x_there, &w_there, 1e-5).unwrap();
        near(&found, &rounded, BF16);
        assert_eq!(saved, forward(&x_there, &w_there, 1e-5).unwrap().1);

        let (mut sum, mut sum_there) = (x.clone(), x_there);
        let (rounded, _) = add_then_forward_rounded(&mut sum, &y, &w, 1e-5).unwrap();
        let (found, _) = add_then_forward_rounded(&mut sum_there, &y_there, &w_there, 1e-5).unwrap();
        near(&found, &rounded, BF16);
        near(&sum_there, &sum, 0.0);
    }
}
