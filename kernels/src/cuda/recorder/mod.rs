//! Work that is recorded once and replayed in one piece
//! ([decision 7](../../../../docs/decisions/0007-replayed-work.md)).
//!
//! Everything that is asked of a device passes through its [`Recorder`]: memory, copies, operations, reads. Outside of a pass it
//! hands on what it gets. The first pass of a [`Recording`] is executed and logged. In the next, the same code runs and is given
//! the memory of the log; what it asks for is compared with the log and waits, and when all operations up to a read were met,
//! one graph runs them. If the code asks for something else, what waits is executed one by one and the pass goes on as a
//! recording: the result never depends on whether a log fits.
//!
//! # What holds this together
//! - A graph runs exactly the operations that were asked for in this pass, with the arguments that they were asked for with. A
//!   kernel that gets other arguments than before is changed in the graph.
//! - No two tensors that live at the same time share memory: a block is handed out only if nobody has it. A tensor that outlives
//!   its pass keeps its block, and a pass that would be given it departs from the log.
//! - Memory that was given back stays as it is until the operations that waited then are executed.
//! - Numbers of the host are copied while operations wait. They come into blocks that nothing else uses in the same pass.

mod blocks;
mod log;
mod outbox;
mod pass;
mod recording;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::blocks::Purpose;
pub use self::recording::Recording;
use self::state::State;
use super::{Address, Driver, Operation, RawStream};
use crate::{Error, Result};

/// A device's driver, behind a log of what is asked of it.
///
/// As the driver's, its calls come from one thread at a time.
pub(crate) struct Recorder {
    state: Mutex<State>,
    recordings: AtomicU64,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").finish_non_exhaustive()
    }
}

impl Recorder {
    pub(crate) fn new(driver: Arc<dyn Driver>) -> Self {
        Self { state: Mutex::new(State::new(driver)), recordings: AtomicU64::new(0) }
    }

    /// After a panic under the lock, in a driver, the state is as before the call or the pass is about to be abandoned.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What people call the device.
    pub(crate) fn name(&self) -> String {
        self.state().driver().name()
    }

    /// As [`Driver::most_shared`].
    pub(crate) fn most_shared(&self) -> usize {
        self.state().driver().most_shared()
    }

    /// As [`Driver::multiplies_fp8`].
    pub(crate) fn multiplies_fp8(&self) -> bool {
        self.state().driver().multiplies_fp8()
    }

    /// As [`Driver::free_bytes`].
    pub(crate) fn free_bytes(&self) -> usize {
        self.state().driver().free_bytes()
    }

    /// As [`Driver::allocate`]. There is always an address, also of no bytes.
    pub(crate) fn allocate(&self, bytes: usize) -> Result<Address> {
        self.state().allocate(Purpose::Work, bytes.max(1))
    }

    /// Memory that holds some of the host's.
    pub(crate) fn upload(&self, values: &[u8]) -> Result<Address> {
        self.state().upload(values)
    }

    /// As [`Driver::free`].
    pub(crate) fn free(&self, address: Address) {
        self.state().free(address);
    }

    /// Asks for an operation.
    ///
    /// # Safety
    /// As [`Driver::launch`] and [`Driver::multiply`]; what it uses may be given back afterwards, as with those.
    pub(crate) unsafe fn ask(&self, operation: Operation<'_>) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.state().ask(operation) }
    }

    /// As [`Driver::read`].
    pub(crate) fn read(&self, from: Address, to: &mut [u8]) -> Result<()> {
        let mut state = self.state();
        state.settle()?;
        state.driver().read(from, to)
    }

    /// As [`Driver::raw_stream`].
    pub(crate) fn raw_stream(&self) -> Option<Arc<dyn RawStream>> {
        self.state().raw_stream()
    }

    /// Makes all that was asked for known to the driver, and does not wait for it.
    pub(crate) fn flush(&self) -> Result<()> {
        self.state().settle()
    }

    /// As [`Driver::wait`].
    pub(crate) fn wait(&self) -> Result<()> {
        let mut state = self.state();
        state.settle()?;
        state.driver().wait()
    }

    /// Does work as a pass of a recording; within another pass it is part of that.
    pub(crate) fn replayed<T, E: From<Error>>(
        self: &Arc<Self>,
        recording: &mut Recording,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let number = recording.number(self);
        if !self.state().begin(number) {
            return work();
        }
        let unfinished = Unfinished(self);
        let value = work()?;
        let ended = self.state().end(number);
        let (mode, difference) = ended?;
        std::mem::forget(unfinished);
        recording.note(mode, difference);
        Ok(value)
    }

    fn next_number(&self) -> u64 {
        self.recordings.fetch_add(1, Ordering::Relaxed)
    }

    fn forget(&self, recording: u64) {
        self.state().forget(recording);
    }
}

/// A pass that ends by an error or a panic.
struct Unfinished<'a>(&'a Recorder);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.0.state().abandon();
    }
}
