//! Causal attention of packed sequences in bfloat16.

use anyhow::Result;
use kernels::attention::{self, Mask, Operands, Shape};
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

    fn forward(&self) -> Result<Tensor> {
        let [q, k, v] = &self.qkv;
        Ok(attention::forward_bf16(&Operands::new(q, k, v, Mask::Causal(&self.segments)), &self.shape)?)
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
