//! The device side: rows are gathered as they come, and added up in the order of their ids, which the host sorts.

use super::bands::{BAND, Bands};
use crate::cuda::{Arg, Geometry, Source, Stream, rows};
use crate::{Dtype, Result, Tensor};

const OP: &str = "embedding";
const KERNELS: Source = Source { name: OP, text: include_str!("kernel.cu") };

pub(super) fn forward(on: &Stream, table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let (n, d) = (ids.len(), table.cols());
    let mut y = on.result(&[n, d], table.dtype())?;
    let kernel = if table.dtype() == Dtype::F32 { "forward" } else { "forward_bf16" };
    let ids = on.upload(ids)?;
    let args = [table.arg()?, ids.arg(), y.arg_mut()?, Arg::count(OP, n)?, Arg::count(OP, d)?];
    // SAFETY: the ids are rows of the table, which is of the kernel's type; y is [n, d] of the same.
    unsafe { on.launch(&KERNELS, kernel, rows::pieces(n, d), &args)? };
    Ok(y)
}

pub(super) fn backward(on: &Stream, dy: &Tensor, ids: &[u32], d_table: &mut Tensor) -> Result<()> {
    let (n, d) = (ids.len(), d_table.cols());
    let (rows_arg, d_arg) = (Arg::count(OP, n)?, Arg::count(OP, d)?);
    let bands = Bands::of(ids);
    let several = n / BAND;
    let words = on.upload(&bands.words(several))?;
    let list = |words_before: usize| Arg::Address(words.arg().address().offset(words_before * size_of::<u32>()));
    let parts = on.scratch(2 * several * d * size_of::<f32>())?;

    let [order, lengths, places] = [0, 1, 2].map(|i| list(i * n));
    let args = [dy.arg()?, order, lengths, places, d_table.arg_mut()?, parts.arg(), rows_arg, d_arg];
    // SAFETY: dy is [n, d]; the order holds its rows, the lengths stay within it, and places are rows of the table or of parts.
    unsafe { on.launch(&KERNELS, "add_bands", rows::pieces(n, d), &args)? };

    let [begins, counts, ids] = [0, 1, 2].map(|i| list(3 * n + i * several));
    let args = [parts.arg(), begins, counts, ids, d_table.arg_mut()?, d_arg];
    let mut blocks = rows::pieces(n, d);
    blocks.grid[0] = Geometry::blocks(several, 1).grid[0];
    // SAFETY: as above; the bands of an id are rows of parts, written by the launch before.
    unsafe { on.launch(&KERNELS, "add_parts", blocks, &args) }
}
