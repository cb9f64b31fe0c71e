//! The two code books.

use std::sync::LazyLock;

/// The 16 values of NF4: quantiles of a normal distribution, scaled to -1..1, with an exact zero at index 7.
///
/// # Source
/// QLoRA, appendix E.
pub const CODE: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// The 256 values of the eight-bit code for magnitudes, ascending: seven decades, each cut evenly into twice as many
/// values as the one below it, both signs, and 0 and 1.
///
/// # Source
/// Dettmers, "8-bit approximations for parallelism in deep learning", 2016 (dynamic tree quantisation); the points are
/// computed in single precision with a fused step, which gives bitsandbytes' bits.
#[must_use]
pub fn dynamic_code() -> &'static [f32; 256] {
    static TABLE: LazyLock<[f32; 256]> = LazyLock::new(build);
    &TABLE
}

fn build() -> [f32; 256] {
    let mut table = [0.0f32; 256];
    let mut next = 0;
    for decade in 0..7 {
        let intervals = 1usize << decade;
        let step = (1.0f32 - 0.1) / intervals as f32;
        // The first half of the points is counted from below, the second half from above.
        let point = |k: usize| {
            if k < intervals.div_ceil(2).max(1) {
                step.mul_add(k as f32, 0.1)
            } else {
                (-step).mul_add((intervals - k) as f32, 1.0)
            }
        };
        let scale = 10f64.powi(decade - 6) as f32;
        for k in 0..intervals {
            let value = scale * ((point(k) + point(k + 1)) / 2.0);
            table[next] = value;
            table[next + 1] = -value;
            next += 2;
        }
    }
    table[next] = 0.0;
    table[next + 1] = 1.0;
    table.sort_by(f32::total_cmp);
    table
}
