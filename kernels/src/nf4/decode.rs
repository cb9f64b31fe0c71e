//! Decoding: any range of a weight's values, in any of three float types.

use half::{bf16, f16};
use rayon::prelude::*;

use super::lookup::{Codes, Lookup, Portable};
use super::{BLOCK, CODE, Magnitudes, Nf4Weight, Rounding};
use crate::simd::lanes;

/// Values of one task.
const TASK: usize = 256 * BLOCK;
/// Blocks whose magnitudes are worked out at a time.
const AT_ONCE: usize = 32;

/// A float type that a weight can be decoded to.
pub(super) trait Value: Copy + Default + Send + Sync + 'static {
    /// The values of the 16 codes in a block of this magnitude.
    fn table(magnitude: f32, rounding: Rounding) -> [Self; 16];
    /// The values of one block.
    ///
    /// # Safety
    /// The processor has the instructions.
    unsafe fn look_up<L: Lookup>(table: &[Self; 16], codes: &Codes, values: &mut [Self; BLOCK]);
}

// Tables are made by loops, which are compiled for the instructions around them; a closure of `map` is not always.

impl Value for f32 {
    #[inline(always)]
    fn table(magnitude: f32, rounding: Rounding) -> [Self; 16] {
        let mut table = [0.0; 16];
        for i in 0..16 {
            let exact = CODE[i] * magnitude;
            table[i] = match rounding {
                Rounding::F32 => exact,
                Rounding::Bf16 => Self::from_bits(u32::from(lanes::bf16_bits(exact)) << 16),
                Rounding::F16 => f16::from_f32(exact).to_f32(),
            };
        }
        table
    }

    #[inline(always)]
    unsafe fn look_up<L: Lookup>(table: &[Self; 16], codes: &Codes, values: &mut [Self; BLOCK]) {
        // SAFETY: that of this function.
        unsafe { L::wide(table, codes, values) };
    }
}

/// A 16-bit float is looked up as its bits.
macro_rules! narrow_value {
    ($ty:ty, $bits:expr) => {
        impl Value for $ty {
            #[inline(always)]
            fn table(magnitude: f32, _: Rounding) -> [Self; 16] {
                let mut table = [Self::ZERO; 16];
                for i in 0..16 {
                    table[i] = Self::from_bits($bits(CODE[i] * magnitude));
                }
                table
            }

            #[inline(always)]
            unsafe fn look_up<L: Lookup>(table: &[Self; 16], codes: &Codes, values: &mut [Self; BLOCK]) {
                // SAFETY: that of this function; the float is its 16 bits, of which every pattern is allowed.
                unsafe {
                    let (table, values) = (std::ptr::from_ref(table).cast(), std::ptr::from_mut(values).cast());
                    L::narrow(&*table, codes, &mut *values);
                }
            }
        }
    };
}
narrow_value!(bf16, lanes::bf16_bits);
narrow_value!(f16, |v| f16::from_f32(v).to_bits());

/// Decodes all values on all threads.
pub(super) fn all<T: Value>(weight: &Nf4Weight, rounding: Rounding, values: &mut [T]) {
    values.par_chunks_mut(TASK).enumerate().for_each(|(i, values)| range(weight, rounding, i * TASK, values));
}

/// Decodes `values.len()` values from `start` on, on the current thread.
pub(super) fn range<T: Value>(weight: &Nf4Weight, rounding: Rounding, start: usize, values: &mut [T]) {
    let head = (start.next_multiple_of(BLOCK) - start).min(values.len());
    let (head, rest) = values.split_at_mut(head);
    one_by_one(weight, rounding, start, head);
    let first = (start + head.len()) / BLOCK;
    let (blocks, tail) = rest.as_chunks_mut::<BLOCK>();
    whole_blocks(weight, rounding, first, blocks);
    one_by_one(weight, rounding, (first + blocks.len()) * BLOCK, tail);
}

/// Values of blocks that are cut.
fn one_by_one<T: Value>(weight: &Nf4Weight, rounding: Rounding, start: usize, values: &mut [T]) {
    let (codes, mut block) = (weight.codes(), usize::MAX);
    let mut table = [T::default(); 16];
    for (i, value) in (start..).zip(values) {
        if i / BLOCK != block {
            block = i / BLOCK;
            table = T::table(weight.magnitudes().get(block), rounding);
        }
        let byte = codes[i / 2];
        *value = table[usize::from(if i % 2 == 0 { byte >> 4 } else { byte & 15 })];
    }
}

fn whole_blocks<T: Value>(weight: &Nf4Weight, rounding: Rounding, first: usize, values: &mut [[T; BLOCK]]) {
    let (codes, _) = weight.codes()[first * BLOCK / 2..].as_chunks::<{ BLOCK / 2 }>();
    let magnitudes = weight.magnitudes();
    #[cfg(target_arch = "x86_64")]
    {
        use super::lookup::{Avx2, Avx512};

        #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
        fn avx512<T: Value>(m: &Magnitudes, r: Rounding, first: usize, codes: &[Codes], values: &mut [[T; BLOCK]]) {
            // SAFETY: the function is compiled for the instructions.
            unsafe { look_up::<T, Avx512>(m, r, first, codes, values) };
        }

        #[target_feature(enable = "avx2,fma")]
        fn avx2<T: Value>(m: &Magnitudes, r: Rounding, first: usize, codes: &[Codes], values: &mut [[T; BLOCK]]) {
            // SAFETY: as above.
            unsafe { look_up::<T, Avx2>(m, r, first, codes, values) };
        }

        if crate::simd::has_avx512() {
            // SAFETY: the processor has the instructions.
            return unsafe { avx512(magnitudes, rounding, first, codes, values) };
        }
        if crate::simd::has_avx2() {
            // SAFETY: as above.
            return unsafe { avx2(magnitudes, rounding, first, codes, values) };
        }
    }
    // SAFETY: no particular instructions.
    unsafe { look_up::<T, Portable>(magnitudes, rounding, first, codes, values) };
}

/// # Safety
/// The processor has the instructions of `L`.
#[inline(always)]
unsafe fn look_up<T: Value, L: Lookup>(
    magnitudes: &Magnitudes,
    rounding: Rounding,
    first: usize,
    codes: &[Codes],
    values: &mut [[T; BLOCK]],
) {
    for (i, (codes, values)) in codes.chunks(AT_ONCE).zip(values.chunks_mut(AT_ONCE)).enumerate() {
        let mut found = [0.0; AT_ONCE];
        magnitudes.read(first + i * AT_ONCE, &mut found[..values.len()]);
        for ((codes, values), &magnitude) in codes.iter().zip(values).zip(&found) {
            // SAFETY: that of this function.
            unsafe { T::look_up::<L>(&T::table(magnitude, rounding), codes, values) };
        }
    }
}
