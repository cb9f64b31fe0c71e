//! Causal attention of packed sequences in bfloat16.

use std::ops::Range;

use anyhow::Result;
use kernels::attention::{self, Mask, Operands, Saved, Shape};
use kernels::{Device, Segments, Tensor};

use super::super::noise;
use super::reference::{Host, dot, relative, sample};
use super::{Ready, on_device};

/// Queries, keys and values.
pub(super) struct Attention {
    qkv: [Tensor; 3], // [rows, heads * head_dim]
    segments: Segments,
    shape: Shape,
}

impl Attention {
    pub(super) fn new(lengths: &[usize], heads: usize, head_dim: usize, device: &Device) -> Result<Self> {
        let segments = Segments::from_lengths(lengths.iter().copied());
        let shape = [segments.rows(), heads * head_dim];
        let operand = |seed| device.put(&noise::tensor(seed, &shape, 1.0)?.to_bf16()).map_err(anyhow::Error::from);
        let qkv = [operand(1)?, operand(2)?, operand(3)?];
        Ok(Self { qkv, segments, shape: Shape { heads, kv_heads: heads, head_dim } })
    }

    fn operands(&self) -> Operands<'_> {
        let [q, k, v] = &self.qkv;
        Operands::new(q, k, v, Mask::Causal(&self.segments))
    }

    fn forward(&self) -> Result<Tensor> {
        Ok(attention::forward_bf16(&self.operands(), &self.shape)?)
    }

    /// A row of one head in float64.
    fn wanted(&self, [q, k, v]: &[Host; 3], first: usize, row: usize, head: usize) -> Vec<f64> {
        let width = self.shape.head_dim;
        let part = |of: &Host, row: usize| of.row(row)[head * width..][..width].to_vec();
        let query = part(q, row);
        let scores = (first..=row).map(|key| dot(&query, &part(k, key)) / (width as f64).sqrt());
        let scores: Vec<f64> = scores.collect();
        let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let mut out = vec![0.0; width];
        for (key, weight) in weights.iter().enumerate() {
            let value = part(v, first + key);
            out.iter_mut().zip(value).for_each(|(out, value)| *out += weight / sum * f64::from(value));
        }
        out
    }
}

impl Ready for Attention {
    fn run(&mut self, _turn: usize) -> Result<()> {
        self.forward().map(drop)
    }

    fn error(&mut self) -> Result<Option<f64>> {
        let found = self.forward()?;
        on_device(&found)?;
        let found = Host::of(&found);
        let qkv = self.qkv.each_ref().map(Host::of);
        let mut pairs = Vec::new();
        for range in self.segments.ranges() {
            for (i, at) in sample(range.len(), 5).into_iter().enumerate() {
                let (row, head, width) = (range.start + at, i % self.shape.heads, self.shape.head_dim);
                let wanted = self.wanted(&qkv, range.start, row, head);
                pairs.extend(found.row(row)[head * width..][..width].iter().copied().zip(wanted));
            }
        }
        Ok(Some(relative(pairs)))
    }
}

/// The gradient of the same, from what a forward has saved.
pub(super) struct Gradient {
    forward: Attention,
    out: Tensor,   // [rows, heads * head_dim]
    d_out: Tensor, // [rows, heads * head_dim]
    saved: Saved,
}

impl Gradient {
    pub(super) fn new(lengths: &[usize], heads: usize, head_dim: usize, device: &Device) -> Result<Self> {
        let forward = Attention::new(lengths, heads, head_dim, device)?;
        let (out, saved) = attention::forward_bf16_saved(&forward.operands(), &forward.shape)?;
        let d_out = device.put(&noise::tensor(4, out.shape(), 1.0)?.to_bf16())?;
        Ok(Self { forward, out, d_out, saved })
    }

    fn backward(&self) -> Result<[Tensor; 3]> {
        let Self { forward, out, d_out, saved } = self;
        Ok(attention::backward_bf16(d_out, &forward.operands(), out, saved, &forward.shape, None)?.into())
    }

    /// The gradients of one head in one sequence in float64, row by row.
    fn wanted(&self, range: &Range<usize>, head: usize) -> [Vec<f64>; 3] {
        let width = self.forward.shape.head_dim;
        let [q, k, v] = self.forward.qkv.each_ref().map(Host::of);
        let d_out = Host::of(&self.d_out);
        let part = |of: &Host, row: usize| of.row(range.start + row)[head * width..][..width].to_vec();
        let [q, k, v, d_out] =
            [&q, &k, &v, &d_out].map(|of| (0..range.len()).map(|row| part(of, row)).collect::<Vec<_>>());
        let scale = 1.0 / (width as f64).sqrt();
        let mut gradients: [Vec<f64>; 3] = std::array::from_fn(|_| vec![0.0; range.len() * width]);
        for row in 0..range.len() {
            let mut weights: Vec<f64> = k[..=row].iter().map(|k| (scale * dot(&q[row], k)).exp()).collect();
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
            let through: Vec<f64> = v[..=row].iter().map(|v| dot(&d_out[row], v)).collect();
            let mean: f64 = weights.iter().zip(&through).map(|(weight, d)| weight * d).sum();
            for (key, (weight, d)) in weights.iter().zip(&through).enumerate() {
                let d_score = weight * (d - mean) * scale;
                let parts = [(row, d_score, &k[key]), (key, d_score, &q[row]), (key, *weight, &d_out[row])];
                for (gradient, (to, factor, values)) in gradients.iter_mut().zip(parts) {
                    let to = gradient[to * width..][..width].iter_mut();
                    to.zip(values).for_each(|(to, value)| *to += factor * f64::from(*value));
                }
            }
        }
        gradients
    }
}

impl Ready for Gradient {
    fn run(&mut self, _turn: usize) -> Result<()> {
        self.backward().map(drop)
    }

    /// Of the last head in the shortest sequence.
    fn error(&mut self) -> Result<Option<f64>> {
        let found = self.backward()?;
        found.iter().try_for_each(on_device)?;
        let (head, width) = (self.forward.shape.heads - 1, self.forward.shape.head_dim);
        let Some(range) = self.forward.segments.ranges().min_by_key(Range::len) else { return Ok(None) };
        let mut pairs = Vec::new();
        for (found, wanted) in found.iter().map(Host::of).zip(self.wanted(&range, head)) {
            let found = range.clone().flat_map(|row| found.row(row)[head * width..][..width].to_vec());
            pairs.extend(found.zip(wanted));
        }
        Ok(Some(relative(pairs)))
    }
}
