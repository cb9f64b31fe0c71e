//! The kernels that were asked for, compiled and loaded.

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::{result, sys};

use super::cache;
use super::failure::failed;
use crate::cuda::{Arg, Source};
use crate::{Error, Result};

/// Shared memory that every card allows a block.
pub(super) const PLAIN_SHARED: u32 = 48 * 1024;
/// What a kernel may ask for without saying so beforehand: the rest of the above is for arrays of constant extents.
const LITTLE_SHARED: u32 = 32 * 1024;
/// Arguments that fit without memory of their own: more than any kernel has.
const MANY_ARGUMENTS: usize = 48;

/// The kernels of an architecture.
pub(super) struct Kernels {
    arch: String,
    /// By file.
    modules: Mutex<HashMap<&'static str, sys::CUmodule>>,
    /// By file and name.
    known: Mutex<HashMap<(&'static str, &'static str), Kernel>>,
}

#[derive(Clone, Copy)]
struct Kernel {
    function: sys::CUfunction,
    /// The most shared memory that was allowed so far.
    shared: u32,
}

impl Kernels {
    pub(super) fn new(arch: String) -> Self {
        Self { arch, modules: Mutex::default(), known: Mutex::default() }
    }

    /// The kernel of a name, compiled and loaded when it is first asked for, in the context of this thread.
    ///
    /// # Errors
    /// [`Error::Device`] if it does not compile or needs more shared memory than a block can have.
    pub(super) fn function(&self, source: &Source, name: &'static str, shared: u32) -> Result<sys::CUfunction> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (source.name, name);
        if let Some(kernel) = known.get(&key).filter(|kernel| shared <= kernel.shared) {
            return Ok(kernel.function);
        }
        let function = known.get(&key).map_or_else(|| self.load(source, name), |kernel| Ok(kernel.function))?;
        if shared > LITTLE_SHARED {
            let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = c_int::try_from(shared).unwrap_or(c_int::MAX);
            // SAFETY: the function is loaded.
            unsafe { result::function::set_function_attribute(function, attribute, bytes) }
                .map_err(|e| failed(&format!("{shared} bytes of shared memory for {name}"), e))?;
        }
        known.insert(key, Kernel { function, shared: shared.max(LITTLE_SHARED) });
        Ok(function)
    }

    fn load(&self, source: &Source, name: &str) -> Result<sys::CUfunction> {
        let module = self.module(source)?;
        let c_name = CString::new(name).map_err(|e| Error::Device(format!("kernel {name}: {e}")))?;
        // SAFETY: the module is loaded.
        unsafe { result::module::get_function(module, c_name) }
            .map_err(|e| failed(&format!("finding the kernel {name}"), e))
    }

    /// The kernels of a file, which stay loaded as long as the context.
    fn module(&self, source: &Source) -> Result<sys::CUmodule> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(source.name) {
            return Ok(*module);
        }
        let code = cache::code(source, &self.arch)?;
        // SAFETY: the code is what NVRTC made for this architecture.
        let module = unsafe { result::module::load_data(code.as_ptr().cast()) }
            .map_err(|e| failed(&format!("loading {}/kernel.cu", source.name), e))?;
        modules.insert(source.name, module);
        Ok(module)
    }
}

/// Calls with pointers to the values of arguments. The driver reads as many bytes of each as the kernel's parameter has: the
/// lower ones, on the machines that there are.
pub(super) fn with_pointers<T>(arguments: &[Arg], call: impl FnOnce(&mut [*mut c_void]) -> T) -> T {
    let point = |values: &mut [u64], pointers: &mut [*mut c_void]| {
        for ((argument, value), pointer) in arguments.iter().zip(values).zip(pointers) {
            *value = argument.bits();
            *pointer = std::ptr::from_mut(value).cast();
        }
    };
    let n = arguments.len();
    if n <= MANY_ARGUMENTS {
        let (mut values, mut pointers) = ([0; MANY_ARGUMENTS], [std::ptr::null_mut(); MANY_ARGUMENTS]);
        point(&mut values, &mut pointers);
        return call(&mut pointers[..n]);
    }
    let (mut values, mut pointers) = (vec![0; n], vec![std::ptr::null_mut(); n]);
    point(&mut values, &mut pointers);
    call(&mut pointers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::Address;

    #[test]
    fn pointers_lead_to_the_bits_of_arguments_however_many_they_are() {
        for n in [0, 1, MANY_ARGUMENTS, MANY_ARGUMENTS + 1] {
            let arguments: Vec<Arg> = (0..n as u32)
                .map(|i| [Arg::U32(i), Arg::F32(i as f32), Arg::Address(Address(u64::from(i) << 40))][i as usize % 3])
                .collect();
            let found = with_pointers(&arguments, |pointers| {
                // SAFETY: each pointer leads to a value of 8 bytes.
                pointers.iter().map(|p| unsafe { p.cast::<u64>().read() }).collect::<Vec<u64>>()
            });
            assert_eq!(found, arguments.iter().map(|argument| argument.bits()).collect::<Vec<_>>());
        }
    }
}
