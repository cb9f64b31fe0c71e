//! Dense products by cuBLASLt.
//!
//! It counts columns first: the transposed result is asked for, `cᵀ = bᵀ · aᵀ`, whose column-major form is the row-major one
//! that tensors have.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use cudarc::cublaslt::{result, sys};
use cudarc::driver::sys::CUstream;

use super::libraries::Library;
use crate::cuda::{Address, Matrix, Product};
use crate::{Dtype, Error, Result};

/// Memory that an algorithm may use, as NVIDIA advises for Hopper.
pub(super) const WORKSPACE_BYTES: usize = 32 << 20;
/// Addresses of tensors are at least as round as this, and no algorithm asks for more.
const MOST_ALIGNMENT: u64 = 256;

/// The library, and the algorithm that it advises for every kind of product that was asked for.
pub(super) struct Products {
    handle: sys::cublasLtHandle_t,
    workspace: Address,
    algorithms: Mutex<HashMap<Kind, sys::cublasLtMatmulAlgo_t>>,
}

/// What the choice of an algorithm depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    extents: [usize; 3],
    operands: [Operand; 3],
    adds: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Operand {
    dtype: Dtype,
    transposed: bool,
    stride: usize,
    alignment: u32,
}

impl Operand {
    fn of(matrix: &Matrix) -> Self {
        Self {
            dtype: matrix.dtype,
            transposed: matrix.transposed,
            stride: matrix.stride,
            alignment: (1 << matrix.address.0.trailing_zeros().min(8)).min(MOST_ALIGNMENT as u32),
        }
    }

    fn data_type(&self) -> sys::cudaDataType {
        match self.dtype {
            Dtype::U8 => sys::cudaDataType::CUDA_R_8F_E4M3,
            Dtype::Bf16 => sys::cudaDataType::CUDA_R_16BF,
            Dtype::F16 | Dtype::F32 => sys::cudaDataType::CUDA_R_32F,
        }
    }

    /// `CUBLAS_OP_N` or `CUBLAS_OP_T`, as the library's header counts them.
    fn operation(&self) -> i32 {
        i32::from(self.transposed)
    }

    /// The matrix as it lies in memory, of so many rows and columns behind its transpose.
    fn layout(&self, rows: usize, cols: usize) -> Result<Layout> {
        let (rows, cols) = if self.transposed { (cols, rows) } else { (rows, cols) };
        let stride = i64::try_from(self.stride).unwrap_or(i64::MAX);
        // Rows in memory are the library's columns.
        result::create_matrix_layout(self.data_type(), cols as u64, rows as u64, stride)
            .map(Layout)
            .map_err(|e| failed("describing a matrix", e))
    }
}

impl Products {
    /// Opens the library; `workspace` is memory of [`WORKSPACE_BYTES`] that nobody else uses.
    ///
    /// # Errors
    /// [`Error::Device`] names the package that is missing.
    pub(super) fn new(workspace: Address) -> Result<Self> {
        Library::CublasLt.required()?;
        let handle = result::create_handle().map_err(|e| failed("opening the library", e))?;
        Ok(Self { handle, workspace, algorithms: Mutex::default() })
    }

    /// Asks for a product that is not empty, and whose depth is not zero either.
    ///
    /// # Safety
    /// The matrices lie in memory of the stream's device, whose context is this thread's; the result overlaps neither operand.
    pub(super) unsafe fn multiply(&self, product: &Product, stream: CUstream) -> Result<()> {
        let Product { rows, cols, depth, a, b, c, .. } = *product;
        let operands = [a, b, c].each_ref().map(Operand::of);
        let kind = Kind { extents: [rows, cols, depth], operands, adds: product.beta != 0.0 };
        let description = Description::new(&operands)?;
        let layouts =
            [operands[0].layout(rows, depth)?, operands[1].layout(depth, cols)?, operands[2].layout(rows, cols)?];
        let algorithm = self.algorithm(kind, &description, &layouts)?;
        let pointer = |matrix: Matrix| matrix.address.0 as *mut c_void;
        let [a_layout, b_layout, c_layout] = layouts.each_ref().map(|layout| layout.0);
        let factor = |v: &f32| std::ptr::from_ref(v).cast::<c_void>();
        // SAFETY: the caller's promise; descriptions and factors live until the call returns, which has read them by then.
        unsafe {
            result::matmul(
                self.handle,
                description.0,
                factor(&product.alpha),
                factor(&product.beta),
                pointer(b),
                b_layout,
                pointer(a),
                a_layout,
                pointer(c),
                c_layout,
                pointer(c),
                c_layout,
                &raw const algorithm,
                self.workspace.0 as *mut c_void,
                WORKSPACE_BYTES,
                stream.cast(),
            )
        }
        .map_err(|e| failed(&format!("a product of {rows} rows, {cols} columns and depth {depth}"), e))
    }

    fn algorithm(
        &self,
        kind: Kind,
        description: &Description,
        [a, b, c]: &[Layout; 3],
    ) -> Result<sys::cublasLtMatmulAlgo_t> {
        let mut known = self.algorithms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(algorithm) = known.get(&kind) {
            return Ok(*algorithm);
        }
        let preference = Preference::new(&kind.operands)?;
        // SAFETY: all of them are alive.
        let found =
            unsafe { result::get_matmul_algo_heuristic(self.handle, description.0, b.0, a.0, c.0, c.0, preference.0) };
        let [rows, cols, depth] = kind.extents;
        let advice = found.map_err(|e| {
            failed(&format!("asking for an algorithm for {rows} rows, {cols} columns and depth {depth}"), e)
        })?;
        known.insert(kind, advice.algo);
        Ok(advice.algo)
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        // SAFETY: the handle is this one's, and nobody uses it any more.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}

// SAFETY: the handle holds no state of a thread; the library allows its use from several.
unsafe impl Send for Products {}
// SAFETY: as above; the workspace is used in the order of one stream.
unsafe impl Sync for Products {}

/// How a matrix lies in memory.
struct Layout(sys::cublasLtMatrixLayout_t);

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: it is this one's.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// What is computed: sums in f32, of f32 without dropping bits.
struct Description(sys::cublasLtMatmulDesc_t);

impl Description {
    fn new([a, b, _]: &[Operand; 3]) -> Result<Self> {
        use sys::cublasLtMatmulDescAttributes_t::{CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB};
        let precision = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let description = result::create_matmul_desc(precision, sys::cudaDataType::CUDA_R_32F)
            .map(Self)
            .map_err(|e| failed("describing a product", e))?;
        for (attribute, operand) in [(CUBLASLT_MATMUL_DESC_TRANSA, b), (CUBLASLT_MATMUL_DESC_TRANSB, a)] {
            let operation = operand.operation();
            // SAFETY: the description is alive, and the attribute of this type.
            unsafe {
                let value = std::ptr::from_ref(&operation).cast();
                result::set_matmul_desc_attribute(description.0, attribute, value, size_of_val(&operation))
            }
            .map_err(|e| failed("describing a product", e))?;
        }
        Ok(description)
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: it is this one's.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// What an algorithm may count on.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new([a, b, c]: &[Operand; 3]) -> Result<Self> {
        use sys::cublasLtMatmulPreferenceAttributes_t::*;
        let preference = result::create_matmul_pref().map(Self).map_err(|e| failed("asking for an algorithm", e))?;
        preference.set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &(WORKSPACE_BYTES as u64))?;
        // Parts of a sum are added in f32, and never in the type of the result.
        let in_f32 = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        preference.set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &in_f32)?;
        preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &b.alignment)?;
        preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &a.alignment)?;
        preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &c.alignment)?;
        preference.set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &c.alignment)?;
        Ok(preference)
    }

    fn set<T>(&self, attribute: sys::cublasLtMatmulPreferenceAttributes_t, value: &T) -> Result<()> {
        let pointer = std::ptr::from_ref(value).cast();
        // SAFETY: the preference is alive; the callers give values of the attributes' types.
        unsafe { result::set_matmul_pref_attribute(self.0, attribute, pointer, size_of::<T>()) }
            .map_err(|e| failed("asking for an algorithm", e))
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: it is this one's.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

fn failed(what: &str, error: result::CublasError) -> Error {
    Error::Device(format!("cuBLASLt: {what}: {:?}", error.0))
}
