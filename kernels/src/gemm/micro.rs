//! The innermost product: a few rows of `a` times one panel of packed columns, held in registers.
//!
//! Every element of the result is a chain of fused multiply-adds over the depth, which ascends, in blocks of [`DEPTH`] that
//! are added in order, whatever the instruction set, the place of the element or the size of the matrix. (Of a pair of
//! bfloat16 the second comes first.) So its bits depend on its row and its column alone: a row gives the same result in
//! any batch, on any number of threads and on any processor.
//!
//! With AVX-512 a tile is 12 rows × 32 columns: 24 accumulators, two vectors of `b` and one broadcast of `a` in 32
//! registers. With AVX2 it is 6 rows × half a panel: 12 accumulators, two vectors and a broadcast in 16 registers; of pairs, 2 × 32.

use std::ops::Range;

use super::{
    packed::{DEPTH, PANEL, Packed},
    vector::{Factors, Portable, Vector},
    view::{MatMut, MatRef},
};
use crate::memory::Element;

/// Panels that a group of rows must meet for it to be worth a copy.
const WORTH_A_COPY: usize = 8;
/// The most rows of a group.
const GROUP_ROWS: usize = 12;
/// Floats of the panels that are multiplied before the next ones: 512 KiB, which stay in the second-level cache.
const CACHED: usize = 128 * 1024;

/// What a product is added to.
#[derive(Clone, Copy)]
pub(crate) enum Onto<'a> {
    /// Nothing: what the result held is ignored.
    Nothing,
    /// What the result holds.
    Result,
    /// One value for every column, the same in all rows.
    Bias(&'a [f32]),
}

impl Onto<'_> {
    /// From column `first` on.
    pub(super) fn columns(&self, cols: Range<usize>) -> Self {
        match self {
            Self::Bias(bias) => Self::Bias(&bias[cols]),
            other => *other,
        }
    }
}

/// What the operands of a product are made of.
pub(crate) trait Factor: Element {
    /// `c = onto + alpha · a · b`, with the widest instructions that the processor has.
    ///
    /// # Safety
    /// The shapes fit: see [`multiply`], which checks them.
    unsafe fn multiply(alpha: f32, a: MatRef<Self>, b: &Packed<Self>, panels: Range<usize>, onto: Onto, c: MatMut);
}

/// `c = onto + alpha · a · b` on the current thread.
///
/// `panels` are those of `b` that are multiplied; `c` has their columns, and so has a bias.
pub(super) fn multiply<T: Factor>(
    alpha: f32,
    a: MatRef<T>,
    b: &Packed<T>,
    panels: Range<usize>,
    onto: Onto,
    c: MatMut,
) {
    let cols = b.cols.min(panels.end * PANEL) - panels.start * PANEL;
    assert!(a.cols == b.rows && a.rows == c.rows && cols == c.cols, "matrix shapes do not fit");
    // SAFETY: the shapes were checked.
    unsafe { T::multiply(alpha, a, b, panels, onto, c) };
}

impl Factor for f32 {
    unsafe fn multiply(alpha: f32, a: MatRef, b: &Packed, panels: Range<usize>, onto: Onto, c: MatMut) {
        #[cfg(target_arch = "x86_64")]
        {
            if crate::simd::has_avx512() {
                // SAFETY: the processor has the instructions.
                return unsafe { multiply_avx512(alpha, a, b, panels, onto, c) };
            }
            if crate::simd::has_avx2() {
                // SAFETY: as above.
                return unsafe { multiply_avx2(alpha, a, b, panels, onto, c) };
            }
        }
        multiply_portable(alpha, a, b, panels, onto, c);
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
unsafe fn multiply_avx512(alpha: f32, a: MatRef, b: &Packed, panels: Range<usize>, onto: Onto, c: MatMut) {
    blocks::<std::arch::x86_64::__m512, 2, 12>(alpha, a, b, panels, onto, c);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn multiply_avx2(alpha: f32, a: MatRef, b: &Packed, panels: Range<usize>, onto: Onto, c: MatMut) {
    blocks::<std::arch::x86_64::__m256, 2, 6>(alpha, a, b, panels, onto, c);
}

/// The same product without any particular instructions; also what the others are tested against.
pub(super) fn multiply_portable(alpha: f32, a: MatRef, b: &Packed, panels: Range<usize>, onto: Onto, c: MatMut) {
    blocks::<Portable, 8, 2>(alpha, a, b, panels, onto, c);
}

/// Walks over blocks of depth, as many panels as stay in the cache, groups of `ROWS` rows, and those panels, in parts of `WIDTH`
/// vectors. A group of rows stays in the first-level cache while the panels pass by.
#[inline(always)]
pub(super) fn blocks<F: Factors, const WIDTH: usize, const ROWS: usize>(
    alpha: f32,
    a: MatRef<F::Element>,
    b: &Packed<F::Element>,
    panels: Range<usize>,
    onto: Onto,
    mut c: MatMut,
) {
    const { assert!(PANEL.is_multiple_of(WIDTH * F::Sums::LANES) && ROWS <= GROUP_ROWS) };
    if a.cols == 0 {
        c.fill(onto);
    }
    let mut copy = (panels.len() >= WORTH_A_COPY && collides(&a)).then(|| [F::Element::default(); GROUP_ROWS * DEPTH]);
    for start in (0..a.cols).step_by(DEPTH) {
        let depth = DEPTH.min(a.cols - start);
        let onto = if start == 0 { onto } else { Onto::Result };
        let near = (CACHED / (depth * PANEL)).max(1);
        for near in panels.clone().step_by(near).map(|p| p..(p + near).min(panels.end)) {
            for row in (0..a.rows).step_by(ROWS) {
                let rows = ROWS.min(a.rows - row);
                let group = match &mut copy {
                    None => Group::new(a, row, start),
                    Some(copy) => Group::copied(a, row..row + rows, start..start + depth, copy),
                };
                for panel in near.clone() {
                    let (columns, first) = (b.panel(start, depth, panel), (panel - panels.start) * PANEL);
                    for part in (0..PANEL.min(c.cols - first)).step_by(WIDTH * F::Sums::LANES) {
                        let tile = Tile::new::<F, WIDTH>(alpha, (columns, part), onto, &mut c, row, first + part);
                        // SAFETY: group and panel are `depth` long, and the group's rows are rows of the result.
                        unsafe { tile.run::<F, WIDTH>(rows, &group) };
                    }
                }
            }
        }
    }
}

/// A few rows of `a`: element (row, p) at `start + row · row_stride + p · col_stride`.
struct Group<T> {
    start: *const T,
    row_stride: usize,
    col_stride: usize,
}

impl<T> Group<T> {
    /// The rows from `row` on, at depth `from`, in place. So are those of a transposed matrix: each step of depth reads
    /// neighbours, and the same cache lines serve the next groups.
    #[inline(always)]
    fn new(a: MatRef<T>, row: usize, from: usize) -> Self {
        let start = a.data[row * a.row_stride + from * a.col_stride..].as_ptr();
        Self { start, row_stride: a.row_stride, col_stride: a.col_stride }
    }

    /// The same rows step by step of depth in other memory, which must live as long.
    #[inline(always)]
    fn copied(a: MatRef<T>, rows: Range<usize>, depth: Range<usize>, copy: &mut [T; GROUP_ROWS * DEPTH]) -> Self
    where
        T: Copy,
    {
        let (steps, _) = copy.as_chunks_mut::<GROUP_ROWS>();
        for (i, row) in rows.enumerate() {
            let row = &a.row(row)[depth.clone()];
            steps.iter_mut().zip(row).for_each(|(step, &value)| step[i] = value);
        }
        Self { start: copy.as_ptr(), row_stride: 1, col_stride: GROUP_ROWS }
    }
}

/// Whether rows begin so far apart that neighbours of a column fall on the same lines of the first-level cache, which
/// holds fewer of them than a group has rows.
fn collides<T>(a: &MatRef<T>) -> bool {
    a.col_stride == 1 && a.row_stride > 0 && (a.row_stride * size_of::<T>()).is_multiple_of(4096)
}

/// One tile of the result.
struct Tile<'a, T> {
    alpha: f32,
    /// Rows of what the product is added to; null for nothing, a stride of 0 for a bias.
    source: *const f32,
    source_stride: usize,
    /// A panel, and the first of its columns that are multiplied.
    columns: &'a [T],
    part: usize,
    target: *mut f32,
    row_stride: usize,
    cols: usize,
}

impl<'a, T: Copy> Tile<'a, T> {
    /// The tile of `c` at row `row` and column `col`, of `WIDTH` vectors of a panel's columns from some column on.
    #[inline(always)]
    fn new<F: Factors, const WIDTH: usize>(
        alpha: f32,
        (columns, part): (&'a [T], usize),
        onto: Onto,
        c: &mut MatMut,
        row: usize,
        col: usize,
    ) -> Self {
        let cols = (WIDTH * F::Sums::LANES).min(c.cols - col);
        let target = c.data.wrapping_add(row * c.row_stride + col);
        let (source, source_stride) = match onto {
            Onto::Nothing => (std::ptr::null(), 0),
            Onto::Result => (target.cast_const(), c.row_stride),
            Onto::Bias(bias) => (bias[col..col + cols].as_ptr(), 0),
        };
        Self { alpha, source, source_stride, columns, part, target, row_stride: c.row_stride, cols }
    }

    /// Computes and writes the tile.
    ///
    /// # Safety
    /// The group has `rows` rows as long as the panel is deep; `rows` × `self.cols` elements can be written at the
    /// target.
    #[inline(always)]
    unsafe fn run<F: Factors<Element = T>, const WIDTH: usize>(&self, rows: usize, group: &Group<T>) {
        macro_rules! choose {
            ($($n:literal)*) => {
                match rows {
                    $($n => {
                        // SAFETY: that of this function.
                        unsafe { self.write::<F::Sums, WIDTH, $n>(self.accumulate::<F, WIDTH, $n>(group)) }
                    })*
                    _ => unreachable!("a group has at most twelve rows"),
                }
            };
        }
        choose!(1 2 3 4 5 6 7 8 9 10 11 12);
    }

    /// # Safety
    /// That of [`Tile::run`].
    #[inline(always)]
    unsafe fn accumulate<F: Factors<Element = T>, const WIDTH: usize, const ROWS: usize>(
        &self,
        group: &Group<T>,
    ) -> [[F::Sums; WIDTH]; ROWS] {
        let mut sums = [[F::Sums::zero(); WIDTH]; ROWS];
        let mut columns = self.columns.as_ptr().wrapping_add(self.part);
        let mut rows = group.start;
        for _ in 0..self.columns.len() / PANEL {
            // SAFETY: a panel has `PANEL` elements for every step of depth, of which the part's lie behind its first.
            let b: [F; WIDTH] = std::array::from_fn(|j| unsafe { F::load(columns.add(j * F::Sums::LANES)) });
            for (i, sums) in sums.iter_mut().enumerate() {
                // SAFETY: the group has `ROWS` rows of `depth`.
                let a = F::splat(unsafe { *rows.add(i * group.row_stride) });
                for j in 0..WIDTH {
                    sums[j] = F::add_products(a, b[j], sums[j]);
                }
            }
            columns = columns.wrapping_add(PANEL);
            rows = rows.wrapping_add(group.col_stride);
        }
        sums
    }

    /// # Safety
    /// That of [`Tile::run`].
    #[inline(always)]
    unsafe fn write<V: Vector, const WIDTH: usize, const ROWS: usize>(&self, sums: [[V; WIDTH]; ROWS]) {
        let alpha = V::splat(self.alpha);
        for (i, sums) in sums.iter().enumerate() {
            let source = self.source.wrapping_add(i * self.source_stride);
            let row = self.target.wrapping_add(i * self.row_stride);
            if self.cols == WIDTH * V::LANES {
                // SAFETY: the whole part of the panel lies inside of target and source.
                unsafe { write_row(sums, alpha, source, row) };
                continue;
            }
            let mut edge = [0.0f32; PANEL];
            // SAFETY: the edge holds a whole part of a panel; of target and source only `cols` elements are touched.
            unsafe {
                if !source.is_null() {
                    std::ptr::copy_nonoverlapping(source, edge.as_mut_ptr(), self.cols);
                }
                let place = edge.as_mut_ptr();
                write_row(sums, alpha, if source.is_null() { source } else { place.cast_const() }, place);
                std::ptr::copy_nonoverlapping(place.cast_const(), row, self.cols);
            }
        }
    }
}

/// `row = source + alpha · sums` for one part of a panel of a row; a null source is nothing.
///
/// # Safety
/// As many values as there are sums can be written at `row` and read at `source`, which may be the same.
#[inline(always)]
unsafe fn write_row<V: Vector, const WIDTH: usize>(sums: &[V; WIDTH], alpha: V, source: *const f32, row: *mut f32) {
    for (j, &sum) in sums.iter().enumerate() {
        let value = if source.is_null() {
            V::product(alpha, sum)
        } else {
            // SAFETY: the caller vouches for the source.
            V::fused(alpha, sum, unsafe { V::load(source.add(j * V::LANES)) })
        };
        // SAFETY: the caller vouches for the row.
        unsafe { value.store(row.add(j * V::LANES)) };
    }
}
