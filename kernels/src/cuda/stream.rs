//! What the device side of an operation is written with.

use std::sync::Arc;

use super::buffer::Plain;
use super::recorder::{Recorder, Recording};
use super::{Arg, Array, Driver, Geometry, Operation, Product, RawStream, Source};
use crate::{Dtype, Error, Result, Tensor};

/// A device as operations see it: memory, copies, kernels and products, all in the order in which they are asked for.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    recorder: Arc<Recorder>,
}

impl Stream {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Self {
        Self { recorder: Arc::new(Recorder::new(driver)) }
    }

    /// That of memory.
    pub(super) fn through(recorder: &Arc<Recorder>) -> Self {
        Self { recorder: Arc::clone(recorder) }
    }

    /// The device on which all operands are; none if they are the host's.
    ///
    /// # Errors
    /// [`Error::Place`] names the first that is somewhere else than the first.
    pub(crate) fn of(op: &'static str, operands: &[(&'static str, &Tensor)]) -> Result<Option<Self>> {
        let first = operands.first().and_then(|(_, tensor)| tensor.stream());
        for (what, tensor) in operands {
            let place = tensor.stream();
            let same = match (&first, &place) {
                (Some(a), Some(b)) => a.is(b),
                (None, None) => true,
                _ => false,
            };
            if !same {
                return Err(Error::Place { op, what, found: name(place.as_ref()), expected: name(first.as_ref()) });
            }
        }
        Ok(first)
    }

    /// Whether both are of one device.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.recorder, &other.recorder)
    }

    /// What people call the device.
    pub(crate) fn name(&self) -> String {
        self.recorder.name()
    }

    /// The most shared memory that a block can ask for, in bytes: what geometry may depend on, and results may not.
    pub(crate) fn most_shared(&self) -> usize {
        self.recorder.most_shared()
    }

    /// Whether products take operands in eight bits.
    pub(crate) fn multiplies_fp8(&self) -> bool {
        self.recorder.multiplies_fp8()
    }

    /// Memory that can still be asked for, in bytes.
    pub(crate) fn free_bytes(&self) -> usize {
        self.recorder.free_bytes()
    }

    /// A tensor that holds anything: for results that are written before they are read.
    pub(crate) fn result(&self, shape: &[usize], dtype: Dtype) -> Result<Tensor> {
        Tensor::on(self, shape, dtype)
    }

    /// A tensor of 32-bit zeros.
    pub(crate) fn zeros(&self, shape: &[usize]) -> Result<Tensor> {
        let mut tensor = self.result(shape, Dtype::F32)?;
        self.fill_zero(&mut tensor)?;
        Ok(tensor)
    }

    /// Sets every byte of a tensor to zero.
    pub(crate) fn fill_zero(&self, tensor: &mut Tensor) -> Result<()> {
        let bytes = tensor.len() * tensor.dtype().bytes();
        let Arg::Address(address) = tensor.arg_mut()? else { return Ok(()) };
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: the tensor has so many bytes.
        unsafe { self.recorder.ask(Operation::Fill { to: address, byte: 0, bytes }) }
    }

    /// Copies all elements of a tensor to those of another of the same dtype, from `begin` on.
    pub(crate) fn copy(&self, from: &Tensor, to: &mut Tensor, begin: usize) -> Result<()> {
        self.copy_part(from, 0, to, begin, from.len())
    }

    /// Copies so many elements of a tensor, from `begin` on, to those of another of the same dtype, from `to_begin` on.
    pub(crate) fn copy_part(
        &self,
        from: &Tensor,
        begin: usize,
        to: &mut Tensor,
        to_begin: usize,
        len: usize,
    ) -> Result<()> {
        let size = from.dtype().bytes();
        debug_assert!(from.dtype() == to.dtype() && begin + len <= from.len() && to_begin + len <= to.len());
        if len == 0 {
            return Ok(());
        }
        let to = to.arg_mut()?.address().offset(to_begin * size);
        let copy = Operation::Copy { from: from.arg()?.address().offset(begin * size), to, bytes: len * size };
        // SAFETY: there are so many bytes in either tensor, and they are two.
        unsafe { self.recorder.ask(copy) }
    }

    /// Memory that holds anything.
    pub(crate) fn scratch(&self, bytes: usize) -> Result<Array> {
        Array::new(&self.recorder, bytes)
    }

    /// Numbers of the host: ids, offsets, labels.
    pub(crate) fn upload<T: Plain>(&self, values: &[T]) -> Result<Array> {
        Array::of(&self.recorder, values)
    }

    /// Runs a kernel; one without blocks is nothing to run.
    ///
    /// # Safety
    /// The arguments are those of the kernel, in their order, and what it reads and writes lies in memory of this device.
    pub(crate) unsafe fn launch(
        &self,
        source: &Source,
        kernel: &'static str,
        geometry: Geometry,
        args: &[Arg],
    ) -> Result<()> {
        if geometry.grid.contains(&0) {
            return Ok(());
        }
        // SAFETY: the caller's promise.
        unsafe { self.recorder.ask(Operation::Launch { source: *source, kernel, geometry, arguments: args.into() }) }
    }

    /// Multiplies two matrices: see [`Product`].
    ///
    /// # Safety
    /// The matrices lie in memory of this device, and the result overlaps neither operand.
    pub(crate) unsafe fn multiply(&self, product: &Product) -> Result<()> {
        if product.rows == 0 || product.cols == 0 {
            return Ok(());
        }
        product.check_eight_bits()?;
        // SAFETY: the caller's promise.
        unsafe { self.recorder.ask(Operation::Multiply(*product)) }
    }

    /// The stream of the card for libraries of CUDA that work beside this one; none if it is no card.
    pub(crate) fn raw(&self) -> Option<Arc<dyn RawStream>> {
        self.recorder.raw_stream()
    }

    /// Gives all that was asked for to the device, without waiting for it: what another library asks for comes behind it.
    pub(crate) fn flush(&self) -> Result<()> {
        self.recorder.flush()
    }

    /// Waits for all that was asked for.
    pub(crate) fn wait(&self) -> Result<()> {
        self.recorder.wait()
    }

    /// Does work as a pass of a recording: see [`Device::replayed`](crate::Device::replayed).
    pub(crate) fn replayed<T, E: From<Error>>(
        &self,
        recording: &mut Recording,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.recorder.replayed(recording, work)
    }
}

fn name(place: Option<&Stream>) -> String {
    place.map_or_else(|| "the host".to_owned(), Stream::name)
}
