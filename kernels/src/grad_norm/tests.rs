#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::{accelerator, noise, noise_tensor, same_on_threads};

#[test]
fn three_four_five() {
    let tensors = [Tensor::from_f32(&[1], vec![3.0]).unwrap(), Tensor::from_f32(&[2], vec![0.0, -4.0]).unwrap()];
    assert_eq!(l2(&tensors).unwrap(), 5.0);
    assert_eq!(l2([]).unwrap(), 0.0);
}

#[test]
fn clipping_shrinks_long_gradients_only() {
    assert_eq!(clip_scale(1.0, 5.0), 1.0);
    assert!((clip_scale(10.0, 5.0) - 0.5).abs() < 1e-6);
    assert_eq!(clip_scale(0.0, 5.0), 1.0);
}

#[test]
fn agrees_with_one_plain_sum_and_over_threads() {
    for n in [0, 1, 7, 8, 1009, 16 * 1024 + 1, 100_003] {
        let wanted = reference::sum_of_squares(&noise(1, n)).sqrt();
        assert!((l2([&noise_tensor(1, &[n])]).unwrap() - wanted).abs() < 1e-9 * (1.0 + wanted));
    }
    same_on_threads(|| l2([&noise_tensor(1, &[100_003])]).unwrap().to_bits());
}

/// The norm and the factor, wherever they are.
fn found(clipping: &Clipping) -> (f64, f32) {
    let factor = match clipping.factor() {
        Factor::Known(factor) => factor,
        Factor::There(factor) => factor.to_f32()[0],
    };
    (clipping.norm().unwrap(), factor)
}

#[test]
fn clipping_is_the_norm_and_its_factor_to_the_bit() {
    let tensors = [7, 0, 20_011].map(|n| noise_tensor(n as u64, &[n]));
    let norm = l2(&tensors).unwrap();
    assert_eq!(found(&clip(&tensors, Some(5.0)).unwrap()), (norm, clip_scale(norm, 5.0)));
    assert_eq!(found(&clip(&tensors, None).unwrap()), (norm, 1.0));
    let infinite = [Tensor::from_f32(&[1], vec![f32::INFINITY]).unwrap()];
    assert_eq!(found(&clip(&infinite, None).unwrap()), (f64::INFINITY, 1.0));
}

#[test]
fn a_device_agrees_with_the_host() {
    let device = accelerator();
    let many: Vec<usize> = (0..9).map(|i| 3 * i + 1).collect();
    for lengths in [&[0][..], &[1], &[0, 7, 0, 4096, 0], &[4097, 2, 9001], &many] {
        let tensors: Vec<Tensor> = lengths.iter().map(|&n| noise_tensor(n as u64, &[n])).collect();
        let placed: Vec<Tensor> = tensors.iter().map(|t| device.put(t).unwrap()).collect();
        for max_norm in [None, Some(0.5), Some(1e3)] {
            let (norm, factor) = found(&clip(&tensors, max_norm).unwrap());
            let there = clip(&placed, max_norm).unwrap();
            assert!(matches!(there.factor(), Factor::There(_)));
            let (norm_there, factor_there) = found(&there);
            assert!((norm_there - norm).abs() <= 1e-13 * norm, "{norm_there} instead of {norm} of {lengths:?}");
            assert!((factor_there - factor).abs() <= 1e-7 * factor, "{factor_there} instead of {factor}");
            assert_eq!(found(&clip(&placed, max_norm).unwrap()), (norm_there, factor_there));
        }
        assert!((l2(&placed).unwrap() - l2(&tensors).unwrap()).abs() <= 1e-13 * l2(&tensors).unwrap());
    }
    let mixed = [device.put(&noise_tensor(1, &[2])).unwrap(), noise_tensor(1, &[2])];
    let refused = clip(&mixed, None).unwrap_err().to_string();
    assert_eq!(refused, format!("grad_norm::clip: gradient is on the host, expected on {}", device.name()));
}

#[test]
fn what_is_not_finite_is_the_same_on_a_device() {
    let device = accelerator();
    for (value, factor) in [(f32::INFINITY, 0.0), (f32::NAN, 1.0)] {
        let tensor = device.put(&Tensor::from_f32(&[3], vec![1.0, value, 2.0]).unwrap()).unwrap();
        let (norm, found) = found(&clip([&tensor], Some(1.0)).unwrap());
        assert_eq!((norm.to_string(), found), (value.to_string(), factor));
    }
}
