//! Inputs of up to 128 elements: logits that never leave the registers of tensor cores.

use std::ops::Range;

use super::super::{Grads, Operands, Output};
use super::at;
use crate::cuda::{Arg, Array, Geometry, Source, Stream};
use crate::{Dtype, Result, Tensor};

const OP: &str = "linear_cross_entropy";
const KERNELS: Source = Source {
    name: "linear_cross_entropy_fused",
    text: concat!(include_str!("../halves.cuh"), include_str!("../fused.cu")),
};
const GRADIENTS: Source = Source {
    name: "linear_cross_entropy_gradients",
    text: concat!(include_str!("../halves.cuh"), include_str!("../gradients.cu")),
};

/// The widest inputs.
pub(super) const WIDEST: usize = 128;
/// Of narrower ones a warp owns more rows.
const NARROW: usize = 64;

/// Rows or classes of a tile, as in the kernels.
const ITEMS: usize = 64;
/// Threads of a block that packs a tile, likewise.
const PACKERS: u32 = 256;
/// Threads of the blocks that own rows or classes, likewise: 128 of these, or 64 of wide ones.
const THREADS: u32 = 128;
/// Rows of a block of a warp each, likewise.
const WARPS: usize = 4;
/// The fewest tiles of a range of classes: part of the order of summation, so it is a constant.
const RANGE: usize = 8;
/// The most ranges, as in the kernels: likewise.
const RANGES: usize = 64;
/// Floats of the ranges' parts of `dx`: 64 MiB.
const PARTS: usize = 1 << 24;
/// Blocks of [`THREADS`] that are worked on at a time: two on each of 132 processors. Part of the order of summation by way
/// of the ranges of rows, so it is a constant.
const ENOUGH_BLOCKS: usize = 2 * 132;
/// The fewest tiles of a range of rows: likewise.
const ROW_RANGE: usize = 4;
/// The most ranges of rows: likewise.
const ROW_RANGES: usize = 8;

/// How rows and classes are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Division {
    /// Tiles of a range of classes, which blocks that own rows go through on their own.
    pub(in super::super) range: usize,
    /// The number of ranges.
    pub(in super::super) ranges: usize,
    /// Rows whose parts of `dx` are there at a time, a multiple of a tile.
    pub(in super::super) group: usize,
    /// Threads of a block that owns classes.
    pub(in super::super) class_threads: u32,
    /// The most ranges of rows, which such blocks go through on their own.
    pub(in super::super) row_ranges: usize,
}

impl Division {
    /// A function of the weight's shape alone, as nothing about a row may depend on its company.
    pub(super) fn new(classes: usize, d: usize) -> Self {
        let tiles = classes.div_ceil(ITEMS);
        let range = tiles.div_ceil(RANGES).max(RANGE);
        let ranges = tiles.div_ceil(range);
        let group = (PARTS / (ranges * d).max(1) / ITEMS).max(1) * ITEMS;
        // Of few classes blocks have 64, and more blocks share them.
        let halved = d <= NARROW && tiles.div_ceil(2) < ENOUGH_BLOCKS;
        let enough = if halved { 2 * ENOUGH_BLOCKS } else { ENOUGH_BLOCKS };
        let blocks = if d <= NARROW && !halved { tiles.div_ceil(2) } else { tiles };
        let row_ranges = enough.div_ceil(blocks.max(1)).min(ROW_RANGES);
        Self { range, ranges, group, class_threads: if halved { THREADS / 2 } else { THREADS }, row_ranges }
    }

    /// So many tiles of rows cut into ranges: their width and their number.
    fn rows(&self, tiles: usize) -> [usize; 2] {
        let width = tiles.div_ceil(self.row_ranges).max(ROW_RANGE);
        [width, tiles.div_ceil(width)]
    }
}

pub(super) fn forward(on: &Stream, operands: &Operands<'_>, division: Division) -> Result<Tensor> {
    let pass = Pass::new(on, operands, [Arg::NULL; 2], division)?;
    pass.normalise()
}

pub(in super::super) fn forward_backward(
    on: &Stream,
    operands: &Operands<'_>,
    row_scale: &[f32],
    grads: Grads<'_>,
    division: Division,
) -> Result<Output> {
    let scale = on.upload(row_scale)?;
    let pass = Pass::new(on, operands, [Arg::NULL, scale.arg()], division)?;
    let losses = pass.normalise()?;
    Ok(Output { losses, dx: pass.gradients(&scale, grads)? })
}

/// The gradients of rows whose logits are relative to what is known.
pub(super) fn backward(
    on: &Stream,
    operands: &Operands<'_>,
    lse: &[f32],
    row_scale: &[f32],
    grads: Grads<'_>,
    division: Division,
) -> Result<Tensor> {
    let (scale, relative) = (on.upload(row_scale)?, on.upload(&lse.iter().map(|lse| -lse).collect::<Vec<_>>())?);
    Pass::new(on, operands, [relative.arg(), scale.arg()], division)?.gradients(&scale, grads)
}

/// Rows or classes as pairs of half-precision numbers.
struct Packed {
    data: Array,
    /// The largest of the items' factors: `[1]`.
    largest: Tensor,
    tiles: usize,
}

impl Packed {
    /// Packs the rows of a matrix, with what is added to their logits, their scales and their keys, where there are such.
    fn new(on: &Stream, matrix: &Tensor, width: usize, [offsets, scales, keys]: [Arg; 3]) -> Result<Self> {
        let tiles = matrix.rows().div_ceil(ITEMS);
        let data = on.scratch(tiles * tile_bytes(width))?;
        let mut largest = on.zeros(&[1])?;
        let counts = [Arg::count(OP, matrix.rows())?, Arg::count(OP, matrix.cols())?, Arg::count(OP, width)?];
        let results = [data.arg(), largest.arg_mut()?];
        let args = [&[matrix.arg()?, offsets, scales, keys][..], &results, &counts].concat();
        // SAFETY: what is there has a number for every row of the matrix, and every block has a tile.
        unsafe { on.launch(&KERNELS, "pack", Geometry::blocks(tiles, PACKERS), &args)? };
        Ok(Self { data, largest, tiles })
    }
}

/// Two halves of every element, and five numbers of every item.
fn tile_bytes(width: usize) -> usize {
    ITEMS * (2 * width + 5 * size_of::<f32>() + 2 * width)
}

/// Packed operands.
struct Pass<'a> {
    on: &'a Stream,
    operands: &'a Operands<'a>,
    rows: Packed,
    classes: Packed,
    division: Division,
}

impl<'a> Pass<'a> {
    /// Packs them; the rows with what their logits are relative to, if that is known, and with their scales.
    fn new(
        on: &'a Stream,
        operands: &'a Operands<'a>,
        [relative, scale]: [Arg; 2],
        division: Division,
    ) -> Result<Self> {
        let Operands { x, weight, bias, labels } = operands;
        let width = if x.cols() <= NARROW { NARROW } else { WIDEST };
        let labels = on.upload(labels)?;
        let bias = bias.map_or(Ok(Arg::NULL), Tensor::arg)?;
        Ok(Self {
            on,
            operands,
            rows: Packed::new(on, x, width, [relative, scale, labels.arg()])?,
            classes: Packed::new(on, weight, width, [bias, Arg::NULL, Arg::NULL])?,
            division,
        })
    }

    /// `dx`; the other gradients are added to. The rows' softmax is known.
    fn gradients(&self, scale: &Array, grads: Grads<'_>) -> Result<Tensor> {
        let n = self.operands.x.rows();
        let mut dx = self.on.result(&[n, self.operands.x.cols()], Dtype::F32)?;
        for start in (0..n).step_by(self.division.group) {
            self.make_input_gradient(&(start..(start + self.division.group).min(n)), scale, &mut dx)?;
        }
        if grads.dw.is_some() || grads.db.is_some() {
            self.add_to_weight(grads)?;
        }
        Ok(dx)
    }

    fn width(&self) -> usize {
        if self.operands.x.cols() <= NARROW { NARROW } else { WIDEST }
    }

    /// The name of a kernel for inputs of this width.
    fn kernel(&self, narrow: &'static str, wide: &'static str) -> &'static str {
        if self.width() == NARROW { narrow } else { wide }
    }

    /// Blocks of so many threads for what has so many tiles. They share two stages.
    fn blocks(&self, tiles: usize, threads: u32) -> Geometry {
        let each = if self.width() == NARROW { threads as usize / ITEMS } else { 1 };
        Geometry::blocks(tiles.div_ceil(each), threads).with_shared(2 * tile_bytes(self.width()))
    }

    /// Blocks that own rows, once for every range of classes: neighbours read the same classes.
    fn blocks_of_rows(&self, rows: usize) -> Geometry {
        let blocks = self.blocks(rows.div_ceil(ITEMS), THREADS);
        Geometry { grid: [blocks.grid[0], Geometry::blocks(self.division.ranges, 1).grid[0], 1], ..blocks }
    }

    /// The tiles of the classes, and how many of them a range has.
    fn class_tiles(&self) -> Result<[Arg; 2]> {
        Ok([Arg::count(OP, self.classes.tiles)?, Arg::count(OP, self.division.range)?])
    }

    /// The losses; the packed rows learn of their softmax. The logit of a label that is no class counts as 0.
    fn normalise(&self) -> Result<Tensor> {
        let n = self.operands.x.rows();
        let mut losses = self.on.result(&[n], Dtype::F32)?;
        let rows = Arg::count(OP, n)?;
        let parts = self.on.scratch(self.division.ranges * n * 2 * size_of::<f32>())?;
        let mut label_logits = self.on.zeros(&[n])?;
        let given = [self.rows.data.arg(), self.classes.data.arg(), parts.arg(), label_logits.arg_mut()?, rows];
        let args = [&given[..], &self.class_tiles()?].concat();
        let kernel = self.kernel("normalise_64", "normalise_128");
        // SAFETY: both operands are packed, in whole tiles; the parts are [ranges, n, 2], the logits [n].
        unsafe { self.on.launch(&KERNELS, kernel, self.blocks_of_rows(n), &args)? };
        let results = [self.rows.data.arg(), losses.arg_mut()?];
        let counts = [rows, Arg::count(OP, self.division.ranges)?, Arg::count(OP, self.width())?];
        let args = [&[parts.arg(), label_logits.arg()?][..], &results, &counts].concat();
        let warps = Geometry::blocks(n.div_ceil(WARPS), 32 * WARPS as u32);
        // SAFETY: as above; every row has a place for its loss.
        unsafe { self.on.launch(&KERNELS, "finish", warps, &args)? };
        Ok(losses)
    }

    /// `dx` of some rows, the first of which begins a tile.
    fn make_input_gradient(&self, rows: &Range<usize>, scale: &Array, dx: &mut Tensor) -> Result<()> {
        let d = dx.cols();
        let parts = self.on.scratch(self.division.ranges * rows.len() * d * size_of::<f32>())?;
        let given = [self.rows.data.arg(), self.classes.data.arg(), self.classes.largest.arg()?, parts.arg()];
        let counts = [Arg::count(OP, rows.start)?, Arg::count(OP, rows.end)?, Arg::count(OP, d)?];
        let args = [&given[..], &counts, &self.class_tiles()?].concat();
        let kernel = self.kernel("gradient_rows_64", "gradient_rows_128");
        // SAFETY: as in `normalise`; the parts are [ranges, rows, d].
        unsafe { self.on.launch(&GRADIENTS, kernel, self.blocks_of_rows(rows.len()), &args)? };
        let n = rows.len() * d;
        let counts = [Arg::count(OP, n)?, Arg::count(OP, d)?, Arg::count(OP, self.division.ranges)?];
        let result = at(dx.arg_mut()?, rows.start * d);
        let args = [&[parts.arg(), at(scale.arg(), rows.start), result][..], &counts].concat();
        // SAFETY: as above; there is a scale for every row.
        unsafe { self.on.launch(&GRADIENTS, "add_parts", Geometry::elements(n), &args) }
    }

    /// Adds to the gradients of weight and bias, where they are wanted.
    fn add_to_weight(&self, mut grads: Grads<'_>) -> Result<()> {
        let [width, ranges] = self.division.rows(self.rows.tiles);
        if ranges <= 1 {
            let place = |grad: Option<&mut Tensor>| grad.map_or(Ok(Arg::NULL), Tensor::arg_mut);
            return self.sum_over_rows(width, ranges, [place(grads.dw)?, place(grads.db)?]);
        }
        let mut parts = Vec::new();
        for grad in [&mut grads.dw, &mut grads.db] {
            let bytes = grad.as_ref().map_or(0, |grad| ranges * grad.len() * size_of::<f32>());
            parts.push(self.on.scratch(bytes)?);
        }
        let place = |grad: &Option<&mut Tensor>, part: &Array| if grad.is_some() { part.arg() } else { Arg::NULL };
        self.sum_over_rows(width, ranges, [place(&grads.dw, &parts[0]), place(&grads.db, &parts[1])])?;
        for (grad, part) in [grads.dw, grads.db].into_iter().zip(&parts) {
            let Some(grad) = grad else { continue };
            let n = grad.len();
            let args = [part.arg(), grad.arg_mut()?, Arg::U64(n as u64), Arg::count(OP, ranges)?];
            // SAFETY: the parts are as many as the ranges, each as long as the gradient.
            unsafe { self.on.launch(&GRADIENTS, "add_ranges", Geometry::elements(n), &args)? };
        }
        Ok(())
    }

    /// Adds the sums over the only range of rows to the places of `dW` and `db`, or writes those of several ranges there.
    fn sum_over_rows(&self, width: usize, ranges: usize, places: [Arg; 2]) -> Result<()> {
        let counts = [self.operands.weight.rows(), self.operands.x.cols(), self.rows.tiles, width];
        let counts = counts.map(|count| Arg::count(OP, count)).into_iter().collect::<Result<Vec<_>>>()?;
        let given = [self.classes.data.arg(), self.rows.data.arg(), self.rows.largest.arg()?];
        let args = [&given[..], &places, &counts].concat();
        let blocks = self.blocks(self.classes.tiles, self.division.class_threads);
        let geometry = Geometry { grid: [blocks.grid[0], Geometry::blocks(ranges, 1).grid[0], 1], ..blocks };
        let kernel = self.kernel("gradient_classes_64", "gradient_classes_128");
        // SAFETY: both operands are packed, in whole tiles; the places are [V, D] and [V], of several ranges each, or absent.
        unsafe { self.on.launch(&GRADIENTS, kernel, geometry, &args) }
    }
}
