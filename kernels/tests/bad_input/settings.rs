//! Numbers beside the operands: rates, counts, ids, keys, and what an earlier pass has saved.

use mllm4rec_kernels::adamw::{self, Hyper, Moments};
use mllm4rec_kernels::dropout::{self, Mask};
use mllm4rec_kernels::linear_cross_entropy::{self as cross_entropy, Grads};
use mllm4rec_kernels::nf4::{self, Magnitudes, Nf4Weight, Rounding};
use mllm4rec_kernels::rope::{self, Config, Scaling, Tables};
use mllm4rec_kernels::top_k::{ranks, top_k};
use mllm4rec_kernels::{Result, Segments, Tensor, embedding, grad_norm, layer_norm, lru_scan, rms_norm};

use crate::operations::recurrence;
use crate::sizes::{Sizes, noise};

/// Asserts that the call was refused, in these words.
pub(crate) fn refused<T>(wanted: &str, result: Result<T>) {
    let found = result.err().map_or_else(|| "a result".to_owned(), |e| e.to_string());
    assert!(found.contains(wanted), "found {found:?}, wanted {wanted:?}");
}

#[test]
fn rates_of_dropout() {
    for rate in [1.0, 1.5, -0.1, f32::NAN, f32::INFINITY] {
        let mask = Mask { seed: 1, site: 1, rate };
        refused(&format!("dropout::apply: the rate is {rate}"), dropout::apply(&mut noise(&[1, 2]), &mask, &[1]));
    }
    let mask = Mask { seed: 1, site: 1, rate: 0.5 };
    refused("dropout::apply: row_keys has shape [1], expected [2]", dropout::apply(&mut noise(&[2, 2]), &mask, &[1]));
}

#[test]
fn ids_and_positions() {
    for id in [3, u32::MAX] {
        let range = format!("id {id} is out of range 0..3");
        refused(&range, embedding::forward(&noise(&[3, 2]), &[0, id]));
        refused(&range, embedding::backward(&noise(&[2, 2]), &[0, id], &mut noise(&[3, 2])));
    }
    let tables = Sizes::DIFFERENT.rotation().expect("a good configuration");
    let row = || noise(&[1, 6]);
    refused("rope: position 5 is out of range 0..5", rope::apply(&mut row(), &[5], &tables, 1));
    refused("rope: x has shape [1, 6], expected [2, 6]", rope::apply(&mut row(), &[0, 1], &tables, 1));
    refused("rope: x has shape [1, 6], expected [1, 0]", rope::apply(&mut row(), &[0], &tables, 0));
    refused("rope: x has shape [1, 6]", rope::apply(&mut row(), &[0], &tables, usize::MAX / 6 + 2));
}

#[test]
fn frequencies_of_a_rotation() {
    let config = |head_dim, theta, scaling| Config { head_dim, theta, scaling };
    refused("rope: the head dimension 3 is odd", Tables::new(&config(3, 1e4, Scaling::None), 4));
    for theta in [0.0, -1.0, f64::NAN] {
        refused(&format!("of theta {theta}"), Tables::new(&config(8, theta, Scaling::None), 4));
    }
    refused("rope: a frequency is inf", Tables::new(&config(8, 1e4, Scaling::Linear { factor: 0.0 }), 4));
    refused("positions are more than", Tables::new(&config(8, 1e4, Scaling::None), usize::MAX));
}

#[test]
fn classes_and_labels() {
    let (x, weight) = (noise(&[2, 3]), noise(&[4, 3]));
    refused("label 4 is out of range 0..4", cross_entropy::forward(&x, &weight, None, &[0, 4]));
    refused("labels has shape [3], expected [2]", cross_entropy::forward(&x, &weight, None, &[0; 3]));
    for row_scale in [&[][..], &[1.0; 3]] {
        let result = cross_entropy::forward_backward(&x, &weight, None, &[0; 2], row_scale, Grads::default());
        refused(&format!("row_scale has shape [{}], expected [2]", row_scale.len()), result);
    }
    let empty = || (Tensor::zeros(&[2, 0]), Tensor::zeros(&[4, 0]));
    refused(
        "x has shape [2, 0], expected at least one column",
        cross_entropy::forward(&empty().0, &empty().1, None, &[0; 2]),
    );
    refused("x has shape [2, 0]", top_k(&empty().0, &empty().1, None, 0, &[&[], &[]], 1));
}

#[test]
fn how_many_of_the_best() {
    let (x, weight, nothing) = (noise(&[2, 3]), noise(&[4, 3]), [&[][..], &[]]);
    let counts = |first_class: u32, exclude: &[&[u32]], k: usize| -> Vec<usize> {
        let best = top_k(&x, &weight, None, first_class, exclude, k).expect("allowed");
        best.iter().map(Vec::len).collect()
    };
    assert_eq!(counts(0, &nothing, 0), [0, 0]);
    for k in [4, 5, usize::MAX] {
        assert_eq!(counts(0, &nothing, k), [4, 4]);
        assert_eq!(counts(1, &[&[1, 1, 3, 4, u32::MAX], &[]], k), [1, 3]);
        assert_eq!(counts(4, &nothing, k), [0, 0]);
        assert_eq!(counts(u32::MAX, &nothing, k), [0, 0]);
    }
    refused("exclude has shape [1], expected [2]", top_k(&x, &weight, None, 0, &[&[]], 1));
    refused("the excluded classes of row 1 are not sorted", top_k(&x, &weight, None, 0, &[&[], &[2, 1]], 1));
}

#[test]
fn targets_of_ranks() {
    let (x, weight) = (noise(&[1, 3]), noise(&[4, 3]));
    let rank = |first_class, target| ranks(&x, &weight, None, first_class, &[&[0, 9]], &[target]);
    refused("target 4 is out of range 0..4", rank(0, 4));
    refused("the target 1 is before 2, the first class that can be chosen", rank(2, 1));
    refused("targets has shape [2], expected [1]", ranks(&x, &weight, None, 0, &[&[]], &[0, 1]));
    assert!(rank(0, 0).is_ok(), "an excluded target has a rank");
}

#[test]
fn what_another_pass_has_saved() {
    let (two, three) = (noise(&[2, 4]), noise(&[3, 4]));
    let row = || noise(&[4]);
    let (_, saved) = layer_norm::forward(&two, &row(), &row(), 1e-5).expect("good shapes");
    let result = layer_norm::backward(&three, &three, &saved, &row(), &mut row(), &mut row());
    refused("layer_norm::backward: saved has shape [2], expected [3]", result);
    let (_, saved) = rms_norm::forward(&two, &row(), 1e-5).expect("good shapes");
    refused("rms_norm: saved scales has shape [2]", rms_norm::backward(&three, &three, &saved, &row(), None));

    let segments = |n| Segments::from_lengths([n]);
    let sizes = Sizes::DIFFERENT;
    let (weights, mut sums) = (sizes.recurrence(), sizes.recurrence());
    let (_, saved) = lru_scan::forward(&two, &recurrence(&weights), &segments(2)).expect("good shapes");
    let mut grads = crate::operations::gradients(&mut sums);
    let result = lru_scan::backward(&three, &three, &saved, &recurrence(&weights), &segments(3), &mut grads);
    refused("lru_scan::backward: saved has shape [2, 3], expected [3, 3]", result);
}

#[test]
fn parts_of_a_four_bit_weight() {
    let plain = |n| Magnitudes::Plain(vec![1.0; n]);
    let half = 1 << (usize::BITS / 2);
    refused("nf4: weight has shape", Nf4Weight::from_parts(&[half, half], vec![], plain(0)));
    refused("nf4: codes has shape [3], expected [2]", Nf4Weight::from_parts(&[3], vec![0; 3], plain(1)));
    refused("nf4: magnitudes has shape [0], expected [1]", Nf4Weight::from_parts(&[3], vec![0; 2], plain(0)));
    let double = Magnitudes::Double { codes: vec![255; 1], scales: vec![], offset: 0.0 };
    refused("nf4: nested scales has shape [0], expected [1]", Nf4Weight::from_parts(&[3], vec![0; 2], double));
    refused("nf4: weight is U8", nf4::quantize(&Tensor::from_u8(&[2], vec![0; 2]).expect("two values"), true));

    let row = Nf4Weight::from_parts(&[3], vec![0; 2], plain(1)).expect("parts of the right length");
    refused("nf4: weight has shape [3], expected [d_out, d_in]", nf4::linear(&noise(&[1, 3]), &row, Rounding::F32));
    let endless = Nf4Weight::from_parts(&[half, 0], vec![], plain(0)).expect("it holds nothing");
    refused("nf4: the result has shape", nf4::linear(&Tensor::zeros(&[half, 0]), &endless, Rounding::F32));
}

#[test]
fn settings_of_the_optimiser() {
    let good = Hyper { learning_rate: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    let step = |hyper: Hyper, step| {
        let (mut param, mut state) = (noise(&[2]), Moments::zeros(&[2]));
        adamw::step(&mut param, &noise(&[2]), &mut state, &hyper, step, 1.0)
    };
    assert!(step(good, u64::MAX).is_ok());
    refused("adamw::step: the step is 0", step(good, 0));
    for bad in [f32::NAN, f32::INFINITY, -f32::INFINITY] {
        refused(&format!("the learning rate is {bad}"), step(Hyper { learning_rate: bad, ..good }, 1));
        refused(&format!("the weight decay is {bad}"), step(Hyper { weight_decay: bad, ..good }, 1));
        refused(&format!("the eps is {bad}"), step(Hyper { eps: bad, ..good }, 1));
    }
    for bad in [1.0, -0.1, f32::NAN] {
        refused(&format!("the beta1 is {bad}"), step(Hyper { beta1: bad, ..good }, 1));
        refused(&format!("the beta2 is {bad}"), step(Hyper { beta2: bad, ..good }, 1));
    }
    assert_eq!((grad_norm::clip_scale(f64::NAN, 1.0), grad_norm::clip_scale(f64::INFINITY, 1.0)), (1.0, 0.0));
}
