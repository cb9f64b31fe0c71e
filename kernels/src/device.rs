//! Where tensors live and which threads work on them.

use std::num::NonZero;
use std::sync::Arc;

use crate::cuda::{self, Stream};
use crate::{Error, Recording, Result, Tensor, host_memory};

/// A place to compute: the CPU with a fixed number of threads, or a card with memory of its own beside them.
///
/// Operations run where their operands are. On the CPU that is on the threads of the device whose [`Device::run`] they are
/// called in; the number of threads changes the time, never the bits. Clones are handles to the same device.
#[derive(Clone, Debug)]
pub struct Device {
    pool: Arc<rayon::ThreadPool>,
    stream: Option<Stream>,
}

impl Device {
    /// A CPU device with `threads` threads, at least one.
    ///
    /// # Errors
    /// [`Error::Device`] if the operating system refuses the threads.
    pub fn cpu(threads: usize) -> Result<Self> {
        Ok(Self { pool: pool(threads)?, stream: None })
    }

    /// The CUDA card of a number, with `threads` threads of the CPU for what is done beside it.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no such card or a library is missing, with the package that brings it.
    pub fn cuda(number: usize, threads: usize) -> Result<Self> {
        let stream = cuda::card(number)?;
        Ok(Self { pool: pool(threads)?, stream: Some(stream) })
    }

    /// A device that runs the kernels of cards on the CPU, slowly, and checks them on the way: for tests.
    ///
    /// It needs a C++ compiler: `CXX` names it, else `c++`.
    ///
    /// # Errors
    /// [`Error::Device`] if the operating system refuses the threads.
    pub fn emulated() -> Result<Self> {
        Ok(Self { pool: pool(1)?, stream: Some(cuda::emulator()) })
    }

    /// [`Device::emulated`] with so many bytes of memory, for tests of what happens when they are used up.
    ///
    /// # Errors
    /// As [`Device::emulated`].
    pub fn emulated_with(bytes: usize) -> Result<Self> {
        Ok(Self { pool: pool(1)?, stream: Some(cuda::emulator_of(bytes)) })
    }

    /// [`Device::emulated`] that is lost after so many launches, for tests of what a loss costs. As with a card, the launch that
    /// goes astray says nothing, and what is asked for next fails with [`Error::Lost`].
    ///
    /// # Errors
    /// As [`Device::emulated`].
    pub fn mortal(launches: usize) -> Result<Self> {
        Ok(Self { pool: pool(1)?, stream: Some(cuda::mortal(launches)) })
    }

    /// Where tests compute that are about a device: the emulator, or the card that `MLLM4REC_TEST_DEVICE=cuda` asks for.
    ///
    /// # Errors
    /// As [`Device::emulated`] or [`Device::cuda`].
    pub fn under_test() -> Result<Self> {
        match std::env::var("MLLM4REC_TEST_DEVICE").as_deref() {
            Ok("cuda") => Self::cuda(0, 2),
            _ => Self::emulated(),
        }
    }

    /// [`Device::emulated`] with every launch in two orders of its threads, for the operations themselves.
    #[cfg(test)]
    pub(crate) fn proving() -> Result<Self> {
        Ok(Self { pool: pool(1)?, stream: Some(cuda::prover()) })
    }

    /// The number of threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Whether operations run on the CPU and tensors lie in the memory of the host.
    #[must_use]
    pub fn is_cpu(&self) -> bool {
        self.stream.is_none()
    }

    /// What people call it.
    #[must_use]
    pub fn name(&self) -> String {
        self.stream.as_ref().map_or_else(|| format!("CPU, {} threads", self.threads()), Stream::name)
    }

    /// Memory that can still be asked for, in bytes: of a card what is left of this process's part of it; of the host a half of
    /// what its system says is available, because others ask for it too, and the system refuses nobody but kills; and of that
    /// half the part of its processors that this device's threads are, for processes that share a machine begin at the same
    /// time. None if it does not say.
    #[must_use]
    pub fn free_bytes(&self) -> Option<usize> {
        match &self.stream {
            Some(stream) => Some(stream.free_bytes()),
            None => {
                let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
                let half = usize::try_from(host_memory::available_bytes()? / 2).ok()?;
                Some(half / processors * self.threads().clamp(1, processors))
            }
        }
    }

    /// Brings a tensor into the memory of this device; one that is there already is shared.
    ///
    /// # Errors
    /// [`Error::Memory`] if there is no room; [`Error::Place`] for a tensor of another device.
    pub fn put(&self, tensor: &Tensor) -> Result<Tensor> {
        match &self.stream {
            Some(stream) => tensor.to_device(stream),
            None => tensor.to_host(),
        }
    }

    /// Where its kernels run; none if it is the CPU.
    pub(crate) fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }

    /// Waits for all that was asked for: an error of a kernel shows here at the latest.
    ///
    /// # Errors
    /// [`Error::Device`] if the device fails.
    pub fn wait(&self) -> Result<()> {
        self.stream.as_ref().map_or(Ok(()), Stream::wait)
    }

    /// Does `work` as it is done again and again: a step of training, or of a decoder. What it asks of the device is recorded the
    /// first time; later it is only compared with that, and the device is given all of it in one piece, which costs far less
    /// than piece by piece. The code of `work` runs every time, so it may compute, upload and read what it likes; where it asks
    /// for something else than was recorded, for tensors of other shapes say, it is recorded anew. The result is the same in
    /// any case, and on the CPU there is nothing to record.
    ///
    /// # What makes it fast
    /// - Shapes are those of last time: work with a few different shapes has a recording for each.
    /// - Parameters are updated in place, and tensors made by `work` are dropped before it is done again.
    /// - A read or a wait in the middle cuts the piece in two.
    /// - Numbers that change every time are uploaded, or arguments of kernels; a factor of a product is part of the record.
    ///
    /// # Errors
    /// Those of `work`; it may get one of the device later than without a recording: with the next read or at the end. The
    /// recording then begins anew.
    pub fn replayed<T, E: From<Error>>(
        &self,
        recording: &mut Recording,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        match &self.stream {
            Some(stream) => stream.replayed(recording, work),
            None => work(),
        }
    }

    /// Runs `work` on this device's threads.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }
}

fn pool(threads: usize) -> Result<Arc<rayon::ThreadPool>> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads.max(1))
        .thread_name(|i| format!("cpu-{i}"))
        .build()
        .map(Arc::new)
        .map_err(|e| Error::Device(format!("cannot start the compute threads: {e}")))
}
