#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{check_gradient, largest_error, noise_tensor, same_on_threads, weighted_sum};

#[test]
fn values_by_hand() {
    let gate = Tensor::from_f32(&[3], vec![0.0, 2.0f32.ln(), -100.0]).unwrap();
    let up = Tensor::from_f32(&[3], vec![5.0, 3.0, 7.0]).unwrap();
    let y = forward(&gate, &up).unwrap();
    let wanted = [0.0, 2.0 * 2.0f32.ln(), 0.0];
    assert!(y.f32().unwrap().iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6));
}

#[test]
fn agrees_with_the_reference_on_awkward_shapes() {
    for (n, d) in [(0, 3), (1, 1), (7, 13), (129, 257)] {
        let (gate, up) = (noise_tensor(1, &[n, d]), noise_tensor(2, &[n, d]));
        let y = forward(&gate, &up).unwrap();
        let wanted = reference::forward(gate.f32().unwrap(), up.f32().unwrap());
        assert!(largest_error(y.f32().unwrap(), &wanted) < 1e-6);
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let (gate, up, dy) = (noise_tensor(3, &[4, 5]), noise_tensor(4, &[4, 5]), noise_tensor(5, &[4, 5]));
    let (dgate, dup) = backward(&dy, &gate, &up).unwrap();
    check_gradient("dgate", &gate, &dgate, |gate| weighted_sum(5, &forward(gate, &up).unwrap()));
    check_gradient("dup", &up, &dup, |up| weighted_sum(5, &forward(&gate, up).unwrap()));
}

#[test]
fn threads_do_not_change_the_bits() {
    let (gate, up, dy) = (noise_tensor(6, &[211, 307]), noise_tensor(7, &[211, 307]), noise_tensor(8, &[211, 307]));
    same_on_threads(|| (forward(&gate, &up).unwrap(), backward(&dy, &gate, &up).unwrap()));
}

#[test]
fn other_shapes_are_refused() {
    let error = forward(&noise_tensor(1, &[2, 3]), &noise_tensor(2, &[3, 2])).unwrap_err();
    assert_eq!(error.to_string(), "swiglu: up has shape [3, 2], expected [2, 3]");
}
