//! The linear layer with a four-bit weight, decoded tile by tile.
//!
//! Every product has the bits of the same product with the decoded weight.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::few;
use super::{Nf4Weight, Rounding, cuda, decode};
use crate::cuda::Stream;
use crate::gemm::bf16::{Rows, TILE, multiply_block};
use crate::gemm::cpu::{DEPTH, MatMut, MatRef, Onto, PANEL, Packed, sgemm_packed};
use crate::memory::Memory;
use crate::{Dtype, Result, Tensor};

/// Rows of a weight that are decoded at a time: with 4,096 columns, half of a second-level cache.
const ROWS: usize = PANEL;
/// Columns of a weight that a task of the backward multiplies.
const COLS: usize = 4 * PANEL;
/// With so few rows of `x` a weight is decoded in registers, once for every [`few::MOST`], where the processor can.
#[cfg(target_arch = "x86_64")]
const FEW: usize = 16;

/// Applies a frozen four-bit weight: `y = x · Wᵀ`, decoding tile by tile; never holds the whole weight decoded.
///
/// # Shapes
/// - `x`: `[n, d_in]` f32 or bf16
/// - `weight`: `[d_out, d_in]`
/// - `rounding`: of the decoded values; those beside a bf16 `x` are bf16 in any case
/// - returns `[n, d_out]` of the dtype of `x`, summed in f32
///
/// # Order of sums
/// On the host that of the product with the decoded weight. On a device it depends on the shape of the weight and on which way
/// the product takes: in bfloat16 up to 16 rows are summed alike, up to 128, up to 256, and more; in f32 up to four, and more.
/// Beyond their number, the other rows do not matter. Two calls give the same bits, unless one finds so little memory that the
/// weight cannot be decoded at once.
///
/// # Gradient
/// [`linear_backward_input`]; the weight is frozen and receives none.
///
/// # Errors
/// [`crate::Error::Shape`] if the inner dimensions differ; [`crate::Error::Dtype`] unless `x` is f32 or bf16;
/// [`crate::Error::Place`] unless `x` is where the weight is.
pub fn linear(x: &Tensor, weight: &Nf4Weight, rounding: Rounding) -> Result<Tensor> {
    let [d_out, d_in] = weight.dimensions()?;
    let n = x.rows();
    if let Some(on) = place("x", x, [d_in, d_out], weight)? {
        return cuda::linear(&on, x, weight, rounding, None);
    }
    let mut y = Tensor::result("nf4", &[n, d_out])?;
    let d_out = if n == 0 { 0 } else { d_out }; // of no rows nothing is decoded
    let c = MatMut::new(y.f32_mut()?, n, d_out);
    if x.dtype() == Dtype::Bf16 {
        narrow(x.bf16()?, weight, d_in, c);
        return Ok(y.to_bf16());
    }
    let x = MatRef::new(x.f32()?, n, d_in);
    c.tiles(std::iter::once(0..n), ROWS).into_par_iter().enumerate().for_each_init(
        Scratch::default,
        |scratch, (i, c)| {
            let rows = i * ROWS..i * ROWS + c.cols();
            let tile = scratch.values.decode(weight, rounding, &rows, &(0..d_in), d_in);
            scratch.packed.pack(tile.t());
            sgemm_packed(1.0, x, &scratch.packed, Onto::Nothing, c);
        },
    );
    Ok(y)
}

/// The product with rows in bfloat16.
fn narrow(x: &[bf16], weight: &Nf4Weight, d_in: usize, c: MatMut) {
    let n = c.rows();
    let tiles = c.tiles(std::iter::once(0..n), TILE);
    #[cfg(target_arch = "x86_64")]
    if (1..=FEW).contains(&n) && few::can_multiply(d_in) {
        let bands: Vec<few::Rows> = x.chunks(few::MOST * d_in).map(|x| few::Rows::new(x, d_in)).collect();
        return tiles.into_par_iter().enumerate().for_each(|(i, mut c)| {
            for (band, x) in bands.iter().enumerate() {
                let (rows, cols) = (band * few::MOST..(band * few::MOST + x.len()), 0..c.cols());
                // SAFETY: the processor was asked for the instructions.
                unsafe { x.multiply(weight, i * TILE, c.sub(rows, cols)) };
            }
        });
    }
    tiles.into_par_iter().enumerate().for_each_init(Memory::new, |tile: &mut Memory<bf16>, (i, c)| {
        tile.resize_dirty(c.cols() * d_in);
        decode::range(weight, Rounding::Bf16, i * TILE * d_in, tile);
        multiply_block(Rows::new(x, d_in), Rows::new(tile, d_in), c);
    });
}

/// The gradient of [`linear`] with respect to its input: `dx = dy · W`.
///
/// # Shapes
/// - `dy`: `[n, d_out]` f32 or bf16
/// - returns `[n, d_in]` of the dtype of `dy`, computed in f32
///
/// # Order of sums
/// As that of [`linear`]; on a device up to 128 rows in bfloat16 are summed alike, up to 256, and more.
///
/// # Errors
/// As [`linear`].
pub fn linear_backward_input(dy: &Tensor, weight: &Nf4Weight, rounding: Rounding) -> Result<Tensor> {
    let [d_out, d_in] = weight.dimensions()?;
    let n = dy.rows();
    if let Some(on) = place("dy", dy, [d_out, d_in], weight)? {
        return cuda::linear_backward_input(&on, dy, weight, rounding, None);
    }
    if dy.dtype() == Dtype::Bf16 {
        let wide = Tensor::from_f32(dy.shape(), dy.to_f32())?;
        return Ok(linear_backward_input(&wide, weight, Rounding::Bf16)?.to_bf16());
    }
    let mut dx = Tensor::result("nf4", &[n, d_in])?;
    if d_out == 0 {
        dx.f32_mut()?.fill(0.0);
    }
    let dy = MatRef::new(dy.f32()?, n, d_out);
    let parts = MatMut::new(dx.f32_mut()?, n, d_in).tiles(std::iter::once(0..n), COLS);
    parts.into_par_iter().enumerate().for_each_init(Scratch::default, |scratch, (i, mut dx)| {
        let cols = i * COLS..i * COLS + dx.cols();
        for start in (0..d_out).step_by(DEPTH) {
            let rows = start..(start + DEPTH).min(d_out);
            scratch.packed.pack(scratch.values.decode(weight, rounding, &rows, &cols, d_in));
            let onto = if start == 0 { Onto::Nothing } else { Onto::Result };
            sgemm_packed(1.0, dy.cols(rows), &scratch.packed, onto, dx.sub(0..n, 0..cols.len()));
        }
    });
    Ok(dx)
}

/// A task's memory.
#[derive(Default)]
struct Scratch {
    values: Values,
    packed: Packed,
}

/// Decoded values.
#[derive(Default)]
struct Values(Memory<f32>);

impl Values {
    /// A rectangle of the weight.
    fn decode(
        &mut self,
        weight: &Nf4Weight,
        rounding: Rounding,
        rows: &Range<usize>,
        cols: &Range<usize>,
        d_in: usize,
    ) -> MatRef<'_> {
        self.0.resize_dirty(rows.len() * cols.len());
        for (row, values) in rows.clone().zip(self.0.chunks_exact_mut(cols.len().max(1))) {
            decode::range(weight, rounding, row * d_in + cols.start, values);
        }
        MatRef::new(&self.0, rows.len(), cols.len())
    }
}

/// Checks what a weight is multiplied with, and says on which device both are.
fn place(what: &'static str, x: &Tensor, [inner, outer]: [usize; 2], weight: &Nf4Weight) -> Result<Option<Stream>> {
    x.expect_dims("nf4", what, &[x.rows(), inner])?;
    if x.dtype() != Dtype::Bf16 {
        x.expect_dtype("nf4", what, Dtype::F32)?;
    }
    Tensor::addressable("nf4", &[x.rows(), outer])?;
    Stream::of("nf4", &[("weight", weight.place()), (what, x)])
}
