#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{check_gradient, largest_error, noise_tensor, same_on_threads, weighted_sum};

fn shape(heads: usize, kv_heads: usize, head_dim: usize, causal: bool) -> Shape {
    Shape { heads, kv_heads, head_dim, causal }
}

fn operands(seed: u64, n: usize, s: &Shape) -> (Tensor, Tensor, Tensor) {
    let tensor = |i: u64, heads: usize| noise_tensor(seed + i, &[n, heads * s.head_dim]);
    (tensor(0, s.heads), tensor(1, s.kv_heads), tensor(2, s.kv_heads))
}

#[test]
fn two_rows_by_hand() {
    let q = Tensor::from_f32(&[2, 1], vec![9.0, 1.0]).unwrap();
    let k = Tensor::from_f32(&[2, 1], vec![0.0, 3.0f32.ln()]).unwrap();
    let v = Tensor::from_f32(&[2, 1], vec![4.0, 8.0]).unwrap();
    let one = Segments::from_lengths([2]);
    let (out, _) = forward(&q, &k, &v, &one, &shape(1, 1, 1, true)).unwrap();
    // The first row sees itself only; the second weighs 1 : 3.
    assert!((out.f32().unwrap()[0] - 4.0).abs() < 1e-6 && (out.f32().unwrap()[1] - 7.0).abs() < 1e-6);
}

#[test]
fn agrees_with_the_reference_on_awkward_shapes() {
    let lengths: [&[usize]; 5] = [&[], &[1], &[0, 3, 0, 65], &[64, 1, 129], &[7, 130]];
    for lengths in lengths {
        let segments = Segments::from_lengths(lengths.iter().copied());
        for s in [shape(1, 1, 1, true), shape(4, 2, 6, true), shape(3, 1, 5, false), shape(2, 2, 32, true)] {
            let (q, k, v) = operands(1, segments.rows(), &s);
            let (out, _) = forward(&q, &k, &v, &segments, &s).unwrap();
            let wanted = reference::forward(&q, &k, &v, &segments, &s);
            assert!(largest_error(out.f32().unwrap(), &wanted) < 1e-6, "{lengths:?} {s:?}");
        }
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    for (causal, lengths) in [(true, vec![3, 1, 5]), (false, vec![4, 3]), (true, vec![70])] {
        let (s, segments) = (shape(4, 2, 3, causal), Segments::from_lengths(lengths));
        let (q, k, v) = operands(11, segments.rows(), &s);
        let d_out = noise_tensor(19, q.shape());
        let (out, saved) = forward(&q, &k, &v, &segments, &s).unwrap();
        let (dq, dk, dv) = backward(&d_out, &q, &k, &v, &out, &saved, &segments, &s).unwrap();
        let loss = |q: &Tensor, k: &Tensor, v: &Tensor| weighted_sum(19, &forward(q, k, v, &segments, &s).unwrap().0);
        check_gradient("dq", &q, &dq, |q| loss(q, &k, &v));
        check_gradient("dk", &k, &dk, |k| loss(&q, k, &v));
        check_gradient("dv", &v, &dv, |v| loss(&q, &k, v));
    }
}

#[test]
fn a_sequence_has_the_same_bits_in_any_company() {
    let s = shape(4, 2, 8, true);
    let segments = Segments::from_lengths([33, 150, 5]);
    let (q, k, v) = operands(21, segments.rows(), &s);
    let (together, _) = forward(&q, &k, &v, &segments, &s).unwrap();
    let rows = segments.range(1);
    let part = |t: &Tensor| {
        let values = t.f32().unwrap()[rows.start * t.cols()..rows.end * t.cols()].to_vec();
        Tensor::from_f32(&[rows.len(), t.cols()], values).unwrap()
    };
    let (alone, _) = forward(&part(&q), &part(&k), &part(&v), &Segments::from_lengths([150]), &s).unwrap();
    assert_eq!(alone, part(&together));
}

#[test]
fn threads_do_not_change_the_bits() {
    let (s, segments) = (shape(4, 2, 8, true), Segments::from_lengths([90, 13, 71]));
    let (q, k, v) = operands(31, segments.rows(), &s);
    let d_out = noise_tensor(39, q.shape());
    same_on_threads(|| {
        let (out, saved) = forward(&q, &k, &v, &segments, &s).unwrap();
        let gradients = backward(&d_out, &q, &k, &v, &out, &saved, &segments, &s).unwrap();
        (out, gradients)
    });
}

#[test]
fn heads_that_do_not_divide_are_refused() {
    let s = shape(3, 2, 1, true);
    let (q, k, v) = operands(1, 1, &s);
    let error = forward(&q, &k, &v, &Segments::from_lengths([1]), &s).unwrap_err();
    assert!(error.to_string().contains("3 heads of 1 features over 2 key-value heads"));
}

#[test]
fn an_operand_of_another_dtype_is_named() {
    let s = shape(1, 1, 2, true);
    let (q, k, _) = operands(1, 1, &s);
    let v = Tensor::from_u8(&[1, 2], vec![0; 2]).unwrap();
    let error = forward(&q, &k, &v, &Segments::from_lengths([1]), &s).unwrap_err();
    assert!(error.to_string().contains("attention: v is U8"), "{error}");
}
