//! What the driver says when a call fails.

use cudarc::driver::result::DriverError;
use cudarc::driver::sys;

use crate::Error;

/// What the driver says of an error.
pub(super) fn words(error: DriverError) -> String {
    error.error_string().map_or_else(|_| format!("{error:?}"), |words| words.to_string_lossy().into_owned())
}

pub(super) fn failed(what: &str, error: DriverError) -> Error {
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
