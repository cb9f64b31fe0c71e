//! A dense row-major array and the memory that holds it.

mod arithmetic;
mod cuda;
mod expect;
mod place;
#[cfg(test)]
mod tests;

use half::{bf16, f16};
use rayon::prelude::*;

use crate::memory::{Element, Memory};
use crate::{Error, Result};

/// Elements of one task where every element is on its own.
const CHUNK: usize = 16 * 1024;

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
    /// Unsigned byte: packed codes, pixels.
    U8,
}

impl Dtype {
    /// The bytes of one element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::U8 => 1,
        }
    }
}

/// The memory of a tensor.
#[derive(Clone, Debug, PartialEq)]
enum Buffer {
    F32(Memory<f32>),
    Bf16(Memory<bf16>),
    F16(Memory<f16>),
    U8(Vec<u8>),
    Device(crate::cuda::Buffer),
}

impl Buffer {
    fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::Bf16(v) => v.len(),
            Self::F16(v) => v.len(),
            Self::U8(v) => v.len(),
            Self::Device(v) => v.len(),
        }
    }
}

/// A dense row-major array, in the memory of the host or of a device.
///
/// The values of a tensor on a device are read through [`Tensor::to_host`]: what gives slices refuses it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    buffer: Buffer,
}

impl Tensor {
    fn new(shape: &[usize], buffer: Buffer) -> Result<Self> {
        if elements(shape) != Some(buffer.len()) {
            return Err(Error::shape("tensor", "data", &[buffer.len()], format!("{shape:?}")));
        }
        Ok(Self { shape: shape.to_vec(), buffer })
    }

    /// A tensor of 32-bit floats.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of values is not the product of the shape, or if that product, zeros aside, is more
    /// than memory can address; so do the other constructors.
    pub fn from_f32(shape: &[usize], values: Vec<f32>) -> Result<Self> {
        Self::new(shape, Buffer::F32(values.into()))
    }

    /// A tensor of bfloat16.
    pub fn from_bf16(shape: &[usize], values: Vec<bf16>) -> Result<Self> {
        Self::new(shape, Buffer::Bf16(values.into()))
    }

    /// A tensor of half-precision floats.
    pub fn from_f16(shape: &[usize], values: Vec<f16>) -> Result<Self> {
        Self::new(shape, Buffer::F16(values.into()))
    }

    /// A tensor of bytes.
    pub fn from_u8(shape: &[usize], values: Vec<u8>) -> Result<Self> {
        Self::new(shape, Buffer::U8(values))
    }

    /// A tensor of 32-bit zeros.
    ///
    /// # Panics
    /// If the shape is more than memory can address: a mistake of the caller, as the shape of a tensor never is.
    #[must_use]
    pub fn zeros(shape: &[usize]) -> Self {
        let len = elements(shape).expect("the shape is no more than memory can address");
        Self { shape: shape.to_vec(), buffer: Buffer::F32(Memory::zeros(len)) }
    }

    /// A tensor like the one of this shape, whose floats are whatever an earlier tensor left: for results that are written
    /// before they are read. In tests they are no numbers, so that a place that is not written shows.
    pub(crate) fn dirty(shape: &[usize]) -> Self {
        let mut memory = Memory::dirty(elements(shape).expect("the shape is that of a tensor"));
        if cfg!(test) {
            memory.fill(f32::NAN);
        }
        Self { shape: shape.to_vec(), buffer: Buffer::F32(memory) }
    }

    /// Half-precision numbers of either kind, likewise; the values are written by `fill`.
    pub(crate) fn bf16_of(shape: &[usize], fill: impl FnOnce(&mut [bf16])) -> Self {
        let mut memory = Memory::dirty(elements(shape).expect("the shape is that of a tensor"));
        fill(&mut memory);
        Self { shape: shape.to_vec(), buffer: Buffer::Bf16(memory) }
    }

    /// As [`Tensor::bf16_of`].
    pub(crate) fn f16_of(shape: &[usize], fill: impl FnOnce(&mut [f16])) -> Self {
        let mut memory = Memory::dirty(elements(shape).expect("the shape is that of a tensor"));
        fill(&mut memory);
        Self { shape: shape.to_vec(), buffer: Buffer::F16(memory) }
    }

    /// As [`Tensor::dirty`], for a result whose shape is made of the shapes of several operands: of two that hold nothing
    /// it may be more than memory can address.
    pub(crate) fn result(op: &'static str, shape: &[usize]) -> Result<Self> {
        Self::addressable(op, shape).map(Self::dirty)
    }

    /// Checks the shape of such a result.
    pub(crate) fn addressable<'a>(op: &'static str, shape: &'a [usize]) -> Result<&'a [usize]> {
        match elements(shape) {
            Some(_) => Ok(shape),
            None => Err(Error::shape(op, "the result", shape, "no more than memory can address")),
        }
    }

    /// The extent of every dimension.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The type of the elements.
    #[must_use]
    pub fn dtype(&self) -> Dtype {
        match &self.buffer {
            Buffer::F32(_) => Dtype::F32,
            Buffer::Bf16(_) => Dtype::Bf16,
            Buffer::F16(_) => Dtype::F16,
            Buffer::U8(_) => Dtype::U8,
            Buffer::Device(v) => v.dtype(),
        }
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The product of all dimensions but the last; a scalar is one row of one column.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, outer)| outer.iter().product())
    }

    /// The last dimension.
    #[must_use]
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The values as 32-bit floats, without conversion.
    ///
    /// # Errors
    /// [`Error::Dtype`] if they are of another type.
    pub fn f32(&self) -> Result<&[f32]> {
        match &self.buffer {
            Buffer::F32(v) => Ok(v),
            _ => Err(self.not(Dtype::F32)),
        }
    }

    /// The values as 32-bit floats, to be changed in place.
    ///
    /// # Errors
    /// [`Error::Dtype`] if they are of another type.
    pub fn f32_mut(&mut self) -> Result<&mut [f32]> {
        let error = self.not(Dtype::F32);
        match &mut self.buffer {
            Buffer::F32(v) => Ok(v),
            _ => Err(error),
        }
    }

    /// The values as bfloat16, without conversion.
    ///
    /// # Errors
    /// [`Error::Dtype`] if they are of another type.
    pub fn bf16(&self) -> Result<&[bf16]> {
        match &self.buffer {
            Buffer::Bf16(v) => Ok(v),
            _ => Err(self.not(Dtype::Bf16)),
        }
    }

    /// The values as half-precision numbers, without conversion.
    ///
    /// # Errors
    /// [`Error::Dtype`] if they are of another type.
    pub fn f16(&self) -> Result<&[f16]> {
        match &self.buffer {
            Buffer::F16(v) => Ok(v),
            _ => Err(self.not(Dtype::F16)),
        }
    }

    /// The values as bytes, without conversion.
    ///
    /// # Errors
    /// [`Error::Dtype`] if they are of another type.
    pub fn u8(&self) -> Result<&[u8]> {
        match &self.buffer {
            Buffer::U8(v) => Ok(v),
            _ => Err(self.not(Dtype::U8)),
        }
    }

    /// The values as bytes, little-endian: the form of safetensors.
    ///
    /// # Panics
    /// As [`Tensor::to_f32`].
    #[must_use]
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match &self.buffer {
            Buffer::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Buffer::Bf16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Buffer::F16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Buffer::U8(v) => v.clone(),
            Buffer::Device(_) => self.brought().to_le_bytes(),
        }
    }

    /// A tensor of such bytes. Its memory is that of a tensor of the size that nobody has any more, where there was one: whoever
    /// reads one weight after the other takes no more than for one.
    ///
    /// # Errors
    /// [`Error::Shape`] if they are not as many as the shape has values.
    pub fn from_le_bytes(shape: &[usize], dtype: Dtype, bytes: &[u8]) -> Result<Self> {
        if elements(shape).and_then(|n| n.checked_mul(dtype.bytes())) != Some(bytes.len()) {
            return Err(Error::shape("tensor", "bytes", &[bytes.len()], format!("those of {shape:?} {dtype:?}")));
        }
        let buffer = match dtype {
            Dtype::F32 => Buffer::F32(read(bytes, f32::from_le_bytes)),
            Dtype::Bf16 => Buffer::Bf16(read(bytes, bf16::from_le_bytes)),
            Dtype::F16 => Buffer::F16(read(bytes, f16::from_le_bytes)),
            Dtype::U8 => Buffer::U8(bytes.to_vec()),
        };
        Self::new(shape, buffer)
    }

    /// The same values under another shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of elements differs.
    pub fn reshaped(self, shape: &[usize]) -> Result<Self> {
        Self::new(shape, self.buffer)
    }

    fn not(&self, expected: Dtype) -> Error {
        if self.dtype() == expected {
            return self.elsewhere("the host");
        }
        Error::Dtype { op: "tensor", what: "buffer", found: self.dtype(), expected }
    }
}

/// Values of so many bytes each, in memory that is used again.
fn read<T: Element, const N: usize>(bytes: &[u8], value: fn([u8; N]) -> T) -> Memory<T> {
    let (values, _) = bytes.as_chunks::<N>();
    let mut memory = Memory::dirty(values.len());
    let chunks = memory.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
    chunks.for_each(|(to, from)| to.iter_mut().zip(from).for_each(|(to, bytes)| *to = value(*bytes)));
    memory
}

/// The number of elements of a shape; none if it is, zeros aside, more than memory can address. So the product of any of
/// a tensor's dimensions can be taken without a thought of overflow.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    const MOST: usize = isize::MAX as usize / size_of::<f32>();
    let extent = shape.iter().filter(|&&d| d > 0).try_fold(1, |product: usize, &d| product.checked_mul(d))?;
    (extent <= MOST).then(|| if shape.contains(&0) { 0 } else { extent })
}
