//! Memory of a device that gives itself back.

use std::fmt;
use std::sync::Arc;

use super::recorder::Recorder;
use super::{Address, Arg, Operation, Stream};
use crate::{Dtype, Result};

/// What a device can read as it lies in memory.
///
/// # Safety
/// Every byte of a value is initialised, and every pattern of bytes is a value.
pub(crate) unsafe trait Plain: Copy + Default {}
// SAFETY: numbers without padding.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for half::bf16 {}
// SAFETY: as above.
unsafe impl Plain for half::f16 {}

/// The bytes of numbers.
pub(super) fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: every byte of a plain value is initialised; the slice covers the same memory.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

/// The bytes of numbers, to be written.
fn bytes_of_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, and every pattern of bytes is a value.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// Some bytes of a device, given back when they are dropped.
pub(crate) struct Array {
    recorder: Arc<Recorder>,
    address: Address,
    bytes: usize,
}

impl Array {
    /// Memory that holds anything. There is always an address, also of no bytes.
    pub(super) fn new(recorder: &Arc<Recorder>, bytes: usize) -> Result<Self> {
        let address = recorder.allocate(bytes)?;
        Ok(Self { recorder: Arc::clone(recorder), address, bytes })
    }

    /// Memory that holds numbers of the host.
    pub(super) fn of<T: Plain>(recorder: &Arc<Recorder>, values: &[T]) -> Result<Self> {
        let address = recorder.upload(bytes_of(values))?;
        Ok(Self { recorder: Arc::clone(recorder), address, bytes: size_of_val(values) })
    }

    /// Where it is.
    pub(crate) fn arg(&self) -> Arg {
        Arg::Address(self.address)
    }

    /// Waits for what was asked for, and copies to the host.
    pub(crate) fn read<T: Plain>(&self, len: usize) -> Result<Vec<T>> {
        let mut values = vec![T::default(); len];
        debug_assert!(size_of_val(values.as_slice()) <= self.bytes);
        if len > 0 {
            self.recorder.read(self.address, bytes_of_mut(&mut values))?;
        }
        Ok(values)
    }

    fn copied(&self) -> Result<Self> {
        let copy = Self::new(&self.recorder, self.bytes)?;
        let operation = Operation::Copy { from: self.address, to: copy.address, bytes: self.bytes };
        if self.bytes > 0 {
            // SAFETY: there are so many bytes in either array, and they are two.
            unsafe { self.recorder.ask(operation)? };
        }
        Ok(copy)
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        self.recorder.free(self.address);
    }
}

impl fmt::Debug for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:#x}", self.bytes, self.address.0)
    }
}

/// The elements of a tensor that lives on a device. Clones share them until one of them is written to.
#[derive(Clone, Debug)]
pub(crate) struct Buffer {
    array: Arc<Array>,
    dtype: Dtype,
    len: usize,
}

impl Buffer {
    /// Elements that hold anything.
    pub(crate) fn new(on: &Stream, dtype: Dtype, len: usize) -> Result<Self> {
        Ok(Self { array: Arc::new(on.scratch(len * dtype.bytes())?), dtype, len })
    }

    /// The elements of the host's memory.
    pub(crate) fn of<T: Plain>(on: &Stream, dtype: Dtype, values: &[T]) -> Result<Self> {
        debug_assert_eq!(size_of::<T>(), dtype.bytes());
        Ok(Self { array: Arc::new(on.upload(values)?), dtype, len: values.len() })
    }

    pub(crate) fn dtype(&self) -> Dtype {
        self.dtype
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The device.
    pub(crate) fn stream(&self) -> Stream {
        Stream::through(&self.array.recorder)
    }

    /// Where to read.
    pub(crate) fn arg(&self) -> Arg {
        self.array.arg()
    }

    /// Where to write: a place of this buffer's own.
    pub(crate) fn arg_mut(&mut self) -> Result<Arg> {
        if Arc::get_mut(&mut self.array).is_none() {
            self.array = Arc::new(self.array.copied()?);
        }
        Ok(self.array.arg())
    }

    /// Copies to the host.
    pub(crate) fn read<T: Plain>(&self) -> Result<Vec<T>> {
        debug_assert_eq!(size_of::<T>(), self.dtype.bytes());
        self.array.read(self.len)
    }
}

/// By content. A device that fails makes nothing equal.
impl PartialEq for Buffer {
    fn eq(&self, other: &Self) -> bool {
        let bytes = |b: &Self| b.array.read::<u8>(b.len * b.dtype.bytes());
        self.dtype == other.dtype && matches!((bytes(self), bytes(other)), (Ok(a), Ok(b)) if a == b)
    }
}
