//! Vector code without intrinsics: one body, compiled for several instruction sets, chosen at run time.
//!
//! The bodies are ordinary Rust over fixed lane arrays. Rust neither contracts `a * b + c` nor reorders sums by itself,
//! so a fused multiply-add is written as `mul_add` and a sum as explicit lanes: every instruction set then gives the
//! same bits and only the time differs. `MLLM4REC_SIMD` asks for other instructions than the widest, see the crate's
//! documentation.

#[cfg(target_arch = "x86_64")]
mod instructions;
pub(crate) mod lanes;
#[cfg(test)]
mod tests;

/// Defines functions whose bodies are compiled for AVX-512, for AVX2 with FMA and for the baseline of the target, and
/// which pick the widest that the processor has.
///
/// What a body calls must be `#[inline(always)]` to be compiled for the same instructions; see [`lanes`].
macro_rules! vectorised {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)+) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments)]
            fn body($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }

                if crate::simd::has_avx512() {
                    // SAFETY: the processor has every feature that the function is compiled for.
                    return unsafe { avx512($($arg),*) };
                }
                if crate::simd::has_avx2() {
                    // SAFETY: as above.
                    return unsafe { avx2($($arg),*) };
                }
            }
            body($($arg),*)
        }
    )+};
}
pub(crate) use vectorised;

#[cfg(target_arch = "x86_64")]
use instructions::{Instructions, chosen};

/// Whether to use the AVX-512 subset that [`vectorised`] names; if so, the processor has it.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512() -> bool {
    chosen() >= Instructions::Avx512
}

/// Whether to use AVX2 and fused multiply-add; if so, the processor has them.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    chosen() >= Instructions::Avx2
}

/// Whether to use AVX-512 with its products of bfloat16; if so, the processor has them.
#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx512_bf16() -> bool {
    has_avx512() && is_x86_feature_detected!("avx512bf16")
}

/// What people call the instructions that are used.
pub(crate) fn described() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    match chosen() {
        Instructions::Avx512 if has_avx512_bf16() => return "AVX-512 with products of bfloat16",
        Instructions::Avx512 => return "AVX-512",
        Instructions::Avx2 => return "AVX2",
        Instructions::Portable => {}
    }
    "no particular instructions"
}

vectorised! {
    /// Rounds to bfloat16.
    pub(crate) fn round(wide: &[f32], narrow: &mut [half::bf16]) {
        for (narrow, &wide) in narrow.iter_mut().zip(wide) {
            *narrow = half::bf16::from_bits(lanes::bf16_bits(wide));
        }
    }

    /// The sum of `a[i] * b[i]` over the common length.
    pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
        lanes::dot(a, b)
    }

    /// `a += b`, element by element.
    pub(crate) fn add(a: &mut [f32], b: &[f32]) {
        for (a, b) in a.iter_mut().zip(b) {
            *a += b;
        }
    }

    /// `y *= factor`.
    pub(crate) fn scale(factor: f32, y: &mut [f32]) {
        for y in y {
            *y *= factor;
        }
    }
}
