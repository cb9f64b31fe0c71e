//! Products of a few rows in bfloat16, decoded in registers: what one token asks of a weight.
//!
//! The order of summation is that of `gemm/bf16.rs`, and so are the bits, as long as no decoded value is below 1.2e-38.
//! Where the processor has no products of
//! bfloat16, `product.rs` decodes tiles.

use std::arch::x86_64::*;

use half::bf16;

use super::{BLOCK, CODE, Nf4Weight};
use crate::gemm::bf16::{CHUNK, STEP, sum_tree};
use crate::gemm::cpu::MatMut;

/// The most rows of `x`; more are worth a decoded tile.
pub(super) const MOST: usize = 4;
/// Rows of the weight at a time, so that their sums do not wait for each other.
const PAIR: usize = 2;

/// `c = x · wᵀ` for the rows of the weight from `first` on; the columns of `c` are those rows.
///
/// Whole blocks make up a row of the weight, and `x` has `c.rows()` rows, at most [`MOST`].
///
/// # Safety
/// The processor has AVX-512 with products of bfloat16.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
pub(super) unsafe fn multiply(x: &[bf16], weight: &Nf4Weight, first: usize, c: MatMut) {
    match c.rows() {
        0 => {}
        1 => rows::<1>(x, weight, first, c),
        2 => rows::<2>(x, weight, first, c),
        _ => rows::<MOST>(x, weight, first, c),
    }
}

/// As [`multiply`]; of fewer than `M` rows the last one counts several times.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
fn rows<const M: usize>(x: &[bf16], weight: &Nf4Weight, first: usize, mut c: MatMut) {
    let (n, d_in) = (c.rows(), x.len() / c.rows());
    let x: [&[bf16]; M] = std::array::from_fn(|i| &x[i.min(n - 1) * d_in..][..d_in]);
    for col in (0..c.cols()).step_by(PAIR) {
        let row = |j: usize| first + (col + j).min(c.cols() - 1);
        let codes: [&[u8]; PAIR] = std::array::from_fn(|j| &weight.codes[row(j) * d_in / 2..][..d_in / 2]);
        let blocks: [usize; PAIR] = std::array::from_fn(|j| row(j) * d_in / BLOCK);
        let products = pair(x, weight, codes, blocks);
        for (i, products) in products.iter().enumerate().take(n) {
            let end = (col + PAIR).min(c.cols());
            c.row_mut(i)[col..end].copy_from_slice(&products[..end - col]);
        }
    }
}

/// The products of `M` rows with two rows of the weight, whose first blocks are given.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
fn pair<const M: usize>(
    x: [&[bf16]; M],
    weight: &Nf4Weight,
    codes: [&[u8]; PAIR],
    blocks: [usize; PAIR],
) -> [[f32; PAIR]; M] {
    let mut products = [[0.0; PAIR]; M];
    for start in (0..x[0].len()).step_by(CHUNK) {
        let len = CHUNK.min(x[0].len() - start);
        let mut magnitudes = [[0.0; CHUNK / BLOCK]; PAIR];
        for (magnitudes, first) in magnitudes.iter_mut().zip(blocks) {
            weight.magnitudes.read(first + start / BLOCK, &mut magnitudes[..len / BLOCK]);
        }
        let sums = chunk::<M>(
            std::array::from_fn(|i| x[i][start..start + len].as_chunks().0),
            &magnitudes,
            std::array::from_fn(|j| codes[j][start / 2..(start + len) / 2].as_chunks().0),
            PAIR * x[0].len() / 2,
        );
        for (products, sums) in products.iter_mut().zip(sums) {
            for (product, sum) in products.iter_mut().zip(sums) {
                *product = if start == 0 { sum_tree(sum) } else { *product + sum_tree(sum) };
            }
        }
    }
    products
}

/// The lanes' sums over some blocks; `ahead` bytes behind their codes lie those that come next. A function of its own, so
/// that the sums stay in registers.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
fn chunk<const M: usize>(
    x: [&[[bf16; BLOCK]]; M],
    magnitudes: &[[f32; CHUNK / BLOCK]; PAIR],
    codes: [&[[u8; BLOCK / 2]]; PAIR],
    ahead: usize,
) -> [[__m512; PAIR]; M] {
    // SAFETY: the table of codes is 16 floats.
    let table = unsafe { _mm512_loadu_ps(CODE.as_ptr()) };
    let mut sums = [[_mm512_setzero_ps(); PAIR]; M];
    let blocks = x[0].len().min(CHUNK / BLOCK);
    assert!(x.iter().all(|x| x.len() >= blocks) && codes.iter().all(|c| c.len() >= blocks), "rows differ in length");
    for block in 0..blocks {
        for j in 0..PAIR {
            let scaled = _mm512_cvtneps_pbh(_mm512_mul_ps(table, _mm512_set1_ps(magnitudes[j][block])));
            // The next pair of rows lies behind this one: too far for the processor to see that it comes next.
            _mm_prefetch::<_MM_HINT_T0>(codes[j][block].as_ptr().wrapping_add(ahead).cast());
            let halves = decode(scaled, &codes[j][block]);
            for (half, values) in halves.into_iter().enumerate() {
                for i in 0..M {
                    // SAFETY: half of a block of `x` is 32 values.
                    let x = unsafe { _mm512_loadu_si512(x[i][block].as_ptr().add(half * STEP).cast()) };
                    sums[i][j] = _mm512_dpbf16_ps(sums[i][j], as_bf16(x), as_bf16(values));
                }
            }
        }
    }
    sums
}

/// The values of a block: each lane receives the two bytes that its code lies in, shifts the code to the lowest bits and
/// is looked up by these.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
fn decode(table: __m256bh, codes: &[u8; BLOCK / 2]) -> [__m512i; 2] {
    let lanes = _mm512_set_epi16(
        7, 7, 7, 7, 6, 6, 6, 6, 5, 5, 5, 5, 4, 4, 4, 4, 3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0,
    );
    let shifts = _mm512_set1_epi64(0x0008_000c_0000_0004);
    // SAFETY: both are 32 bytes, of which every pattern is allowed.
    let table = _mm512_broadcast_i64x4(unsafe { std::mem::transmute::<__m256bh, __m256i>(table) });
    let look_up = |half: usize| {
        // SAFETY: half of a block's codes is 16 bytes.
        let bytes = unsafe { _mm_loadu_si128(codes.as_ptr().add(16 * half).cast()) };
        let words = _mm512_permutexvar_epi16(lanes, _mm512_castsi128_si512(bytes));
        _mm512_permutexvar_epi16(_mm512_srlv_epi16(words, shifts), table)
    };
    [look_up(0), look_up(1)]
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn as_bf16(v: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes, of which every pattern is allowed.
    unsafe { std::mem::transmute(v) }
}
