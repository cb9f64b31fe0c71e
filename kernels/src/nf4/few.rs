//! Products of a few rows in bfloat16, decoded in registers: what one token, or a handful, asks of a weight.
//!
//! The order of summation is that of `gemm/bf16.rs`, and so are the bits, as long as no decoded value is below 1.2e-38.
//! Where the processor has no products of bfloat16, `product.rs` decodes tiles.

use std::arch::x86_64::*;

use half::bf16;

use super::lookup::{Avx512, Codes};
use super::{BLOCK, CODE, Nf4Weight};
use crate::gemm::bf16::{CHUNK, STEP, as_bf16, as_words, sum_tree};
use crate::gemm::cpu::MatMut;
use crate::memory::Memory;

/// The most rows of `x` at a time: the registers hold no more sums.
pub(super) const MOST: usize = 8;

/// Whether rows of this length can be multiplied here; the bits are those of the product with a decoded tile.
pub(super) fn can_multiply(d_in: usize) -> bool {
    d_in > 0 && d_in.is_multiple_of(BLOCK) && crate::simd::has_avx512_bf16()
}

/// Rows of `x`, block by block: one behind the other lie what all rows have in the first block, in the second, and so on.
pub(super) struct Rows {
    n: usize,
    /// Rows that there is place for; those behind the `n` are zero.
    places: usize,
    values: Memory<bf16>,
}

impl Rows {
    /// Rows of `d_in` values, one or more and at most [`MOST`].
    pub(super) fn new(x: &[bf16], d_in: usize) -> Self {
        let (n, blocks) = (x.len() / d_in, d_in / BLOCK);
        let places = [1, 2, 4, MOST].into_iter().find(|&places| places >= n).unwrap_or(n);
        let mut values = Memory::zeros(places * blocks * BLOCK);
        for (i, block) in x.chunks_exact(BLOCK).enumerate() {
            let [row, at] = [i / blocks, i % blocks];
            values[(at * places + row) * BLOCK..][..BLOCK].copy_from_slice(block);
        }
        Self { n, places, values }
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.n
    }

    /// `c = x · wᵀ` for the rows of the weight from `first` on; the columns of `c` are those rows.
    ///
    /// A row of the weight is as long as one of `x`, which [`can_multiply`] allows.
    ///
    /// # Safety
    /// The processor has AVX-512 with products of bfloat16.
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    pub(super) unsafe fn multiply(&self, weight: &Nf4Weight, first: usize, c: MatMut) {
        // Four sums or more are enough not to wait for each other.
        match self.places {
            1 => self.rows::<1, 4>(weight, first, c),
            2 => self.rows::<2, 4>(weight, first, c),
            4 => self.rows::<4, 2>(weight, first, c),
            _ => self.rows::<MOST, 2>(weight, first, c),
        }
    }

    /// As [`multiply`](Self::multiply), with `M` places and `N` rows of the weight at a time; of fewer than `N` the last
    /// one counts several times.
    #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    fn rows<const M: usize, const N: usize>(&self, weight: &Nf4Weight, first: usize, mut c: MatMut) {
        let (x, _) = self.values.as_chunks::<BLOCK>().0.as_chunks::<M>();
        let row_blocks = x.len();
        for (chunk, x) in x.chunks(CHUNK / BLOCK).enumerate() {
            for col in (0..c.cols()).step_by(N) {
                let width = N.min(c.cols() - col);
                let blocks =
                    std::array::from_fn(|j| (first + col + j.min(width - 1)) * row_blocks + chunk * CHUNK / BLOCK);
                let sums = products::<M, N>(x, weight, blocks, N * row_blocks);
                for (i, sums) in sums.into_iter().enumerate().take(self.n) {
                    for (c, sum) in c.row_mut(i)[col..col + width].iter_mut().zip(sums) {
                        *c = if chunk == 0 { sum_tree(sum) } else { *c + sum_tree(sum) };
                    }
                }
            }
        }
    }
}

/// The lanes' sums of the products of `M` rows with parts of `N` rows of the weight that begin with `blocks`; `ahead`
/// blocks behind them lie those that come next.
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
fn products<const M: usize, const N: usize>(
    x: &[[[bf16; BLOCK]; M]],
    weight: &Nf4Weight,
    blocks: [usize; N],
    ahead: usize,
) -> [[__m512; N]; M] {
    let mut magnitudes = [[0.0; CHUNK / BLOCK]; N];
    for (magnitudes, first) in magnitudes.iter_mut().zip(blocks) {
        weight.magnitudes().read(first, &mut magnitudes[..x.len()]);
    }
    let (codes, _) = weight.codes().as_chunks::<{ BLOCK / 2 }>();
    sum::<M, N>(x, &magnitudes, blocks.map(|first| &codes[first..first + x.len()]), ahead)
}

/// The sums of [`products`]. A function of its own, so that they stay in registers.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx512bf16,avx2,fma")]
fn sum<const M: usize, const N: usize>(
    x: &[[[bf16; BLOCK]; M]],
    magnitudes: &[[f32; CHUNK / BLOCK]; N],
    codes: [&[Codes]; N],
    ahead: usize,
) -> [[__m512; N]; M] {
    // SAFETY: the table of codes is 16 floats.
    let table = unsafe { _mm512_loadu_ps(CODE.as_ptr()) };
    let mut sums = [[_mm512_setzero_ps(); N]; M];
    assert!(codes.iter().all(|codes| codes.len() == x.len()), "rows differ in length");
    for (block, x) in x.iter().enumerate().take(CHUNK / BLOCK) {
        let mut values = [[_mm512_setzero_si512(); N]; 2];
        for j in 0..N {
            // The next rows lie behind these: too far for the processor to see that they come next.
            _mm_prefetch::<_MM_HINT_T0>(codes[j].as_ptr().wrapping_add(block + ahead).cast());
            let scaled = _mm512_mul_ps(table, _mm512_set1_ps(magnitudes[j][block]));
            let twice = as_words(_mm512_cvtne2ps_pbh(scaled, scaled));
            // SAFETY: the processor has the instructions.
            [values[0][j], values[1][j]] = unsafe { Avx512::narrow_registers(twice, &codes[j][block]) };
        }
        for (half, values) in values.into_iter().enumerate() {
            for i in 0..M {
                // SAFETY: half of a block of `x` is 32 values.
                let x = unsafe { _mm512_loadu_si512(x[i].as_ptr().add(half * STEP).cast()) };
                for j in 0..N {
                    sums[i][j] = _mm512_dpbf16_ps(sums[i][j], as_bf16(x), as_bf16(values[j]));
                }
            }
        }
    }
    sums
}
