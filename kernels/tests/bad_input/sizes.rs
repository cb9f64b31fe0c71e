//! Extents from which every operand is made, so that operands that fit together can be had in any size.

use mllm4rec_kernels::fp8::{self, Fp8Rows};
use mllm4rec_kernels::nf4::{self, Nf4Weight};
use mllm4rec_kernels::rope::{Config, Scaling, Tables};
use mllm4rec_kernels::{Result, Segments, Tensor, attention};

/// The extents that the shapes of all operands are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Rows, tokens.
    pub(crate) n: usize,
    /// Columns of the input.
    pub(crate) d: usize,
    /// Columns of the output, classes, rows of a table.
    pub(crate) m: usize,
    /// Rank of an update, size of a state, features of half a head.
    pub(crate) r: usize,
}

impl Sizes {
    /// All different, so that no two of them can be mistaken for each other.
    pub(crate) const DIFFERENT: Self = Self { n: 7, d: 4, m: 5, r: 3 };

    /// Empty sequences, a long one, and, if there are rows enough, a last one of a single row.
    pub(crate) fn segments(&self) -> Segments {
        let last = usize::from(self.n > 1);
        Segments::from_lengths([0, self.n - last, 0, last])
    }

    /// As many sequences of keys over `m` rows: where there are queries, keys, both or none.
    pub(crate) fn key_segments(&self) -> Segments {
        let third = usize::from(self.m > 1);
        Segments::from_lengths([0, self.m - third, third, 0])
    }

    /// An id below `m` for every row.
    pub(crate) fn ids(&self) -> Vec<u32> {
        (0..self.n).map(|i| (i % self.m.max(1)) as u32).collect()
    }

    pub(crate) fn keys(&self) -> Vec<u64> {
        (0..self.n as u64).collect()
    }

    pub(crate) fn heads(&self) -> attention::Shape {
        attention::Shape { heads: 4, kv_heads: 2, head_dim: self.r }
    }

    pub(crate) fn rotation(&self) -> Result<Tables> {
        Tables::new(&Config { head_dim: 2 * self.r, theta: 1e4, scaling: Scaling::None }, self.m)
    }

    pub(crate) fn eight_bits(&self) -> Result<Fp8Rows> {
        fp8::quantize_weight(&noise(&[self.m, self.d]))
    }

    pub(crate) fn four_bits(&self) -> Result<Nf4Weight> {
        nf4::quantize(&noise(&[self.m, self.d]), true)
    }

    /// The parameters of a recurrence in the order of its struct.
    pub(crate) fn recurrence(&self) -> Vec<Tensor> {
        let Self { d, r, .. } = *self;
        let shapes: [&[usize]; 8] = [&[3, r], &[r, d], &[r, d], &[r], &[r], &[d, r], &[d, r], &[d]];
        shapes.into_iter().map(noise).collect()
    }
}

/// Values between 0.1 and 1, which suit every operand.
pub(crate) fn noise(shape: &[usize]) -> Tensor {
    let values = (0..shape.iter().product::<usize>()).map(|i| 0.55 + 0.45 * (i as f32 * 1.7).sin()).collect();
    Tensor::from_f32(shape, values).expect("as many values as the shape has")
}
