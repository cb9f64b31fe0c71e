//! Heads, masks and prefixes that do not fit, and what another pass of attention has saved.

use mllm4rec_kernels::attention::{self, Mask, Operands, PrefixGradient, Saved, Shape};
use mllm4rec_kernels::{Dtype, Error, Result, Segments, Tensor};

use crate::settings::refused;
use crate::sizes::noise;

const SHAPE: Shape = Shape { heads: 2, kv_heads: 1, head_dim: 2 };
const ANOTHER_PASS: &str = "attention: the saved state is of a pass with other heads, mask, segments or prefix";

/// Sequences of a query each.
fn singles(n: usize) -> Segments {
    Segments::from_lengths(vec![1; n])
}

#[test]
fn heads_that_do_not_fit() {
    let (q, kv, one) = (noise(&[1, 4]), noise(&[1, 2]), singles(1));
    for mask in [Mask::Causal(&one), Mask::Full(&one), Mask::Cross { queries: &one, keys: &one }] {
        let plain = Operands::new(&q, &kv, &kv, mask);
        for operands in [plain, plain.with_prefix(&kv, &kv)] {
            let call = |heads, kv_heads, head_dim| attention::forward(&operands, &Shape { heads, kv_heads, head_dim });
            assert!(call(2, 1, 2).is_ok());
            refused("attention: 2 heads of 2 features over 0 key-value heads", call(2, 0, 2));
            refused("attention: 2 heads of 0 features over 1 key-value heads", call(2, 1, 0));
            refused("attention: 0 heads of 2 features over 1 key-value heads", call(0, 1, 2));
            refused("attention: 3 heads of 2 features over 2 key-value heads", call(3, 2, 2));
            refused("heads of 4 features over 1 key-value heads", call(usize::MAX / 4 + 3, 1, 4));
            refused("attention: q has shape [1, 4], expected [1, 8]", call(2, 1, 4));
            refused("attention: k has shape [1, 2], expected [1, 4]", call(2, 2, 2));
        }
    }
}

#[test]
fn queries_and_keys_of_another_number_of_sequences() {
    let (q, kv) = (noise(&[2, 4]), noise(&[2, 2]));
    // All have the rows that the operands have.
    let segments = [&[2][..], &[1, 1], &[0, 2, 0]].map(|lengths| Segments::from_lengths(lengths.iter().copied()));
    for (queries, keys) in segments.iter().flat_map(|queries| segments.iter().map(move |keys| (queries, keys))) {
        let operands = Operands::new(&q, &kv, &kv, Mask::Cross { queries, keys });
        let (m, n) = (queries.len(), keys.len());
        match attention::forward(&operands, &SHAPE) {
            Ok(_) => assert_eq!(m, n, "they do not match, but are not refused"),
            refusal => refused(&format!("attention: {m} sequences of queries, but {n} of keys"), refusal),
        }
    }
    let none = Segments::from_lengths([]);
    let operands = Operands::new(&q, &kv, &kv, Mask::Cross { queries: &segments[0], keys: &none });
    refused("attention: 1 sequences of queries, but 0 of keys", attention::forward(&operands, &SHAPE));
}

#[test]
fn keys_that_are_not_the_rows_of_their_sequences() {
    let (q, two, three) = (noise(&[2, 4]), noise(&[2, 2]), noise(&[3, 2]));
    let (queries, keys) = (singles(2), Segments::from_lengths([3, 0]));
    let call = |k, v, mask| attention::forward(&Operands::new(&q, k, v, mask), &SHAPE);
    let across = Mask::Cross { queries: &queries, keys: &keys };
    assert!(call(&three, &three, across).is_ok());
    refused("attention: k has shape [2, 2], expected [3, 2]", call(&two, &three, across));
    refused("attention: v has shape [2, 2], expected [3, 2]", call(&three, &two, across));
    let swapped = Mask::Cross { queries: &keys, keys: &queries };
    refused("attention: q has shape [2, 4], expected [3, 4]", call(&three, &three, swapped));
    for mask in [Mask::Causal(&queries), Mask::Full(&queries)] {
        refused("attention: k has shape [3, 2], expected [2, 2]", call(&three, &two, mask));
    }
}

#[test]
fn a_prefix_that_does_not_fit() {
    let (q, kv, segments) = (noise(&[2, 4]), noise(&[2, 2]), singles(2));
    let call = |k: &Tensor, v: &Tensor| {
        let operands = Operands::new(&q, &kv, &kv, Mask::Full(&segments)).with_prefix(k, v);
        attention::forward(&operands, &SHAPE)
    };
    let (good, empty) = (noise(&[3, 2]), noise(&[0, 2]));
    assert!(call(&good, &good).is_ok() && call(&empty, &empty).is_ok());
    for shape in [&[3, 3][..], &[2], &[], &[3, 2, 1], &[1, 3, 2], &[0], &[3, 0], &[0, 0]] {
        refused(&format!("attention: prefix k has shape {shape:?}"), call(&noise(shape), &good));
        refused(&format!("attention: prefix v has shape {shape:?}, expected [3, 2]"), call(&good, &noise(shape)));
    }
    refused("attention: prefix v has shape [3, 2], expected [0, 2]", call(&empty, &good));
    refused("attention: prefix v has shape [0, 2], expected [3, 2]", call(&good, &empty));
    let bytes = Tensor::from_u8(&[3, 2], vec![1; 6]).expect("six values");
    refused("attention: prefix k is U8, expected F32", call(&bytes, &good));
    refused("attention: prefix v is U8, expected F32", call(&good, &bytes));
}

/// The passes that one saved state might be mistaken for another's: same rows, other masks, segments or prefixes.
fn passes(segments: &[Segments; 3]) -> Vec<(Mask<'_>, usize, Shape)> {
    let [pairs, other, unequal] = segments;
    let equal_widths = Shape { heads: 4, kv_heads: 2, head_dim: 1 };
    vec![
        (Mask::Causal(pairs), 0, SHAPE),
        (Mask::Full(pairs), 0, SHAPE),
        (Mask::Causal(pairs), 2, SHAPE),
        (Mask::Full(pairs), 2, SHAPE),
        (Mask::Full(pairs), 3, SHAPE),
        (Mask::Full(other), 0, SHAPE),
        (Mask::Cross { queries: pairs, keys: unequal }, 0, SHAPE),
        (Mask::Cross { queries: pairs, keys: unequal }, 2, SHAPE),
        (Mask::Cross { queries: unequal, keys: pairs }, 2, SHAPE),
        (Mask::Full(pairs), 2, equal_widths),
    ]
}

#[test]
fn what_another_pass_has_saved() {
    let segments = [[2, 2], [1, 3], [4, 1]].map(Segments::from_lengths);
    let passes = passes(&segments);
    let run = |&(mask, prefix, shape): &(Mask<'_>, usize, Shape), saved: Option<&Saved>| -> Result<Saved> {
        let (queries, keys) = match mask {
            Mask::Causal(segments) | Mask::Full(segments) => (segments, segments),
            Mask::Cross { queries, keys } => (queries, keys),
        };
        let q = noise(&[queries.rows(), shape.heads * shape.head_dim]);
        let (kv, prefix) = (noise(&[keys.rows(), 2]), noise(&[prefix, 2]));
        let operands = Operands::new(&q, &kv, &kv, mask).with_prefix(&prefix, &prefix);
        let (out, own) = attention::forward(&operands, &shape)?;
        attention::backward(&out, &operands, &out, saved.unwrap_or(&own), &shape, None)?;
        Ok(own)
    };
    for (i, pass) in passes.iter().enumerate() {
        let saved = run(pass, None).expect("good operands");
        for (_, other) in passes.iter().enumerate().filter(|&(j, _)| i != j) {
            refused(ANOTHER_PASS, run(other, Some(&saved)));
        }
    }
}

#[test]
fn gradients_of_a_prefix_that_do_not_fit() {
    let (q, kv, segments, prefix) = (noise(&[2, 4]), noise(&[2, 2]), singles(2), noise(&[3, 2]));
    let plain = Operands::new(&q, &kv, &kv, Mask::Causal(&segments));
    let call = |operands: Operands<'_>, mut dk: Tensor, mut dv: Tensor| {
        let (out, saved) = attention::forward(&operands, &SHAPE)?;
        let d_prefix = PrefixGradient { dk: &mut dk, dv: &mut dv };
        let result = attention::backward(&q, &operands, &out, &saved, &SHAPE, Some(d_prefix)).map(drop);
        if result.is_err() {
            assert_eq!((dk.to_f32(), dv.to_f32()), (noise(dk.shape()).to_f32(), noise(dv.shape()).to_f32()));
        }
        result
    };
    let good = || noise(&[3, 2]);
    let behind = plain.with_prefix(&prefix, &prefix);
    assert!(call(behind, good(), good()).is_ok());
    for shape in [&[2, 2][..], &[3, 3], &[3], &[], &[0, 2], &[3, 2, 1]] {
        refused(
            &format!("attention: prefix dk has shape {shape:?}, expected [3, 2]"),
            call(behind, noise(shape), good()),
        );
        refused(
            &format!("attention: prefix dv has shape {shape:?}, expected [3, 2]"),
            call(behind, good(), noise(shape)),
        );
    }
    refused("attention: the gradient of a prefix is asked for, but there is no prefix", call(plain, good(), good()));

    let half = || Tensor::from_f16(&[3, 2], vec![half::f16::ONE; 6]).expect("six values");
    let (out, saved) = attention::forward(&behind, &SHAPE).expect("good operands");
    for (mut dk, mut dv, name) in [(half(), good(), "prefix dk"), (good(), half(), "prefix dv")] {
        let d_prefix = PrefixGradient { dk: &mut dk, dv: &mut dv };
        let result = attention::backward(&q, &behind, &out, &saved, &SHAPE, Some(d_prefix));
        assert!(matches!(result, Err(Error::Dtype { what, found: Dtype::F16, .. }) if what == name), "{name}");
    }
}

#[test]
fn a_prefix_without_rows_costs_nothing_however_many_heads() {
    let shape = Shape { heads: 1 << 40, kv_heads: 1 << 40, head_dim: 1 };
    let (empty, segments) = (Tensor::zeros(&[0, 1 << 40]), Segments::from_lengths([0, 0]));
    let across = Mask::Cross { queries: &segments, keys: &segments };
    let operands = Operands::new(&empty, &empty, &empty, across).with_prefix(&empty, &empty);
    let (out, saved) = attention::forward(&operands, &shape).expect("nothing to do");
    let (mut dk, mut dv) = (empty.clone(), empty.clone());
    let d_prefix = PrefixGradient { dk: &mut dk, dv: &mut dv };
    assert!(attention::backward(&out, &operands, &out, &saved, &shape, Some(d_prefix)).is_ok());
}
