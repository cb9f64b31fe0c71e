//! Decoding of a whole weight, or of a band of its rows.

use std::ops::Range;

use super::super::{Nf4Weight, Rounding};
use super::parts;
use crate::cuda::{Arg, Geometry, Source, Stream};
use crate::{Dtype, Result, Tensor};

const KERNELS: Source =
    Source { name: "nf4_dequantize", text: concat!(include_str!("../decode.cuh"), include_str!("../dequantize.cu")) };

/// Threads of a block and values of a thread, as in the kernels.
const THREADS: usize = 256;
const VALUES: usize = 32;

/// What values are decoded to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Form {
    F32(Rounding),
    Bf16,
    F16,
}

impl Form {
    /// The form of a dtype, of which there is none for bytes.
    pub(in super::super) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32(Rounding::F32)),
            Dtype::Bf16 => Some(Self::Bf16),
            Dtype::F16 => Some(Self::F16),
            Dtype::U8 => None,
        }
    }

    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::Bf16 => Dtype::Bf16,
            Self::F16 => Dtype::F16,
        }
    }
}

/// A rounding as the kernels know it.
pub(super) fn code(rounding: Rounding) -> Arg {
    Arg::U32(match rounding {
        Rounding::F32 => 0,
        Rounding::Bf16 => 1,
        Rounding::F16 => 2,
    })
}

/// Decodes a weight.
pub(in super::super) fn dequantize(on: &Stream, weight: &Nf4Weight, form: Form) -> Result<Tensor> {
    let mut values = on.result(weight.shape(), form.dtype())?;
    let (all, out) = (0..values.len(), values.arg_mut()?);
    // SAFETY: the result has a place for every value.
    unsafe { range(on, weight, form, all, out)? };
    Ok(values)
}

/// Decodes the values of a range that begins with a block.
///
/// # Safety
/// There is a place for every value of the range where `out` points, aligned to 16 bytes.
pub(super) unsafe fn range(on: &Stream, weight: &Nf4Weight, form: Form, range: Range<usize>, out: Arg) -> Result<()> {
    let geometry = Geometry::blocks(range.len().div_ceil(THREADS * VALUES), THREADS as u32);
    let ends = [range.start, range.end].map(|end| Arg::U64(end as u64));
    let (kernel, settings) = match form {
        Form::F32(rounding) => ("decode_f32", vec![code(rounding), out]),
        Form::Bf16 => ("decode_bf16", vec![out]),
        Form::F16 => ("decode_f16", vec![out]),
    };
    let args = [&parts::args(weight)?[..], &ends, &settings].concat();
    // SAFETY: the parts were checked when the weight was made; the rest is the caller's promise.
    unsafe { on.launch(&KERNELS, kernel, geometry, &args) }
}
