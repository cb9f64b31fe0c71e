//! One card, one stream, and the memory that was taken from it.

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use super::cache;
use super::libraries::Library;
use super::products::{Products, WORKSPACE_BYTES};
use crate::cuda::{Address, Arg, Driver, Geometry, Matrix, Product, Source};
use crate::{Error, Result};

/// Of the memory that is free when the card is opened, what may be taken: the rest is for the context, for libraries and for
/// other programs.
const SHARE: f64 = 0.92;
/// Shared memory that a kernel may ask for without saying so beforehand.
const PLAIN_SHARED: u32 = 48 * 1024;

/// A card.
///
/// Its calls come from one thread at a time; which thread that is may change.
pub(crate) struct Card {
    context: sys::CUcontext,
    stream: sys::CUstream,
    number: sys::CUdevice,
    name: String,
    arch: String,
    /// Bytes that may be taken.
    budget: usize,
    /// Shared memory that a block may ask for.
    most_shared: usize,
    taken: Mutex<Taken>,
    kernels: Mutex<HashMap<(&'static str, String), Kernel>>,
    /// Opened with the first product.
    products: OnceLock<Products>,
}

#[derive(Default)]
struct Taken {
    sizes: HashMap<Address, usize>,
    bytes: usize,
}

#[derive(Clone, Copy)]
struct Kernel {
    function: sys::CUfunction,
    /// The most shared memory that was allowed so far.
    shared: u32,
}

// SAFETY: contexts, streams and functions are handles that any thread may use once the context is current there, which every
// call sees to.
unsafe impl Send for Card {}
// SAFETY: as above; what changes lies behind locks.
unsafe impl Sync for Card {}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Card")
            .field("name", &self.name)
            .field("arch", &self.arch)
            .field("budget", &self.budget)
            .finish()
    }
}

impl Card {
    /// Opens the card of a number.
    pub(crate) fn open(number: usize) -> Result<Self> {
        for library in [Library::Driver, Library::Nvrtc] {
            library.open().map_err(|reason| {
                Error::Device(format!(
                    "{} is missing ({reason}): it comes with {}",
                    library.name(),
                    library.brought_by()
                ))
            })?;
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
            keep_freed_memory(number)?;
            Ok(Self {
                context,
                stream,
                number,
                name: result::device::get_name(number).unwrap_or_default(),
                // Instructions of one architecture alone are worth it from Hopper on.
                arch: if major >= 9 { format!("sm_{major}{minor}a") } else { format!("sm_{major}{minor}") },
                budget: (free as f64 * SHARE) as usize,
                most_shared: usize::try_from(most_shared).unwrap_or(PLAIN_SHARED as usize),
                taken: Mutex::default(),
                kernels: Mutex::default(),
                products: OnceLock::new(),
            })
        }
    }

    /// Makes the card's context that of this thread.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as the card.
        unsafe { result::ctx::set_current(self.context) }.map_err(|e| failed("entering the card", e))
    }

    /// Memory of the card that is free now.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        self.enter().ok()?;
        result::mem_get_info().ok().map(|(free, _)| free as u64)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The library of products and its workspace, which stays taken.
    fn products(&self) -> Result<&Products> {
        if self.products.get().is_none() {
            let opened = Products::new(self.allocate(WORKSPACE_BYTES)?)?;
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
        (0..product.rows).try_for_each(|row| {
            self.fill(address.offset(row * stride * dtype.bytes()), 0, product.cols * dtype.bytes())
        })
    }

    /// The kernel of a name, compiled and loaded when it is first asked for.
    fn kernel(&self, source: &Source, name: &str, shared: u32) -> Result<sys::CUfunction> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (source.name, name.to_owned());
        let mut kernel = match kernels.get(&key) {
            Some(kernel) => *kernel,
            None => Kernel { function: self.load(source, name)?, shared: PLAIN_SHARED },
        };
        if shared > kernel.shared {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = c_int::try_from(shared).unwrap_or(c_int::MAX);
            // SAFETY: the function is loaded.
            unsafe { result::function::set_function_attribute(kernel.function, attribute, bytes) }
                .map_err(|e| failed(&format!("{shared} bytes of shared memory for {name}"), e))?;
            kernel.shared = shared;
        }
        kernels.insert(key, kernel);
        Ok(kernel.function)
    }

    fn load(&self, source: &Source, name: &str) -> Result<sys::CUfunction> {
        let code = cache::code(source, &self.arch)?;
        let c_name = CString::new(name).map_err(|e| Error::Device(format!("kernel {name}: {e}")))?;
        // SAFETY: the code is what NVRTC made for this architecture; the module stays loaded as long as the context.
        unsafe {
            let module = result::module::load_data(code.as_ptr().cast())
                .map_err(|e| failed(&format!("loading {}/kernel.cu", source.name), e))?;
            result::module::get_function(module, c_name).map_err(|e| failed(&format!("finding the kernel {name}"), e))
        }
    }
}

/// Freed memory stays with the program for the next tensor, up to the whole card.
///
/// # Safety
/// The number is that of a card.
unsafe fn keep_freed_memory(number: sys::CUdevice) -> Result<()> {
    let mut all = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: that of this function; the attribute is a number of 64 bits.
    unsafe {
        let pool = result::device::get_default_mem_pool(number).map_err(|e| failed("asking for the memory pool", e))?;
        result::mem_pool::set_attribute(pool, attribute, (&raw mut all).cast())
            .map_err(|e| failed("setting up the memory pool", e))
    }
}

impl Driver for Card {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn most_shared(&self) -> usize {
        self.most_shared
    }

    fn allocate(&self, bytes: usize) -> Result<Address> {
        self.enter()?;
        let mut taken = self.taken();
        let free = self.budget.saturating_sub(taken.bytes);
        let full = || Error::Memory { asked: bytes, free, budget: self.budget };
        if bytes > free {
            return Err(full());
        }
        // SAFETY: the stream is the card's; of no bytes there is no memory, so at least one is asked for.
        let found = unsafe { result::malloc_async(self.stream, bytes.max(1)) };
        match found {
            Ok(pointer) => {
                taken.sizes.insert(Address(pointer), bytes);
                taken.bytes += bytes;
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
        // SAFETY: the caller's memory is read before the call returns, as it is not pinned.
        unsafe { result::memcpy_htod_async(to.0, from, self.stream) }.map_err(|e| failed("copying to the card", e))?;
        self.wait()
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

    unsafe fn launch(&self, source: &Source, kernel: &str, geometry: Geometry, arguments: &[Arg]) -> Result<()> {
        self.enter()?;
        let function = self.kernel(source, kernel, geometry.shared)?;
        let mut values: Vec<u64> = arguments.iter().map(|argument| argument.bits()).collect();
        // The driver reads as many bytes of each as the kernel's parameter has: the lower ones, on the machines that there are.
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        let [grid, block] = [geometry.grid, geometry.block].map(|[x, y, z]| (x, y, z));
        // SAFETY: that of this function; the arguments are copied before the call returns.
        unsafe { result::launch_kernel(function, grid, block, geometry.shared, self.stream, &mut pointers) }
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

    fn wait(&self) -> Result<()> {
        self.enter()?;
        // SAFETY: the stream is the card's.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|e| failed("waiting for the card", e))
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // SAFETY: nobody uses the stream any more; a context that is lost cannot be given back any better.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            let _ = result::stream::synchronize(self.stream);
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.number);
        }
    }
}

/// What the driver says of an error.
pub(super) fn words(error: DriverError) -> String {
    error.error_string().map_or_else(|_| format!("{error:?}"), |words| words.to_string_lossy().into_owned())
}

fn failed(what: &str, error: DriverError) -> Error {
    let said = format!("{what}: {}", words(error));
    if is_sticky(error.0) { Error::Lost(said) } else { Error::Device(said) }
}

/// Whether every later call in the context fails as well, as CUDA documents it of these.
fn is_sticky(code: sys::CUresult) -> bool {
    use sys::CUresult::*;
    matches!(
        code,
        // A kernel went astray.
        CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_ASSERT
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_LAUNCH_FAILED
            | CUDA_ERROR_TENSOR_MEMORY_LEAK
            // The card did, or what it is connected to.
            | CUDA_ERROR_ECC_UNCORRECTABLE
            | CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUDA_ERROR_CONTAINED
            | CUDA_ERROR_EXTERNAL_DEVICE
            | CUDA_ERROR_UNKNOWN
            // Somebody else took the context away.
            | CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUDA_ERROR_DEINITIALIZED
            | CUDA_ERROR_MPS_RPC_FAILURE
            | CUDA_ERROR_MPS_CLIENT_TERMINATED
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_card_is_told_from_a_call_that_failed() {
        use sys::CUresult::*;
        for code in [CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_LAUNCH_FAILED, CUDA_ERROR_ECC_UNCORRECTABLE] {
            assert!(is_sticky(code), "{code:?}");
        }
        for code in [CUDA_ERROR_OUT_OF_MEMORY, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES] {
            assert!(!is_sticky(code), "{code:?}");
        }
    }
}
