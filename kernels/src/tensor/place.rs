//! Where a tensor is, and the way from one memory to another.

use half::{bf16, f16};

use super::{Buffer, Dtype, Tensor};
use crate::cuda::{self, Arg, Stream};
use crate::{Error, Result};

impl Tensor {
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
    pub(super) fn brought(&self) -> Self {
        self.to_host().expect("the device of the tensor works")
    }

    pub(super) fn elsewhere(&self, expected: &str) -> Error {
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
}
