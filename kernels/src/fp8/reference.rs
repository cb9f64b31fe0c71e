//! The obvious way: every code is tried, every product summed in 64 bits.

use super::{LEAST_FACTOR, MOST, code};

/// What a number becomes when it is cut beside a factor.
pub(super) fn cut(v: f32, factor: f32) -> f64 {
    let scaled = f64::from(v * (1.0 / factor));
    let codes = (0..=0xffu8).filter(|code| code & 0x7f != 0x7f);
    let distance = |code: &u8| (f64::from(code::decode(*code)) - scaled).abs();
    let nearest = codes.min_by(|a, b| distance(a).total_cmp(&distance(b)).then((a & 1).cmp(&(b & 1)))).unwrap_or(0);
    f64::from(code::decode(nearest)) * f64::from(factor)
}

/// The factor of a row.
pub(super) fn factor(row: &[f32]) -> f32 {
    let most = row.iter().map(|v| v.abs()).fold(0.0, f32::max);
    (most * (1.0 / MOST)).max(LEAST_FACTOR)
}

/// The product of two rows.
pub(super) fn dot(x: &[f32], w: &[f32]) -> f64 {
    let (a, b) = (factor(x), factor(w));
    x.iter().zip(w).map(|(&x, &w)| cut(x, a) * cut(w, b)).sum()
}
