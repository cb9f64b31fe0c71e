//! A decoder's cache.
//!
//! Sequences that are forgotten leave their place unused: what stays is not moved, only the list of places is another.
//! So there is nothing to copy and no order in which to copy it.

use std::sync::Arc;

use super::super::{OP, Shape};
use super::{WIDEST, work::THREADS};
use crate::cuda::{Arg, Array, Geometry, Source, Stream};
use crate::{Dtype, Result, Tensor};

const KERNELS: Source = Source { name: "attention_cache", text: include_str!("cache.cu") };

/// Rows of the cache that a block reads, as in the kernels: part of the order of summation.
const PART: usize = 256;
/// Features that a lane holds.
const EIGHT: usize = 8;
/// Heads that a block computes where as many read the same keys, as in the names of the kernels.
const HEADS: usize = 4;

/// Keys and values, both `[places, capacity, width]`.
#[derive(Clone, Debug)]
pub(in super::super) struct Rows {
    keys: Tensor,
    values: Tensor,
    /// The place of each sequence, here and on the device.
    places: Vec<u32>,
    list: Arc<Array>,
    on: Stream,
}

impl Rows {
    /// Room for some sequences of so many rows.
    pub(in super::super) fn new(on: &Stream, shape: [usize; 3], dtype: Dtype) -> Result<Self> {
        Arg::count(OP, shape[0])?;
        let places: Vec<u32> = (0..shape[0] as u32).collect();
        let list = Arc::new(on.upload(&places)?);
        Ok(Self { keys: on.result(&shape, dtype)?, values: on.result(&shape, dtype)?, places, list, on: on.clone() })
    }

    pub(in super::super) fn dtype(&self) -> Dtype {
        self.keys.dtype()
    }

    /// The keys, for their place.
    pub(in super::super) fn keys(&self) -> &Tensor {
        &self.keys
    }

    /// Writes rows of all sequences behind the `from` that they have.
    pub(in super::super) fn append(&mut self, k: &Tensor, v: &Tensor, from: usize) -> Result<()> {
        let (sequences, size) = (self.places.len(), self.dtype().bytes());
        let width = k.cols();
        let each = k.len().checked_div(sequences).unwrap_or(0) * size;
        let stride = self.keys.shape()[1] * width * size;
        let (unit, kernel) = if (width * size).is_multiple_of(16) { (16, "append_16") } else { (2, "append_2") };
        let units = |bytes: usize| Arg::U64((bytes / unit) as u64);
        let n = sequences * each / unit;
        if n == 0 {
            return Ok(());
        }
        let args = [
            k.arg()?,
            v.arg()?,
            self.keys.arg_mut()?,
            self.values.arg_mut()?,
            self.list.arg(),
            units(sequences * each),
            units(each),
            units(stride),
            units(from * width * size),
        ];
        let blocks = Geometry::elements(n);
        let both = Geometry { grid: [blocks.grid[0], 2, 1], ..blocks };
        // SAFETY: k and v hold `each` bytes for every sequence, which its place has room for behind `from` rows.
        unsafe { self.on.launch(&KERNELS, kernel, both, &args) }
    }

    /// Keeps some sequences, whose numbers rise.
    pub(in super::super) fn keep(&mut self, sequences: &[usize]) -> Result<()> {
        self.places = sequences.iter().map(|&i| self.places[i]).collect();
        self.list = Arc::new(self.on.upload(&self.places)?);
        Ok(())
    }

    /// Attention of a row of every sequence over the first rows of its cache.
    pub(in super::super) fn step(&self, q: &Tensor, shape: &Shape, rows: usize) -> Result<Tensor> {
        let features = shape.head_dim;
        if features > WIDEST {
            return Err(super::too_wide(features));
        }
        let mut out = self.on.result(q.shape(), self.dtype())?;
        if rows == 0 || out.is_empty() {
            self.on.fill_zero(&mut out)?;
            return Ok(out);
        }
        let (together, count) = (if shape.group().is_multiple_of(HEADS) { HEADS } else { 1 }, rows.div_ceil(PART));
        let all = self.places.len() * shape.heads;
        let parts =
            if count > 1 { Some(self.on.scratch(all * count * (features + 2) * size_of::<f32>())?) } else { None };
        let lanes = features.div_ceil(EIGHT).next_power_of_two();
        let args = [
            q.arg()?,
            self.keys.arg()?,
            self.values.arg()?,
            self.list.arg(),
            out.arg_mut()?,
            parts.as_ref().map_or(Arg::NULL, Array::arg),
            Arg::count(OP, shape.heads)?,
            Arg::count(OP, shape.kv_heads)?,
            Arg::count(OP, features)?,
            Arg::U32(lanes as u32),
            Arg::U64(self.keys.shape()[1] as u64),
            Arg::count(OP, rows)?,
            Arg::F32(shape.scale()),
        ];
        let [step, step_together, combine] = match self.dtype() {
            Dtype::Bf16 => ["step_bf16_1", "step_bf16_4", "combine_bf16"],
            _ => ["step_f32_1", "step_f32_4", "combine_f32"],
        };
        let step = if together == HEADS { step_together } else { step };
        let blocks = Geometry::blocks(all / together, THREADS);
        let blocks = Geometry { grid: [blocks.grid[0], Geometry::blocks(count, 1).grid[0], 1], ..blocks };
        // SAFETY: q and the result are [sequences, heads * features], every sequence has a place among the keys and
        // values that holds as many rows, and the parts are [sequences * heads, count, 2 + features].
        unsafe { self.on.launch(&KERNELS, step, blocks, &args)? };
        if let Some(parts) = parts {
            let args = [parts.arg(), out.arg_mut()?, Arg::count(OP, features)?, Arg::count(OP, count)?];
            let blocks = Geometry::blocks(all, WIDEST as u32);
            // SAFETY: as above.
            unsafe { self.on.launch(&KERNELS, combine, blocks, &args)? };
        }
        Ok(out)
    }
}
