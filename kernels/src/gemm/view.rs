//! Strided views of matrices.

use std::{marker::PhantomData, ops::Range};

use super::micro::Onto;

/// A strided view of a matrix.
#[derive(Clone, Copy)]
pub(crate) struct MatRef<'a, T = f32> {
    pub(super) data: &'a [T],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a, T> MatRef<'a, T> {
    /// A row-major matrix.
    pub(crate) fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A matrix whose rows begin `row_stride` elements apart, for example the columns of one attention head.
    ///
    /// # Panics
    /// If the view reaches beyond the data: a mistake of the caller.
    pub(crate) fn strided(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || (rows - 1) * row_stride + cols <= data.len(), "matrix view is larger than its data");
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// Some of the rows.
    ///
    /// # Panics
    /// If there are fewer: a mistake of the caller.
    pub(super) fn rows(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.rows, "rows of a matrix lie outside of it");
        let data = &self.data[(range.start * self.row_stride).min(self.data.len())..];
        Self { data, rows: range.len(), ..self }
    }

    /// Some of the columns.
    ///
    /// # Panics
    /// If there are fewer: a mistake of the caller.
    pub(crate) fn cols(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.cols, "columns of a matrix lie outside of it");
        let data = &self.data[(range.start * self.col_stride).min(self.data.len())..];
        Self { data, cols: range.len(), ..self }
    }

    /// A row of a matrix whose rows are contiguous.
    pub(super) fn row(&self, row: usize) -> &'a [T] {
        debug_assert!(self.col_stride == 1);
        &self.data[row * self.row_stride..][..self.cols]
    }

    /// The transposed view.
    pub(crate) fn t(self) -> Self {
        Self {
            data: self.data,
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
        }
    }
}

/// A view of a matrix to be written, with contiguous rows.
///
/// It holds a pointer and not a slice, so that disjoint parts with interleaved rows can be written by several threads.
pub(crate) struct MatMut<'a, T = f32> {
    pub(super) data: *mut T,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: a view has the elements of its rows for itself, as a mutable slice would.
unsafe impl<T: Send> Send for MatMut<'_, T> {}
// SAFETY: nothing can be written through a shared reference to a view except by `part`, whose callers vouch for it.
unsafe impl<T: Sync> Sync for MatMut<'_, T> {}

impl<'a, T> MatMut<'a, T> {
    /// A row-major matrix.
    pub(crate) fn new(data: &'a mut [T], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A matrix whose rows begin `row_stride` elements apart.
    ///
    /// # Panics
    /// If the view reaches beyond the data or rows overlap: a mistake of the caller.
    pub(crate) fn strided(data: &'a mut [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || (rows - 1) * row_stride + cols <= data.len(), "matrix view is larger than its data");
        assert!(cols <= row_stride || rows <= 1, "rows of a matrix view overlap");
        Self { data: data.as_mut_ptr(), rows, cols, row_stride, borrow: PhantomData }
    }

    /// A rectangle of the matrix.
    ///
    /// # Safety
    /// The rectangle lies inside of the matrix, and while it lives no other view touches its elements.
    pub(super) unsafe fn part(&self, rows: Range<usize>, cols: Range<usize>) -> MatMut<'a, T> {
        // An empty part may begin behind the last element, so no pointer to its start is made.
        let start = if rows.is_empty() || cols.is_empty() { 0 } else { rows.start * self.row_stride + cols.start };
        // SAFETY: the caller vouches that the start lies inside of the matrix.
        let data = unsafe { self.data.add(start) };
        MatMut { data, rows: rows.len(), cols: cols.len(), row_stride: self.row_stride, borrow: PhantomData }
    }

    /// A rectangle of the matrix, for as long as the matrix is borrowed.
    ///
    /// # Panics
    /// If the rectangle reaches beyond the matrix: a mistake of the caller.
    pub(crate) fn sub(&mut self, rows: Range<usize>, cols: Range<usize>) -> MatMut<'_, T> {
        self.check(&rows, &cols);
        // SAFETY: the rectangle was checked, and `self` is borrowed mutably while it lives.
        unsafe { self.part(rows, cols) }
    }

    /// Cuts the matrix into tiles, which may be written by several threads: every range of rows by columns in steps of
    /// `width`, row range by row range.
    ///
    /// # Panics
    /// If the ranges do not ascend without overlap inside of the matrix, or the width is zero: a mistake of the caller.
    pub(crate) fn tiles(self, rows: impl IntoIterator<Item = Range<usize>>, width: usize) -> Vec<MatMut<'a, T>> {
        let mut tiles = Vec::new();
        let mut end = 0;
        for rows in rows {
            assert!(end <= rows.start, "tiles of a matrix overlap");
            end = end.max(rows.end);
            for col in (0..self.cols).step_by(width) {
                let cols = col..(col + width).min(self.cols);
                self.check(&rows, &cols);
                // SAFETY: the tile was checked. No other one has its elements: row ranges ascend without overlap, and
                // so do the columns of one range. The matrix itself is used up.
                tiles.push(unsafe { self.part(rows.clone(), cols) });
            }
        }
        tiles
    }

    fn check(&self, rows: &Range<usize>, cols: &Range<usize>) {
        let inside = rows.start <= rows.end && rows.end <= self.rows && cols.start <= cols.end && cols.end <= self.cols;
        assert!(inside, "part of a matrix lies outside of it");
    }

    /// The number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns.
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// One row.
    ///
    /// # Panics
    /// If there is no such row: a mistake of the caller.
    pub(crate) fn row_mut(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "a matrix view has {} rows, not a row {row}", self.rows);
        // SAFETY: the row lies inside of the view, which is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.row_stride), self.cols) }
    }
}

impl MatMut<'_> {
    /// What an empty product makes of the matrix.
    pub(super) fn fill(&mut self, onto: Onto) {
        for row in 0..self.rows {
            let row = self.row_mut(row);
            match onto {
                Onto::Nothing => row.fill(0.0),
                Onto::Result => {}
                Onto::Bias(bias) => row.copy_from_slice(bias),
            }
        }
    }
}
