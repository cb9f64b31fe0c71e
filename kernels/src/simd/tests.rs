use super::{dot, lanes, vectorised};
use crate::testing::noise;

vectorised! {
    fn exp_all(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) {
            *y = lanes::exp(x);
        }
    }
}

#[test]
fn exp_is_right_to_the_last_bits() {
    let x: Vec<f32> = (-8730..8800).map(|i| i as f32 * 0.01).collect();
    let mut y = vec![0.0; x.len()];
    exp_all(&x, &mut y);
    for (x, y) in x.iter().zip(&y) {
        let wanted = f64::from(*x).exp();
        assert!((f64::from(*y) / wanted - 1.0).abs() < 2.5e-7, "exp({x}) = {y}, not {wanted}");
    }
    assert_eq!(lanes::exp(0.0), 1.0);
    assert!(lanes::exp(f32::NEG_INFINITY) < 1.3e-38);
    assert!(lanes::exp(f32::NAN).is_nan());
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let (a, b) = (noise(1, 1003), noise(2, 1003));
    assert_eq!(dot(&a, &b).to_bits(), lanes::dot(&a, &b).to_bits());
    let mut wide = vec![0.0; a.len()];
    exp_all(&a, &mut wide);
    assert!(a.iter().zip(&wide).all(|(&x, y)| lanes::exp(x).to_bits() == y.to_bits()));
}

#[test]
fn sums_and_maxima_of_short_slices() {
    assert_eq!(lanes::sum(&[]), 0.0);
    assert_eq!(lanes::sum(&[1.0, 2.0, 3.5]), 6.5);
    assert_eq!(lanes::max(&[]), f32::NEG_INFINITY);
    assert_eq!(lanes::max(&[-3.0, f32::NAN, -2.0]), -2.0);
}

#[test]
fn erf_at_known_places() {
    // Abramowitz and Stegun, table 7.1.
    for (x, wanted) in [(0.0, 0.0), (0.1, 0.112_462_916), (0.5, 0.520_499_878), (1.0, 0.842_700_793)] {
        assert!((f64::from(lanes::erf(x)) - wanted).abs() < 2e-7, "erf({x})");
        assert!((f64::from(lanes::erf(-x)) + wanted).abs() < 2e-7, "erf(-{x})");
    }
    for (x, wanted) in [(1.5, 0.966_105_146), (2.0, 0.995_322_265), (3.0, 0.999_977_91), (5.0, 1.0)] {
        assert!((f64::from(lanes::erf(x)) - wanted).abs() < 2e-7, "erf({x})");
    }
    assert!(lanes::erf(f32::NAN).is_nan());
}

#[cfg(target_arch = "x86_64")]
#[test]
fn instructions_that_were_asked_for_or_a_warning() {
    use super::instructions::{Instructions::*, choose};
    assert_eq!(choose(None, Avx512), Ok(Avx512));
    assert_eq!(choose(Some(""), Avx2), Ok(Avx2));
    assert_eq!(choose(Some("avx512"), Avx512), Ok(Avx512));
    assert_eq!(choose(Some("avx2"), Avx512), Ok(Avx2));
    assert_eq!(choose(Some("portable"), Avx2), Ok(Portable));
    assert!(choose(Some("avx512"), Avx2).is_err_and(|w| w.contains("asks for Avx512")));
    assert!(choose(Some("sse"), Avx2).is_err_and(|w| w.contains("none of avx512, avx2, portable")));
}

#[test]
fn rounding_to_bfloat16_is_that_of_the_library() {
    let bits = (0..1u32 << 20).map(|i| i.wrapping_mul(4_093) ^ i << 12);
    for x in bits.map(f32::from_bits).chain([f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -0.0, 1e-45]) {
        assert_eq!(lanes::bf16_bits(x), half::bf16::from_f32(x).to_bits(), "{x} of bits {:x}", x.to_bits());
    }
}
