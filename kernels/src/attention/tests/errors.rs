//! Every mistake has a name.

use super::*;
use crate::Error;

fn case() -> Case {
    Case::own(Kind::Causal, shape(4, 2, 3), &[2, 3]).with_prefix(2)
}

fn refused(case: &Case) -> Error {
    forward(&case.operands(), &case.shape).unwrap_err()
}

#[test]
fn heads_that_do_not_divide_are_refused() {
    let error = refused(&Case { shape: shape(3, 2, 1), ..case() });
    assert!(error.to_string().contains("3 heads of 1 features over 2 key-value heads"));
}

#[test]
fn no_heads_no_features_and_immense_heads_are_refused() {
    let immense = shape(usize::MAX, 1, 3);
    for shape in [shape(0, 1, 1), shape(1, 0, 1), shape(1, 1, 0), shape(0, 0, 0), shape(1, 2, 1), immense] {
        assert!(matches!(refused(&Case { shape, ..case() }), Error::Setting { .. }), "{shape:?}");
    }
}

#[test]
fn every_operand_of_another_shape_is_named() {
    let wrong = || Tensor::zeros(&[5, 7]);
    let [prefix_k, prefix_v] = case().prefix.unwrap();
    let cases = [
        ("q", Case { q: wrong(), ..case() }),
        ("k", Case { k: wrong(), ..case() }),
        ("v", Case { v: wrong(), ..case() }),
        ("prefix k", Case { prefix: Some([wrong(), prefix_v]), ..case() }),
        ("prefix v", Case { prefix: Some([prefix_k, Tensor::zeros(&[3, 6])]), ..case() }),
    ];
    for (name, case) in cases {
        assert!(matches!(refused(&case), Error::Shape { what, .. } if what == name), "{name}");
    }
}

#[test]
fn rows_that_the_segments_lack_are_refused() {
    let segments = Segments::from_lengths([2, 4]);
    let error = refused(&Case { queries: segments, ..case() });
    assert!(error.to_string().contains("q has shape [5, 12], expected [6, 12]"), "{error}");
}

#[test]
fn every_operand_of_another_dtype_is_named() {
    let bytes = |t: &Tensor| Tensor::from_u8(t.shape(), vec![0; t.len()]).unwrap();
    let original = case();
    let [prefix_k, prefix_v] = original.prefix.as_ref().unwrap();
    let cases = [
        ("q", Case { q: bytes(&original.q), ..case() }),
        ("k", Case { k: bytes(&original.k), ..case() }),
        ("v", Case { v: bytes(&original.v), ..case() }),
        ("prefix k", Case { prefix: Some([bytes(prefix_k), prefix_v.clone()]), ..case() }),
        ("prefix v", Case { prefix: Some([prefix_k.clone(), bytes(prefix_v)]), ..case() }),
    ];
    for (name, case) in cases {
        let error = refused(&case);
        assert!(matches!(error, Error::Dtype { what, found: Dtype::U8, .. } if what == name), "{name}: {error}");
    }
}

#[test]
fn as_many_sequences_of_keys_as_of_queries_are_asked_for() {
    let error = refused(&Case::cross(shape(1, 1, 1), &[1, 2], &[3]));
    assert!(error.to_string().contains("2 sequences of queries, but 1 of keys"), "{error}");
}

/// What the backward pass says of a case with the results of another one.
fn refused_backward(case: &Case, forwarded: &Case, d_out: &Tensor, d_prefix: Option<[usize; 2]>) -> Error {
    let (out, saved) = forward(&forwarded.operands(), &forwarded.shape).unwrap();
    let [mut dk, mut dv] = [d_prefix.unwrap_or([0, 0]); 2].map(|shape| Tensor::zeros(&shape));
    let asked = d_prefix.map(|_| PrefixGradient { dk: &mut dk, dv: &mut dv });
    backward(d_out, &case.operands(), &out, &saved, &case.shape, asked).unwrap_err()
}

#[test]
fn the_saved_state_of_another_pass_is_refused() {
    let others = [
        Case::own(Kind::Full, case().shape, &[2, 3]).with_prefix(2),
        Case::own(Kind::Causal, case().shape, &[3, 2]).with_prefix(2),
        Case::own(Kind::Causal, case().shape, &[2, 3]).with_prefix(3),
        Case::own(Kind::Causal, case().shape, &[2, 3]),
        Case::own(Kind::Causal, shape(2, 2, 6), &[2, 3]).with_prefix(2),
        Case::cross(case().shape, &[2, 3], &[3, 3]).with_prefix(2),
    ];
    for other in others {
        let error = refused_backward(&case(), &other, &Tensor::zeros(case().q.shape()), None);
        assert!(error.to_string().contains("the saved state is of a pass with other heads"), "{error}");
    }
}

#[test]
fn gradients_of_another_shape_or_dtype_are_named() {
    let case = case();
    let error = refused_backward(&case, &case, &Tensor::zeros(&[5, 11]), None);
    assert!(error.to_string().contains("d_out has shape [5, 11]"), "{error}");
    let bytes = Tensor::from_u8(case.q.shape(), vec![0; case.q.len()]).unwrap();
    let error = refused_backward(&case, &case, &bytes, None);
    assert!(matches!(error, Error::Dtype { what: "d_out", .. }), "{error}");
    let error = refused_backward(&case, &case, &Tensor::zeros(case.q.shape()), Some([1, 6]));
    assert!(error.to_string().contains("prefix dk has shape [1, 6], expected [2, 6]"), "{error}");
}

#[test]
fn the_gradient_of_no_prefix_cannot_be_asked_for() {
    let case = Case { prefix: None, ..case() };
    let error = refused_backward(&case, &case, &Tensor::zeros(case.q.shape()), Some([2, 6]));
    assert!(error.to_string().contains("there is no prefix"), "{error}");
}

#[test]
fn heads_without_rows_cost_nothing_however_many() {
    let many = shape(1 << 40, 1 << 40, 1);
    let case = Case::own(Kind::Causal, many, &[0, 0]);
    assert!(case.forward().is_empty());
    assert!(case.gradients(&Tensor::zeros(case.q.shape())).iter().all(Tensor::is_empty));
}
