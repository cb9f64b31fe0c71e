#![allow(clippy::unwrap_used)]

mod bits;
mod cache;
mod device;
mod errors;
mod gradients;

use super::*;
use crate::testing::{largest_error, noise_tensor};
use crate::{Dtype, Segments};

/// A kind of mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Causal,
    Full,
    Cross,
}

/// Operands and what they borrow.
#[derive(Clone, Debug)]
struct Case {
    kind: Kind,
    shape: Shape,
    queries: Segments,
    keys: Segments,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    prefix: Option<[Tensor; 2]>,
}

impl Case {
    fn new(kind: Kind, shape: Shape, queries: &[usize], keys: &[usize]) -> Self {
        let [queries, keys] = [queries, keys].map(|lengths| Segments::from_lengths(lengths.iter().copied()));
        let tensor = |seed, segments: &Segments, heads| noise_tensor(seed, &[segments.rows(), heads * shape.head_dim]);
        let q = tensor(1, &queries, shape.heads);
        let [k, v] = [2, 3].map(|seed| tensor(seed, &keys, shape.kv_heads));
        Self { kind, shape, queries, keys, q, k, v, prefix: None }
    }

    /// Attention of sequences to themselves.
    fn own(kind: Kind, shape: Shape, lengths: &[usize]) -> Self {
        Self::new(kind, shape, lengths, lengths)
    }

    fn cross(shape: Shape, queries: &[usize], keys: &[usize]) -> Self {
        Self::new(Kind::Cross, shape, queries, keys)
    }

    fn with_prefix(self, rows: usize) -> Self {
        let prefix = [4, 5].map(|seed| noise_tensor(seed, &[rows, self.k.cols()]));
        Self { prefix: Some(prefix), ..self }
    }

    fn operands(&self) -> Operands<'_> {
        let mask = match self.kind {
            Kind::Causal => Mask::Causal(&self.queries),
            Kind::Full => Mask::Full(&self.queries),
            Kind::Cross => Mask::Cross { queries: &self.queries, keys: &self.keys },
        };
        let operands = Operands::new(&self.q, &self.k, &self.v, mask);
        self.prefix.as_ref().map_or(operands, |[k, v]| operands.with_prefix(k, v))
    }

    fn forward(&self) -> Tensor {
        forward(&self.operands(), &self.shape).unwrap().0
    }

    /// The result of the operands, rounded, in bfloat16; widened again.
    fn forward_bf16(&self) -> Tensor {
        let narrow = Self {
            q: self.q.to_bf16(),
            k: self.k.to_bf16(),
            v: self.v.to_bf16(),
            prefix: self.prefix.as_ref().map(|prefix| prefix.each_ref().map(Tensor::to_bf16)),
            ..self.clone()
        };
        let out = forward_bf16(&narrow.operands(), &self.shape).unwrap();
        Tensor::from_f32(out.shape(), out.to_f32()).unwrap()
    }

    /// The gradients of `[q, k, v]` for a given gradient of the result, without that of the prefix.
    fn gradients(&self, d_out: &Tensor) -> [Tensor; 3] {
        let (out, saved) = forward(&self.operands(), &self.shape).unwrap();
        backward(d_out, &self.operands(), &out, &saved, &self.shape, None).unwrap().into()
    }

    /// The gradients of `[q, k, v]` and of the keys and values of the prefix.
    fn all_gradients(&self, d_out: &Tensor) -> [Tensor; 5] {
        let (out, saved) = forward(&self.operands(), &self.shape).unwrap();
        let [mut dk, mut dv] = self.prefix.as_ref().unwrap().each_ref().map(|t| t.zeros_like().unwrap());
        let asked = PrefixGradient { dk: &mut dk, dv: &mut dv };
        let own = backward(d_out, &self.operands(), &out, &saved, &self.shape, Some(asked)).unwrap();
        [own.0, own.1, own.2, dk, dv]
    }
}

fn shape(heads: usize, kv_heads: usize, head_dim: usize) -> Shape {
    Shape { heads, kv_heads, head_dim }
}

/// Some rows of a tensor.
fn rows_of(tensor: &Tensor, rows: std::ops::Range<usize>) -> Tensor {
    let values = tensor.f32().unwrap()[rows.start * tensor.cols()..rows.end * tensor.cols()].to_vec();
    Tensor::from_f32(&[rows.len(), tensor.cols()], values).unwrap()
}

/// One head of one feature, so that a case fits on a line.
fn column(values: &[f32]) -> Tensor {
    Tensor::from_f32(&[values.len(), 1], values.to_vec()).unwrap()
}

fn close(found: &Tensor, wanted: &[f32]) -> bool {
    found.f32().unwrap().iter().zip(wanted).all(|(f, w)| (f - w).abs() < 1e-6) && found.len() == wanted.len()
}

#[test]
fn two_rows_by_hand() {
    let (q, k, v) = (column(&[9.0, 1.0]), column(&[0.0, 3.0f32.ln()]), column(&[4.0, 8.0]));
    let one = Segments::from_lengths([2]);
    let (out, _) = forward(&Operands::new(&q, &k, &v, Mask::Causal(&one)), &shape(1, 1, 1)).unwrap();
    // The first row sees itself only; the second weighs 1 : 3.
    assert!(close(&out, &[4.0, 7.0]));
}

#[test]
fn a_prefix_by_hand() {
    let (q, k, v) = (column(&[1.0, 1.0]), column(&[0.0, 2.0f32.ln()]), column(&[4.0, 8.0]));
    let (prefix_k, prefix_v) = (column(&[0.0]), column(&[2.0]));
    let two = Segments::from_lengths([1, 1]);
    let operands = Operands::new(&q, &k, &v, Mask::Causal(&two)).with_prefix(&prefix_k, &prefix_v);
    // Both rows see the prefix and themselves, in weights 1 : 1 and 1 : 2.
    assert!(close(&forward(&operands, &shape(1, 1, 1)).unwrap().0, &[3.0, 6.0]));
}

#[test]
fn other_sequences_by_hand() {
    let (q, k, v) = (column(&[1.0, 0.0, 5.0]), column(&[0.0, 3.0f32.ln(), 7.0]), column(&[4.0, 8.0, 1.0]));
    let (queries, keys) = (Segments::from_lengths([2, 1, 0]), Segments::from_lengths([2, 0, 1]));
    let operands = Operands::new(&q, &k, &v, Mask::Cross { queries: &queries, keys: &keys });
    let (out, saved) = forward(&operands, &shape(1, 1, 1)).unwrap();
    // The first row weighs 1 : 3, the second 1 : 1, the third has no key.
    assert!(close(&out, &[7.0, 6.0, 0.0]));

    let d_out = column(&[0.0, 1.0, 1.0]);
    let (dq, dk, dv) = backward(&d_out, &operands, &out, &saved, &shape(1, 1, 1), None).unwrap();
    // The second row, whose query is zero, is moved by its values and its query alone: dw = (4, 8), D = 6.
    assert!(close(&dq, &[0.0, 3.0f32.ln(), 0.0]));
    assert!(close(&dk, &[0.0, 0.0, 0.0]));
    assert!(close(&dv, &[0.5, 0.5, 0.0]));
}

#[test]
fn agrees_with_the_reference_on_awkward_shapes() {
    let lengths: [(&[usize], &[usize]); 6] = [
        (&[], &[]),
        (&[1], &[300]),
        (&[0, 3, 0, 65], &[5, 0, 0, 33]),
        (&[64, 1, 129], &[1, 257, 64]),
        (&[7, 130], &[0, 2]),
        (&[32, 2], &[257, 0]),
    ];
    let shapes = [shape(1, 1, 1), shape(4, 2, 6), shape(3, 1, 5), shape(2, 2, 32), shape(2, 1, 300)];
    for ((queries, keys), shape) in lengths.into_iter().flat_map(|l| shapes.map(|s| (l, s))) {
        let kinds = [Kind::Causal, Kind::Full].map(|kind| Case::own(kind, shape, queries));
        for case in kinds.into_iter().chain([Case::cross(shape, queries, keys)]) {
            for case in [case.clone(), case.clone().with_prefix(0), case.clone().with_prefix(1), case.with_prefix(77)] {
                let wanted = reference::forward(&case.operands(), &shape);
                let error = largest_error(case.forward().f32().unwrap(), &wanted);
                let prefix = case.prefix.as_ref().map(|[k, _]| k.rows());
                assert!(error < 2e-6, "{error}: {:?} {shape:?} {queries:?} {keys:?} {prefix:?}", case.kind);
                let rounded = case.forward_bf16();
                let error = largest_error(rounded.f32().unwrap(), &wanted);
                assert!(error < 0.02, "rounded {error}: {:?} {shape:?} {queries:?} {keys:?} {prefix:?}", case.kind);
            }
        }
    }
}
