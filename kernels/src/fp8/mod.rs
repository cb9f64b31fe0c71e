//! FP8: rows of numbers in eight bits, each row with a factor of its own, and products of them.
//!
//! A number is e4m3: a sign, four bits of exponent, three of mantissa, up to 448, no infinities. A row is divided by its factor, its
//! largest magnitude / 448, so that the largest becomes 448; what a code stands for times the factor is nearly the number. A weight
//! is cut once, what it is multiplied with at every product.
//!
//! It is for products that are not trained: there is no gradient. Half the bytes of bfloat16, and up to twice its speed on cards
//! that multiply such numbers (compute capability 8.9 and later), which keep fewer bits of their sums. Earlier ones multiply the
//! bfloat16 that codes stand for, processors 32-bit floats: that is exact but for the order of sums, and not faster than without.
//!
//! What is not finite in a row of `x` reaches that row of the result; a weight has to be finite.
//!
//! # Source
//! Micikevicius et al., "FP8 Formats for Deep Learning", 2022; factors by row as in Llama 3 (Dubey et al., 2024, section 6.2).

mod code;
mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub(crate) use code::decode;

use crate::cuda::Stream;
use crate::{Device, Dtype, Error, Result, Tensor, gemm};

const OP: &str = "fp8";

/// The largest number that a code stands for.
pub const MOST: f32 = 448.0;
/// Codes of a row are a multiple of so many, and rows of a weight on a device: what is beyond its numbers stands for zeros.
const PIECE: usize = 16;
/// No factor is smaller, so that its reciprocal is a number.
const LEAST_FACTOR: f32 = 1.0 / (1u128 << 120) as f32;

/// Rows of numbers in eight bits, in the memory of the host or of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Fp8Rows {
    /// `[rows, cols]`, the cols up to a multiple of 16, the rows of a weight on a device too.
    codes: Tensor,
    /// `[rows]` f32; not a number for a row that is not finite.
    factors: Tensor,
    cols: usize,
}

impl Fp8Rows {
    /// Rows and columns.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        [self.factors.len(), self.cols]
    }

    /// The memory that they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.codes.len() + 4 * self.factors.len()
    }

    /// Those of a weight in the memory of a device; shared where they are there already.
    ///
    /// # Errors
    /// [`Error::Memory`] if there is no room.
    pub fn on(&self, device: &Device) -> Result<Self> {
        let moved = Self { codes: device.put(&self.codes)?, factors: device.put(&self.factors)?, cols: self.cols };
        device.stream().map_or(Ok(moved.clone()), |on| cuda::padded(on, moved))
    }

    /// Codes of a row, those of no number included.
    fn stride(&self) -> usize {
        self.codes.shape()[1]
    }

    /// The codes, wherever they are: they tell the place.
    pub(crate) fn place(&self) -> &Tensor {
        &self.codes
    }
}

/// Cuts the rows of a matrix to eight bits, where it is. The bits of finite rows are the same in every place.
///
/// # Shapes
/// - `x`: `[rows, cols]` f32 or bf16, any number of leading dimensions
///
/// # Gradient
/// None.
///
/// # Errors
/// [`Error::Dtype`] for other dtypes; [`Error::Memory`] if a device has no room.
pub fn quantize(x: &Tensor) -> Result<Fp8Rows> {
    x.expect_floats(OP, "x")?;
    if let Some(on) = x.stream() {
        return cuda::quantize(&on, x);
    }
    let extents @ [rows, cols] = [x.rows(), x.cols()];
    let (codes, factors) = match x.dtype() {
        Dtype::Bf16 => cpu::quantize(x.bf16()?, extents, |v| v.to_f32()),
        _ => cpu::quantize(x.f32()?, extents, |v| *v),
    };
    let codes = Tensor::from_u8(&[rows, cols.next_multiple_of(PIECE)], codes)?;
    Ok(Fp8Rows { codes, factors: Tensor::from_f32(&[rows], factors)?, cols })
}

/// [`quantize`] for a weight, which has to be finite.
///
/// # Errors
/// [`Error::Setting`] for a row with a value that is not finite; else as [`quantize`].
pub fn quantize_weight(weight: &Tensor) -> Result<Fp8Rows> {
    let rows = quantize(weight)?;
    let factors = rows.factors.to_host()?;
    match factors.f32()?.iter().position(|factor| !factor.is_finite()) {
        Some(row) => Err(Error::Setting { op: OP, what: format!("row {row} of the weight is not finite") }),
        None => weight.stream().map_or(Ok(rows.clone()), |on| cuda::padded(&on, rows)),
    }
}

/// `x · Wᵀ + bias`, of `x` cut to eight bits row by row, summed in f32 or by a card of its own way.
///
/// # Shapes
/// - `x`: `[n, d_in]` f32 or bf16, any number of leading dimensions
/// - `weight`: `[d_out, d_in]`
/// - `bias`: `[d_out]` f32
/// - returns `[n, d_out]` of the dtype of `x`
///
/// # Gradient
/// None.
///
/// # Errors
/// [`Error::Shape`] if the inner dimensions differ; [`Error::Dtype`] for other dtypes; [`Error::Place`] unless both are in one
/// place.
pub fn linear(x: &Tensor, weight: &Fp8Rows, bias: Option<&Tensor>) -> Result<Tensor> {
    let [d_out, d_in] = weight.shape();
    x.expect_floats(OP, "x")?;
    x.expect_dims(OP, "x", &[x.rows(), d_in])?;
    Tensor::addressable(OP, &[x.rows(), d_out])?;
    let mut operands = vec![("weight", weight.place()), ("x", x)];
    if let Some(bias) = bias {
        bias.expect_shape(OP, "bias", &[d_out])?;
        operands.push(("bias", bias));
    }
    if let Some(on) = Stream::of(OP, &operands)? {
        return cuda::linear(&on, x, weight, bias, None);
    }
    let mut y = cpu::linear(&quantize(x)?, weight)?;
    if let Some(bias) = bias {
        gemm::add_bias(&mut y, bias)?;
    }
    if x.dtype() == Dtype::F32 { Ok(y) } else { Ok(y.to_bf16()) }
}
