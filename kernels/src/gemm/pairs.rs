//! Products of bfloat16 whose right operand is laid out for them: two neighbours in depth are one element.
//!
//! A pair of `a` times a pair of `b` is added to a sum by two fused multiply-adds, first that of the second factors: the
//! order of the processor's own instruction, where it has one. So every element of a result is one chain over its depth,
//! as those of single floats are, and the same code walks over rows, panels and blocks.
//!
//! Numbers below the smallest normal one (1.2e-38) count as zero where the processor has the instruction.

use std::ops::Range;

use half::bf16;
use rayon::prelude::*;

use super::micro::{self, Factor, Onto};
use super::packed::{PANEL, Packed};
use super::vector::{Factors, Portable};
use super::view::{MatMut, MatRef};
use crate::memory::{Element, Memory, Shelf, shelves};
use crate::simd::{self, vectorised};
use crate::{Dtype, Result, Tensor};

/// Values that a task copies or rounds.
const BAND: usize = 1 << 16;

/// Two values of bfloat16, neighbours in a row.
pub(crate) type Pair = [bf16; 2];

shelves!(Pair);

/// Rows of pairs. Where there are not as many values, the last pair holds a zero.
#[derive(Default)]
pub(crate) struct PairRows {
    pairs: Memory<Pair>,
    rows: usize,
    cols: usize,
}

impl PairRows {
    /// Copies rows of `d` values.
    pub(super) fn copied(values: &[bf16], [rows, d]: [usize; 2]) -> Self {
        Self::filled(values, [rows, d], |row, into| into.copy_from_slice(row))
    }

    /// Rounds rows of `d` values.
    pub(super) fn rounded(values: &[f32], [rows, d]: [usize; 2]) -> Self {
        Self::filled(values, [rows, d], simd::round)
    }

    fn filled<T: Sync>(values: &[T], [rows, d]: [usize; 2], fill: impl Fn(&[T], &mut [bf16]) + Sync) -> Self {
        let cols = d.div_ceil(2);
        let mut pairs = Memory::dirty(rows * cols);
        if rows * cols > 0 {
            let band = BAND.div_ceil(d);
            let into = pairs.par_chunks_mut(band * cols);
            into.zip(values.par_chunks(band * d)).for_each(|(into, rows)| {
                let rows = into.chunks_exact_mut(cols).zip(rows.chunks_exact(d));
                rows.for_each(|(into, row)| fill_row(row, into, &fill));
            });
        }
        Self { pairs, rows, cols }
    }

    /// Lays the rows of a matrix together, on the current thread and in the same memory.
    pub(crate) fn copy(&mut self, from: MatRef<bf16>) -> MatRef<'_, Pair> {
        self.fill(from, |row, into| into.copy_from_slice(row))
    }

    /// Makes the rows of values of another matrix, one after the other.
    pub(crate) fn fill<T>(&mut self, from: MatRef<T>, mut fill: impl FnMut(&[T], &mut [bf16])) -> MatRef<'_, Pair> {
        self.resize(from.rows, from.cols.div_ceil(2));
        for (row, into) in self.pairs.chunks_exact_mut(self.cols.max(1)).enumerate() {
            fill_row(from.row(row), into, &mut fill);
        }
        self.view()
    }

    /// Makes pairs of neighbours in a column, `[rows / 2, cols]`, on the current thread and in the same memory.
    pub(crate) fn copy_columns(&mut self, from: MatRef<bf16>) -> MatRef<'_, Pair> {
        self.resize(from.rows.div_ceil(2), from.cols);
        for (pair, into) in self.pairs.chunks_exact_mut(self.cols.max(1)).enumerate() {
            let first = from.row(2 * pair);
            if 2 * pair + 1 < from.rows {
                interleave(first, from.row(2 * pair + 1), into);
            } else {
                into.iter_mut().zip(first).for_each(|(pair, &a)| *pair = [a, bf16::ZERO]);
            }
        }
        self.view()
    }

    fn resize(&mut self, rows: usize, cols: usize) {
        (self.rows, self.cols) = (rows, cols);
        self.pairs.resize_dirty(rows * cols);
    }

    pub(super) fn view(&self) -> MatRef<'_, Pair> {
        MatRef::new(&self.pairs, self.rows, self.cols)
    }
}

/// Makes a row of pairs; where there are not as many values, the last one holds a zero.
fn fill_row<T>(row: &[T], into: &mut [Pair], mut fill: impl FnMut(&[T], &mut [bf16])) {
    let (values, beyond) = into.as_flattened_mut().split_at_mut(row.len());
    fill(row, values);
    beyond.fill(bf16::ZERO);
}

vectorised! {
    fn interleave(first: &[bf16], second: &[bf16], pairs: &mut [Pair]) {
        for (pair, (&a, &b)) in pairs.iter_mut().zip(first.iter().zip(second)) {
            *pair = [a, b];
        }
    }
}

/// The rows of a tensor as pairs: its own memory, or pairs made of its values.
pub(super) enum PairsOf<'a> {
    Held(MatRef<'a, Pair>),
    Made(PairRows),
}

impl<'a> PairsOf<'a> {
    /// The rows of `x`, bf16 or f32, which is rounded.
    pub(super) fn new(op: &'static str, x: &'a Tensor) -> Result<Self> {
        let (rows, d) = (x.rows(), x.cols());
        Ok(match x.dtype() {
            Dtype::Bf16 if d.is_multiple_of(2) => Self::Held(MatRef::new(x.bf16()?.as_chunks().0, rows, d / 2)),
            Dtype::Bf16 => Self::Made(PairRows::copied(x.bf16()?, [rows, d])),
            _ => Self::Made(PairRows::rounded(x.expect_f32(op, "x")?, [rows, d])),
        })
    }

    pub(super) fn view(&self) -> MatRef<'_, Pair> {
        match self {
            Self::Held(pairs) => *pairs,
            Self::Made(rows) => rows.view(),
        }
    }
}

impl Factor for Pair {
    unsafe fn multiply(alpha: f32, a: MatRef<Self>, b: &Packed<Self>, panels: Range<usize>, onto: Onto, c: MatMut) {
        #[cfg(target_arch = "x86_64")]
        {
            if crate::simd::has_avx512_bf16() {
                // SAFETY: the processor has the instructions.
                return unsafe { x86::multiply_avx512(alpha, a, b, panels, onto, c) };
            }
            if crate::simd::has_avx2() {
                // SAFETY: as above.
                return unsafe { x86::multiply_avx2(alpha, a, b, panels, onto, c) };
            }
        }
        multiply_portable(alpha, a, b, panels, onto, c);
    }
}

/// The same product without any particular instructions; also what the others are tested against.
pub(super) fn multiply_portable(
    alpha: f32,
    a: MatRef<Pair>,
    b: &Packed<Pair>,
    panels: Range<usize>,
    onto: Onto,
    c: MatMut,
) {
    micro::blocks::<PortablePairs, { PANEL / 4 }, 2>(alpha, a, b, panels, onto, c);
}

/// Four pairs in whatever the target has.
#[derive(Clone, Copy)]
struct PortablePairs([Pair; 4]);

impl Factors for PortablePairs {
    type Element = Pair;
    type Sums = Portable;
    #[inline(always)]
    fn splat(value: Pair) -> Self {
        Self([value; 4])
    }
    #[inline(always)]
    fn add_products(a: Self, b: Self, sums: Portable) -> Portable {
        Portable(std::array::from_fn(|i| {
            let ([a0, a1], [b0, b1]) = (a.0[i].map(f32::from), b.0[i].map(f32::from));
            a0.mul_add(b0, a1.mul_add(b1, sums.0[i]))
        }))
    }
    #[inline(always)]
    unsafe fn load(from: *const Pair) -> Self {
        // SAFETY: the caller vouches for four pairs; an array has their alignment.
        Self(unsafe { *from.cast() })
    }
}

/// The same with vectors, and with the instruction for it.
#[cfg(target_arch = "x86_64")]
#[allow(unused_unsafe)]
pub(super) mod x86 {
    use std::arch::x86_64::*;
    use std::ops::Range;

    use super::super::{
        bf16::as_bf16,
        micro::{Onto, blocks},
        packed::Packed,
        vector::Factors,
        view::{MatMut, MatRef},
    };
    use super::Pair;

    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    pub(super) fn multiply_avx512(
        alpha: f32,
        a: MatRef<Pair>,
        b: &Packed<Pair>,
        panels: Range<usize>,
        onto: Onto,
        c: MatMut,
    ) {
        blocks::<Pairs512, 2, 12>(alpha, a, b, panels, onto, c);
    }

    #[target_feature(enable = "avx2,fma")]
    pub(in super::super) fn multiply_avx2(
        alpha: f32,
        a: MatRef<Pair>,
        b: &Packed<Pair>,
        panels: Range<usize>,
        onto: Onto,
        c: MatMut,
    ) {
        blocks::<Pairs256, 4, 2>(alpha, a, b, panels, onto, c);
    }

    /// Sixteen pairs.
    #[derive(Clone, Copy)]
    struct Pairs512(__m512i);

    impl Factors for Pairs512 {
        type Element = Pair;
        type Sums = __m512;
        #[inline(always)]
        fn splat(value: Pair) -> Self {
            // SAFETY: only the function above uses this type, after the processor was asked for the instructions. A
            // pair is four bytes, of which every pattern is allowed.
            Self(unsafe { _mm512_set1_epi32(std::mem::transmute::<Pair, i32>(value)) })
        }
        #[inline(always)]
        fn add_products(a: Self, b: Self, sums: __m512) -> __m512 {
            // SAFETY: as above.
            unsafe { _mm512_dpbf16_ps(sums, as_bf16(a.0), as_bf16(b.0)) }
        }
        #[inline(always)]
        unsafe fn load(from: *const Pair) -> Self {
            // SAFETY: as above; the caller vouches for the memory.
            Self(unsafe { _mm512_loadu_si512(from.cast()) })
        }
    }

    /// Eight pairs.
    #[derive(Clone, Copy)]
    struct Pairs256(__m256i);

    impl Factors for Pairs256 {
        type Element = Pair;
        type Sums = __m256;
        #[inline(always)]
        fn splat(value: Pair) -> Self {
            // SAFETY: as above.
            Self(unsafe { _mm256_set1_epi32(std::mem::transmute::<Pair, i32>(value)) })
        }
        #[inline(always)]
        fn add_products(a: Self, b: Self, sums: __m256) -> __m256 {
            // A value of bfloat16 is the upper half of a float.
            // SAFETY: as above.
            unsafe {
                let second = |v: Self| _mm256_castsi256_ps(_mm256_and_si256(v.0, _mm256_set1_epi32(!0xffff)));
                let first = |v: Self| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(v.0));
                _mm256_fmadd_ps(first(a), first(b), _mm256_fmadd_ps(second(a), second(b), sums))
            }
        }
        #[inline(always)]
        unsafe fn load(from: *const Pair) -> Self {
            // SAFETY: as above; the caller vouches for the memory.
            Self(unsafe { _mm256_loadu_si256(from.cast()) })
        }
    }
}
