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
pub(crate) mod cuda;
mod decode;
#[cfg(target_arch = "x86_64")]
mod few;
mod lookup;
mod product;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;
mod weight;

pub use code::{CODE, dynamic_code};
pub use product::{linear, linear_backward_input};
pub use weight::{Magnitudes, Nf4Weight};

use rayon::prelude::*;

use crate::{Dtype, Error, Result, Tensor};

/// Values that share one magnitude.
pub const BLOCK: usize = 64;
/// Magnitudes that share one scale under double quantisation.
pub const NESTED_BLOCK: usize = 256;
/// The memory of a band of decoded rows where a card does not decode a whole weight at once: in the backward a part of the order
/// of summation, so it is a constant.
pub const BAND_BYTES: usize = 64 << 20;

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

/// Quantises a weight on the CPU; values of any float type are read as 32-bit floats. The result is on the host.
///
/// # Shapes
/// - `weight`: any shape; blocks follow the row-major order and may cross rows
///
/// # Errors
/// [`Error::Dtype`] for bytes; [`Error::Setting`] for a value that is not finite, which no code stands for;
/// [`Error::Device`] if the device of the weight fails.
///
/// # Source
/// See the module; code 7 (zero) where a whole block is zero.
pub fn quantize(weight: &Tensor, double: bool) -> Result<Nf4Weight> {
    if weight.dtype() == Dtype::U8 {
        return Err(Error::Dtype { op: "nf4", what: "weight", found: weight.dtype(), expected: Dtype::F32 });
    }
    let wide = if weight.f32().is_ok() { None } else { Some(weight.to_host()?.cast(Dtype::F32)?) };
    let values = wide.as_ref().unwrap_or(weight).f32()?;
    if let Some(at) = values.par_iter().position_first(|v| !v.is_finite()) {
        return Err(Error::Setting { op: "nf4", what: format!("value {at} of the weight is {}", values[at]) });
    }
    let (codes, magnitudes) = cpu::quantize(values);
    let magnitudes = if double { cpu::quantize_magnitudes(&magnitudes) } else { Magnitudes::Plain(magnitudes) };
    Nf4Weight::from_parts(weight.shape(), codes, magnitudes)
}

/// Decodes a weight into 32-bit floats, rounded as asked: `value = round(code * magnitude)`. The bits are the same in every
/// place.
///
/// # Shapes
/// - returns the weight's shape, f32, where the weight is
///
/// # Errors
/// None on the host, as the parts were checked when the weight was made; on a device [`Error::Memory`] if there is no room.
pub fn dequantize(weight: &Nf4Weight, rounding: Rounding) -> Result<Tensor> {
    if let Some(on) = weight.place().stream() {
        return cuda::dequantize(&on, weight, cuda::Form::F32(rounding));
    }
    let mut values = Tensor::dirty(weight.shape());
    decode::all(weight, rounding, values.f32_mut()?);
    Ok(values)
}

/// Decodes a weight into values of a float type: `value = round(code * magnitude)`.
///
/// # Shapes
/// - returns the weight's shape, of that dtype, where the weight is
///
/// # Errors
/// [`Error::Dtype`] for bytes; else as [`dequantize`].
pub fn dequantize_to(weight: &Nf4Weight, dtype: Dtype) -> Result<Tensor> {
    if let (Some(on), Some(form)) = (weight.place().stream(), cuda::Form::of(dtype)) {
        return cuda::dequantize(&on, weight, form);
    }
    match dtype {
        Dtype::F32 => dequantize(weight, Rounding::F32),
        Dtype::Bf16 => Ok(Tensor::bf16_of(weight.shape(), |values| decode::all(weight, Rounding::Bf16, values))),
        Dtype::F16 => Ok(Tensor::f16_of(weight.shape(), |values| decode::all(weight, Rounding::F16, values))),
        Dtype::U8 => Err(Error::Dtype { op: "nf4", what: "the result", found: dtype, expected: Dtype::F32 }),
    }
}
