//! The device side: four neighbours of a row a thread.

use super::{Grid, Normalisation};
use crate::cuda::{Arg, Geometry, Source, Stream};
use crate::{Dtype, Result, Tensor};

const OP: &str = "patches";
const KERNELS: Source = Source { name: OP, text: include_str!("kernel.cu") };

/// Numbers of one block: four of every thread.
const BLOCK: usize = 4 * 256;

pub(super) fn normalised(on: &Stream, pictures: &Tensor, grid: &Grid, normalisation: &Normalisation) -> Result<Tensor> {
    let Normalisation { rescale, mean, std } = normalisation;
    let numbers: Vec<Arg> = [*rescale].iter().chain(mean).chain(std).map(|&v| Arg::F32(v)).collect();
    rows(on, "normalised", pictures, grid, &numbers)
}

pub(super) fn cut(on: &Stream, pictures: &Tensor, grid: &Grid) -> Result<Tensor> {
    rows(on, "cut", pictures, grid, &[])
}

/// The rows that a kernel makes of pictures; they have as many numbers as the pictures have values.
fn rows(on: &Stream, kernel: &'static str, pictures: &Tensor, grid: &Grid, numbers: &[Arg]) -> Result<Tensor> {
    let (n, each) = (pictures.shape()[0], grid.patches() * grid.row());
    let mut rows = on.result(&[n * grid.patches(), grid.row()], Dtype::F32)?;
    if rows.is_empty() {
        return Ok(rows);
    }
    Arg::count(OP, each)?; // which is what the kernels work out themselves
    let blocks = each.div_ceil(BLOCK);
    let extents =
        [Arg::count(OP, blocks)?, Arg::count(OP, grid.down)?, Arg::count(OP, grid.across)?, Arg::count(OP, grid.side)?];
    let args = [&[pictures.arg()?, rows.arg_mut()?][..], &extents, numbers].concat();
    // SAFETY: both have the values of n pictures, of such extents and of the types that the kernel reads and writes.
    unsafe { on.launch(&KERNELS, kernel, Geometry::blocks(n * blocks, 256), &args)? };
    Ok(rows)
}
