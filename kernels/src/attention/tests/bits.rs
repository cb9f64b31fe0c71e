//! What must not change a single bit, and where something that is not a number may go.

use super::*;
use crate::testing::{noise, same_on_threads};

/// Every kind with more than one block, with and without a prefix.
fn cases() -> Vec<Case> {
    let s = shape(4, 2, 8);
    let plain = [
        Case::own(Kind::Causal, s, &[33, 150, 0, 5]),
        Case::own(Kind::Full, s, &[33, 150, 0, 5]),
        Case::cross(s, &[32, 150, 0, 5], &[257, 65, 3, 0]),
    ];
    plain.into_iter().flat_map(|case| [case.clone(), case.clone().with_prefix(40), case.with_prefix(128)]).collect()
}

/// The bits of some tensors, which tell zeros apart.
fn bits<const N: usize>(tensors: [Tensor; N]) -> [Vec<u32>; N] {
    tensors.map(|t| t.f32().unwrap().iter().map(|x| x.to_bits()).collect())
}

/// One sequence of a case, with the same prefix.
pub(super) fn alone(case: &Case, sequence: usize) -> Case {
    let (queries, keys) = (case.queries.range(sequence), case.keys.range(sequence));
    Case {
        q: rows_of(&case.q, queries.clone()),
        k: rows_of(&case.k, keys.clone()),
        v: rows_of(&case.v, keys.clone()),
        queries: Segments::from_lengths([queries.len()]),
        keys: Segments::from_lengths([keys.len()]),
        ..case.clone()
    }
}

#[test]
fn a_sequence_has_the_same_bits_in_any_company() {
    for case in cases() {
        let d_out = noise_tensor(39, case.q.shape());
        let (out, [dq, dk, dv], rounded) = (case.forward(), case.gradients(&d_out), case.forward_bf16());
        for sequence in 0..case.queries.len() {
            let (queries, keys) = (case.queries.range(sequence), case.keys.range(sequence));
            let by_query = |t: &Tensor| rows_of(t, queries.clone());
            let by_key = |t: &Tensor| rows_of(t, keys.clone());
            let alone = alone(&case, sequence);
            assert_eq!(bits([alone.forward()]), bits([by_query(&out)]));
            assert_eq!(bits([alone.forward_bf16()]), bits([by_query(&rounded)]));
            let together = [by_query(&dq), by_key(&dk), by_key(&dv)];
            assert_eq!(bits(alone.gradients(&by_query(&d_out))), bits(together));
        }
    }
}

#[test]
fn threads_do_not_change_the_bits() {
    let many: Vec<usize> = (0..37).map(|i| i * 7 % 19).collect();
    for case in cases().into_iter().chain([Case::own(Kind::Causal, shape(4, 2, 8), &many).with_prefix(9)]) {
        let d_out = noise_tensor(39, case.q.shape());
        same_on_threads(|| {
            let asked = case.prefix.as_ref().map(|_| bits(case.all_gradients(&d_out)));
            (bits([case.forward(), case.forward_bf16()]), bits(case.gradients(&d_out)), asked)
        });
    }
}

#[test]
fn asking_for_the_gradient_of_a_prefix_does_not_change_the_others() {
    for case in cases().into_iter().filter(|case| case.prefix.is_some()) {
        let d_out = noise_tensor(39, case.q.shape());
        let [dq, dk, dv, ..] = case.all_gradients(&d_out);
        assert_eq!(bits([dq, dk, dv]), bits(case.gradients(&d_out)));
    }
}

/// Writes some rows before every sequence.
fn prepend(rows: &Tensor, tensor: &Tensor, segments: &Segments) -> Tensor {
    let parts = segments.ranges().map(|range| [rows.to_f32(), rows_of(tensor, range).to_f32()].concat());
    let values: Vec<f32> = parts.flatten().collect();
    Tensor::from_f32(&[values.len() / tensor.cols(), tensor.cols()], values).unwrap()
}

/// The rows of every sequence without the first few.
pub(super) fn without(first: usize, tensor: &Tensor, segments: &Segments) -> Tensor {
    let values: Vec<f32> =
        segments.ranges().flat_map(|range| rows_of(tensor, range.start + first..range.end).to_f32()).collect();
    Tensor::from_f32(&[values.len() / tensor.cols(), tensor.cols()], values).unwrap()
}

fn longer(segments: &Segments, by: usize) -> Segments {
    Segments::from_lengths(segments.ranges().map(|range| range.len() + by))
}

impl Case {
    /// The same with the prefix written before every causal sequence; the queries of those rows are others.
    pub(super) fn repeated(&self) -> Self {
        let [prefix_k, prefix_v] = self.prefix.as_ref().unwrap();
        let rows = prefix_k.rows();
        let segments = longer(&self.queries, rows);
        Self {
            q: prepend(&noise_tensor(51, &[rows, self.q.cols()]), &self.q, &self.queries),
            k: prepend(prefix_k, &self.k, &self.keys),
            v: prepend(prefix_v, &self.v, &self.keys),
            queries: segments.clone(),
            keys: segments,
            prefix: None,
            ..self.clone()
        }
    }
}

#[test]
fn a_shared_prefix_gives_the_bits_of_one_written_before_every_causal_sequence() {
    for (head_dim, rows) in [(8, 1), (8, 40), (3, 64), (16, 257), (300, 70)] {
        let shared = Case::own(Kind::Causal, shape(4, 2, head_dim), &[33, 150, 0, 1, 64, 217]).with_prefix(rows);
        let repeated = shared.repeated();
        let own = |tensor: &Tensor| without(rows, tensor, &repeated.queries);
        assert_eq!(bits([shared.forward()]), bits([own(&repeated.forward())]), "{rows} rows");

        // Whatever reaches the rows of the prefix, it does not reach the keys behind them.
        let d_out = noise_tensor(39, shared.q.shape());
        let d_repeated = prepend(&noise_tensor(52, &[rows, d_out.cols()]), &d_out, &shared.queries);
        let gradients = repeated.gradients(&d_repeated).each_ref().map(own);
        assert_eq!(bits(shared.gradients(&d_out)), bits(gradients), "{rows} rows");
    }
}

#[test]
fn a_shared_prefix_gives_the_bits_of_one_written_before_all_keys() {
    for case in cases().into_iter().filter(|case| case.kind != Kind::Causal) {
        let Some([prefix_k, prefix_v]) = case.prefix.clone() else { continue };
        let rows = prefix_k.rows();
        let keys = longer(&case.keys, rows);
        let repeated = Case {
            kind: Kind::Cross,
            k: prepend(&prefix_k, &case.k, &case.keys),
            v: prepend(&prefix_v, &case.v, &case.keys),
            keys: keys.clone(),
            prefix: None,
            ..case.clone()
        };
        assert_eq!(bits([case.forward()]), bits([repeated.forward()]));
        let d_out = noise_tensor(39, case.q.shape());
        let [dq, dk, dv] = repeated.gradients(&d_out);
        let own = [dq, without(rows, &dk, &keys), without(rows, &dv, &keys)];
        assert_eq!(bits(case.gradients(&d_out)), bits(own));
    }
}

#[test]
fn an_empty_prefix_changes_nothing() {
    for case in cases().into_iter().filter(|case| case.prefix.is_none()) {
        let d_out = noise_tensor(39, case.q.shape());
        let behind = case.clone().with_prefix(0);
        assert_eq!(bits([case.forward()]), bits([behind.forward()]));
        let [dq, dk, dv, ..] = behind.all_gradients(&d_out);
        assert_eq!(bits([dq, dk, dv]), bits(case.gradients(&d_out)));
    }
}

/// A tensor with one value replaced.
fn with_value(tensor: &Tensor, row: usize, col: usize, value: f32) -> Tensor {
    let mut values = tensor.to_f32();
    values[row * tensor.cols() + col] = value;
    Tensor::from_f32(tensor.shape(), values).unwrap()
}

#[test]
fn what_is_not_a_number_stays_in_its_sequence_and_heads() {
    for (case, bad) in cases().into_iter().flat_map(|case| [f32::NAN, f32::INFINITY].map(|bad| (case.clone(), bad))) {
        let d_out = noise_tensor(39, case.q.shape());
        let (sequence, dim) = (1, case.shape.head_dim);
        let (query, key) = (case.queries.range(sequence).start + 70, case.keys.range(sequence).start + 60);
        let spoiled = [
            Case { q: with_value(&case.q, query, 0, bad), ..case.clone() },
            Case { k: with_value(&case.k, key, 0, bad), ..case.clone() },
            Case { v: with_value(&case.v, key, 0, bad), ..case.clone() },
        ];
        for spoiled in spoiled {
            let pairs = [(spoiled.forward(), case.forward())].into_iter();
            let pairs = pairs.chain(spoiled.gradients(&d_out).into_iter().zip(case.gradients(&d_out)));
            for ((found, wanted), per_head) in pairs.zip([2 * dim, 2 * dim, dim, dim]) {
                let segments = if per_head == dim { &case.keys } else { &case.queries };
                let own = segments.range(sequence);
                let values = found.f32().unwrap().iter().zip(wanted.f32().unwrap());
                let outside = values.enumerate().filter(|(i, _)| {
                    let (row, col) = (i / found.cols(), i % found.cols());
                    !own.contains(&row) || col >= per_head
                });
                assert!(outside.map(|(_, pair)| pair).all(|(f, w)| f.to_bits() == w.to_bits()));
            }
        }
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let case = Case::own(Kind::Full, shape(1, 1, 2), &[3]).with_prefix(2);
    let large = |t: &Tensor| Tensor::from_f32(t.shape(), noise(9, t.len()).iter().map(|x| x * 1e6).collect()).unwrap();
    let case = Case { q: large(&case.q), k: large(&case.k), ..case };
    let finite = |t: &Tensor| t.f32().unwrap().iter().all(|x| x.is_finite());
    assert!(finite(&case.forward()));
    assert!(case.all_gradients(&noise_tensor(39, case.q.shape())).iter().all(finite));
}
