//! The device side: an update in the sums of the layer, or before them.

use super::base::no_gradient;
use super::{Base, Dropout, Update};
use crate::cuda::Stream;
use crate::gemm::cuda::{matrix, multiply};
use crate::gemm::low_rank::LowRank;
use crate::gemm::{self, Epilogue};
use crate::{Dtype, Result, Tensor, dropout, fp8, nf4};

/// The layer and its update, and what the update's first factor made of the input; of checked operands.
pub(super) fn linear(
    on: &Stream,
    x: &Tensor,
    input: &Tensor,
    base: Base<'_>,
    bias: Option<&Tensor>,
    update: &Update<'_>,
) -> Result<(Tensor, Tensor)> {
    let a = update.a.cast(x.dtype())?;
    let inner = gemm::cuda::linear(on, input, &a, &Epilogue::default(), Dtype::F32, None)?; // [n, rank]
    let part = LowRank { left: &inner, right: update.b, transposed: true, scale: update.scale };
    let y = match base {
        Base::Dense(weight) => {
            let epilogue = Epilogue { bias, ..Epilogue::default() };
            gemm::cuda::linear(on, x, weight, &epilogue, x.dtype(), Some(&part))?
        }
        Base::Nf4(weight, rounding) => {
            let mut y = nf4::cuda::linear(on, x, weight, rounding, Some(part))?;
            if let Some(bias) = bias {
                gemm::add_bias(&mut y, bias)?;
            }
            y
        }
        Base::Fp8(weight) => fp8::cuda::linear(on, x, weight, bias, Some(&part))?,
    };
    Ok((y, inner))
}

/// The gradients of the factors beside bfloat16, to which the other operands are rounded.
pub(super) fn backward_factors(
    on: &Stream,
    dy: &Tensor,
    input: &Tensor,
    inner: &Tensor,
    update: &Update<'_>,
    [da, db]: [&mut Tensor; 2],
) -> Result<Tensor> {
    let [inner, b] = [inner.cast(Dtype::Bf16)?, update.b.cast(Dtype::Bf16)?];
    let (n, d_out) = (dy.rows(), dy.cols());
    multiply(on, update.scale, [matrix(dy)?.t(), matrix(&inner)?], 1.0, db, n)?;
    let mut d_inner = on.result(inner.shape(), Dtype::F32)?;
    multiply(on, update.scale, [matrix(dy)?, matrix(&b)?], 0.0, &mut d_inner, d_out)?;
    multiply(on, 1.0, [matrix(&d_inner.cast(Dtype::Bf16)?)?.t(), matrix(input)?], 1.0, da, n)?;
    Ok(d_inner)
}

/// The gradient of the input, of checked operands. What comes through the update is made first, so that dropout reaches
/// nothing else, and the layer's own part is added to it: in f32, but where a kernel of ours sums both.
pub(super) fn linear_backward_input(
    on: &Stream,
    dy: &Tensor,
    d_inner: &Tensor,
    base: Base<'_>,
    update: &Update<'_>,
    dropped: Option<Dropout<'_>>,
) -> Result<Tensor> {
    let part = LowRank { left: d_inner, right: update.a, transposed: false, scale: 1.0 };
    if let (Base::Nf4(weight, rounding), Dtype::Bf16, None) = (base, dy.dtype(), dropped) {
        return nf4::cuda::linear_backward_input(on, dy, weight, rounding, Some(part));
    }
    let mut dx = part.product(on, dy.dtype(), Dtype::F32)?;
    if let Some((mask, keys)) = dropped {
        dropout::apply(&mut dx, mask, keys)?;
    }
    match base {
        Base::Dense(weight) => gemm::add_linear_backward_input(1.0, dy, weight, &mut dx)?,
        Base::Nf4(weight, rounding) => nf4::cuda::add_linear_backward_input(on, dy, weight, rounding, &mut dx)?,
        Base::Fp8(_) => return Err(no_gradient()),
    }
    dx.cast(dy.dtype())
}
