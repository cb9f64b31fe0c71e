//! Matrix products over strided views.
//!
//! The bits of an element depend on its row and its column alone (see `micro.rs`), so the work may be cut as suits the
//! number of threads.

use std::{cell::Cell, ops::Range};

use half::bf16;
use rayon::prelude::*;

use super::epilogue::Finish;
pub(crate) use super::micro::Onto;
use super::micro::{self, Factor};
pub(crate) use super::packed::{DEPTH, PANEL, Packed};
pub(crate) use super::view::{MatMut, MatRef};
use crate::memory::Memory;
use crate::simd::{add, round};

/// Rows of one partial sum of a column sum: part of the order of summation, so it is a constant.
const SUM_ROWS: usize = 128;
/// Columns that are packed at a time.
const PACKED_COLS: usize = 2048;
/// Rows of a part are a multiple of this, which every kernel's group of rows divides.
const ROWS: usize = 12;
/// The most rows of a part.
const MOST_ROWS: usize = 96;
/// The least panels of a part.
const LEAST_PANELS: usize = 2;
/// Products with fewer multiplications than this (of pairs, twice as many) are not worth a second thread.
const SMALL: usize = 1 << 17;

thread_local! {
    /// Memory for the packed operand of [`sgemm_block`], so that small products do not allocate.
    static SCRATCH: Cell<Packed> = const { Cell::new(Packed::empty()) };
}

/// `c = onto + alpha · a · b` on the current thread.
pub(crate) fn sgemm_block(alpha: f32, a: MatRef, b: MatRef, onto: Onto, c: MatMut) {
    let mut packed = SCRATCH.replace(Packed::empty());
    packed.pack(b);
    sgemm_packed(alpha, a, &packed, onto, c);
    SCRATCH.set(packed);
}

/// As [`sgemm_block`], with a right operand that is packed already.
pub(crate) fn sgemm_packed<T: Factor>(alpha: f32, a: MatRef<T>, b: &Packed<T>, onto: Onto, c: MatMut) {
    micro::multiply(alpha, a, b, 0..b.panels(), onto, c);
}

/// `c = onto + alpha · a · b` on all threads.
pub(crate) fn sgemm(alpha: f32, a: MatRef, b: MatRef, onto: Onto, c: MatMut) {
    sgemm_then(alpha, a, b, onto, c, Finish::NOTHING);
}

/// As [`sgemm`]; every part of the result is finished by the thread that made it.
pub(super) fn sgemm_then(alpha: f32, a: MatRef, b: MatRef, onto: Onto, mut c: MatMut, finish: Finish) {
    assert!(a.rows == c.rows && b.cols == c.cols && a.cols == b.rows, "matrix shapes do not fit");
    let rows = a.rows;
    if rows == 0 || b.cols == 0 {
        return;
    }
    if rows * a.cols * b.cols < SMALL {
        sgemm_block(alpha, a, b, onto, c.sub(0..rows, 0..b.cols));
        return finish.apply(0, 0, &mut c);
    }
    for first in (0..b.cols).step_by(PACKED_COLS) {
        let cols = PACKED_COLS.min(b.cols - first);
        let packed = Packed::new_parallel(b.cols(first..first + cols));
        multiply_parts(alpha, a, &packed, first, onto, c.sub(0..rows, first..first + cols), finish);
    }
}

/// As [`sgemm_then`], with a right operand that is packed already.
pub(super) fn sgemm_packed_then<T: Factor>(a: MatRef<T>, b: &Packed<T>, onto: Onto, mut c: MatMut, finish: Finish) {
    assert!(a.rows == c.rows && b.cols == c.cols && a.cols == b.rows, "matrix shapes do not fit");
    let (rows, cols) = (a.rows, b.cols);
    if rows * a.cols * cols < SMALL {
        sgemm_packed(1.0, a, b, onto, c.sub(0..rows, 0..cols));
        return finish.apply(0, 0, &mut c);
    }
    multiply_parts(1.0, a, b, 0, onto, c, finish);
}

/// As [`sgemm_packed_then`], with a result that is rounded while it is in the cache.
pub(super) fn sgemm_packed_rounded<T: Factor>(
    a: MatRef<T>,
    b: &Packed<T>,
    onto: Onto,
    c: MatMut<bf16>,
    finish: Finish,
) {
    assert!(a.rows == c.rows && b.cols == c.cols && a.cols == b.rows, "matrix shapes do not fit");
    for_parts(a.rows, b.panels(), c, |row, panels, mut c| {
        let col = panels.start * PANEL;
        let mut wide = Memory::dirty(c.rows * c.cols);
        let mut part = MatMut::new(&mut wide, c.rows, c.cols);
        let onto = onto.columns(col..col + c.cols);
        micro::multiply(1.0, a.rows(row..row + c.rows), b, panels, onto, part.sub(0..c.rows, 0..c.cols));
        finish.apply(row, col, &mut part);
        (0..c.rows).for_each(|i| round(part.row_mut(i), c.row_mut(i)));
    });
}

/// The columns of a result from `first` on, in parts that the threads share.
fn multiply_parts<T: Factor>(
    alpha: f32,
    a: MatRef<T>,
    packed: &Packed<T>,
    first: usize,
    onto: Onto,
    c: MatMut,
    finish: Finish,
) {
    for_parts(a.rows, packed.panels(), c, |row, panels, mut c| {
        let col = first + panels.start * PANEL;
        let (rows, cols) = (c.rows, c.cols);
        let onto = onto.columns(col..col + cols);
        micro::multiply(alpha, a.rows(row..row + rows), packed, panels, onto, c.sub(0..rows, 0..cols));
        finish.apply(row, col, &mut c);
    });
}

/// Cuts a result into parts that the threads share: `run` is given the first row, the panels, and their place.
fn for_parts<T: Send>(rows: usize, panels: usize, c: MatMut<T>, run: impl Fn(usize, Range<usize>, MatMut<T>) + Sync) {
    let (height, width) = partition(rows, panels);
    let bands = (0..rows).step_by(height.max(1)).map(|r| r..(r + height).min(rows));
    let across = panels.div_ceil(width);
    c.tiles(bands, width * PANEL).into_par_iter().enumerate().for_each(|(i, c)| {
        let (row, panel) = (i / across * height, i % across * width);
        run(row, panel..(panel + width).min(panels), c);
    });
}

/// The rows and panels of a part: about four parts for every thread, but none so small that starting a task would cost
/// more than it saves. Few rows stay together, so that the right operand comes from memory once.
fn partition(rows: usize, panels: usize) -> (usize, usize) {
    let wanted = 4 * rayon::current_num_threads();
    let few = rows <= MOST_ROWS && panels >= LEAST_PANELS * wanted;
    let height = if few { rows } else { rows.div_ceil(wanted) }.next_multiple_of(ROWS).min(MOST_ROWS);
    let bands = rows.div_ceil(height.max(1));
    (height, (panels * bands).div_ceil(wanted).clamp(LEAST_PANELS, panels.max(LEAST_PANELS)))
}

/// Adds a row to every row.
pub(super) fn add_to_rows(row: &[f32], y: &mut [f32]) {
    if !row.is_empty() {
        y.chunks_exact_mut(row.len()).for_each(|y| crate::simd::add(y, row));
    }
}

/// A tile of `x · wᵀ + bias` on the current thread: the scores that nobody keeps.
///
/// Rows are [`Tile::stride`] apart, which is no power of two, so that a column of the tile does not fall on few cache
/// lines.
#[derive(Default)]
pub(crate) struct Tile {
    data: Memory<f32>,
    width: usize,
}

impl Tile {
    /// Computes the tile; `x` has rows of width `d`, `w` holds some rows of the weight, packed transposed, of which the
    /// given panels are used, and `bias` is theirs.
    pub(crate) fn linear(&mut self, x: &[f32], d: usize, w: &Packed, panels: Range<usize>, bias: Option<&[f32]>) {
        let rows = x.len() / d.max(1);
        self.width = w.cols.min(panels.end * PANEL) - panels.start * PANEL;
        let stride = self.stride();
        self.data.resize_dirty(rows * stride);
        let onto = bias.map_or(Onto::Nothing, Onto::Bias);
        let c = MatMut::strided(&mut self.data, rows, self.width, stride);
        micro::multiply(1.0, MatRef::new(x, rows, d), w, panels, onto, c);
    }

    /// The rows of the tile.
    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.data.chunks_exact(self.stride()).map(|row| &row[..self.width])
    }

    /// The rows of the tile, to be changed.
    pub(crate) fn rows_mut(&mut self) -> impl ExactSizeIterator<Item = &mut [f32]> {
        let (stride, width) = (self.stride(), self.width);
        self.data.chunks_exact_mut(stride).map(move |row| &mut row[..width])
    }

    /// The tile as an operand.
    pub(crate) fn view(&self) -> MatRef<'_> {
        MatRef::strided(&self.data, self.data.len() / self.stride(), self.width, self.stride())
    }

    fn stride(&self) -> usize {
        self.width.next_multiple_of(32) + 16
    }
}

/// Adds the sum of all rows of `dy` to `sums`: rows in order within blocks of a fixed size, then the blocks in order.
pub(crate) fn add_column_sums(dy: &[f32], cols: usize, sums: &mut [f32]) {
    if cols == 0 {
        return;
    }
    let blocks: Vec<Vec<f32>> = dy
        .par_chunks(SUM_ROWS * cols)
        .map(|block| {
            let mut partial = vec![0.0; cols];
            block.chunks_exact(cols).for_each(|row| add(&mut partial, row));
            partial
        })
        .collect();
    blocks.iter().for_each(|partial| add(sums, partial));
}
