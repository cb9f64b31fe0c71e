//! The device side: products by the device's library, and what surrounds them by kernels of our own.

use super::epilogue::{Activation, Epilogue};
use super::low_rank::{LowRank, begin};
use crate::cuda::{Arg, Geometry, Matrix, Product, Source, Stream, rows};
use crate::{Dtype, Result, Tensor};

const OP: &str = "gemm";
const KERNELS: Source = Source { name: OP, text: include_str!("kernel.cu") };

/// Rows of one partial sum over columns: part of the order of summation, so it is a constant.
const BAND: usize = 128;
/// Columns of one block of those sums.
const COLUMNS: usize = 128;

/// A tensor as the rows of a matrix.
pub(crate) fn matrix(tensor: &Tensor) -> Result<Matrix> {
    Ok(Matrix { address: tensor.arg()?.address(), dtype: tensor.dtype(), stride: tensor.cols(), transposed: false })
}

/// Where a product writes a tensor.
pub(crate) fn matrix_mut(tensor: &mut Tensor) -> Result<Matrix> {
    tensor.arg_mut()?;
    matrix(tensor)
}

/// `c = alpha · a · b + beta · c`, of checked shapes `[rows, depth]` and `[depth, cols]` behind their transposes.
pub(crate) fn multiply(
    on: &Stream,
    alpha: f32,
    [a, b]: [Matrix; 2],
    beta: f32,
    c: &mut Tensor,
    depth: usize,
) -> Result<()> {
    let (rows, cols) = (c.rows(), c.cols());
    let product = Product { rows, cols, depth, alpha, a, b, beta, c: matrix_mut(c)? };
    // SAFETY: the callers have checked the shapes of the tensors; the result is a tensor of its own.
    unsafe { on.multiply(&product) }
}

/// `x · Wᵀ`, what is summed with it and what follows, of checked operands of one dtype; the result has the dtype that is asked
/// for.
pub(crate) fn linear(
    on: &Stream,
    x: &Tensor,
    w: &Tensor,
    epilogue: &Epilogue<'_>,
    result: Dtype,
    update: Option<&LowRank<'_>>,
) -> Result<Tensor> {
    let shape = [x.rows(), w.rows()];
    let (depth, n) = (w.cols(), x.rows() * w.rows());
    let follows = epilogue.bias.is_some() || epilogue.residual.is_some() || epilogue.activation != Activation::None;
    let sums = if follows { Dtype::F32 } else { result };
    let (mut product, kept) = begin(on, update, &shape, [x.dtype(), sums])?;
    multiply(on, 1.0, [matrix(x)?, matrix(w)?.t()], kept, &mut product, depth)?;
    if !follows {
        return Ok(product);
    }
    let optional = |tensor: Option<&Tensor>| tensor.map_or(Ok(Arg::NULL), Tensor::arg);
    let (bias, residual) = (optional(epilogue.bias)?, optional(epilogue.residual)?);
    let settings = [Arg::U32(code(epilogue.activation)), Arg::U64(n as u64), Arg::count(OP, w.rows())?];
    if result == Dtype::F32 {
        let args = [&[product.arg_mut()?, bias, residual][..], &settings].concat();
        // SAFETY: the product and the residual have n elements, the bias those of a row.
        unsafe { on.launch(&KERNELS, "finish", Geometry::fours(n), &args)? };
        return Ok(product);
    }
    let mut y = on.result(&shape, result)?;
    let args = [&[product.arg()?, bias, residual, y.arg_mut()?][..], &settings].concat();
    // SAFETY: as above.
    unsafe { on.launch(&KERNELS, "finish_rounded", Geometry::fours(n), &args)? };
    Ok(y)
}

/// The activation as the kernels know it.
fn code(activation: Activation) -> u32 {
    match activation {
        Activation::None => 0,
        Activation::Gelu => 1,
        Activation::Silu => 2,
        Activation::Relu => 3,
    }
}

/// Finishes a product that is there already, of `[n, cols]` f32 or bf16.
pub(super) fn add_bias(on: &Stream, y: &mut Tensor, bias: &Tensor) -> Result<()> {
    let n = y.len();
    let settings = [Arg::U32(code(Activation::None)), Arg::U64(n as u64), Arg::count(OP, y.cols())?];
    let args = [&[y.arg_mut()?, bias.arg()?, Arg::NULL][..], &settings].concat();
    let kernel = if y.dtype() == Dtype::F32 { "finish" } else { "finish_bf16" };
    // SAFETY: y has n elements of the kernel's type, the bias those of a row.
    unsafe { on.launch(&KERNELS, kernel, Geometry::fours(n), &args) }
}

/// Adds the sum over the rows of `x` to `sums`: bands of a fixed size, then a warp for every column of their sums.
pub(crate) fn add_column_sums(on: &Stream, x: &Tensor, sums: &mut Tensor) -> Result<()> {
    let (n, cols) = (x.rows(), x.cols());
    let bands = n.div_ceil(BAND);
    let parts = on.scratch(bands * cols * size_of::<f32>())?;
    let columns = Geometry::blocks(cols.div_ceil(COLUMNS), COLUMNS as u32);
    let tiles = Geometry { grid: [Geometry::blocks(bands, 1).grid[0], columns.grid[0], 1], ..columns };
    let (rows_arg, cols_arg) = (Arg::count(OP, n)?, Arg::count(OP, cols)?);
    let args = [x.arg()?, parts.arg(), rows_arg, cols_arg, Arg::U32(BAND as u32)];
    // SAFETY: x is [n, cols], parts [bands, cols].
    unsafe { on.launch(&KERNELS, "sum_bands", tiles, &args)? };
    let args = [parts.arg(), sums.arg_mut()?, Arg::count(OP, bands)?, cols_arg];
    // SAFETY: as above; the sums are [cols].
    unsafe { on.launch(&KERNELS, "add_bands", rows::columns(cols), &args) }
}
