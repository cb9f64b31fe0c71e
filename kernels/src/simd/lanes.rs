//! Building blocks for the bodies of `vectorised!` functions: always inlined, so compiled for the caller's instructions.

/// The number of lanes that sums are cut into: one AVX-512 register of `f32`.
pub(crate) const LANES: usize = 16;

/// The sum of all lanes, as a tree of fixed form.
#[inline(always)]
pub(crate) fn sum_tree(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The sum of a slice.
#[inline(always)]
pub(crate) fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, tail) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += chunk[i];
        }
    }
    for (lane, v) in lanes.iter_mut().zip(tail) {
        *lane += v;
    }
    sum_tree(lanes)
}

/// The sum of what `f` gives for the elements of two slices of one length, of which it may change the second.
#[inline(always)]
pub(crate) fn sum_of<T>(values: &[f32], others: &mut [T], f: impl Fn(f32, &mut T) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, tail) = values.as_chunks::<LANES>();
    let (other_chunks, other_tail) = others.as_chunks_mut::<LANES>();
    for (chunk, others) in chunks.iter().zip(other_chunks) {
        for i in 0..LANES {
            lanes[i] += f(chunk[i], &mut others[i]);
        }
    }
    for ((lane, &v), other) in lanes.iter_mut().zip(tail).zip(other_tail) {
        *lane += f(v, other);
    }
    sum_tree(lanes)
}

/// A number of a type that 32-bit floats hold exactly.
pub(crate) trait Widen: Copy {
    fn widen(self) -> f32;
}

impl Widen for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Widen for half::bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

/// The largest value of a slice, minus infinity for an empty one; values that are not numbers are passed over.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, tail) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] = if chunk[i] > lanes[i] { chunk[i] } else { lanes[i] };
        }
    }
    lanes.iter().chain(tail).fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a })
}

/// The sum of `a[i] * b[i]` over the common length.
#[inline(always)]
pub(crate) fn dot<T: Widen>(a: &[f32], b: &[T]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let common = a.len().min(b.len());
    let (a_chunks, a_tail) = a[..common].as_chunks::<LANES>();
    let (b_chunks, b_tail) = b[..common].as_chunks::<LANES>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            lanes[i] = x[i].mul_add(y[i].widen(), lanes[i]);
        }
    }
    for ((lane, x), y) in lanes.iter_mut().zip(a_tail).zip(b_tail) {
        *lane = x.mul_add(y.widen(), *lane);
    }
    sum_tree(lanes)
}

/// `e^x` to within two units in the last place. Below -87.3 it gives the smallest normal number, above 88 it gives
/// `e^88`; something that is not a number stays so.
///
/// # Source
/// Reduction to `|r| <= ln 2 / 2` with `ln 2` in two parts, then the Taylor polynomial of degree 7.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// 1.5 · 2²³: adding it rounds to an integer, which is then held in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// `ln 2` cut after nine bits, so that a product with a small integer is exact, and the rest.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.3, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LOW, n.mul_add(-LN2_HIGH, x));
    let mut p = 1.0f32 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p.mul_add(r, c);
    }
    let power = shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23;
    p * f32::from_bits(power)
}

/// The bits of the nearest bfloat16; of two equally near ones the even one. Something that is not a number stays so.
#[inline(always)]
pub(crate) fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) >> 16;
    // The quiet bit keeps a payload that is cut off from turning into an infinity.
    (if x.is_nan() { bits >> 16 | 0x40 } else { rounded }) as u16
}

/// The error function, to within 2e-7 absolute and, near zero, relative.
///
/// # Source
/// Chebyshev interpolation of `erf(x) / x` in `x²` up to 1 and of `erfc(x) · e^(x²)` in `1 / (1 + x / 2)` from 1 to 4.
#[inline(always)]
pub(crate) fn erf(x: f32) -> f32 {
    const NEAR: [f32; 7] = [
        std::f32::consts::FRAC_2_SQRT_PI,
        -0.376_126_27,
        0.112_835_95,
        -0.026_854_212,
        5.189_087_4e-3,
        -8.016_864e-4,
        7.875_875e-5,
    ];
    const FAR: [f32; 7] =
        [6.051_184e-4, 0.273_634_34, 0.330_757_13, 0.101_495_41, 0.403_495_05, -0.057_065_2, -0.053_630_43];
    let a = if x.abs() > 4.0 { 4.0 } else { x.abs() };
    let square = a * a;
    let near = polynomial(&NEAR, square) * x;
    let far = 1.0 - exp(-square) * polynomial(&FAR, 1.0 / a.mul_add(0.5, 1.0));
    if a < 1.0 { near } else { far.copysign(x) }
}

/// `Σ c[i] · xⁱ`.
#[inline(always)]
fn polynomial(c: &[f32; 7], x: f32) -> f32 {
    c[..6].iter().rev().fold(c[6], |p, &c| p.mul_add(x, c))
}
