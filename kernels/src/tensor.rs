//! A dense row-major array and the memory that holds it.

use half::{bf16, f16};
use rayon::prelude::*;

use crate::cuda::{self, Arg, Stream};
use crate::memory::Memory;
use crate::{Error, Result, simd};

/// The type of a tensor's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::U8 => 1,
        }
    }
}

/// Elements of one task where every element is on its own.
const CHUNK: usize = 16 * 1024;

/// The memory of a tensor.
#[derive(Clone, Debug, PartialEq)]
enum Buffer {
    F32(Memory<f32>),
    Bf16(Memory<bf16>),
    F16(Memory<f16>),
    U8(Vec<u8>),
    Device(cuda::Buffer),
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

    /// The values of a tensor on a device, copied to the host; those of the host are shared or copied.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    pub fn to_host(&self) -> Result<Self> {
        let Buffer::Device(buffer) = &self.buffer else { return Ok(self.clone()) };
        match buffer.dtype() {
            Dtype::F32 => Self::from_f32(&self.shape, buffer.read()?),
            Dtype::Bf16 => Self::from_bf16(&self.shape, buffer.read()?),
            Dtype::F16 => Self::from_f16(&self.shape, buffer.read()?),
            Dtype::U8 => Self::from_u8(&self.shape, buffer.read()?),
        }
    }

    /// The values in the memory of a device; those that are there already are shared.
    pub(crate) fn to_device(&self, on: &Stream) -> Result<Self> {
        if let Buffer::Device(_) = self.buffer {
            Stream::of("tensor", &[("tensor", &on.result(&[0], Dtype::U8)?), ("values", self)])?;
            return Ok(self.clone());
        }
        let buffer = match &self.buffer {
            Buffer::F32(v) => cuda::Buffer::of::<f32>(on, Dtype::F32, v)?,
            Buffer::Bf16(v) => cuda::Buffer::of::<bf16>(on, Dtype::Bf16, v)?,
            Buffer::F16(v) => cuda::Buffer::of::<f16>(on, Dtype::F16, v)?,
            Buffer::U8(v) => cuda::Buffer::of::<u8>(on, Dtype::U8, v)?,
            Buffer::Device(buffer) => buffer.clone(),
        };
        Self::new(&self.shape, Buffer::Device(buffer))
    }

    /// The values in the memory where another tensor is.
    ///
    /// # Errors
    /// [`Error::Memory`] if the device has no room.
    pub fn beside(&self, other: &Self) -> Result<Self> {
        other.stream().map_or_else(|| self.to_host(), |on| self.to_device(&on))
    }

    /// A tensor in the memory of a device that holds anything.
    pub(crate) fn on(on: &Stream, shape: &[usize], dtype: Dtype) -> Result<Self> {
        let len = Self::addressable("tensor", shape)?.iter().product();
        Self::new(shape, Buffer::Device(cuda::Buffer::new(on, dtype, len)?))
    }

    /// The device in whose memory the tensor is; none if it is the host's.
    pub(crate) fn stream(&self) -> Option<Stream> {
        match &self.buffer {
            Buffer::Device(buffer) => Some(buffer.stream()),
            _ => None,
        }
    }

    /// Where a kernel reads the values.
    pub(crate) fn arg(&self) -> Result<Arg> {
        match &self.buffer {
            Buffer::Device(buffer) => Ok(buffer.arg()),
            _ => Err(self.elsewhere("a device")),
        }
    }

    /// Where a kernel writes the values.
    pub(crate) fn arg_mut(&mut self) -> Result<Arg> {
        match &mut self.buffer {
            Buffer::Device(buffer) => buffer.arg_mut(),
            _ => Err(self.elsewhere("a device")),
        }
    }

    /// The values on the host.
    fn brought(&self) -> Self {
        self.to_host().expect("the device of the tensor works")
    }

    fn elsewhere(&self, expected: &str) -> Error {
        let found = self.stream().map_or_else(|| "the host".to_owned(), |on| on.name());
        Error::Place { op: "tensor", what: "buffer", found, expected: expected.to_owned() }
    }

    /// Zeros of the same shape in the same memory, f32.
    ///
    /// # Errors
    /// [`Error::Memory`] if the device has no room.
    pub fn zeros_like(&self) -> Result<Self> {
        match self.stream() {
            Some(on) => on.zeros(&self.shape),
            None => Ok(Self::zeros(&self.shape)),
        }
    }

    /// Sets every value to zero.
    ///
    /// # Errors
    /// [`Error::Dtype`] unless they are f32; [`Error::Device`] if the device fails.
    pub fn fill_zero(&mut self) -> Result<()> {
        match self.stream() {
            Some(on) => on.fill_zero(self),
            None => {
                self.f32_mut()?.fill(0.0);
                Ok(())
            }
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

    /// The values rounded to bfloat16, to the nearest and of two equally near ones to the even one.
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

    /// The values in another float type, in the same memory.
    ///
    /// # Errors
    /// [`Error::Place`] on a device: not there yet.
    pub(crate) fn cast(&self, _dtype: Dtype) -> Result<Self> {
        match self.stream() {
            Some(_) => Err(self.elsewhere("the host")),
            None => Ok(self.to_bf16()),
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

    /// The values converted to 32-bit floats; exact for every float type.
    ///
    /// # Panics
    /// If they are on a device that fails: whoever cannot do without an error asks for [`Tensor::to_host`] first.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.buffer {
            Buffer::F32(v) => v.to_vec(),
            Buffer::Bf16(v) => v.iter().map(|x| x.to_f32()).collect(),
            Buffer::F16(v) => v.iter().map(|x| x.to_f32()).collect(),
            Buffer::U8(v) => v.iter().map(|&x| f32::from(x)).collect(),
            Buffer::Device(_) => self.brought().to_f32(),
        }
    }

    /// Adds another tensor element by element: a residual connection, or the sum of two gradients.
    ///
    /// # Errors
    /// [`Error::Shape`] if the shapes differ; [`Error::Dtype`] unless both are f32.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        const OP: &str = "tensor::add";
        self.expect_f32(OP, "tensor")?;
        other.expect_shape(OP, "other", self.shape())?;
        let other = other.f32()?.par_chunks(CHUNK);
        self.f32_mut()?.par_chunks_mut(CHUNK).zip(other).for_each(|(a, b)| simd::add(a, b));
        Ok(())
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

    /// The same values under another shape.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of elements differs.
    pub fn reshaped(self, shape: &[usize]) -> Result<Self> {
        Self::new(shape, self.buffer)
    }

    /// Checks the shape of an operand, and that its elements are what most operations compute with: 32-bit floats.
    pub(crate) fn expect_shape(&self, op: &'static str, what: &'static str, shape: &[usize]) -> Result<()> {
        self.expect_dims(op, what, shape)?;
        self.expect_dtype(op, what, Dtype::F32)
    }

    /// Checks the type of an operand's elements, wherever they are.
    pub(crate) fn expect_dtype(&self, op: &'static str, what: &'static str, expected: Dtype) -> Result<()> {
        let found = self.dtype();
        if found == expected { Ok(()) } else { Err(Error::Dtype { op, what, found, expected }) }
    }

    /// Checks the shape of an operand that may have other elements too.
    pub(crate) fn expect_dims(&self, op: &'static str, what: &'static str, shape: &[usize]) -> Result<()> {
        if self.shape == shape { Ok(()) } else { Err(Error::shape(op, what, &self.shape, format!("{shape:?}"))) }
    }

    /// The values as 32-bit floats; an error names the operation and the operand.
    pub(crate) fn expect_f32(&self, op: &'static str, what: &'static str) -> Result<&[f32]> {
        self.expect_dtype(op, what, Dtype::F32)?;
        self.f32()
    }

    /// The values as bfloat16, likewise.
    pub(crate) fn expect_bf16(&self, op: &'static str, what: &'static str) -> Result<&[bf16]> {
        self.expect_dtype(op, what, Dtype::Bf16)?;
        self.bf16()
    }

    fn not(&self, expected: Dtype) -> Error {
        if self.dtype() == expected {
            return self.elsewhere("the host");
        }
        Error::Dtype { op: "tensor", what: "buffer", found: self.dtype(), expected }
    }
}

/// The number of elements of a shape; none if it is, zeros aside, more than memory can address. So the product of any of
/// a tensor's dimensions can be taken without a thought of overflow.
pub(crate) fn elements(shape: &[usize]) -> Option<usize> {
    const MOST: usize = isize::MAX as usize / size_of::<f32>();
    let extent = shape.iter().filter(|&&d| d > 0).try_fold(1, |product: usize, &d| product.checked_mul(d))?;
    (extent <= MOST).then(|| if shape.contains(&0) { 0 } else { extent })
}
