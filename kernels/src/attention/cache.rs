//! Attention of one new row for every sequence over the rows before it: a decoder's step.

use rayon::prelude::*;

use super::{OP, Shape};
use crate::simd::{lanes, vectorised};
use crate::{Error, Result, Tensor};

/// Keys and values of sequences that have grown to one length, with room to grow further.
#[derive(Clone, Debug)]
pub struct Cache {
    keys: Tensor,   // [sequences, capacity, width]
    values: Tensor, // [sequences, capacity, width]
    sequences: usize,
    capacity: usize,
    len: usize,
    width: usize,
}

impl Cache {
    /// Room for so many sequences of so many rows.
    ///
    /// # Errors
    /// [`Error::Shape`] if that is more than memory can address.
    pub fn new(sequences: usize, capacity: usize, shape: &Shape) -> Result<Self> {
        let width = shape.kv_heads * shape.head_dim;
        let room = || Tensor::result(OP, &[sequences, capacity, width]);
        Ok(Self { keys: room()?, values: room()?, sequences, capacity, len: 0, width })
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
    /// - `k`, `v`: `[sequences * rows, kv_heads * head_dim]` f32, sequence after sequence
    ///
    /// # Errors
    /// [`Error::Shape`] if the rows do not fit; [`Error::Setting`] if there is no room for them.
    pub fn append(&mut self, k: &Tensor, v: &Tensor) -> Result<()> {
        let rows = k.rows().checked_div(self.sequences).unwrap_or(0);
        k.expect_shape(OP, "k", &[self.sequences * rows, self.width])?;
        v.expect_shape(OP, "v", k.shape())?;
        if self.len + rows > self.capacity {
            let what = format!("{} rows and {rows} more do not fit into {}", self.len, self.capacity);
            return Err(Error::Setting { op: OP, what });
        }
        let (from, part) = (self.len * self.width, rows * self.width);
        for (new, old) in [(k, &mut self.keys), (v, &mut self.values)] {
            let sequences = old.f32_mut()?.chunks_exact_mut((self.capacity * self.width).max(1));
            for (new, old) in new.f32()?.chunks_exact(part.max(1)).zip(sequences) {
                old[from..from + part].copy_from_slice(new);
            }
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
        for old in [&mut self.keys, &mut self.values] {
            let old = old.f32_mut()?;
            for (place, &from) in sequences.iter().enumerate() {
                old.copy_within(from * stride..from * stride + used, place * stride);
            }
        }
        self.sequences = sequences.len();
        Ok(())
    }
}

/// Attention of one row for every sequence over all rows of its cache, its own among them.
///
/// The result of a sequence depends on that sequence alone, to the last bit.
///
/// # Shapes
/// - `q`: `[sequences, heads * head_dim]` f32
/// - returns `[sequences, heads * head_dim]` f32; zeros where the cache is empty
///
/// # Gradient
/// None: training sees whole sequences at once, with [`super::forward`].
///
/// # Errors
/// [`Error::Shape`] if `q` does not fit; [`Error::Setting`] if the cache was made for other heads.
///
/// # Source
/// That of [`super::forward`].
pub fn step(q: &Tensor, cache: &Cache, shape: &Shape) -> Result<Tensor> {
    let (dim, group) = (shape.head_dim, shape.heads.checked_div(shape.kv_heads).unwrap_or(0));
    if dim == 0 || group * shape.kv_heads != shape.heads || shape.kv_heads * dim != cache.width {
        let what = format!("{shape:?} and a cache of rows of {} do not fit", cache.width);
        return Err(Error::Setting { op: OP, what });
    }
    q.expect_shape(OP, "q", &[cache.sequences, shape.heads * dim])?;
    let mut out = Tensor::zeros(q.shape());
    let (keys, values, queries) = (cache.keys.f32()?, cache.values.f32()?, q.f32()?);
    let heads = out.f32_mut()?.par_chunks_mut(dim).zip(queries.par_chunks(dim)).enumerate();
    heads.for_each_init(Vec::new, |weights, (i, (out, q))| {
        let (sequence, head) = (i / shape.heads, i % shape.heads);
        let begin = sequence * cache.capacity * cache.width + head / group * dim;
        weights.resize(cache.len, 0.0);
        if cache.len > 0 {
            mix(q, &keys[begin..], &values[begin..], cache.width, shape.scale(), weights, out);
        }
    });
    Ok(out)
}

vectorised! {
    /// `softmax(scale * q · kᵀ) · v` of one head, whose keys and values begin `stride` apart.
    fn mix(q: &[f32], keys: &[f32], values: &[f32], stride: usize, scale: f32, weights: &mut [f32], out: &mut [f32]) {
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
                *out = weight.mul_add(*v, *out);
            }
        }
    }
}
