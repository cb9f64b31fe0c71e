//! A linear layer and its low-rank update as one operation.

use super::{Base, OP, cuda, factors, forward};
use crate::cuda::Stream;
use crate::dropout::{self, Mask};
use crate::{Dtype, Result, Tensor, gemm};

/// The factors of an update, `scale · A · B`.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// `[rank, d_in]` f32.
    pub a: &'a Tensor,
    /// `[d_out, rank]` f32.
    pub b: &'a Tensor,
    /// Alpha / rank.
    pub scale: f32,
}

/// What was dropped from the input of an update: a mask and the key of every row.
pub type Dropout<'a> = (&'a Mask, &'a [u64]);

/// Applies a linear layer with an update: `y = x · Wᵀ + bias + scale · (input · Aᵀ) · Bᵀ`; returns `y` and `input · Aᵀ`.
///
/// # Shapes
/// - `x`: `[n, d_in]` f32 or bf16
/// - `input`: as `x`, which it is unless something was dropped
/// - `bias`: `[d_out]` f32, as [`Base::linear`] takes it
/// - returns `[n, d_out]` of the dtype of `x`, and `[n, rank]` f32
///
/// Beside bfloat16 a device rounds the factors to it where it multiplies them on tensor cores.
///
/// # Order of sums
/// On the host the layer, the bias, the update. On a device the update comes first; of bfloat16 the sum is rounded once where a
/// kernel of ours makes it, which is up to 256 rows beside four bits.
///
/// # Gradient
/// [`backward_factors`], then [`linear_backward_input`].
///
/// # Errors
/// [`crate::Error::Shape`] if the dimensions do not fit; [`crate::Error::Dtype`] for other dtypes; [`crate::Error::Place`]
/// unless all operands are in one place.
///
/// # Source
/// Hu et al., "LoRA", 2021.
pub fn linear(
    x: &Tensor,
    input: &Tensor,
    base: Base<'_>,
    bias: Option<&Tensor>,
    update: &Update<'_>,
) -> Result<(Tensor, Tensor)> {
    let Update { a, b, scale } = *update;
    let [d_out, d_in] = update.check(&base)?;
    expect_rows(x, "x", [x.rows(), d_in])?;
    base.expect_dtype(x.dtype())?;
    input.expect_dims(OP, "input", &[x.rows(), d_in])?;
    input.expect_dtype(OP, "input", x.dtype())?;
    Tensor::addressable(OP, &[x.rows(), d_out])?;
    let mut operands = vec![("weight", base.place()), ("x", x), ("input", input), ("a", a), ("b", b)];
    if let Some(bias) = bias {
        bias.expect_shape(OP, "bias", &[d_out])?;
        operands.push(("bias", bias));
    }
    if let Some(on) = Stream::of(OP, &operands)? {
        return cuda::linear(&on, x, input, base, bias, update);
    }
    let mut y = base.linear(x, bias)?;
    if x.dtype() == Dtype::F32 {
        let inner = forward(input, a, b, scale, &mut y)?;
        return Ok((y, inner));
    }
    let mut wide = y.cast(Dtype::F32)?;
    let inner = forward(&input.cast(Dtype::F32)?, a, b, scale, &mut wide)?;
    Ok((wide.to_bf16(), inner))
}

/// Adds the gradients of the factors: `db += scale · dyᵀ · inner`; with `d = scale · dy · B`, which is returned:
/// `da += dᵀ · input`.
///
/// # Shapes
/// - `dy`: `[n, d_out]` f32 or bf16
/// - `input`: `[n, d_in]` of the dtype of `dy`, as in [`linear`]
/// - `inner`: `[n, rank]` f32, what [`linear`] returned
/// - `da`, `db`: as the factors, added to
/// - returns `[n, rank]` f32, for [`linear_backward_input`]
///
/// # Errors
/// As [`linear`].
pub fn backward_factors(
    dy: &Tensor,
    input: &Tensor,
    inner: &Tensor,
    update: &Update<'_>,
    da: &mut Tensor,
    db: &mut Tensor,
) -> Result<Tensor> {
    let Update { a, b, scale } = *update;
    let [rank, d_in] = update.expect_factors()?;
    expect_rows(dy, "dy", [dy.rows(), b.rows()])?;
    input.expect_dims(OP, "input", &[dy.rows(), d_in])?;
    input.expect_dtype(OP, "input", dy.dtype())?;
    inner.expect_shape(OP, "inner", &[dy.rows(), rank])?;
    da.expect_shape(OP, "da", a.shape())?;
    db.expect_shape(OP, "db", b.shape())?;
    if dy.dtype() == Dtype::F32 {
        return factors(dy, input, inner, b, scale, [da, db]);
    }
    let operands = [("dy", dy), ("input", input), ("inner", inner), ("b", b), ("da", da), ("db", db)];
    if let Some(on) = Stream::of(OP, &operands)? {
        return cuda::backward_factors(&on, dy, input, inner, update, [da, db]);
    }
    factors(&dy.cast(Dtype::F32)?, &input.cast(Dtype::F32)?, inner, b, scale, [da, db])
}

/// The gradient of [`linear`] with respect to what `x` and `input` were made from: `dx = dy · W + dropout(d_inner · A)`.
///
/// # Shapes
/// - `dy`: `[n, d_out]` f32 or bf16
/// - `d_inner`: `[n, rank]` f32, what [`backward_factors`] returned
/// - `dropout`: what made `input` of `x`, if anything did
/// - returns `[n, d_in]` of the dtype of `dy`
///
/// # Order of sums
/// As that of [`linear`].
///
/// # Errors
/// As [`linear`] and [`dropout::apply`].
pub fn linear_backward_input(
    dy: &Tensor,
    d_inner: &Tensor,
    base: Base<'_>,
    update: &Update<'_>,
    dropout: Option<Dropout<'_>>,
) -> Result<Tensor> {
    let [d_out, d_in] = update.check(&base)?;
    expect_rows(dy, "dy", [dy.rows(), d_out])?;
    base.expect_dtype(dy.dtype())?;
    d_inner.expect_shape(OP, "d_inner", &[dy.rows(), update.a.rows()])?;
    Tensor::addressable(OP, &[dy.rows(), d_in])?;
    let operands = [("weight", base.place()), ("dy", dy), ("d_inner", d_inner), ("a", update.a), ("b", update.b)];
    if let Some(on) = Stream::of(OP, &operands)? {
        return cuda::linear_backward_input(&on, dy, d_inner, base, update, dropout);
    }
    let mut dx = base.linear_backward_input(dy)?;
    let mut through = gemm::linear_backward_input(d_inner, update.a)?;
    if let Some((mask, keys)) = dropout {
        dropout::apply(&mut through, mask, keys)?;
    }
    if dx.dtype() == Dtype::F32 {
        dx.add(&through)?;
        return Ok(dx);
    }
    through.add(&dx.cast(Dtype::F32)?)?;
    Ok(through.to_bf16())
}

impl Update<'_> {
    /// Checks that the factors fit a weight, and returns its extents: outputs and inputs.
    fn check(&self, base: &Base<'_>) -> Result<[usize; 2]> {
        let [d_out, d_in] = base.extents()?;
        let [rank, _] = self.expect_factors()?;
        self.a.expect_shape(OP, "a", &[rank, d_in])?;
        self.b.expect_shape(OP, "b", &[d_out, rank])?;
        Ok([d_out, d_in])
    }

    /// Checks that the factors fit each other, and returns rank and inputs.
    fn expect_factors(&self) -> Result<[usize; 2]> {
        let [rank, d_in] = [self.a.rows(), self.a.cols()];
        self.a.expect_shape(OP, "a", &[rank, d_in])?;
        self.b.expect_shape(OP, "b", &[self.b.rows(), rank])?;
        Ok([rank, d_in])
    }
}

/// Checks rows of floats.
fn expect_rows(x: &Tensor, what: &'static str, shape: [usize; 2]) -> Result<()> {
    x.expect_floats(OP, what)?;
    x.expect_dims(OP, what, &shape)
}
