//! Registers, of floats and of factors: what the innermost product is written in.

use crate::memory::Element;

/// A register of floats.
pub(super) trait Vector: Copy {
    /// Its number of floats.
    const LANES: usize;
    /// All lanes zero.
    fn zero() -> Self;
    /// All lanes `value`.
    fn splat(value: f32) -> Self;
    /// `a · b + c`, rounded once.
    fn fused(a: Self, b: Self, c: Self) -> Self;
    /// `a · b`.
    fn product(a: Self, b: Self) -> Self;
    /// Reads the lanes from memory.
    ///
    /// # Safety
    /// As many floats as there are lanes can be read.
    unsafe fn load(from: *const f32) -> Self;
    /// Writes the lanes to memory.
    ///
    /// # Safety
    /// As many floats as there are lanes can be written.
    unsafe fn store(self, to: *mut f32);
}

/// Implements [`Vector`] by intrinsics.
#[cfg(target_arch = "x86_64")]
macro_rules! vector {
    ($name:ident, $lanes:literal, $zero:ident, $splat:ident, $fused:ident, $product:ident, $load:ident, $store:ident) => {
        #[allow(unused_unsafe)]
        impl Vector for std::arch::x86_64::$name {
            const LANES: usize = $lanes;
            #[inline(always)]
            fn zero() -> Self {
                // SAFETY: only the kernels in `micro.rs` and `pairs.rs` use this type, after the processor was asked for the instructions.
                unsafe { std::arch::x86_64::$zero() }
            }
            #[inline(always)]
            fn splat(value: f32) -> Self {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$splat(value) }
            }
            #[inline(always)]
            fn fused(a: Self, b: Self, c: Self) -> Self {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$fused(a, b, c) }
            }
            #[inline(always)]
            fn product(a: Self, b: Self) -> Self {
                // SAFETY: as above.
                unsafe { std::arch::x86_64::$product(a, b) }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: as above; the caller vouches for the memory.
                unsafe { std::arch::x86_64::$load(from) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: as above; the caller vouches for the memory.
                unsafe { std::arch::x86_64::$store(to, self) }
            }
        }
    };
}
#[cfg(target_arch = "x86_64")]
vector!(
    __m512,
    16,
    _mm512_setzero_ps,
    _mm512_set1_ps,
    _mm512_fmadd_ps,
    _mm512_mul_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps
);
#[cfg(target_arch = "x86_64")]
vector!(
    __m256,
    8,
    _mm256_setzero_ps,
    _mm256_set1_ps,
    _mm256_fmadd_ps,
    _mm256_mul_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps
);

/// Four floats in whatever the target has.
#[derive(Clone, Copy)]
pub(super) struct Portable(pub(super) [f32; 4]);

impl Vector for Portable {
    const LANES: usize = 4;
    #[inline(always)]
    fn zero() -> Self {
        Self([0.0; 4])
    }
    #[inline(always)]
    fn splat(value: f32) -> Self {
        Self([value; 4])
    }
    #[inline(always)]
    fn fused(a: Self, b: Self, c: Self) -> Self {
        Self(std::array::from_fn(|i| a.0[i].mul_add(b.0[i], c.0[i])))
    }
    #[inline(always)]
    fn product(a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|i| a.0[i] * b.0[i]))
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller vouches for four floats; an array has their alignment.
        Self(unsafe { *from.cast() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { *to.cast() = self.0 }
    }
}

/// A register of factors whose products are added to a register of sums.
pub(super) trait Factors: Copy {
    /// What a matrix of such factors is made of.
    type Element: Element;
    /// As many sums as there are elements in a register.
    type Sums: Vector;
    /// All elements the same.
    fn splat(value: Self::Element) -> Self;
    /// `sums + a · b`.
    fn add_products(a: Self, b: Self, sums: Self::Sums) -> Self::Sums;
    /// Reads the elements from memory.
    ///
    /// # Safety
    /// As many elements as there are sums can be read.
    unsafe fn load(from: *const Self::Element) -> Self;
}

impl<V: Vector> Factors for V {
    type Element = f32;
    type Sums = V;
    #[inline(always)]
    fn splat(value: f32) -> Self {
        V::splat(value)
    }
    #[inline(always)]
    fn add_products(a: Self, b: Self, sums: Self) -> Self {
        V::fused(a, b, sums)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: that of this function.
        unsafe { V::load(from) }
    }
}
