#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{
    BF16, accelerator, check_gradient, largest_error, narrow_and_wide, near, noise_tensor, same_on_threads,
    weighted_sum,
};

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

#[test]
fn a_device_agrees_with_the_host() {
    let device = accelerator();
    for shape in [[0, 3], [1, 1], [1, 3], [2, 2], [3, 7], [5, 211]] {
        let [mut gate, up, dy] = [6, 7, 8].map(|seed| noise_tensor(seed, &shape));
        gate.f32_mut().unwrap().iter_mut().for_each(|v| *v *= 9.0);
        let [gate_there, up_there, dy_there] = [&gate, &up, &dy].map(|t| device.put(t).unwrap());
        near(&forward(&gate_there, &up_there).unwrap(), &forward(&gate, &up).unwrap(), 2e-6);
        let found = backward(&dy_there, &gate_there, &up_there).unwrap();
        let wanted = backward(&dy, &gate, &up).unwrap();
        near(&found.0, &wanted.0, 2e-6);
        near(&found.1, &wanted.1, 2e-6);
        assert_eq!(found, backward(&dy_there, &gate_there, &up_there).unwrap());
        let refused = forward(&gate_there, &up).unwrap_err().to_string();
        assert_eq!(refused, format!("swiglu: up is on the host, expected on {}", device.name()));
    }
}

#[test]
fn what_is_not_finite_is_the_same_on_a_device() {
    let gate = Tensor::from_f32(&[5], vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -100.0, 1e30]).unwrap();
    let (placed, ones) = (accelerator().put(&gate).unwrap(), Tensor::from_f32(&[5], vec![1.0; 5]).unwrap());
    let ones_there = ones.beside(&placed).unwrap();
    let words = |t: &Tensor| t.to_f32().iter().map(|v| format!("{v:.4e}")).collect::<Vec<_>>();
    assert_eq!(words(&forward(&placed, &ones_there).unwrap()), words(&forward(&gate, &ones).unwrap()));
    let (found, wanted) =
        (backward(&ones_there, &placed, &ones_there).unwrap(), backward(&ones, &gate, &ones).unwrap());
    assert_eq!([words(&found.0), words(&found.1)], [words(&wanted.0), words(&wanted.1)]);
}

#[test]
fn of_bfloat16_everything_between_is_in_f32() {
    let device = accelerator();
    for shape in [[0, 3], [1, 1], [3, 7], [5, 211]] {
        let [gate, up, dy] = [1, 2, 3].map(|seed| narrow_and_wide(&noise_tensor(seed, &shape)));
        let there = [&gate, &up, &dy].map(|t| device.put(&t[0]).unwrap());
        let y = forward(&gate[0], &up[0]).unwrap();
        assert_eq!(y, forward(&gate[1], &up[1]).unwrap().to_bf16());
        near(&forward(&there[0], &there[1]).unwrap(), &y, BF16);
        let (dgate, dup) = backward(&dy[0], &gate[0], &up[0]).unwrap();
        let (wide_gate, wide_up) = backward(&dy[1], &gate[1], &up[1]).unwrap();
        assert_eq!((&dgate, &dup), (&wide_gate.to_bf16(), &wide_up.to_bf16()));
        let found = backward(&there[2], &there[0], &there[1]).unwrap();
        near(&found.0, &dgate, BF16);
        near(&found.1, &dup, BF16);
    }
    let mixed = forward(&noise_tensor(1, &[3]).to_bf16(), &noise_tensor(2, &[3])).unwrap_err();
    assert_eq!(mixed.to_string(), "swiglu: up is F32, expected Bf16");
}
