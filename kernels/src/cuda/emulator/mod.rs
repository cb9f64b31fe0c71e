//! Runs kernels on the host, for tests: threads as fibers, device memory between red zones, tensor cores by their
//! definition.
//!
//! A launch is run twice by default, the second time with blocks, warps and lanes in the opposite order: bits that
//! differ mean that a barrier is missing or that the result is not the same every time.
//!
//! It is stricter than a card: a barrier waits for threads that have ended, and a warp for lanes that it does not have.
//! Blocks run one after another, so one that waits for another's writes hangs.
//!
//! # Environment
//! `CXX` names the C++ compiler, with flags if need be: `CXX="g++ -fsanitize=undefined -fno-sanitize-recover"` shows
//! what is not aligned and indices outside of arrays. In the folder that `MLLM4REC_EXECUTED` names every kernel that was run
//! leaves an empty file, `FILE.KERNEL`: so it can be told that tests reach all of them. Libraries and texts are kept in `mllm4rec-emulator` of the system's
//! folder for temporary files.

mod compile;
mod memory;
mod mortal;
mod signature;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_void};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(test)]
pub(crate) use self::compile::library_of;
use self::compile::{Launch, Module};
use self::memory::Memory;
pub(crate) use self::mortal::Mortal;
use self::signature::{Kind, Signature};
use super::{Address, Arg, Driver, Geometry, Graph, Operation, Product, SharedLimit, Source};
use crate::{Error, Result};

/// What a block of a card of compute capability 9 can ask for.
const MOST_SHARED_BYTES: u32 = 227 * 1024;
/// What one of compute capability 8.9 has: every card.
const LEAST_SHARED_BYTES: u32 = 99 * 1024;
const MOST_THREADS: u64 = 1024;
const MOST_BLOCK: [u32; 3] = [1024, 1024, 64];
const MOST_GRID: [u32; 3] = [i32::MAX as u32, 65_535, 65_535];

/// A device that is none.
#[derive(Debug)]
pub(crate) struct Emulator {
    memory: Mutex<Memory>,
    /// Decides the order of threads.
    seed: u64,
    /// Whether a launch is run in two orders.
    both_orders: bool,
}

impl Emulator {
    /// A device of 4 GiB that runs every launch in two orders.
    pub(crate) fn new() -> Self {
        Self::with_memory(4 << 30)
    }

    /// A device that has so much memory.
    pub(crate) fn with_memory(bytes: usize) -> Self {
        Self { memory: Mutex::new(Memory::new(bytes)), seed: 1, both_orders: true }
    }

    /// Other orders of threads.
    #[cfg(test)]
    pub(crate) fn seeded(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Runs launches once: for what was proven in both orders and takes long.
    pub(crate) fn in_one_order(self) -> Self {
        Self { both_orders: false, ..self }
    }

    /// Bytes that are taken.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        self.memory().used()
    }

    /// After a panic under the lock the buffers are whole still.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a launch, and again in the opposite order if that is wished for.
    ///
    /// # Safety
    /// As [`Driver::launch`]; the launch is one of a kernel of the module.
    unsafe fn run(&self, module: &Module, launch: &mut Launch) -> Result<(), String> {
        let mut memory = self.memory();
        let before = if self.both_orders { memory.snapshot() } else { Vec::new() };
        // SAFETY: the caller's promise.
        unsafe { run_once(&mut memory, module, launch)? };
        if !self.both_orders {
            return Ok(());
        }
        let after = memory.snapshot();
        memory.restore(&before);
        launch.reversed = 1;
        // SAFETY: the caller's promise.
        unsafe { run_once(&mut memory, module, launch)? };
        let difference = memory.difference(&after);
        difference.map_or(Ok(()), |d| Err(format!("the result depends on the order of threads: {d}")))
    }
}

impl Driver for Emulator {
    fn name(&self) -> String {
        "the emulated device".to_owned()
    }

    fn most_shared(&self) -> usize {
        MOST_SHARED_BYTES as usize
    }

    fn multiplies_fp8(&self) -> bool {
        true
    }

    fn free_bytes(&self) -> usize {
        self.memory().free_bytes()
    }

    fn allocate(&self, bytes: usize) -> Result<Address> {
        self.memory().allocate(bytes)
    }

    fn free(&self, address: Address) {
        self.memory().free(address);
    }

    fn write(&self, to: Address, from: &[u8]) -> Result<()> {
        self.memory().bytes_mut(to, from.len())?.copy_from_slice(from);
        Ok(())
    }

    fn read(&self, from: Address, to: &mut [u8]) -> Result<()> {
        to.copy_from_slice(self.memory().bytes(from, to.len())?);
        Ok(())
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()> {
        if from.0.abs_diff(to.0) < bytes as u64 {
            return Err(Error::Device(format!("a copy of {bytes} bytes overlaps itself")));
        }
        let mut memory = self.memory();
        let content = memory.bytes(from, bytes)?.to_vec();
        memory.bytes_mut(to, bytes)?.copy_from_slice(&content);
        Ok(())
    }

    fn fill(&self, to: Address, byte: u8, bytes: usize) -> Result<()> {
        self.memory().bytes_mut(to, bytes)?.fill(byte);
        Ok(())
    }

    unsafe fn launch(
        &self,
        source: &Source,
        kernel: &'static str,
        geometry: Geometry,
        arguments: &[Arg],
    ) -> Result<()> {
        let error = |what: String| Error::Kernel { op: source.name, kernel: kernel.to_owned(), what };
        let module = Module::of(source).map_err(error)?;
        let (signature, wrapper) = module.kernel(kernel).ok_or_else(|| error("is not in the file".to_owned()))?;
        check_arguments(signature, arguments, &self.memory()).map_err(error)?;
        check_geometry(geometry).map_err(error)?;
        bear_witness(source.name, kernel);

        let mut slots: Vec<[u8; 8]> = arguments.iter().map(bits).collect();
        let mut places: Vec<*mut c_void> = slots.iter_mut().map(|slot| slot.as_mut_ptr().cast()).collect();
        let mut message: [c_char; 1024] = [0; 1024];
        let mut launch = Launch {
            grid: geometry.grid,
            block: geometry.block,
            shared_bytes: geometry.shared,
            reversed: 0,
            seed: self.seed,
            kernel: wrapper,
            arguments: places.as_mut_ptr(),
            message: message.as_mut_ptr(),
            message_bytes: message.len() as u64,
        };
        // SAFETY: the caller's promise of memory; the arguments were checked against the kernel's signature.
        unsafe { self.run(&module, &mut launch) }.map_err(error)
    }

    unsafe fn multiply(&self, product: &Product) -> Result<()> {
        product.on_host(self)
    }

    fn record(self: Arc<Self>, operations: &[Operation<'static>]) -> Result<Box<dyn Graph>> {
        Ok(Box::new(List::of(self, operations)))
    }

    fn wait(&self) -> Result<()> {
        Ok(())
    }
}

/// Operations that are run one after the other.
#[derive(Debug)]
struct List {
    device: Arc<dyn Driver>,
    operations: Vec<Operation<'static>>,
}

impl List {
    fn of(device: Arc<dyn Driver>, operations: &[Operation<'static>]) -> Self {
        Self { device, operations: operations.to_vec() }
    }
}

impl Graph for List {
    fn change(&mut self, operation: usize, arguments: &[Arg]) -> Result<()> {
        self.operations[operation].set_arguments(arguments);
        Ok(())
    }

    unsafe fn launch(&self) -> Result<()> {
        // SAFETY: the caller's promise.
        self.operations.iter().try_for_each(|operation| unsafe { operation.issue(&*self.device) })
    }
}

/// Runs a launch in one order and looks for damage.
///
/// # Safety
/// As [`Emulator::run`].
unsafe fn run_once(memory: &mut Memory, module: &Module, launch: &Launch) -> Result<(), String> {
    // SAFETY: the caller's promise.
    let succeeded = unsafe { module.run(launch) };
    if !succeeded {
        // SAFETY: a failed launch leaves a text that ends with 0 in its message, which lives as long as the launch.
        let message = unsafe { CStr::from_ptr(launch.message) };
        return Err(message.to_string_lossy().into_owned());
    }
    memory.damage().map_or(Ok(()), Err)
}

/// An argument as it lies in memory.
fn bits(argument: &Arg) -> [u8; 8] {
    let word = |bytes: [u8; 4]| [bytes, [0; 4]].concat().try_into().expect("two words are 8 bytes");
    match *argument {
        Arg::Address(address) => address.0.to_ne_bytes(),
        Arg::U64(v) => v.to_ne_bytes(),
        Arg::U32(v) => word(v.to_ne_bytes()),
        Arg::F32(v) => word(v.to_ne_bytes()),
    }
}

/// Whether the arguments are those that a kernel takes, and its addresses those of buffers, or null.
fn check_arguments(signature: &Signature, arguments: &[Arg], memory: &Memory) -> Result<(), String> {
    let parameters = &signature.parameters;
    if parameters.len() != arguments.len() {
        return Err(format!("takes {} arguments, got {}", parameters.len(), arguments.len()));
    }
    for (parameter, argument) in parameters.iter().zip(arguments) {
        let name = &parameter.name;
        match (parameter.kind, argument) {
            (Kind::Address, Arg::Address(address)) if address.0 == 0 || memory.holds(*address) => {}
            (Kind::Address, Arg::Address(address)) => {
                return Err(format!("argument `{name}` is {:#x}, where no buffer is", address.0));
            }
            (Kind::U32, Arg::U32(_)) | (Kind::U64, Arg::U64(_)) | (Kind::F32, Arg::F32(_)) => {}
            (_, found) => return Err(format!("argument `{name}` is `{}`, got {found:?}", parameter.ty)),
        }
    }
    Ok(())
}

/// Leaves a file for a kernel that is run, once, if somebody asks for it.
fn bear_witness(source: &'static str, kernel: &str) {
    static SEEN: Mutex<BTreeSet<(&'static str, String)>> = Mutex::new(BTreeSet::new());
    let Some(folder) = std::env::var_os("MLLM4REC_EXECUTED") else { return };
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.insert((source, kernel.to_owned())) {
        let file = PathBuf::from(folder).join(format!("{source}.{kernel}"));
        if let Err(e) = std::fs::write(&file, []) {
            eprintln!("cannot write {}: {e}", file.display());
        }
    }
}

/// Whether a card can run such a launch.
fn check_geometry(geometry: Geometry) -> Result<(), String> {
    let Geometry { grid, block, shared, limit } = geometry;
    let within = |extents: [u32; 3], most: [u32; 3]| extents.iter().zip(most).all(|(&e, most)| (1..=most).contains(&e));
    if !within(grid, MOST_GRID) {
        return Err(format!("a grid of {grid:?} blocks, allowed are 1 to {MOST_GRID:?}"));
    }
    let threads: u64 = block.iter().map(|&e| u64::from(e)).product();
    if !within(block, MOST_BLOCK) || threads > MOST_THREADS {
        return Err(format!("blocks of {block:?} threads, allowed are 1 to {MOST_BLOCK:?} and {MOST_THREADS} in all"));
    }
    if shared > MOST_SHARED_BYTES {
        return Err(format!("blocks ask for {shared} bytes of shared memory, a card has {MOST_SHARED_BYTES}"));
    }
    if limit == SharedLimit::EveryCard && shared > LEAST_SHARED_BYTES {
        return Err(format!("blocks ask for {shared} bytes of shared memory, which is more than every card has"));
    }
    Ok(())
}
