//! Dense matrix products: the linear layer and its gradients.
//!
//! Every element of a result is made of chains of fused multiply-adds in a fixed order: its bits depend on its row and its
//! column alone, not on the other rows, the number of threads or the instruction set. So what is not finite in a row of
//! the left operand reaches that row of the result and no other, and in a column of the right one that column.
//!
//! # Source
//! Panels and register tiles after Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication", 2008.

pub(crate) mod bf16;
pub(crate) mod cpu;
pub(crate) mod cuda;
mod epilogue;
pub(crate) mod low_rank;
mod micro;
mod packed;
pub(crate) mod pairs;
#[cfg(test)]
pub(crate) mod reference;
#[cfg(test)]
mod tests;
mod vector;
mod view;

use crate::cuda::Stream;
use crate::{Dtype, Error, Result, Tensor};
use bf16::Rows;
use cpu::{MatMut, MatRef, Onto, Packed};
use epilogue::Finish;
pub use epilogue::{Activation, Epilogue};
use micro::Factor;
use pairs::{Pair, PairRows, PairsOf};

/// Applies a linear layer: `y = x · Wᵀ + b`.
///
/// # Shapes
/// - `x`: `[n, d_in]` f32 or bf16, any number of leading dimensions
/// - `weight`: `[d_out, d_in]` of the dtype of `x`
/// - `bias`: `[d_out]` f32
/// - returns `[n, d_out]` of the dtype of `x`, summed in f32
///
/// # Gradient
/// [`linear_backward_input`] and [`linear_backward_weight`].
///
/// # Errors
/// [`Error::Shape`] if the inner dimensions differ; [`Error::Dtype`] for other dtypes.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    linear_then(x, weight, &Epilogue { bias, ..Epilogue::default() })
}

/// Applies a linear layer and what follows it: `y = activation(x · Wᵀ + b) + residual`.
///
/// # Shapes
/// As [`linear`]; those of the epilogue are said there.
///
/// # Gradient
/// None: a backward needs what the activation reads. Training calls [`linear`] and the activation.
///
/// # Errors
/// As [`linear`].
pub fn linear_then(x: &Tensor, weight: &Tensor, epilogue: &Epilogue<'_>) -> Result<Tensor> {
    const OP: &str = "gemm::linear";
    let (n, d_in, d_out) = (x.rows(), x.cols(), weight.rows());
    let narrow = x.dtype() == Dtype::Bf16;
    if !narrow {
        x.expect_dtype(OP, "x", Dtype::F32)?;
    }
    weight.expect_dims(OP, "weight", &[d_out, d_in])?;
    weight.expect_dtype(OP, "weight", x.dtype())?;
    epilogue.check(OP, Tensor::addressable(OP, &[n, d_out])?)?;
    if let Some(on) = Stream::of(OP, &epilogue.with(&[("x", x), ("weight", weight)]))? {
        return cuda::linear(&on, x, weight, epilogue, x.dtype(), None);
    }
    let mut y = Tensor::result(OP, &[n, d_out])?;
    let bias = epilogue.bias.map(Tensor::f32).transpose()?;
    let finish = Finish::new(epilogue, d_out)?;
    let c = MatMut::new(y.f32_mut()?, n, d_out);
    if narrow {
        bf16::multiply(Rows::new(x.bf16()?, d_in), Rows::new(weight.bf16()?, d_in), bias, c, finish);
        return Ok(y.to_bf16());
    }
    let w = MatRef::new(weight.f32()?, d_out, d_in);
    cpu::sgemm_then(1.0, MatRef::new(x.f32()?, n, d_in), w.t(), bias.map_or(Onto::Nothing, Onto::Bias), c, finish);
    Ok(y)
}

/// A weight that is multiplied with again and again, laid out for it once.
///
/// Laying out a weight costs about as much as multiplying a few rows with it, which is what a decoder does at every step.
#[derive(Debug)]
pub struct PackedWeight {
    layout: Layout,
    d_out: usize,
    d_in: usize,
}

enum Layout {
    F32(Packed),
    Bf16(Packed<Pair>),
    /// On a device, as it is: `[d_out, d_in]`.
    Device(Tensor),
}

impl std::fmt::Debug for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32(_) => "F32",
            Self::Bf16(_) => "Bf16",
            Self::Device(_) => "Device",
        })
    }
}

impl PackedWeight {
    /// Lays out a weight.
    ///
    /// # Shapes
    /// - `weight`: `[d_out, d_in]` f32 or bf16
    ///
    /// # Errors
    /// [`Error::Shape`] unless there are two dimensions; [`Error::Dtype`] for other dtypes.
    pub fn new(weight: &Tensor) -> Result<Self> {
        const OP: &str = "gemm::PackedWeight";
        let &[d_out, d_in] = weight.shape() else {
            return Err(Error::shape(OP, "weight", weight.shape(), "[d_out, d_in]"));
        };
        if weight.dtype() != Dtype::Bf16 {
            weight.expect_dtype(OP, "weight", Dtype::F32)?;
        }
        let layout = match weight.dtype() {
            _ if weight.stream().is_some() => Layout::Device(weight.clone()),
            Dtype::Bf16 => {
                Layout::Bf16(Packed::new_parallel(PairRows::copied(weight.bf16()?, [d_out, d_in]).view().t()))
            }
            _ => Layout::F32(Packed::new_parallel(MatRef::new(weight.f32()?, d_out, d_in).t())),
        };
        Ok(Self { layout, d_out, d_in })
    }

    /// Outputs and inputs.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        [self.d_out, self.d_in]
    }
}

/// [`linear_then`] with a weight that is laid out already: for f32 the same bits, for bfloat16 sums in another order.
///
/// # Shapes
/// - `x`: `[n, d_in]` f32, any number of leading dimensions; beside a weight in bfloat16 its values are rounded to that,
///   unless they are bfloat16 already
/// - returns `[n, d_out]` f32
///
/// # Gradient
/// None, as of [`linear_then`].
///
/// # Errors
/// [`Error::Shape`] if the inner dimensions differ; [`Error::Dtype`] for other dtypes.
pub fn linear_packed(x: &Tensor, weight: &PackedWeight, epilogue: &Epilogue<'_>) -> Result<Tensor> {
    const OP: &str = "gemm::linear_packed";
    let shape = check_packed(OP, x, weight, epilogue)?;
    match &weight.layout {
        Layout::F32(packed) => {
            let x = MatRef::new(x.expect_f32(OP, "x")?, shape[0], weight.d_in);
            multiply_packed(x, packed, epilogue, &shape)
        }
        Layout::Bf16(packed) => multiply_packed(PairsOf::new(OP, x)?.view(), packed, epilogue, &shape),
        Layout::Device(w) => on_device(OP, x, w, epilogue, Dtype::F32),
    }
}

/// [`linear_packed`] with a result that is rounded to bfloat16 while it is in the cache: for what is only read by products
/// of bfloat16, which would round it themselves.
///
/// # Shapes
/// - `x`: as there
/// - returns `[n, d_out]` bf16
///
/// # Gradient
/// None, as of [`linear_then`].
///
/// # Errors
/// As [`linear_packed`].
pub fn linear_packed_rounded(x: &Tensor, weight: &PackedWeight, epilogue: &Epilogue<'_>) -> Result<Tensor> {
    const OP: &str = "gemm::linear_packed_rounded";
    let shape = check_packed(OP, x, weight, epilogue)?;
    match &weight.layout {
        Layout::F32(packed) => {
            let x = MatRef::new(x.expect_f32(OP, "x")?, shape[0], weight.d_in);
            multiply_packed_rounded(x, packed, epilogue, &shape)
        }
        Layout::Bf16(packed) => multiply_packed_rounded(PairsOf::new(OP, x)?.view(), packed, epilogue, &shape),
        Layout::Device(w) => on_device(OP, x, w, epilogue, Dtype::Bf16),
    }
}

/// The shape of a product with a packed weight, of operands that fit.
fn check_packed(op: &'static str, x: &Tensor, weight: &PackedWeight, epilogue: &Epilogue<'_>) -> Result<[usize; 2]> {
    let (n, [d_out, d_in]) = (x.rows(), weight.shape());
    if x.cols() != d_in {
        return Err(Error::shape(op, "x", x.shape(), format!("[n, {d_in}]")));
    }
    epilogue.check(op, Tensor::addressable(op, &[n, d_out])?)?;
    Ok([n, d_out])
}

/// The product on the host, of checked operands.
fn multiply_packed<T: Factor>(x: MatRef<T>, w: &Packed<T>, epilogue: &Epilogue<'_>, shape: &[usize]) -> Result<Tensor> {
    let (onto, finish) = host_epilogue(epilogue, w.cols)?;
    let mut y = Tensor::dirty(shape);
    let c = MatMut::new(y.f32_mut()?, x.rows, w.cols);
    cpu::sgemm_packed_then(x, w, onto, c, finish);
    Ok(y)
}

/// The same, rounded.
fn multiply_packed_rounded<T: Factor>(
    x: MatRef<T>,
    w: &Packed<T>,
    epilogue: &Epilogue<'_>,
    shape: &[usize],
) -> Result<Tensor> {
    let (onto, finish) = host_epilogue(epilogue, w.cols)?;
    Ok(Tensor::bf16_of(shape, |y| {
        cpu::sgemm_packed_rounded(x, w, onto, MatMut::new(y, x.rows, w.cols), finish);
    }))
}

/// What a product on the host begins with and what follows it.
fn host_epilogue<'a>(epilogue: &Epilogue<'a>, d_out: usize) -> Result<(Onto<'a>, Finish<'a>)> {
    let bias = epilogue.bias.map(Tensor::f32).transpose()?;
    Ok((bias.map_or(Onto::Nothing, Onto::Bias), Finish::new(epilogue, d_out)?))
}

/// A product with a weight on a device; `x` is rounded if the weight is bfloat16 and it is not.
fn on_device(op: &'static str, x: &Tensor, w: &Tensor, epilogue: &Epilogue<'_>, result: Dtype) -> Result<Tensor> {
    let Some(on) = Stream::of(op, &epilogue.with(&[("weight", w), ("x", x)]))? else {
        return Err(Error::Device("a weight on a device lies on the host".to_owned()));
    };
    match (x.dtype(), w.dtype()) {
        (Dtype::F32, Dtype::Bf16) => cuda::linear(&on, &x.cast(Dtype::Bf16)?, w, epilogue, result, None),
        (_, expected) => {
            x.expect_dtype(op, "x", expected)?;
            cuda::linear(&on, x, w, epilogue, result, None)
        }
    }
}

/// Adds a bias to every row of `y`, in f32.
///
/// # Shapes
/// - `y`: `[n, d_out]` f32 or bf16, `bias`: `[d_out]` f32
///
/// # Gradient
/// That of `y` itself; the bias receives the sum over the rows.
///
/// # Errors
/// [`Error::Shape`] if the widths differ.
pub fn add_bias(y: &mut Tensor, bias: &Tensor) -> Result<()> {
    const OP: &str = "gemm::add_bias";
    y.expect_floats(OP, "y")?;
    bias.expect_shape(OP, "bias", &[y.cols()])?;
    if let Some(on) = Stream::of(OP, &[("y", y), ("bias", bias)])? {
        return cuda::add_bias(&on, y, bias);
    }
    if y.dtype() == Dtype::Bf16 {
        let mut wide = y.cast(Dtype::F32)?;
        add_bias(&mut wide, bias)?;
        *y = wide.to_bf16();
        return Ok(());
    }
    cpu::add_to_rows(bias.f32()?, y.f32_mut()?);
    Ok(())
}

/// The gradient of [`linear`] with respect to its input: `dx = dy · W`.
///
/// # Shapes
/// - `dy`: `[n, d_out]` f32 or bf16
/// - `weight`: `[d_out, d_in]` of the dtype of `dy`
/// - returns `[n, d_in]` of the dtype of `dy`, summed in f32
///
/// # Errors
/// [`Error::Shape`] if the inner dimensions differ; [`Error::Dtype`] for other dtypes.
pub fn linear_backward_input(dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    scaled_backward_input(1.0, dy, weight)
}

/// `factor · dy · W`. Shapes as in [`linear_backward_input`].
pub(crate) fn scaled_backward_input(factor: f32, dy: &Tensor, weight: &Tensor) -> Result<Tensor> {
    const OP: &str = "gemm::linear_backward_input";
    let (n, d_out, d_in) = (dy.rows(), dy.cols(), weight.cols());
    dy.expect_floats(OP, "dy")?;
    weight.expect_dims(OP, "weight", &[d_out, d_in])?;
    weight.expect_dtype(OP, "weight", dy.dtype())?;
    if let Some(on) = Stream::of(OP, &[("dy", dy), ("weight", weight)])? {
        let mut dx = on.result(Tensor::addressable(OP, &[n, d_in])?, dy.dtype())?;
        cuda::multiply(&on, factor, [cuda::matrix(dy)?, cuda::matrix(weight)?], 0.0, &mut dx, d_out)?;
        return Ok(dx);
    }
    if dy.dtype() == Dtype::Bf16 {
        let [dy, weight] = [dy.cast(Dtype::F32)?, weight.cast(Dtype::F32)?];
        return Ok(scaled_backward_input(factor, &dy, &weight)?.to_bf16());
    }
    let mut dx = Tensor::result(OP, &[n, d_in])?;
    let dy = MatRef::new(dy.f32()?, n, d_out);
    let w = MatRef::new(weight.f32()?, d_out, d_in);
    cpu::sgemm(factor, dy, w, Onto::Nothing, MatMut::new(dx.f32_mut()?, n, d_in));
    Ok(dx)
}

/// Adds the gradient of [`linear`] with respect to weight and bias: `dW += dyᵀ · x`, `db += Σ dy`.
///
/// # Shapes
/// - `dy`: `[n, d_out]` f32
/// - `x`: `[n, d_in]` f32, the input of the forward
/// - `d_weight`: `[d_out, d_in]` f32, added to
/// - `d_bias`: `[d_out]` f32, added to
///
/// # Errors
/// [`Error::Shape`] if the dimensions differ; [`Error::Dtype`] unless everything is f32.
pub fn linear_backward_weight(
    dy: &Tensor,
    x: &Tensor,
    d_weight: &mut Tensor,
    d_bias: Option<&mut Tensor>,
) -> Result<()> {
    if let Some(d_bias) = &d_bias {
        d_bias.expect_shape("gemm::linear_backward_weight", "d_bias", &[dy.cols()])?;
    }
    add_weight_gradient(1.0, dy, x, d_weight)?;
    if let Some(d_bias) = d_bias {
        if let Some(on) = Stream::of("gemm::linear_backward_weight", &[("dy", dy), ("d_bias", d_bias)])? {
            return cuda::add_column_sums(&on, dy, d_bias);
        }
        cpu::add_column_sums(dy.f32()?, dy.cols(), d_bias.f32_mut()?);
    }
    Ok(())
}

/// `y += factor · x · Wᵀ`, for layers that are made of several products. Shapes as in [`linear`].
pub(crate) fn add_linear(factor: f32, x: &Tensor, weight: &Tensor, y: &mut Tensor) -> Result<()> {
    const OP: &str = "gemm::add_linear";
    let (n, d_in, d_out) = (x.rows(), x.cols(), weight.rows());
    weight.expect_shape(OP, "weight", &[d_out, d_in])?;
    y.expect_shape(OP, "y", &[n, d_out])?;
    x.expect_dtype(OP, "x", Dtype::F32)?;
    if let Some(on) = Stream::of(OP, &[("x", x), ("weight", weight), ("y", y)])? {
        return cuda::multiply(&on, factor, [cuda::matrix(x)?, cuda::matrix(weight)?.t()], 1.0, y, d_in);
    }
    let w = MatRef::new(weight.f32()?, d_out, d_in);
    cpu::sgemm(factor, MatRef::new(x.f32()?, n, d_in), w.t(), Onto::Result, MatMut::new(y.f32_mut()?, n, d_out));
    Ok(())
}

/// `dx += factor · dy · W`. Shapes as in [`linear_backward_input`], and `dx` is f32; on the host so is everything.
pub(crate) fn add_linear_backward_input(factor: f32, dy: &Tensor, weight: &Tensor, dx: &mut Tensor) -> Result<()> {
    const OP: &str = "gemm::add_linear_backward_input";
    let (n, d_out, d_in) = (dy.rows(), dy.cols(), weight.cols());
    dy.expect_floats(OP, "dy")?;
    weight.expect_dims(OP, "weight", &[d_out, d_in])?;
    weight.expect_dtype(OP, "weight", dy.dtype())?;
    dx.expect_shape(OP, "dx", &[n, d_in])?;
    if let Some(on) = Stream::of(OP, &[("dy", dy), ("weight", weight), ("dx", dx)])? {
        return cuda::multiply(&on, factor, [cuda::matrix(dy)?, cuda::matrix(weight)?], 1.0, dx, d_out);
    }
    let w = MatRef::new(weight.f32()?, d_out, d_in);
    cpu::sgemm(factor, MatRef::new(dy.f32()?, n, d_out), w, Onto::Result, MatMut::new(dx.f32_mut()?, n, d_in));
    Ok(())
}

/// `dW += factor · dyᵀ · x`. Shapes as in [`linear_backward_weight`].
pub(crate) fn add_weight_gradient(factor: f32, dy: &Tensor, x: &Tensor, d_weight: &mut Tensor) -> Result<()> {
    const OP: &str = "gemm::linear_backward_weight";
    let (n, d_out, d_in) = (dy.rows(), dy.cols(), x.cols());
    dy.expect_dtype(OP, "dy", Dtype::F32)?;
    x.expect_dtype(OP, "x", Dtype::F32)?;
    if x.rows() != n {
        return Err(Error::shape(OP, "x", x.shape(), format!("[{n}, d_in]")));
    }
    d_weight.expect_shape(OP, "d_weight", &[d_out, d_in])?;
    if let Some(on) = Stream::of(OP, &[("dy", dy), ("x", x), ("d_weight", d_weight)])? {
        return cuda::multiply(&on, factor, [cuda::matrix(dy)?.t(), cuda::matrix(x)?], 1.0, d_weight, n);
    }
    let dy = MatRef::new(dy.f32()?, n, d_out);
    let x = MatRef::new(x.f32()?, n, d_in);
    cpu::sgemm(factor, dy.t(), x, Onto::Result, MatMut::new(d_weight.f32_mut()?, d_out, d_in));
    Ok(())
}
