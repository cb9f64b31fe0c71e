//! NF4: weights in four bits, the layout and the arithmetic of bitsandbytes.
//!
//! A weight is cut into blocks of 64 consecutive values. A block keeps its largest magnitude and, for every value, the
//! index of the nearest of 16 code values after division by that magnitude. With double quantisation the magnitudes
//! themselves are stored in eight bits, in blocks of 256, after their mean is taken off: 0.516 bytes a weight in all.
//!
//! # Source
//! Dettmers et al., "QLoRA", 2023. Codes and scales are compared with bitsandbytes' in the parity tests.

mod code;
mod cpu;
mod decode;
#[cfg(target_arch = "x86_64")]
mod few;
mod lookup;
mod product;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

pub use code::{CODE, dynamic_code};
pub use product::{linear, linear_backward_input};

use rayon::prelude::*;

use crate::{Dtype, Error, Result, Tensor, tensor::elements};

/// Values that share one magnitude.
pub const BLOCK: usize = 64;
/// Magnitudes that share one scale under double quantisation.
pub const NESTED_BLOCK: usize = 256;

/// The largest magnitudes of the blocks.
#[derive(Clone, Debug, PartialEq)]
pub enum Magnitudes {
    /// One 32-bit float a block.
    Plain(Vec<f32>),
    /// Double quantisation: `magnitude = dynamic_code[codes[block]] * scales[block / 256] + offset`.
    Double {
        /// One code a block.
        codes: Vec<u8>,
        /// One scale for every 256 blocks.
        scales: Vec<f32>,
        /// The mean of all magnitudes.
        offset: f32,
    },
}

impl Magnitudes {
    fn blocks(&self) -> usize {
        match self {
            Self::Plain(values) => values.len(),
            Self::Double { codes, .. } => codes.len(),
        }
    }

    /// The magnitude of one block.
    #[inline(always)]
    fn get(&self, block: usize) -> f32 {
        match self {
            Self::Plain(values) => values[block],
            Self::Double { codes, scales, offset } => {
                doubly_quantised(codes[block], scales[block / NESTED_BLOCK], *offset, dynamic_code())
            }
        }
    }

    /// The magnitudes of neighbouring blocks. A function of its own: with the instructions of its callers it would become
    /// gathers, which take longer.
    #[inline(never)]
    fn read(&self, first: usize, values: &mut [f32]) {
        match self {
            Self::Plain(all) => values.copy_from_slice(&all[first..first + values.len()]),
            Self::Double { codes, scales, offset } => {
                let (dynamic, mut block, mut values) = (dynamic_code(), first, values);
                // As many at a time as share a scale.
                while !values.is_empty() {
                    let here = (NESTED_BLOCK - block % NESTED_BLOCK).min(values.len());
                    let (now, later) = values.split_at_mut(here);
                    let scale = scales[block / NESTED_BLOCK];
                    for (value, &code) in now.iter_mut().zip(&codes[block..block + here]) {
                        *value = doubly_quantised(code, scale, *offset, dynamic);
                    }
                    (block, values) = (block + here, later);
                }
            }
        }
    }
}

/// The product comes first, then the sum, each rounded: the bits are bitsandbytes'.
#[inline(always)]
fn doubly_quantised(code: u8, scale: f32, offset: f32, dynamic: &[f32; 256]) -> f32 {
    dynamic[usize::from(code)] * scale + offset
}

/// A weight in four bits.
#[derive(Clone, Debug, PartialEq)]
pub struct Nf4Weight {
    shape: Vec<usize>,
    codes: Vec<u8>,
    magnitudes: Magnitudes,
}

impl Nf4Weight {
    /// A weight from stored parts.
    ///
    /// # Shapes
    /// - `codes`: two values a byte, the earlier one in the high nibble; an odd last nibble is ignored
    /// - `magnitudes`: one for every 64 values, the last block may be short
    ///
    /// # Errors
    /// [`Error::Shape`] if a part is too short or too long for the shape. Magnitudes are not looked into: one that is not
    /// finite makes NaN or infinities of its block.
    pub fn from_parts(shape: &[usize], codes: Vec<u8>, magnitudes: Magnitudes) -> Result<Self> {
        let n =
            elements(shape).ok_or_else(|| Error::shape("nf4", "weight", shape, "no more than memory can address"))?;
        if codes.len() != n.div_ceil(2) {
            return Err(Error::shape("nf4", "codes", &[codes.len()], format!("[{}]", n.div_ceil(2))));
        }
        let blocks = n.div_ceil(BLOCK);
        if magnitudes.blocks() != blocks {
            return Err(Error::shape("nf4", "magnitudes", &[magnitudes.blocks()], format!("[{blocks}]")));
        }
        if let Magnitudes::Double { scales, .. } = &magnitudes
            && scales.len() != blocks.div_ceil(NESTED_BLOCK)
        {
            let expected = format!("[{}]", blocks.div_ceil(NESTED_BLOCK));
            return Err(Error::shape("nf4", "nested scales", &[scales.len()], expected));
        }
        Ok(Self { shape: shape.to_vec(), codes, magnitudes })
    }

    /// The shape of the weight that the codes stand for.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Two codes a byte.
    #[must_use]
    pub fn codes(&self) -> &[u8] {
        &self.codes
    }

    /// The magnitudes of the blocks.
    #[must_use]
    pub fn magnitudes(&self) -> &Magnitudes {
        &self.magnitudes
    }

    /// The memory that the parts take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.codes.len()
            + match &self.magnitudes {
                Magnitudes::Plain(values) => 4 * values.len(),
                Magnitudes::Double { codes, scales, .. } => codes.len() + 4 * scales.len() + 4,
            }
    }
}

/// How decoded values are rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Not at all.
    F32,
    /// To bfloat16, as a checkpoint in bfloat16 is decoded.
    Bf16,
    /// To half precision, as a checkpoint in half precision is decoded.
    F16,
}

/// Quantises a weight; values of any float type are read as 32-bit floats.
///
/// # Shapes
/// - `weight`: any shape; blocks follow the row-major order and may cross rows
///
/// # Errors
/// [`Error::Dtype`] for bytes; [`Error::Setting`] for a value that is not finite, which no code stands for.
///
/// # Source
/// See the module; code 7 (zero) where a whole block is zero.
pub fn quantize(weight: &Tensor, double: bool) -> Result<Nf4Weight> {
    if weight.dtype() == Dtype::U8 {
        return Err(Error::Dtype { op: "nf4", what: "weight", found: weight.dtype(), expected: Dtype::F32 });
    }
    let values = weight.to_f32();
    if let Some(at) = values.par_iter().position_first(|v| !v.is_finite()) {
        return Err(Error::Setting { op: "nf4", what: format!("value {at} of the weight is {}", values[at]) });
    }
    let (codes, magnitudes) = cpu::quantize(&values);
    let magnitudes = if double { cpu::quantize_magnitudes(&magnitudes) } else { Magnitudes::Plain(magnitudes) };
    Nf4Weight::from_parts(weight.shape(), codes, magnitudes)
}

/// Decodes a weight into 32-bit floats, rounded as asked: `value = round(code * magnitude)`.
///
/// # Shapes
/// - returns the weight's shape, f32
///
/// # Errors
/// None today; the parts were checked when the weight was made.
pub fn dequantize(weight: &Nf4Weight, rounding: Rounding) -> Result<Tensor> {
    let mut values = Tensor::dirty(&weight.shape);
    decode::all(weight, rounding, values.f32_mut()?);
    Ok(values)
}

/// Decodes a weight into values of a float type: `value = round(code * magnitude)`.
///
/// # Shapes
/// - returns the weight's shape, of that dtype
///
/// # Errors
/// [`Error::Dtype`] for bytes.
pub fn dequantize_to(weight: &Nf4Weight, dtype: Dtype) -> Result<Tensor> {
    match dtype {
        Dtype::F32 => dequantize(weight, Rounding::F32),
        Dtype::Bf16 => Ok(Tensor::bf16_of(&weight.shape, |values| decode::all(weight, Rounding::Bf16, values))),
        Dtype::F16 => Ok(Tensor::f16_of(&weight.shape, |values| decode::all(weight, Rounding::F16, values))),
        Dtype::U8 => Err(Error::Dtype { op: "nf4", what: "the result", found: dtype, expected: Dtype::F32 }),
    }
}
