//! Logits by the library's products, a tile of rows and classes at a time.
//!
//! Of a catalogue whose logits fit for some rows, a tile has all classes: its logits become gradients in place. Of a larger
//! one the classes pass in bands, once for the softmax and once more for the gradients.

use std::ops::Range;

use super::super::{Grads, Operands, Output};
use super::at;
use crate::cuda::{Arg, Array, Geometry, Matrix, Product, Source, Stream};
use crate::gemm::cuda::{matrix, matrix_mut};
use crate::{Dtype, Result, Tensor};

const OP: &str = "linear_cross_entropy";
const KERNELS: Source = Source { name: OP, text: include_str!("../kernel.cu") };

/// Logits of a tile: 128 MiB.
const LOGITS: usize = 1 << 25;
/// The fewest rows of a tile, or else it has not all classes.
const FEWEST_ROWS: usize = 64;
/// Rows of a tile that has not all classes.
const BANDED_ROWS: usize = 4096;
/// The most rows of a tile.
const MOST_ROWS: usize = 1 << 14;

/// Threads of the block that has a row.
const ROW_THREADS: u32 = 512;
/// Rows of one partial sum of `db`, as in the kernel: part of the order of summation, so it is a constant.
const BAND: usize = 32;
/// Columns of a block of gradients: four for every thread.
const COLUMNS: usize = 4 * 128;

/// What is held at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Tiles {
    pub(in super::super) rows: usize,
    /// A multiple of four, or all.
    pub(in super::super) classes: usize,
}

impl Tiles {
    /// A function of the weight's shape alone, as nothing about a row may depend on its company.
    pub(super) fn new(classes: usize) -> Self {
        let rows = LOGITS / classes.max(1) / FEWEST_ROWS * FEWEST_ROWS;
        if rows == 0 {
            return Self { rows: BANDED_ROWS, classes: LOGITS / BANDED_ROWS };
        }
        Self { rows: rows.min(MOST_ROWS), classes }
    }
}

pub(in super::super) fn forward(on: &Stream, operands: &Operands<'_>, tiles: Tiles) -> Result<Tensor> {
    Ok(normalised(on, operands, tiles)?.losses)
}

pub(super) fn log_sum_exp(on: &Stream, operands: &Operands<'_>, tiles: Tiles) -> Result<Tensor> {
    Ok(normalised(on, operands, tiles)?.lse)
}

fn normalised<'a>(on: &'a Stream, operands: &'a Operands<'a>, tiles: Tiles) -> Result<Sweep<'a>> {
    let mut sweep = Sweep::new(on, operands, tiles)?;
    for rows in blocks(operands.x.rows(), tiles.rows) {
        sweep.normalise(&rows)?;
    }
    Ok(sweep)
}

pub(in super::super) fn forward_backward(
    on: &Stream,
    operands: &Operands<'_>,
    row_scale: &[f32],
    mut grads: Grads<'_>,
    tiles: Tiles,
) -> Result<Output> {
    let mut sweep = Sweep::new(on, operands, tiles)?;
    let scale = on.upload(row_scale)?;
    let mut dx = on.result(&[operands.x.rows(), operands.x.cols()], Dtype::F32)?;
    for rows in blocks(operands.x.rows(), tiles.rows) {
        sweep.normalise(&rows)?;
        let there = tiles.classes >= operands.weight.rows();
        sweep.backward(&rows, there, &scale, &mut grads, &mut dx)?;
    }
    Ok(Output { losses: sweep.losses, dx })
}

/// The gradients of rows whose sums of exponentials are known.
pub(super) fn backward(
    on: &Stream,
    operands: &Operands<'_>,
    lse: &[f32],
    row_scale: &[f32],
    mut grads: Grads<'_>,
    tiles: Tiles,
) -> Result<Tensor> {
    let mut sweep = Sweep::new(on, operands, tiles)?;
    sweep.lse = Tensor::from_f32(&[lse.len()], lse.to_vec())?.beside(operands.x)?;
    let scale = on.upload(row_scale)?;
    let mut dx = on.result(&[operands.x.rows(), operands.x.cols()], Dtype::F32)?;
    for rows in blocks(operands.x.rows(), tiles.rows) {
        sweep.backward(&rows, false, &scale, &mut grads, &mut dx)?;
    }
    Ok(dx)
}

/// A range from 0 cut into blocks of a size; the last may be short.
fn blocks(len: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(size.max(1)).map(move |start| start..start.saturating_add(size).min(len))
}

/// The operands, a tile of logits, and what is known of the softmax of every row.
struct Sweep<'a> {
    on: &'a Stream,
    operands: &'a Operands<'a>,
    tiles: Tiles,
    labels: Array,
    /// `[rows, classes]` of the tiles, with [`Sweep::stride`].
    logits: Array,
    /// The softmax of a tile's rows so far: `[rows, 3]`.
    state: Array,
    /// The log of the sum of exponentials of every row.
    lse: Tensor,
    losses: Tensor,
}

impl<'a> Sweep<'a> {
    fn new(on: &'a Stream, operands: &'a Operands<'a>, tiles: Tiles) -> Result<Self> {
        let n = operands.x.rows();
        let rows = tiles.rows.min(n);
        let floats = |count: usize| on.scratch(count * size_of::<f32>());
        Ok(Self {
            on,
            operands,
            tiles,
            labels: on.upload(operands.labels)?,
            logits: floats(rows * Self::stride_of(tiles, operands))?,
            state: floats(rows * 3)?,
            lse: on.result(&[n], Dtype::F32)?,
            losses: on.result(&[n], Dtype::F32)?,
        })
    }

    fn stride_of(tiles: Tiles, operands: &Operands<'_>) -> usize {
        tiles.classes.min(operands.weight.rows()).next_multiple_of(4)
    }

    /// Logits from one row to the next: rows begin at addresses for 16 bytes at a time.
    fn stride(&self) -> usize {
        Self::stride_of(self.tiles, self.operands)
    }

    /// The tile, of so many columns.
    fn tile(&self) -> Matrix {
        let address = self.logits.arg().address();
        Matrix { address, dtype: Dtype::F32, stride: self.stride(), transposed: false }
    }

    /// The number of the first class, the number of classes, and the stride of the tile.
    fn settings(&self, classes: &Range<usize>) -> Result<[Arg; 3]> {
        Ok([Arg::count(OP, classes.start)?, Arg::count(OP, classes.len())?, Arg::count(OP, self.stride())?])
    }

    fn bias(&self, classes: &Range<usize>) -> Result<Arg> {
        self.operands.bias.map_or(Ok(Arg::NULL), |bias| Ok(at(bias.arg()?, classes.start)))
    }

    /// The losses of some rows. A tile that has all classes holds their logits afterwards.
    fn normalise(&mut self, rows: &Range<usize>) -> Result<()> {
        for classes in blocks(self.operands.weight.rows(), self.tiles.classes) {
            self.make_logits(rows, &classes)?;
            let own = [self.logits.arg(), self.bias(&classes)?, at(self.labels.arg(), rows.start), self.state.arg()];
            let args = [&own[..], &self.settings(&classes)?].concat();
            // SAFETY: the tile is [rows, stride] with at least as many columns as classes; bias and labels are those of
            // the tile's classes and rows; the state is [rows, 3].
            unsafe { self.on.launch(&KERNELS, "observe", Geometry::blocks(rows.len(), ROW_THREADS), &args)? };
        }
        let losses = at(self.losses.arg_mut()?, rows.start);
        let lse = at(self.lse.arg_mut()?, rows.start);
        let args = [self.state.arg(), lse, losses, Arg::count(OP, rows.len())?];
        // SAFETY: as above; both results have a place for every row.
        unsafe { self.on.launch(&KERNELS, "finish", Geometry::elements(rows.len()), &args) }
    }

    /// The gradients of some rows whose sums of exponentials are known; all of their logits may be `there` already.
    fn backward(
        &self,
        rows: &Range<usize>,
        there: bool,
        scale: &Array,
        grads: &mut Grads<'_>,
        dx: &mut Tensor,
    ) -> Result<()> {
        for classes in blocks(self.operands.weight.rows(), self.tiles.classes) {
            if !there {
                self.make_logits(rows, &classes)?;
            }
            self.make_gradients(rows, &classes, scale, grads.db.as_deref_mut())?;
            self.add_to_input(rows, &classes, dx)?;
            if let Some(dw) = grads.dw.as_deref_mut() {
                self.add_to_weight(rows, &classes, dw)?;
            }
        }
        Ok(())
    }

    /// `x · Wᵀ` of a tile.
    fn make_logits(&self, rows: &Range<usize>, classes: &Range<usize>) -> Result<()> {
        let Operands { x, weight, .. } = self.operands;
        let operands = [part(matrix(x)?, rows), part(matrix(weight)?, classes).t()];
        self.multiply([rows.len(), classes.len(), x.cols()], operands, 0.0, self.tile())
    }

    /// Turns the logits of a tile into `row_scale · (softmax - one_hot)`, which is added to `db`.
    fn make_gradients(
        &self,
        rows: &Range<usize>,
        classes: &Range<usize>,
        scale: &Array,
        db: Option<&mut Tensor>,
    ) -> Result<()> {
        let bands = rows.len().div_ceil(BAND);
        let parts = self.on.scratch(if db.is_some() { bands * classes.len() * size_of::<f32>() } else { 0 })?;
        let of_rows = [self.labels.arg(), self.lse.arg()?, scale.arg()].map(|array| at(array, rows.start));
        let own = [&[self.logits.arg(), self.bias(classes)?][..], &of_rows].concat();
        let parts_arg = if db.is_some() { parts.arg() } else { Arg::NULL };
        let args = [&own[..], &[parts_arg, Arg::count(OP, rows.len())?], &self.settings(classes)?].concat();
        let columns = Geometry::blocks(classes.len().div_ceil(COLUMNS), COLUMNS as u32 / 4);
        let grid = [columns.grid[0], Geometry::blocks(bands, 1).grid[0], 1];
        // SAFETY: as in `normalise`; the parts are [bands, classes].
        unsafe { self.on.launch(&KERNELS, "gradient", Geometry { grid, ..columns }, &args)? };
        let Some(db) = db else { return Ok(()) };
        let db = at(db.arg_mut()?, classes.start);
        let args = [parts.arg(), db, Arg::count(OP, bands)?, Arg::count(OP, classes.len())?];
        // SAFETY: as above; db has all classes.
        unsafe { self.on.launch(&KERNELS, "add_bands", Geometry::elements(classes.len()), &args) }
    }

    /// `dx = P · W`, of the second and later bands added.
    fn add_to_input(&self, rows: &Range<usize>, classes: &Range<usize>, dx: &mut Tensor) -> Result<()> {
        let weight = part(matrix(self.operands.weight)?, classes);
        let onto = if classes.start == 0 { 0.0 } else { 1.0 };
        let shape = [rows.len(), dx.cols(), classes.len()];
        self.multiply(shape, [self.tile(), weight], onto, part(matrix_mut(dx)?, rows))
    }

    /// `dW += Pᵀ · x`.
    fn add_to_weight(&self, rows: &Range<usize>, classes: &Range<usize>, dw: &mut Tensor) -> Result<()> {
        let x = part(matrix(self.operands.x)?, rows);
        let shape = [classes.len(), dw.cols(), rows.len()];
        self.multiply(shape, [self.tile().t(), x], 1.0, part(matrix_mut(dw)?, classes))
    }

    fn multiply(&self, shape: [usize; 3], [a, b]: [Matrix; 2], beta: f32, c: Matrix) -> Result<()> {
        let [rows, cols, depth] = shape;
        // SAFETY: the ranges lie within the checked operands and within the tile, which is nobody's operand and result at
        // once.
        unsafe { self.on.multiply(&Product { rows, cols, depth, alpha: 1.0, a, b, beta, c }) }
    }
}

/// Some rows of a matrix.
fn part(matrix: Matrix, rows: &Range<usize>) -> Matrix {
    let offset = rows.start * matrix.stride * matrix.dtype.bytes();
    Matrix { address: matrix.address.offset(offset), ..matrix }
}
