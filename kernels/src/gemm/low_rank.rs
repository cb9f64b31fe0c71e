//! What the sums of a product begin with on a device, where a layer is made of two.

use super::cuda::{matrix, multiply};
use crate::cuda::{Arg, Stream};
use crate::{Dtype, Result, Tensor};

/// `scale · left · right`, of a rank that is small beside the extents of the result.
#[derive(Clone, Copy)]
pub(crate) struct LowRank<'a> {
    /// `[n, rank]` f32.
    pub(crate) left: &'a Tensor,
    /// f32, `[rank, outputs]` or, where it is `transposed`, `[outputs, rank]`.
    pub(crate) right: &'a Tensor,
    pub(crate) transposed: bool,
    pub(crate) scale: f32,
}

impl LowRank<'_> {
    /// The product itself, with its factors rounded to the dtype of those of the other product.
    pub(crate) fn product(&self, on: &Stream, factors: Dtype, result: Dtype) -> Result<Tensor> {
        let (left, right) = (self.left.cast(factors)?, self.right.cast(factors)?);
        let (outputs, right) = match self.transposed {
            true => (right.rows(), matrix(&right)?.t()),
            false => (right.cols(), matrix(&right)?),
        };
        let mut y = on.result(&[left.rows(), outputs], result)?;
        multiply(on, self.scale, [matrix(&left)?, right], 0.0, &mut y, left.cols())?;
        Ok(y)
    }

    /// What kernels take of an update: left, right, scale and rank, which is 0 without one.
    pub(crate) fn args(op: &'static str, update: Option<&Self>) -> Result<[Arg; 4]> {
        let Some(update) = update else { return Ok([Arg::NULL, Arg::NULL, Arg::F32(0.0), Arg::U32(0)]) };
        Ok([update.left.arg()?, update.right.arg()?, Arg::F32(update.scale), Arg::count(op, update.left.cols())?])
    }
}

/// Where a product is written that an update may precede, and the factor of what is there by then.
///
/// The smaller product comes first: the larger one then reads it while it waits for no memory, and where the result is
/// bfloat16 only the smaller one is rounded twice.
pub(crate) fn begin(
    on: &Stream,
    update: Option<&LowRank<'_>>,
    shape: &[usize],
    [factors, result]: [Dtype; 2],
) -> Result<(Tensor, f32)> {
    match update {
        Some(update) => Ok((update.product(on, factors, result)?, 1.0)),
        None => Ok((on.result(shape, result)?, 0.0)),
    }
}
