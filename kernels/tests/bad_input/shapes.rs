//! Operands of another type or shape, and operands that hold nothing.

use half::{bf16, f16};
use mllm4rec_kernels::attention::{self, Mask, Operands};
use mllm4rec_kernels::{Dtype, Error, Result, Segments, Tensor, gemm, lru_scan};

use crate::operations::{self, Operation};
use crate::sizes::{Sizes, noise};

/// The type that an operation asks its operands for.
fn of(operation: &Operation) -> Dtype {
    if operation.name.ends_with("bf16") { Dtype::Bf16 } else { Dtype::F32 }
}

/// Operands that say of which type the others are to be.
const FIRST: [(&str, &str); 5] =
    [("gemm::linear", "x"), ("gemm::linear_backward_input", "dy"), ("lora", "x"), ("lora", "dy"), ("swiglu", "gate")];
/// Operands that may be of either type whatever the others are.
const ALONE: [(&str, &str); 5] = [
    ("tensor::add", "other"),
    ("gemm::add_bias", "y"),
    ("embedding::forward", "table"),
    ("dropout::apply", "x"),
    ("rope::apply", "x"),
];

#[test]
fn operands_of_another_type_are_named() {
    let sizes = Sizes::DIFFERENT;
    for operation in operations::all() {
        for (i, (operand, shape)) in (operation.operands)(sizes).into_iter().enumerate() {
            let len = shape.iter().product();
            let others = [
                Tensor::from_bf16(&shape, vec![bf16::ONE; len]),
                Tensor::from_f16(&shape, vec![f16::ONE; len]),
                Tensor::from_u8(&shape, vec![1; len]),
            ];
            for other in others.map(|t| t.expect("as many values as the shape has")) {
                let dtype = other.dtype();
                match operation.with(sizes, i, other) {
                    Err(Error::Dtype { op, what, found, expected }) if expected == of(&operation) => {
                        assert!(op.starts_with(operation.module()), "{}: {op}", operation.name);
                        assert_eq!(
                            (what.replace(['.', ' '], "_"), found),
                            (operand.to_owned(), dtype),
                            "{}",
                            operation.name
                        );
                    }
                    // Products and gates take bfloat16 too: then all that meets there must be.
                    Err(Error::Dtype {
                        op,
                        what: "weight" | "input" | "up",
                        found: Dtype::F32,
                        expected: Dtype::Bf16,
                    }) => {
                        assert!(FIRST.contains(&(op, operand)) && dtype == Dtype::Bf16, "{op} with {operand}");
                    }
                    Ok(_) if dtype == Dtype::Bf16 && ALONE.contains(&(operation.name, operand)) => {}
                    Ok(results) if ["nf4", "fp8"].contains(&operation.module()) && dtype == Dtype::Bf16 => {
                        assert_eq!(results[0].dtype(), Dtype::Bf16, "{}", operation.name);
                    }
                    Ok(_) if operation.name.ends_with("bf16") && dtype == Dtype::Bf16 => {}
                    Ok(_) if operation.name == "gemm::linear_packed, bfloat16" => {
                        assert_eq!((operand, dtype), ("x", Dtype::Bf16));
                    }
                    other => panic!("{} with {operand} of {dtype:?}: {other:?}", operation.name),
                }
            }
        }
    }
}

/// Other shapes of as many or as few dimensions as there are, among them a scalar and nothing at all.
fn other_shapes(shape: &[usize]) -> Vec<Vec<usize>> {
    let with = |i: usize, extent: usize| {
        let mut shape = shape.to_vec();
        shape[i] = extent;
        shape
    };
    let mut shapes =
        vec![vec![], vec![0], vec![shape.iter().product()], [shape, &[1]].concat(), [&[1], shape].concat()];
    for (i, &extent) in shape.iter().enumerate() {
        shapes.extend([with(i, extent + 1), with(i, extent - 1), with(i, 0), with(i, 1 << 40)]);
    }
    shapes.retain(|s| s != shape && s.iter().product::<usize>() < 1 << 20);
    shapes
}

#[test]
fn operands_of_another_shape_are_refused_or_understood() {
    let sizes = Sizes::DIFFERENT;
    for operation in operations::all() {
        for (i, (operand, shape)) in (operation.operands)(sizes).into_iter().enumerate() {
            for other in other_shapes(&shape) {
                let result = operation.with(sizes, i, noise(&other));
                let case = format!("{} with {operand} of {other:?} and not {shape:?}", operation.name);
                check_refusal(&operation, result, &case);
            }
        }
    }
}

/// Either a result, or an error that begins with the module and says which shape is wrong.
fn check_refusal(operation: &Operation, result: Result<Vec<Tensor>>, case: &str) {
    match result {
        Ok(_) => {}
        Err(Error::Shape { op, .. } | Error::Index { op, .. }) => {
            assert!(op.starts_with(operation.module()), "{case}: {op}");
        }
        Err(other) => panic!("{case}: {other}"),
    }
}

/// What only one operand decides: the shape of everything, or an extent that no other operand has.
const FREE: [(&str, &str); 5] = [
    ("gemm::linear_backward_input", "weight"),
    ("gelu::forward", "x"),
    ("dropout::apply", "x"),
    ("embedding::forward", "table"),
    ("grad_norm::l2", "gradient"),
];

#[test]
fn one_column_too_many_is_refused() {
    let sizes = Sizes::DIFFERENT;
    for operation in operations::all() {
        for (i, (operand, mut shape)) in (operation.operands)(sizes).into_iter().enumerate() {
            *shape.last_mut().expect("no operand is a scalar") += 1;
            let result = operation.with(sizes, i, noise(&shape));
            let free = FREE.contains(&(operation.name, operand));
            assert_eq!(result.is_ok(), free, "{} with {operand} of {shape:?}: {result:?}", operation.name);
        }
    }
}

#[test]
fn extents_of_zero_and_one_give_results_without_nan_or_an_error() {
    let extents = [0, 1, 2];
    let pairs = || extents.into_iter().flat_map(|a| extents.map(|b| (a, b)));
    for ((n, d), (m, r)) in pairs().flat_map(|a| pairs().map(move |b| (a, b))) {
        let sizes = Sizes { n, d, m, r };
        for operation in operations::all() {
            match (operation.call)(sizes, &mut operation.good(sizes)) {
                Ok(results) => {
                    let finite = results.iter().all(|t| t.to_f32().iter().all(|v| v.is_finite()));
                    assert!(finite, "{} with {sizes:?}: {results:?}", operation.name);
                }
                Err(e) => {
                    assert!(e.to_string().starts_with(operation.module()), "{} with {sizes:?}: {e}", operation.name)
                }
            }
        }
    }
}

#[test]
fn shapes_beyond_memory_are_refused() {
    let half = 1 << (usize::BITS / 2);
    // The first three wrap around to 0, 0 and 4; the others have no elements, but rows beyond counting.
    for shape in
        [&[half, half][..], &[usize::MAX / 2 + 1, 2], &[usize::MAX / 2 + 3, 2], &[usize::MAX, 2, 0], &[0, usize::MAX]]
    {
        for len in [0, 4] {
            let error = Tensor::from_f32(shape, vec![0.0; len]).expect_err("nothing is so large");
            assert!(error.to_string().contains(&format!("{shape:?}")), "{error}");
        }
        assert!(Tensor::from_u8(shape, vec![]).is_err() && noise(&[0]).reshaped(shape).is_err());
    }
}

#[test]
fn results_beyond_memory_are_refused() {
    let wide = || Tensor::zeros(&[1 << 40, 0]);
    let error = gemm::linear(&wide(), &wide(), None).expect_err("the result is 2^80 elements");
    assert!(error.to_string().starts_with("gemm::linear: the result has shape"), "{error}");
    let dy = Tensor::zeros(&[1 << 40, 0]);
    assert!(gemm::linear_backward_input(&dy, &Tensor::zeros(&[0, 1 << 40])).is_err());
}

#[test]
fn sequences_beyond_counting_fit_no_tensor() {
    let segments = Segments::from_lengths([usize::MAX, 2]);
    let sizes = Sizes { n: 1, ..Sizes::DIFFERENT };
    let (q, kv, one) = (noise(&[1, 4 * sizes.r]), noise(&[1, 2 * sizes.r]), Segments::from_lengths([1, 0]));
    let across = |queries, keys| Mask::Cross { queries, keys };
    for mask in [Mask::Causal(&segments), Mask::Full(&segments), across(&segments, &one), across(&one, &segments)] {
        let operands = Operands::new(&q, &kv, &kv, mask);
        assert!(matches!(attention::forward(&operands, &sizes.heads()), Err(Error::Shape { .. })), "{mask:?}");
    }
    let (x, weights) = (noise(&[1, sizes.d]), sizes.recurrence());
    assert!(lru_scan::forward(&x, &operations::recurrence(&weights), &segments).is_err());
}
