//! One plain sum.

/// The sum of squares in double precision.
pub(super) fn sum_of_squares(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v) * f64::from(v)).sum()
}
