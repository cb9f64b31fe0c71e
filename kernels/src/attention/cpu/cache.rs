//! A decoder's cache.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::super::Shape;
use crate::memory::{Element, Memory};
use crate::simd::{
    lanes::{self, Widen},
    round, vectorised,
};
use crate::{Dtype, Result, Tensor};

/// Keys and values, both `[sequences, capacity, width]`.
#[derive(Clone, Debug)]
pub(in super::super) struct Rows {
    values: Values,
    capacity: usize,
    width: usize,
}

#[derive(Clone, Debug)]
enum Values {
    F32([Memory<f32>; 2]),
    Bf16([Memory<bf16>; 2]),
}

impl Rows {
    /// Room for some sequences of so many rows, which memory can address; bf16, else f32.
    pub(in super::super) fn new([sequences, capacity, width]: [usize; 3], dtype: Dtype) -> Self {
        let len = sequences * capacity * width;
        let values = match dtype {
            Dtype::Bf16 => Values::Bf16([Memory::dirty(len), Memory::dirty(len)]),
            _ => Values::F32([Memory::dirty(len), Memory::dirty(len)]),
        };
        Self { values, capacity, width }
    }

    pub(in super::super) fn dtype(&self) -> Dtype {
        match self.values {
            Values::F32(_) => Dtype::F32,
            Values::Bf16(_) => Dtype::Bf16,
        }
    }

    /// Writes `rows` rows of all sequences behind the `from` that they have.
    pub(in super::super) fn append(&mut self, k: &Tensor, v: &Tensor, from: usize, rows: usize) -> Result<()> {
        let [stride, from, part] = [self.capacity, from, rows].map(|rows| rows * self.width);
        match &mut self.values {
            Values::F32(old) => append([k.f32()?, v.f32()?], old, stride, from..from + part),
            Values::Bf16(old) => append([k.bf16()?, v.bf16()?], old, stride, from..from + part),
        }
        Ok(())
    }

    /// Keeps the first rows of some sequences, whose numbers rise.
    pub(in super::super) fn keep(&mut self, sequences: &[usize], rows: usize) {
        let (stride, used) = (self.capacity * self.width, rows * self.width);
        match &mut self.values {
            Values::F32(rows) => rows.iter_mut().for_each(|rows| keep(rows, sequences, stride, used)),
            Values::Bf16(rows) => rows.iter_mut().for_each(|rows| keep(rows, sequences, stride, used)),
        }
    }

    /// Attention of a row of every sequence over the first rows of its cache.
    pub(in super::super) fn step(&self, q: &Tensor, shape: &Shape, rows: usize) -> Result<Tensor> {
        let dim = shape.head_dim;
        let mixing = Mixing { stride: self.width, rows, scale: shape.scale() };
        match &self.values {
            Values::F32([k, v]) => {
                let mut out = Tensor::dirty(q.shape());
                let heads = out.f32_mut()?.par_chunks_mut(dim).zip(q.f32()?.par_chunks(dim)).enumerate();
                heads.for_each_init(Vec::new, |weights, (i, (out, q))| {
                    out.fill(0.0);
                    mix(q, self.seen(k, i, shape), self.seen(v, i, shape), mixing, weights, out);
                });
                Ok(out)
            }
            Values::Bf16([k, v]) => {
                let (rows, q) = (q.shape(), q.bf16()?);
                let wide = || (Vec::new(), vec![0.0; dim], vec![0.0; dim]);
                Ok(Tensor::bf16_of(rows, |out| {
                    let heads = out.par_chunks_mut(dim).zip(q.par_chunks(dim)).enumerate();
                    heads.for_each_init(wide, |(weights, wide_q, wide), (i, (out, q))| {
                        wide_q.iter_mut().zip(q).for_each(|(wide, q)| *wide = q.widen());
                        wide.fill(0.0);
                        mix_bf16(wide_q, self.seen(k, i, shape), self.seen(v, i, shape), mixing, weights, wide);
                        round(wide, out);
                    });
                }))
            }
        }
    }

    /// The keys, or the values, that a query head of a sequence reads; `i` counts the heads of all sequences.
    fn seen<'a, T>(&self, rows: &'a [T], i: usize, shape: &Shape) -> &'a [T] {
        let (sequence, head) = (i / shape.heads, i % shape.heads);
        let begin = sequence * self.capacity * self.width + head / shape.group() * shape.head_dim;
        rows.get(begin..).unwrap_or_default()
    }
}

/// Writes new rows to their place in every sequence.
fn append<T: Element>(new: [&[T]; 2], old: &mut [Memory<T>; 2], stride: usize, place: Range<usize>) {
    for (new, old) in new.into_iter().zip(old) {
        let sequences = old.chunks_exact_mut(stride.max(1)).zip(new.chunks_exact(place.len().max(1)));
        sequences.for_each(|(old, new)| old[place.clone()].copy_from_slice(new));
    }
}

/// Moves the sequences that stay to the front.
fn keep<T: Copy>(rows: &mut [T], sequences: &[usize], stride: usize, used: usize) {
    for (place, &from) in sequences.iter().enumerate() {
        rows.copy_within(from * stride..from * stride + used, place * stride);
    }
}

/// How far apart rows are, how many there are, and the factor of their products.
#[derive(Clone, Copy)]
struct Mixing {
    stride: usize,
    rows: usize,
    scale: f32,
}

vectorised! {
    /// Adds `softmax(scale * q · kᵀ) · v` of one head to `out`.
    fn mix(q: &[f32], keys: &[f32], values: &[f32], mixing: Mixing, weights: &mut Vec<f32>, out: &mut [f32]) {
        mix_rows(q, keys, values, mixing, weights, out);
    }

    /// The same with keys and values of bfloat16.
    fn mix_bf16(q: &[f32], keys: &[bf16], values: &[bf16], mixing: Mixing, weights: &mut Vec<f32>, out: &mut [f32]) {
        mix_rows(q, keys, values, mixing, weights, out);
    }
}

#[inline(always)]
fn mix_rows<T: Widen>(
    q: &[f32],
    keys: &[T],
    values: &[T],
    Mixing { stride, rows, scale }: Mixing,
    weights: &mut Vec<f32>,
    out: &mut [f32],
) {
    weights.resize(rows, 0.0);
    for (weight, key) in weights.iter_mut().zip(keys.chunks(stride)) {
        *weight = scale * lanes::dot(q, key);
    }
    let top = lanes::max(weights);
    for weight in weights.iter_mut() {
        *weight = lanes::exp(*weight - top);
    }
    let scale = 1.0 / lanes::sum(weights);
    for (weight, value) in weights.iter().zip(values.chunks(stride)) {
        let weight = weight * scale;
        for (out, v) in out.iter_mut().zip(value) {
            *out = weight.mul_add(v.widen(), *out);
        }
    }
}
