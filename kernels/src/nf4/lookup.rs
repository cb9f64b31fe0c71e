//! From codes to values: a table of 16 values for every block, looked up for 64 codes at a time.

use super::BLOCK;

/// Codes of one block, two a byte, the earlier one in the high nibble.
pub(super) type Codes = [u8; BLOCK / 2];

/// Looking up with some set of instructions.
pub(super) trait Lookup {
    /// The 32-bit values of the codes of one block.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn wide(table: &[f32; 16], codes: &Codes, values: &mut [f32; BLOCK]);
    /// The 16-bit values of the codes of one block.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn narrow(table: &[u16; 16], codes: &Codes, values: &mut [u16; BLOCK]);
}

/// No particular instructions.
pub(super) struct Portable;

impl Lookup for Portable {
    #[inline(always)]
    unsafe fn wide(table: &[f32; 16], codes: &Codes, values: &mut [f32; BLOCK]) {
        one_by_one(table, codes, values);
    }

    #[inline(always)]
    unsafe fn narrow(table: &[u16; 16], codes: &Codes, values: &mut [u16; BLOCK]) {
        one_by_one(table, codes, values);
    }
}

#[inline(always)]
fn one_by_one<T: Copy>(table: &[T; 16], codes: &Codes, values: &mut [T; BLOCK]) {
    let (pairs, _) = values.as_chunks_mut::<2>();
    for (pair, &byte) in pairs.iter_mut().zip(codes) {
        *pair = [table[usize::from(byte >> 4)], table[usize::from(byte & 15)]];
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Codes, Lookup};

    /// A table in one register, permuted by index.
    pub(in crate::nf4) struct Avx512;

    // Every lane receives the two or four bytes that its code lies in and shifts the code to its lowest bits; the
    // permutation looks at no others.
    #[allow(unused_unsafe)]
    impl Lookup for Avx512 {
        #[inline(always)]
        unsafe fn wide(table: &[f32; 16], codes: &Codes, values: &mut [f32; BLOCK]) {
            // SAFETY: the caller vouches for the instructions; codes are read and values written 16 bytes and two
            // vectors at a time, inside of the arrays.
            unsafe {
                let table = _mm512_loadu_ps(table.as_ptr());
                let shifts = _mm512_set_epi32(24, 28, 16, 20, 8, 12, 0, 4, 24, 28, 16, 20, 8, 12, 0, 4);
                let first = _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0);
                let second = _mm512_set_epi32(3, 3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 2, 2, 2, 2, 2);
                for half in 0..2 {
                    let bytes = _mm512_castsi128_si512(_mm_loadu_si128(codes.as_ptr().add(16 * half).cast()));
                    for (part, lanes) in [first, second].into_iter().enumerate() {
                        let index = _mm512_srlv_epi32(_mm512_permutexvar_epi32(lanes, bytes), shifts);
                        let found = _mm512_permutexvar_ps(index, table);
                        _mm512_storeu_ps(values.as_mut_ptr().add(32 * half + 16 * part), found);
                    }
                }
            }
        }

        #[inline(always)]
        unsafe fn narrow(table: &[u16; 16], codes: &Codes, values: &mut [u16; BLOCK]) {
            // SAFETY: as above.
            unsafe {
                let table = _mm512_broadcast_i64x4(_mm256_loadu_si256(table.as_ptr().cast()));
                for (half, found) in Self::narrow_registers(table, codes).into_iter().enumerate() {
                    _mm512_storeu_si512(values.as_mut_ptr().add(32 * half).cast(), found);
                }
            }
        }
    }

    impl Avx512 {
        /// The 16-bit values of the codes of one block; the table stands in both halves of its register, for the
        /// permutation looks at five bits.
        ///
        /// # Safety
        /// The processor has the instructions.
        #[inline(always)]
        #[allow(unused_unsafe)]
        pub(in crate::nf4) unsafe fn narrow_registers(table: __m512i, codes: &Codes) -> [__m512i; 2] {
            // SAFETY: the caller vouches for the instructions; half of a block's codes is 16 bytes.
            unsafe {
                let shifts = _mm512_set1_epi64(0x0008_000c_0000_0004);
                let lanes = _mm512_set_epi16(
                    7, 7, 7, 7, 6, 6, 6, 6, 5, 5, 5, 5, 4, 4, 4, 4, 3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0,
                );
                let mut halves = [table; 2];
                for (i, half) in halves.iter_mut().enumerate() {
                    let bytes = _mm512_castsi128_si512(_mm_loadu_si128(codes.as_ptr().add(16 * i).cast()));
                    let index = _mm512_srlv_epi16(_mm512_permutexvar_epi16(lanes, bytes), shifts);
                    *half = _mm512_permutexvar_epi16(index, table);
                }
                halves
            }
        }
    }

    /// Two half tables, chosen between by the highest bit of the code; or bytes shuffled.
    pub(in crate::nf4) struct Avx2;

    #[allow(unused_unsafe)]
    impl Lookup for Avx2 {
        #[inline(always)]
        unsafe fn wide(table: &[f32; 16], codes: &Codes, values: &mut [f32; BLOCK]) {
            // SAFETY: the caller vouches for the instructions; four bytes are read and eight values written at a time,
            // inside of the arrays.
            unsafe {
                let (low, high) = (_mm256_loadu_ps(table.as_ptr()), _mm256_loadu_ps(table.as_ptr().add(8)));
                let shifts = _mm256_set_epi32(24, 28, 16, 20, 8, 12, 0, 4);
                for part in 0..BLOCK / 8 {
                    let bytes = codes.as_ptr().add(4 * part).cast::<i32>().read_unaligned();
                    let index = _mm256_srlv_epi32(_mm256_set1_epi32(bytes), shifts);
                    let below = _mm256_permutevar8x32_ps(low, index);
                    let above = _mm256_permutevar8x32_ps(high, index);
                    let choice = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));
                    _mm256_storeu_ps(values.as_mut_ptr().add(8 * part), _mm256_blendv_ps(below, above, choice));
                }
            }
        }

        #[inline(always)]
        unsafe fn narrow(table: &[u16; 16], codes: &Codes, values: &mut [u16; BLOCK]) {
            // SAFETY: as above, with eight bytes and sixteen values.
            unsafe {
                let low: [u8; 16] = table.map(|v| v as u8);
                let high: [u8; 16] = table.map(|v| (v >> 8) as u8);
                let low = _mm_loadu_si128(low.as_ptr().cast());
                let high = _mm_loadu_si128(high.as_ptr().cast());
                let nibble = _mm_set1_epi8(15);
                for part in 0..BLOCK / 16 {
                    let bytes = _mm_loadl_epi64(codes.as_ptr().add(8 * part).cast());
                    let earlier = _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble);
                    let index = _mm_unpacklo_epi8(earlier, _mm_and_si128(bytes, nibble));
                    let (low, high) = (_mm_shuffle_epi8(low, index), _mm_shuffle_epi8(high, index));
                    let out = values.as_mut_ptr().add(16 * part).cast::<__m128i>();
                    _mm_storeu_si128(out, _mm_unpacklo_epi8(low, high));
                    _mm_storeu_si128(out.add(1), _mm_unpackhi_epi8(low, high));
                }
            }
        }
    }
}
