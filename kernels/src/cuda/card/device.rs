//! One card, one stream, and the memory that was taken from it.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::failure::failed;
use super::graph::CardGraph;
use super::kernels::{Kernels, PLAIN_SHARED, with_pointers};
use super::libraries::Library;
use super::products::{Products, WORKSPACE_BYTES};
use super::staging::Staging;
use crate::cuda::{Address, Arg, Driver, Geometry, Graph, Matrix, Operation, Product, RawStream, Source};
use crate::{Error, Result};

/// Of the memory that is free when the card is opened, what may be taken: the rest is for the context, for libraries and for
/// other programs.
const SHARE: f64 = 0.92;
/// The first compute capability whose tensor cores multiply numbers in eight bits.
const FIRST_WITH_FP8: (i32, i32) = (8, 9);
/// Memory comes in multiples of so many bytes.
const GRANULE: usize = 512;

/// A card.
///
/// Its calls come from one thread at a time; which thread that is may change.
pub(crate) struct Card {
    context: sys::CUcontext,
    stream: sys::CUstream,
    number: sys::CUdevice,
    name: String,
    /// Bytes that may be taken.
    budget: usize,
    multiplies_fp8: bool,
    /// Shared memory that a block may ask for.
    most_shared: usize,
    taken: Mutex<Taken>,
    /// Where its memory comes from and goes back to, in the order of the stream.
    pool: sys::CUmemoryPool,
    kernels: Kernels,
    /// Made with the first upload.
    staging: Mutex<Option<Staging>>,
    /// Opened with the first product.
    products: OnceLock<Products>,
}

#[derive(Default)]
struct Taken {
    sizes: HashMap<Address, usize>,
    bytes: usize,
}

// SAFETY: contexts, streams and functions are handles that any thread may use once the context is current there, which every
// call sees to.
unsafe impl Send for Card {}
// SAFETY: as above; what changes lies behind locks.
unsafe impl Sync for Card {}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Card").field("name", &self.name).field("budget", &self.budget).finish()
    }
}

impl Card {
    /// Opens the card of a number.
    pub(crate) fn open(number: usize) -> Result<Self> {
        for library in [Library::Driver, Library::Nvrtc] {
            library.required()?;
        }
        result::init().map_err(|e| failed("starting CUDA", e))?;
        let count = result::device::get_count().map_err(|e| failed("counting cards", e))?;
        let ordinal = c_int::try_from(number).unwrap_or(c_int::MAX);
        if ordinal >= count {
            return Err(Error::Device(format!("there is no card {number}: CUDA sees {count}")));
        }
        // SAFETY: the number is that of a card.
        unsafe { Self::of(result::device::get(ordinal).map_err(|e| failed("asking for the card", e))?) }
    }

    /// # Safety
    /// The number is that of a card.
    unsafe fn of(number: sys::CUdevice) -> Result<Self> {
        // SAFETY: that of this function; the primary context is given back when the card is dropped.
        unsafe {
            let ask =
                |attribute| result::device::get_attribute(number, attribute).map_err(|e| failed("asking the card", e));
            let major = ask(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
            let minor = ask(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
            let most_shared = ask(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
            let context = result::primary_ctx::retain(number).map_err(|e| failed("opening the card", e))?;
            result::ctx::set_current(context).map_err(|e| failed("opening the card", e))?;
            let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
                .map_err(|e| failed("making a stream", e))?;
            let (free, _) = result::mem_get_info().map_err(|e| failed("asking for memory", e))?;
            let pool = pool(number)?;
            Ok(Self {
                context,
                stream,
                number,
                name: result::device::get_name(number).unwrap_or_default(),
                // Instructions of one architecture alone are worth it from Hopper on.
                kernels: Kernels::new(if major >= 9 {
                    format!("sm_{major}{minor}a")
                } else {
                    format!("sm_{major}{minor}")
                }),
                budget: (free as f64 * SHARE) as usize,
                multiplies_fp8: (major, minor) >= FIRST_WITH_FP8,
                most_shared: usize::try_from(most_shared).unwrap_or(PLAIN_SHARED as usize),
                taken: Mutex::default(),
                pool,
                staging: Mutex::default(),
                products: OnceLock::new(),
            })
        }
    }

    /// Makes the card's context that of this thread.
    pub(super) fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as the card.
        unsafe { result::ctx::set_current(self.context) }.map_err(|e| failed("entering the card", e))
    }

    /// Memory of the card that nobody uses now, this process or another.
    pub(super) fn unused_bytes(&self) -> Option<u64> {
        self.enter().ok()?;
        result::mem_get_info().ok().map(|(free, _)| free as u64)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The library of products and its workspace, which stays taken.
    fn products(&self) -> Result<&Products> {
        if self.products.get().is_none() {
            let workspace = self.allocate(WORKSPACE_BYTES)?;
            let opened = Products::new(workspace).inspect_err(|_| self.free(workspace))?;
            // If another thread was faster its one serves, and this workspace is idle.
            let _ = self.products.set(opened);
        }
        self.products.get().ok_or_else(|| Error::Device("cuBLASLt was not opened".to_owned()))
    }

    /// A product without depth adds nothing.
    fn scale_to_nothing(&self, product: &Product) -> Result<()> {
        let Matrix { address, dtype, stride, .. } = product.c;
        if product.beta != 0.0 {
            return Ok(()); // kept as it is: all callers add with a factor of one
        }
        if stride == product.cols {
            return self.fill(address, 0, product.rows * stride * dtype.bytes());
        }
        (0..product.rows).try_for_each(|row| {
            self.fill(address.offset(row * stride * dtype.bytes()), 0, product.cols * dtype.bytes())
        })
    }

    pub(super) fn stream(&self) -> sys::CUstream {
        self.stream
    }

    /// Memory of the pool. If it says that there is none, it may yet hold some that the stream has not given back, or in
    /// pieces that are too small.
    fn take_from_pool(&self, bytes: usize) -> Result<sys::CUdeviceptr, DriverError> {
        // SAFETY: the stream and the pool are the card's.
        unsafe {
            result::malloc_async(self.stream, bytes).or_else(|e| match e.0 {
                sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                    result::stream::synchronize(self.stream)?;
                    result::mem_pool::trim_to(self.pool, 0)?;
                    result::malloc_async(self.stream, bytes)
                }
                _ => Err(e),
            })
        }
    }
}

/// The card's pool of memory. What is freed stays in it for the next tensor, up to the whole card.
///
/// # Safety
/// The number is that of a card.
unsafe fn pool(number: sys::CUdevice) -> Result<sys::CUmemoryPool> {
    let mut all = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: that of this function; the attribute is a number of 64 bits.
    unsafe {
        let pool = result::device::get_default_mem_pool(number).map_err(|e| failed("asking for the memory pool", e))?;
        result::mem_pool::set_attribute(pool, attribute, (&raw mut all).cast())
            .map_err(|e| failed("setting up the memory pool", e))?;
        Ok(pool)
    }
}

impl Driver for Card {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn most_shared(&self) -> usize {
        self.most_shared
    }

    fn multiplies_fp8(&self) -> bool {
        self.multiplies_fp8
    }

    fn free_bytes(&self) -> usize {
        self.budget.saturating_sub(self.taken().bytes)
    }

    fn allocate(&self, bytes: usize) -> Result<Address> {
        self.enter()?;
        let mut taken = self.taken();
        let free = self.budget.saturating_sub(taken.bytes);
        let full = || Error::Memory { asked: bytes, free, budget: self.budget };
        // Of no bytes there is no memory.
        let granted =
            bytes.max(1).checked_next_multiple_of(GRANULE).filter(|&granted| granted <= free).ok_or_else(full)?;
        match self.take_from_pool(granted) {
            Ok(pointer) => {
                taken.sizes.insert(Address(pointer), granted);
                taken.bytes += granted;
                Ok(Address(pointer))
            }
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => Err(full()),
            Err(e) => Err(failed("taking memory", e)),
        }
    }

    fn free(&self, address: Address) {
        let mut taken = self.taken();
        let Some(bytes) = taken.sizes.remove(&address) else { return };
        taken.bytes -= bytes;
        if self.enter().is_ok() {
            // SAFETY: the address was taken from this stream and is given back once. If that fails the context is lost, and
            // with it the memory.
            let _ = unsafe { result::free_async(address.0, self.stream) };
        }
    }

    fn write(&self, to: Address, from: &[u8]) -> Result<()> {
        self.enter()?;
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if staging.is_none() {
            *staging = Some(Staging::new().map_err(|e| failed("pinning memory of the host", e))?);
        }
        let Some(staging) = staging.as_mut() else { return Ok(()) };
        // SAFETY: the stream is the card's, and its context that of this thread.
        unsafe { staging.send(to, from, self.stream) }.map_err(|e| failed("copying to the card", e))
    }

    fn read(&self, from: Address, to: &mut [u8]) -> Result<()> {
        self.enter()?;
        // SAFETY: the memory lives until the wait is over.
        unsafe { result::memcpy_dtoh_async(to, from.0, self.stream) }
            .map_err(|e| failed("copying from the card", e))?;
        self.wait()
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: both lie in memory of this card, which the caller vouches for.
        unsafe { result::memcpy_dtod_async(to.0, from.0, bytes, self.stream) }
            .map_err(|e| failed("copying on the card", e))
    }

    fn fill(&self, to: Address, byte: u8, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: as above.
        unsafe { result::memset_d8_async(to.0, byte, bytes, self.stream) }.map_err(|e| failed("filling memory", e))
    }

    unsafe fn launch(
        &self,
        source: &Source,
        kernel: &'static str,
        geometry: Geometry,
        arguments: &[Arg],
    ) -> Result<()> {
        self.enter()?;
        let function = self.kernels.function(source, kernel, geometry.shared)?;
        let [grid, block] = [geometry.grid, geometry.block].map(|[x, y, z]| (x, y, z));
        // SAFETY: that of this function; the arguments are copied before the call returns.
        with_pointers(arguments, |pointers| unsafe {
            result::launch_kernel(function, grid, block, geometry.shared, self.stream, pointers)
        })
        .map_err(|e| failed(&format!("{kernel} of {}/kernel.cu, {geometry:?}", source.name), e))
    }

    unsafe fn multiply(&self, product: &Product) -> Result<()> {
        self.enter()?;
        if product.depth == 0 {
            return self.scale_to_nothing(product);
        }
        // SAFETY: the caller's promise; the context is that of this thread.
        unsafe { self.products()?.multiply(product, self.stream) }
    }

    fn record(self: Arc<Self>, operations: &[Operation<'static>]) -> Result<Box<dyn Graph>> {
        Ok(Box::new(CardGraph::new(self, operations)?))
    }

    fn wait(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream is the card's.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|e| failed("waiting for the card", e))
    }

    fn raw_stream(self: Arc<Self>) -> Option<Arc<dyn RawStream>> {
        Some(self)
    }
}

impl RawStream for Card {
    fn enter(&self) -> Result<*mut c_void> {
        Self::enter(self)?;
        Ok(self.stream.cast())
    }

    fn is_idle(&self) -> Result<bool> {
        Self::enter(self)?;
        // SAFETY: the stream is the card's.
        match unsafe { sys::cuStreamQuery(self.stream) }.result() {
            Ok(()) => Ok(true),
            Err(DriverError(sys::CUresult::CUDA_ERROR_NOT_READY)) => Ok(false),
            Err(e) => Err(failed("asking the card", e)),
        }
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let taken = std::mem::take(&mut self.taken.get_mut().unwrap_or_else(PoisonError::into_inner).sizes);
        // SAFETY: nobody uses the stream and what was taken any more; a context that is lost cannot be given back any better.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            let _ = result::stream::synchronize(self.stream);
            // These need the context that goes with the card.
            drop(self.products.take());
            drop(self.staging.get_mut().unwrap_or_else(PoisonError::into_inner).take());
            for address in taken.into_keys() {
                let _ = result::free_async(address.0, self.stream);
            }
            let _ = result::stream::synchronize(self.stream);
            // Whoever else keeps the context should not keep this memory.
            let _ = result::mem_pool::trim_to(self.pool, 0);
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.number);
            let _ = result::ctx::set_current(std::ptr::null_mut());
        }
    }
}
