//! NaN and infinities: they show in the result, and stay in their row or sequence.

use mllm4rec_kernels::nf4::{self, Magnitudes, Nf4Weight, Rounding};
use mllm4rec_kernels::top_k::top_k;
use mllm4rec_kernels::{Tensor, linear_cross_entropy as cross_entropy};

use crate::operations::{self, Operation};
use crate::sizes::{Sizes, noise};

const BAD: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

/// Where results stay finite: ranks are numbers always, `exp(-∞)` is a decay or a factor of 0, a key of `-∞` that is not the
/// only one weighs nothing, the backward pass of the recurrence does not look at the biases, and of a low-rank update the gradients
/// of the factors do not look at the first one, that of the input not at the second.
fn is_understood(operation: &Operation, operand: &str, value: f32) -> bool {
    match operation.name {
        "top_k::ranks" => true,
        "attention::forward, across" => value == f32::NEG_INFINITY && operand.ends_with('k'),
        "lora::backward_factors" => operand == "a",
        "lora::linear_backward_input" => operand == "b",
        "lru_scan::backward" if operand.contains("bias") => true,
        _ => operand == "params_log" && value.is_infinite(),
    }
}

/// An operand that fits, but for its first element.
fn spoiled(shape: &[usize], with: f32) -> Tensor {
    let mut tensor = noise(shape);
    tensor.f32_mut().expect("noise is f32")[0] = with;
    tensor
}

/// Calls `check` for every operation, operand and value with the results without and with that value.
fn for_each_spoiled(mut check: impl FnMut(&Operation, &str, f32, &[Tensor], &[Tensor])) {
    let sizes = Sizes::DIFFERENT;
    for operation in operations::all() {
        let good = (operation.call)(sizes, &mut operation.good(sizes)).expect("good operands");
        for (i, (operand, shape)) in (operation.operands)(sizes).into_iter().enumerate() {
            for value in BAD {
                let found = operation.with(sizes, i, spoiled(&shape, value));
                let found = found.unwrap_or_else(|e| panic!("{} with {value} in {operand}: {e}", operation.name));
                check(&operation, operand, value, &good, &found);
            }
        }
    }
}

#[test]
fn what_is_not_finite_shows_in_the_result() {
    for_each_spoiled(|operation, operand, value, _, found| {
        let shows = found.iter().any(|t| t.to_f32().iter().any(|v| !v.is_finite()));
        assert!(shows || is_understood(operation, operand, value), "{} hides {value} in {operand}", operation.name);
    });
}

/// The last row is a sequence of its own, and nobody's first element.
#[test]
fn other_rows_do_not_notice() {
    let rows = Sizes::DIFFERENT.n;
    let last = |t: &Tensor| t.to_f32()[(rows - 1) * t.cols()..].to_vec();
    let mut compared = 0;
    let shapes = |operation: &Operation, operand: &str| {
        let operands = (operation.operands)(Sizes::DIFFERENT);
        operands.into_iter().find(|(name, _)| *name == operand).map(|(_, shape)| shape).unwrap_or_default()
    };
    for_each_spoiled(|operation, operand, value, good, found| {
        if shapes(operation, operand).first() != Some(&rows) {
            return;
        }
        for (good, found) in good.iter().zip(found).filter(|(t, _)| t.shape()[0] == rows) {
            assert_eq!(last(good), last(found), "{} with {value} in the first row of {operand}", operation.name);
            compared += 1;
        }
    });
    assert!(compared > 100, "only {compared} results have rows");
}

#[test]
fn a_loss_that_is_no_number_is_that_of_its_row() {
    let x = spoiled(&[3, 2], f32::NAN);
    let losses = cross_entropy::forward(&x, &noise(&[4, 2]), None, &[0, 1, 3]).expect("good shapes").to_f32();
    assert!(losses[0].is_nan() && losses[1].is_finite() && losses[2].is_finite(), "{losses:?}");
    let row_scale = [f32::NAN, 1.0, f32::INFINITY];
    let grads = cross_entropy::Grads::default();
    let output = cross_entropy::forward_backward(&noise(&[3, 2]), &noise(&[4, 2]), None, &[0, 1, 3], &row_scale, grads);
    let dx = output.expect("good shapes").dx.to_f32();
    assert!(dx[0].is_nan() && dx[2].is_finite() && !dx[4].is_finite(), "{dx:?}");
}

#[test]
fn scores_that_are_no_numbers_come_last() {
    let weight = Tensor::from_f32(&[4, 1], vec![f32::NAN, 1.0, f32::INFINITY, f32::NEG_INFINITY]).expect("four values");
    let best = top_k(&noise(&[1, 1]), &weight, None, 0, &[&[]], 9).expect("good shapes");
    assert_eq!(best[0].iter().map(|scored| scored.id).collect::<Vec<_>>(), [2, 1, 0, 3]);
}

#[test]
fn weights_that_are_no_numbers_are_not_quantised() {
    for value in BAD {
        let error = nf4::quantize(&spoiled(&[2, 3], value), true).expect_err("no code stands for it");
        assert_eq!(error.to_string(), format!("nf4: value 0 of the weight is {value}"));
        let magnitudes = Magnitudes::Plain(vec![value, 1.0]);
        let stored = Nf4Weight::from_parts(&[2, 64], vec![0; 64], magnitudes).expect("parts of the right length");
        let y = nf4::linear(&noise(&[1, 64]), &stored, Rounding::Bf16).expect("good shapes").to_f32();
        assert!(!y[0].is_finite() && y[1].is_finite(), "{y:?}");
    }
}
