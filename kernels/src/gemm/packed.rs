//! The right operand of a product, laid out for the innermost loop.

use rayon::prelude::*;

use super::view::MatRef;
use crate::memory::{Element, Memory};

/// Columns of a panel.
pub(crate) const PANEL: usize = 32;
/// Steps of depth that are summed before the result is written: part of the order of summation, so it is a constant.
pub(crate) const DEPTH: usize = 256;

/// A matrix in panels of [`PANEL`] columns, within blocks of [`DEPTH`] rows; the last panel is filled up with zeros.
///
/// Packing costs about as much as multiplying a few rows, so an operand that is used often is packed once.
#[derive(Default)]
pub(crate) struct Packed<T: Element = f32> {
    data: Memory<T>,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl<T: Element> Packed<T> {
    /// Nothing; memory comes with the first matrix.
    pub(super) const fn empty() -> Self {
        Self { data: Memory::new(), rows: 0, cols: 0 }
    }

    /// Packs a matrix on the current thread.
    pub(crate) fn new(b: MatRef<T>) -> Self {
        let mut packed = Self::empty();
        packed.pack(b);
        packed
    }

    /// Packs another matrix into the same memory.
    pub(crate) fn pack(&mut self, b: MatRef<T>) {
        self.resize(b);
        let panels = self.panels();
        for start in (0..b.rows).step_by(DEPTH) {
            let depth = DEPTH.min(b.rows - start);
            for panel in 0..panels {
                let range = self.range(start, depth, panel);
                fill(b, start, panel, &mut self.data[range]);
            }
        }
    }

    /// Packs a matrix on all threads.
    pub(crate) fn new_parallel(b: MatRef<T>) -> Self {
        let mut packed = Self::empty();
        packed.resize(b);
        let panels = packed.panels();
        if panels > 0 {
            // Blocks of depth follow each other, and so do the panels in them: chunks of one panel of one block.
            let block = panels * PANEL * DEPTH;
            packed.data.par_chunks_mut(block).enumerate().for_each(|(i, block)| {
                let start = i * DEPTH;
                let depth = DEPTH.min(b.rows - start);
                let chunks = block.par_chunks_mut(PANEL * depth).enumerate();
                chunks.for_each(|(panel, chunk)| fill(b, start, panel, chunk));
            });
        }
        packed
    }

    /// The number of panels.
    pub(crate) fn panels(&self) -> usize {
        self.cols.div_ceil(PANEL)
    }

    /// Panel `panel` of the block of rows that begins at `start` and is `depth` high.
    pub(super) fn panel(&self, start: usize, depth: usize, panel: usize) -> &[T] {
        &self.data[self.range(start, depth, panel)]
    }

    fn range(&self, start: usize, depth: usize, panel: usize) -> std::ops::Range<usize> {
        let begin = (start * self.panels() + panel * depth) * PANEL;
        begin..begin + depth * PANEL
    }

    fn resize(&mut self, b: MatRef<T>) {
        (self.rows, self.cols) = (b.rows, b.cols);
        self.data.resize_dirty(b.rows * self.panels() * PANEL);
    }
}

/// Fills one panel of one block.
fn fill<T: Element>(b: MatRef<T>, start: usize, panel: usize, out: &mut [T]) {
    let first = panel * PANEL;
    let cols = PANEL.min(b.cols - first);
    let (rows, _) = out.as_chunks_mut::<PANEL>();
    if b.col_stride == 1 {
        for (p, row) in rows.iter_mut().enumerate() {
            let from = &b.data[(start + p) * b.row_stride + first..];
            if let Some(whole) = from.first_chunk().filter(|_| cols == PANEL) {
                *row = *whole;
            } else {
                row[..cols].copy_from_slice(&from[..cols]);
                row[cols..].fill(T::default());
            }
        }
    } else {
        // A transposed matrix: its columns are the contiguous ones.
        for j in 0..PANEL {
            if j >= cols {
                rows.iter_mut().for_each(|row| row[j] = T::default());
                continue;
            }
            let column = &b.data[(first + j) * b.col_stride + start * b.row_stride..];
            if b.row_stride == 1 {
                rows.iter_mut().zip(column).for_each(|(row, &v)| row[j] = v);
            } else {
                rows.iter_mut().zip(column.iter().step_by(b.row_stride)).for_each(|(row, &v)| row[j] = v);
            }
        }
    }
}
