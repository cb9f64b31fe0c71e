//! Products of rows in bfloat16, summed in single precision.
//!
//! Every element is the sum of 16 lanes. Lane `l` takes, of every 32 elements of the two rows, element `2l + 1` and then
//! element `2l`, each by a fused multiply-add: the order of the processor's own instruction, where it has one. After
//! [`CHUNK`] elements the lanes are added by a tree of fixed form, and the chunks are added in order. So the bits of an
//! element depend on its row and its column alone, here too.
//!
//! Numbers below the smallest normal one (1.2e-38) count as zero where the processor has the instruction.

use half::bf16;
use rayon::prelude::*;

use super::epilogue::Finish;
use super::view::MatMut;
use crate::simd::{lanes, vectorised};

/// Elements of a row that are summed in registers: part of the order of summation, so it is a constant.
pub(crate) const CHUNK: usize = 2048;
/// Elements of one step: two for each of 16 lanes.
pub(crate) const STEP: usize = 32;
/// Columns of the result that a task computes, and rows: their operands lie in the second-level cache.
pub(crate) const TILE: usize = 64;
/// Rows of the left operand that stay in registers.
const LEFT: usize = 6;
/// Rows of the right operand that stay in registers.
const RIGHT: usize = 4;

/// Rows of a row-major matrix.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    data: &'a [bf16],
    cols: usize,
}

impl<'a> Rows<'a> {
    /// Rows of `cols` elements.
    pub(crate) fn new(data: &'a [bf16], cols: usize) -> Self {
        Self { data, cols }
    }

    fn len(&self) -> usize {
        self.data.len().checked_div(self.cols).unwrap_or(0)
    }

    fn range(self, rows: std::ops::Range<usize>) -> Self {
        Self { data: &self.data[rows.start * self.cols..rows.end * self.cols], ..self }
    }

    /// Some elements of a row; of the last row if there are fewer.
    fn part(&self, row: usize, from: usize, len: usize) -> &'a [bf16] {
        let row = row.min(self.len() - 1);
        &self.data[row * self.cols + from..][..len]
    }
}

/// `c = bias + x · wᵀ` on all threads, each part finished by the thread that made it.
pub(super) fn multiply(x: Rows, w: Rows, bias: Option<&[f32]>, c: MatMut, finish: Finish) {
    let rows = c.rows();
    let bands = (0..rows).step_by(TILE).map(|row| row..(row + TILE).min(rows));
    let across = c.cols().div_ceil(TILE).max(1);
    c.tiles(bands, TILE).into_par_iter().enumerate().for_each(|(i, mut c)| {
        let [row, col] = [i / across * TILE, i % across * TILE];
        let (n, cols) = (c.rows(), c.cols());
        multiply_block(x.range(row..row + n), w.range(col..col + cols), c.sub(0..n, 0..cols));
        if let Some(bias) = bias {
            (0..n).for_each(|i| crate::simd::add(c.row_mut(i), &bias[col..col + cols]));
        }
        finish.apply(row, col, &mut c);
    });
}

/// `c = x · wᵀ` on the current thread.
pub(crate) fn multiply_block(x: Rows, w: Rows, mut c: MatMut) {
    if x.cols == 0 {
        (0..c.rows()).for_each(|row| c.row_mut(row).fill(0.0));
    }
    for from in (0..x.cols).step_by(CHUNK) {
        let len = CHUNK.min(x.cols - from);
        for row in (0..c.rows()).step_by(LEFT) {
            for col in (0..c.cols()).step_by(RIGHT) {
                let sums = dots(c.rows() - row, |i| x.part(row + i, from, len), |j| w.part(col + j, from, len));
                for (i, sums) in sums.iter().enumerate().take(c.rows() - row) {
                    let end = (col + RIGHT).min(c.cols());
                    for (c, sum) in c.row_mut(row + i)[col..end].iter_mut().zip(sums) {
                        *c = if from == 0 { *sum } else { *c + *sum };
                    }
                }
            }
        }
    }
}

/// The products of up to [`LEFT`] rows with [`RIGHT`] rows.
#[inline(always)]
fn dots<'a>(rows: usize, x: impl Fn(usize) -> &'a [bf16], w: impl Fn(usize) -> &'a [bf16]) -> [[f32; RIGHT]; LEFT] {
    #[cfg(target_arch = "x86_64")]
    if crate::simd::has_avx512_bf16() {
        let w = std::array::from_fn(&w);
        // SAFETY: the processor has the instructions.
        return unsafe {
            match rows {
                1 => avx512::dots::<1>(std::array::from_fn(&x), w),
                2 => avx512::dots::<2>(std::array::from_fn(&x), w),
                3 | 4 => avx512::dots::<4>(std::array::from_fn(&x), w),
                _ => avx512::dots::<LEFT>(std::array::from_fn(&x), w),
            }
        };
    }
    let mut sums = [[0.0; RIGHT]; LEFT];
    for (i, sums) in sums.iter_mut().enumerate().take(rows) {
        *sums = std::array::from_fn(|j| dot(x(i), w(j)));
    }
    sums
}

vectorised! {
    /// The product of two rows in the order that the module describes.
    pub(super) fn dot(x: &[bf16], w: &[bf16]) -> f32 {
        let mut sums = [0.0f32; STEP / 2];
        let (x_steps, x_tail) = x.as_chunks::<STEP>();
        let (w_steps, w_tail) = w.as_chunks::<STEP>();
        for (x, w) in x_steps.iter().zip(w_steps) {
            step(x, w, &mut sums);
        }
        if !x_tail.is_empty() {
            let padded = |tail: &[bf16]| {
                let mut step = [bf16::ZERO; STEP];
                step[..tail.len()].copy_from_slice(tail);
                step
            };
            step(&padded(x_tail), &padded(w_tail), &mut sums);
        }
        lanes::sum_tree(sums)
    }
}

#[inline(always)]
fn step(x: &[bf16; STEP], w: &[bf16; STEP], sums: &mut [f32; STEP / 2]) {
    let wide = |v: bf16| f32::from_bits(u32::from(v.to_bits()) << 16);
    for (l, sum) in sums.iter_mut().enumerate() {
        *sum = wide(x[2 * l + 1]).mul_add(wide(w[2 * l + 1]), *sum);
        *sum = wide(x[2 * l]).mul_add(wide(w[2 * l]), *sum);
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::{as_bf16, as_words, sum_tree};

/// The same with the instruction for it.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use half::bf16;

    use super::{LEFT, RIGHT, STEP};

    /// The products of `M` rows with [`RIGHT`] rows; the other rows are zero.
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    pub(super) fn dots<const M: usize>(x: [&[bf16]; M], w: [&[bf16]; RIGHT]) -> [[f32; RIGHT]; LEFT] {
        let len = w[0].len();
        assert!(x.iter().chain(&w).all(|row| row.len() == len), "rows differ in length");
        let mut sums = whole_steps(x, w, len / STEP);
        let whole = len / STEP * STEP;
        if whole < len {
            let mask = (1u32 << (len - whole)) - 1;
            // SAFETY: what the mask leaves lies inside of the rows.
            let load = |row: &[bf16]| unsafe { _mm512_maskz_loadu_epi16(mask, row.as_ptr().add(whole).cast()) };
            sums = add_products(sums, x.map(load), w.map(load));
        }
        let mut out = [[0.0; RIGHT]; LEFT];
        for (out, sums) in out.iter_mut().zip(&sums) {
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum_tree(*sum);
            }
        }
        out
    }

    /// The lanes' sums over the first steps. A function of its own, so that they stay in registers.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    fn whole_steps<const M: usize>(x: [&[bf16]; M], w: [&[bf16]; RIGHT], steps: usize) -> [[__m512; RIGHT]; M] {
        let mut sums = [[_mm512_setzero_ps(); RIGHT]; M];
        for k in 0..steps {
            // SAFETY: a step lies inside of the rows, which have so many.
            let load = |row: &[bf16]| unsafe { _mm512_loadu_si512(row.as_ptr().add(k * STEP).cast()) };
            sums = add_products(sums, x.map(load), w.map(load));
        }
        sums
    }

    /// One step of every pair of rows.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    fn add_products<const M: usize>(
        mut sums: [[__m512; RIGHT]; M],
        x: [__m512i; M],
        w: [__m512i; RIGHT],
    ) -> [[__m512; RIGHT]; M] {
        for i in 0..M {
            for j in 0..RIGHT {
                sums[i][j] = _mm512_dpbf16_ps(sums[i][j], as_bf16(x[i]), as_bf16(w[j]));
            }
        }
        sums
    }

    /// The same bits as 32 values of bfloat16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(crate) fn as_bf16(v: __m512i) -> __m512bh {
        // SAFETY: both are 64 bytes, of which every pattern is allowed.
        unsafe { std::mem::transmute(v) }
    }

    /// The bits of 32 values of bfloat16.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(crate) fn as_words(v: __m512bh) -> __m512i {
        // SAFETY: as above.
        unsafe { std::mem::transmute(v) }
    }

    /// The sum of all lanes, by the tree of [`lanes::sum_tree`](crate::simd::lanes::sum_tree).
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx2,fma")]
    pub(crate) fn sum_tree(v: __m512) -> f32 {
        let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
        let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps::<1>(v, v)))
    }
}
