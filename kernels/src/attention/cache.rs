//! Attention of one new row for every sequence over the rows before it: a decoder's step.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::{OP, Shape, operands::Value};
use crate::memory::{Element, Memory};
use crate::simd::{
    lanes::{self, Widen},
    round, vectorised,
};
use crate::{Dtype, Error, Result, Tensor};

/// Keys and values, both `[sequences, capacity, width]`.
#[derive(Clone, Debug)]
enum Rows {
    F32([Memory<f32>; 2]),
    Bf16([Memory<bf16>; 2]),
}

/// Keys and values of sequences that have grown to one length, with room to grow further.
#[derive(Clone, Debug)]
pub struct Cache {
    rows: Rows,
    sequences: usize,
    capacity: usize,
    len: usize,
    width: usize,
}

impl Cache {
    /// Room for so many sequences of so many rows, f32 or bf16.
    ///
    /// # Errors
    /// [`Error::Shape`] if that is more than memory can address; [`Error::Setting`] for other dtypes.
    pub fn new(sequences: usize, capacity: usize, shape: &Shape, dtype: Dtype) -> Result<Self> {
        let width = shape.kv_heads * shape.head_dim;
        let len = Tensor::addressable(OP, &[sequences, capacity, width])?.iter().product();
        let rows = match dtype {
            Dtype::F32 => Rows::F32([Memory::dirty(len), Memory::dirty(len)]),
            Dtype::Bf16 => Rows::Bf16([Memory::dirty(len), Memory::dirty(len)]),
            _ => return Err(Error::Setting { op: OP, what: format!("keys and values of {dtype:?}") }),
        };
        Ok(Self { rows, sequences, capacity, len: 0, width })
    }

    /// The rows of every sequence.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the sequences have no rows yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The number of sequences.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// Adds rows to the end of every sequence.
    ///
    /// # Shapes
    /// - `k`, `v`: `[sequences * rows, kv_heads * head_dim]` of the cache's dtype, sequence after sequence
    ///
    /// # Errors
    /// [`Error::Shape`] if the rows do not fit, [`Error::Dtype`] if they are of another dtype; [`Error::Setting`] if there
    /// is no room for them.
    pub fn append(&mut self, k: &Tensor, v: &Tensor) -> Result<()> {
        let rows = k.rows().checked_div(self.sequences).unwrap_or(0);
        let shape = [self.sequences * rows, self.width];
        if self.len + rows > self.capacity {
            let what = format!("{} rows and {rows} more do not fit into {}", self.len, self.capacity);
            return Err(Error::Setting { op: OP, what });
        }
        let [stride, from, part] = [self.capacity, self.len, rows].map(|rows| rows * self.width);
        match &mut self.rows {
            Rows::F32(old) => append(values(k, v, &shape, Dtype::F32)?, old, stride, from..from + part),
            Rows::Bf16(old) => append(values(k, v, &shape, Dtype::Bf16)?, old, stride, from..from + part),
        }
        self.len += rows;
        Ok(())
    }

    /// Keeps some sequences and forgets the others.
    ///
    /// # Errors
    /// [`Error::Index`] unless the numbers rise and are those of sequences.
    pub fn keep(&mut self, sequences: &[usize]) -> Result<()> {
        for (place, &from) in sequences.iter().enumerate() {
            let rises = place == 0 || sequences[place - 1] < from;
            if from >= self.sequences || !rises {
                return Err(Error::Index { op: OP, what: "sequence", index: from, len: self.sequences });
            }
        }
        let (stride, used) = (self.capacity * self.width, self.len * self.width);
        match &mut self.rows {
            Rows::F32(rows) => rows.iter_mut().for_each(|rows| keep(rows, sequences, stride, used)),
            Rows::Bf16(rows) => rows.iter_mut().for_each(|rows| keep(rows, sequences, stride, used)),
        }
        self.sequences = sequences.len();
        Ok(())
    }
}

/// Keys and values of one dtype.
fn values<'a, T: Value>(k: &'a Tensor, v: &'a Tensor, shape: &[usize], dtype: Dtype) -> Result<[&'a [T]; 2]> {
    for (tensor, what) in [(k, "k"), (v, "v")] {
        tensor.expect_dims(OP, what, shape)?;
        tensor.expect_dtype(OP, what, dtype)?;
    }
    Ok([T::of(k)?, T::of(v)?])
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

/// Attention of one row for every sequence over all rows of its cache, its own among them.
///
/// The result of a sequence depends on that sequence alone, to the last bit.
///
/// # Shapes
/// - `q`: `[sequences, heads * head_dim]` of the cache's dtype
/// - returns the same; zeros where the cache is empty. Everything in between is f32
///
/// # Gradient
/// None: training sees whole sequences at once, with [`super::forward`].
///
/// # Errors
/// [`Error::Shape`] if `q` does not fit, [`Error::Dtype`] if it is of another dtype; [`Error::Setting`] if the cache was
/// made for other heads.
///
/// # Source
/// That of [`super::forward`].
pub fn step(q: &Tensor, cache: &Cache, shape: &Shape) -> Result<Tensor> {
    let (dim, group) = (shape.head_dim, shape.heads.checked_div(shape.kv_heads).unwrap_or(0));
    if dim == 0 || group * shape.kv_heads != shape.heads || shape.kv_heads * dim != cache.width {
        let what = format!("{shape:?} and a cache of rows of {} do not fit", cache.width);
        return Err(Error::Setting { op: OP, what });
    }
    let rows = [cache.sequences, shape.heads * dim];
    q.expect_dims(OP, "q", &rows)?;
    q.expect_dtype(OP, "q", cache.dtype())?;
    match &cache.rows {
        Rows::F32([k, v]) => {
            let q = q.f32()?;
            let mut out = Tensor::dirty(&rows);
            let heads = out.f32_mut()?.par_chunks_mut(dim).zip(q.par_chunks(dim)).enumerate();
            heads.for_each_init(Vec::new, |weights, (i, (out, q))| {
                out.fill(0.0);
                mix(q, cache.seen(k, i, shape), cache.seen(v, i, shape), cache.mixing(shape), weights, out);
            });
            Ok(out)
        }
        Rows::Bf16([k, v]) => {
            let q = q.bf16()?;
            let wide = || (Vec::new(), vec![0.0; dim], vec![0.0; dim]);
            Ok(Tensor::bf16_of(&rows, |out| {
                let heads = out.par_chunks_mut(dim).zip(q.par_chunks(dim)).enumerate();
                heads.for_each_init(wide, |(weights, wide_q, wide), (i, (out, q))| {
                    wide_q.iter_mut().zip(q).for_each(|(wide, q)| *wide = q.widen());
                    wide.fill(0.0);
                    let (k, v) = (cache.seen(k, i, shape), cache.seen(v, i, shape));
                    mix_bf16(wide_q, k, v, cache.mixing(shape), weights, wide);
                    round(wide, out);
                });
            }))
        }
    }
}

/// How far apart rows are, how many there are, and the factor of their products.
#[derive(Clone, Copy)]
struct Mixing {
    stride: usize,
    rows: usize,
    scale: f32,
}

impl Cache {
    fn dtype(&self) -> Dtype {
        match self.rows {
            Rows::F32(_) => Dtype::F32,
            Rows::Bf16(_) => Dtype::Bf16,
        }
    }

    fn mixing(&self, shape: &Shape) -> Mixing {
        Mixing { stride: self.width, rows: self.len, scale: shape.scale() }
    }

    /// The keys, or the values, that a query head of a sequence reads; `i` counts the heads of all sequences.
    fn seen<'a, T>(&self, rows: &'a [T], i: usize, shape: &Shape) -> &'a [T] {
        let (sequence, head) = (i / shape.heads, i % shape.heads);
        let begin = sequence * self.capacity * self.width + head / shape.group() * shape.head_dim;
        rows.get(begin..).unwrap_or_default()
    }
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
