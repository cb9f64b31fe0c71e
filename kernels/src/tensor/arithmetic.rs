//! Sums, and the same values in other types.

use half::{bf16, f16};
use rayon::prelude::*;

use super::{Buffer, CHUNK, Dtype, Tensor, cuda};
use crate::cuda::Stream;
use crate::memory::Memory;
use crate::{Error, Result, simd};

impl Tensor {
    /// Adds another tensor element by element: a residual connection, or the sum of two gradients. It may be of bfloat16, while
    /// the sums stay in f32.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ; [`Error::Dtype`] unless this is f32 and the other f32 or bf16; [`Error::Place`]
    /// unless both are in the same memory.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        const OP: &str = "tensor::add";
        self.expect_dtype(OP, "tensor", Dtype::F32)?;
        other.expect_dims(OP, "other", self.shape())?;
        other.expect_floats(OP, "other")?;
        if let Some(on) = Stream::of(OP, &[("tensor", self), ("other", other)])? {
            return cuda::add(&on, self, other);
        }
        if other.dtype() == Dtype::Bf16 {
            return self.add(&other.cast(Dtype::F32)?);
        }
        let other = other.f32()?.par_chunks(CHUNK);
        self.f32_mut()?.par_chunks_mut(CHUNK).zip(other).for_each(|(a, b)| simd::add(a, b));
        Ok(())
    }

    /// The values in another float type, in the memory where they are; those that are of that type already are shared or
    /// copied.
    ///
    /// To bfloat16 and half precision they are rounded to the nearest, of two equally near ones to the even one; to f32
    /// everything is exact.
    ///
    /// # Errors
    /// [`Error::Dtype`] if the type is that of bytes; [`Error::Setting`] for a conversion that devices do not have: theirs are
    /// those between f32 and bfloat16; [`Error::Memory`] if the device has no room.
    pub fn cast(&self, dtype: Dtype) -> Result<Self> {
        const OP: &str = "tensor::cast";
        if self.dtype() == dtype {
            return Ok(self.clone());
        }
        if let Some(on) = self.stream() {
            return cuda::cast(OP, &on, self, dtype);
        }
        match dtype {
            Dtype::F32 => {
                let mut wide = Self::dirty(&self.shape);
                self.widen(wide.f32_mut()?);
                Ok(wide)
            }
            Dtype::Bf16 => Ok(self.to_bf16()),
            Dtype::F16 => Self::from_f16(&self.shape, self.to_f32().into_iter().map(f16::from_f32).collect()),
            Dtype::U8 => Err(Error::Dtype { op: OP, what: "result", found: dtype, expected: Dtype::F32 }),
        }
    }

    /// The values rounded to bfloat16 as [`Tensor::cast`] rounds them, in the memory of the host.
    ///
    /// # Panics
    /// As [`Tensor::to_f32`].
    #[must_use]
    pub fn to_bf16(&self) -> Self {
        let mut values = Memory::dirty(self.len());
        match &self.buffer {
            Buffer::F32(v) => {
                values.par_chunks_mut(CHUNK).zip(v.par_chunks(CHUNK)).for_each(|(n, w)| simd::round(w, n))
            }
            _ => values.copy_from_slice(&self.to_f32().into_iter().map(bf16::from_f32).collect::<Vec<_>>()),
        }
        Self { shape: self.shape.clone(), buffer: Buffer::Bf16(values) }
    }

    /// The values converted to 32-bit floats; exact for every float type.
    ///
    /// # Panics
    /// If they are on a device that fails: whoever cannot do without an error asks for [`Tensor::to_host`] first.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        let mut wide = vec![0.0; self.len()];
        self.widen(&mut wide);
        wide
    }

    /// Writes the values as 32-bit floats.
    fn widen(&self, wide: &mut [f32]) {
        match &self.buffer {
            Buffer::F32(v) => wide.copy_from_slice(v),
            Buffer::Bf16(v) => convert(v, wide, |v| v.to_f32()),
            Buffer::F16(v) => convert(v, wide, |v| v.to_f32()),
            Buffer::U8(v) => convert(v, wide, |v| f32::from(*v)),
            Buffer::Device(_) => self.brought().widen(wide),
        }
    }
}

fn convert<T: Sync>(from: &[T], to: &mut [f32], value: impl Fn(&T) -> f32 + Sync) {
    let chunks = to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK));
    chunks.for_each(|(to, from)| to.iter_mut().zip(from).for_each(|(to, from)| *to = value(from)));
}
