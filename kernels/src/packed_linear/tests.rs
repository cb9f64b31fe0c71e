#![allow(clippy::unwrap_used)]

use super::*;
use crate::gemm;
use crate::testing::{check_gradient, largest_error, noise_tensor, same_on_threads, weighted_sum};

#[test]
fn a_layer_by_hand() {
    let x = Tensor::from_f32(&[1, 2], vec![1.0, 2.0]).unwrap();
    let w = Tensor::from_f32(&[2, 2], vec![3.0, 4.0, 5.0, 6.0]).unwrap();
    let b = Tensor::from_f32(&[2], vec![0.5, -0.5]).unwrap();
    assert_eq!(forward(&x, &w, Some(&b)).unwrap().f32().unwrap(), [11.5, 16.5]);
    assert_eq!(backward_input(&x, &w).unwrap().f32().unwrap(), [13.0, 16.0]);
}

#[test]
fn agrees_with_the_dense_product_on_awkward_shapes() {
    for (n, d_in, d_out) in [(0, 3, 2), (1, 1, 1), (5, 7, 3), (129, 31, 1030), (300, 600, 8)] {
        let (x, w, b) = (noise_tensor(1, &[n, d_in]), noise_tensor(2, &[d_out, d_in]), noise_tensor(3, &[d_out]));
        let wide = |t: &Tensor| t.to_f32().into_iter().map(f64::from).collect::<Vec<_>>();
        let y = forward(&x, &w, Some(&b)).unwrap();
        assert!(largest_error(y.f32().unwrap(), &wide(&gemm::linear(&x, &w, Some(&b)).unwrap())) < 1e-4);
        let dy = noise_tensor(4, &[n, d_out]);
        let dx = backward_input(&dy, &w).unwrap();
        assert!(largest_error(dx.f32().unwrap(), &wide(&gemm::linear_backward_input(&dy, &w).unwrap())) < 1e-4);
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    for (d_in, d_out) in [(128, 4), (600, 8), (64, 64), (700, 1), (37, 1100)] {
        let (all, w) = (noise_tensor(1, &[401, d_in]), noise_tensor(2, &[d_out, d_in]));
        let together = forward(&all, &w, None).unwrap();
        for rows in [0..1, 3..5, 130..190, 7..401] {
            let part = all.f32().unwrap()[rows.start * d_in..rows.end * d_in].to_vec();
            let alone = forward(&Tensor::from_f32(&[rows.len(), d_in], part).unwrap(), &w, None).unwrap();
            assert_eq!(alone.f32().unwrap(), &together.f32().unwrap()[rows.start * d_out..rows.end * d_out]);
        }
    }
}

#[test]
fn the_gradient_agrees_with_finite_differences() {
    let (x, w, dy) = (noise_tensor(5, &[3, 4]), noise_tensor(6, &[5, 4]), noise_tensor(7, &[3, 5]));
    let dx = backward_input(&dy, &w).unwrap();
    check_gradient("dx", &x, &dx, |x| weighted_sum(7, &forward(x, &w, None).unwrap()));
}

#[test]
fn threads_do_not_change_the_bits() {
    let (x, w) = (noise_tensor(8, &[500, 70]), noise_tensor(9, &[90, 70]));
    same_on_threads(|| forward(&x, &w, None).unwrap());
}

#[test]
fn a_weight_of_another_width_is_refused() {
    let error = forward(&noise_tensor(1, &[2, 3]), &noise_tensor(2, &[4, 5]), None).unwrap_err();
    assert_eq!(error.to_string(), "packed_linear: weight has shape [4, 5], expected [d_out, 3]");
}
