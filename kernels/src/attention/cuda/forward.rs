//! Forward passes.

use super::super::{Operands, layout::Layout};
use super::{Kernels, Width, of_all_widths, operands, settings, work::Work};
use crate::cuda::{Arg, Source, Stream};
use crate::{Dtype, Result, Tensor};

const BF16: Source = Source {
    name: "attention_forward_bf16",
    text: concat!(include_str!("tiles.cuh"), include_str!("tiles_bf16.cuh"), include_str!("forward_bf16.cu")),
};
const F32: Source = Source {
    name: "attention_forward_f32",
    text: concat!(include_str!("tiles.cuh"), include_str!("tiles_f32.cuh"), include_str!("forward_f32.cu")),
};

/// Rows and keys of a tile, and the bytes of shared memory that a block asks for: see the kernels.
struct Tiles {
    rows: usize,
    bytes: usize,
}

/// Queries, a tile of keys and one of values, and what softmax has seen: two floats for each row of a thread.
fn tiles_bf16(width: Width) -> Tiles {
    let (rows, keys) = (if width.0 > 128 { 64 } else { 128 }, 64);
    Tiles { rows, bytes: (rows + 2 * keys) * width.0 * size_of::<u16>() + rows * 4 * size_of::<[f32; 2]>() }
}

/// Queries, a tile of keys or values, and weights.
fn tiles_f32(width: Width) -> Tiles {
    let edge = if width.0 > 128 { 32 } else { 64 };
    Tiles { rows: edge, bytes: (2 * edge * width.0 + edge * edge) * size_of::<f32>() }
}

/// The result and the logarithms of the denominators, `[n, heads]`.
pub(in super::super) fn forward(on: &Stream, of: &Operands<'_>, layout: &Layout) -> Result<(Tensor, Tensor)> {
    saved(on, (&F32, &of_all_widths!("forward_f32"), tiles_f32), of, layout)
}

/// The same in bfloat16; the logarithms are f32.
pub(in super::super) fn forward_bf16_saved(
    on: &Stream,
    of: &Operands<'_>,
    layout: &Layout,
) -> Result<(Tensor, Tensor)> {
    saved(on, (&BF16, &of_all_widths!("forward_bf16"), tiles_bf16), of, layout)
}

/// The result alone.
pub(in super::super) fn forward_bf16(on: &Stream, of: &Operands<'_>, layout: &Layout) -> Result<Tensor> {
    let mut out = on.result(of.q.shape(), Dtype::Bf16)?;
    let results = [out.arg_mut()?, Arg::NULL];
    run(on, (&BF16, &of_all_widths!("forward_bf16"), tiles_bf16), of, layout, results)?;
    Ok(out)
}

/// Kernels for heads of all widths, and what their blocks take.
type Family = (&'static Source, &'static Kernels, fn(Width) -> Tiles);

fn saved(on: &Stream, family: Family, of: &Operands<'_>, layout: &Layout) -> Result<(Tensor, Tensor)> {
    let mut out = on.result(of.q.shape(), of.q.dtype())?;
    let mut log_sums = on.result(&[layout.queries.rows(), layout.shape.heads], Dtype::F32)?;
    run(on, family, of, layout, [out.arg_mut()?, log_sums.arg_mut()?])?;
    Ok((out, log_sums))
}

/// Runs the kernel of a family that fits the heads.
fn run(
    on: &Stream,
    (source, kernels, tiles): Family,
    of: &Operands<'_>,
    layout: &Layout,
    results: [Arg; 2],
) -> Result<()> {
    if of.q.is_empty() {
        return Ok(());
    }
    let width = Width::of(layout)?;
    let Tiles { rows, bytes } = tiles(width);
    let work = Work::by_queries(on, layout, rows)?;
    let scale = [Arg::F32(layout.shape.scale())];
    let args = [&[work.arg()][..], &operands(of)?, &results, &settings(layout)?, &scale].concat();
    let blocks = work.blocks(layout.shape.heads).with_shared(bytes);
    // SAFETY: the operands were checked against the layout, of whose sequences the list holds the tiles; the first
    // result is shaped as the queries, the second is absent or [n, heads].
    unsafe { on.launch(source, width.kernel(kernels), blocks, &args) }
}
