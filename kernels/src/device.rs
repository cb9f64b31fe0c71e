//! Where tensors live and which threads work on them.

use crate::{Error, Result};

/// A place to compute: today the CPU with a fixed number of threads.
///
/// Operations run on the threads of the device whose [`Device::run`] they are called in. The number of threads changes
/// the time, never the bits.
#[derive(Debug)]
pub struct Device {
    pool: rayon::ThreadPool,
}

impl Device {
    /// A CPU device with `threads` threads, at least one.
    ///
    /// # Errors
    /// [`Error::Device`] if the operating system refuses the threads.
    pub fn cpu(threads: usize) -> Result<Self> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads.max(1))
            .thread_name(|i| format!("cpu-{i}"))
            .build()
            .map(|pool| Self { pool })
            .map_err(|e| Error::Device(format!("cannot start the compute threads: {e}")))
    }

    /// The number of threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Runs `work` on this device's threads.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.pool.install(work)
    }
}
