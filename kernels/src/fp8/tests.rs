#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{BF16, accelerator, largest_error, near, noise, noise_tensor, same_on_threads};

/// Rows of very different sizes.
fn rows(seed: u64, [n, d]: [usize; 2]) -> Tensor {
    let mut x = noise_tensor(seed, &[n, d]);
    for (row, values) in x.f32_mut().unwrap().chunks_exact_mut(d.max(1)).enumerate() {
        values.iter_mut().for_each(|v| *v *= 10.0f32.powi(row as i32 % 9 - 4));
    }
    x
}

fn reference_linear(x: &Tensor, w: &Tensor) -> Vec<f64> {
    let d = x.cols().max(1);
    let w: Vec<&[f32]> = w.f32().unwrap().chunks_exact(d).collect();
    x.f32().unwrap().chunks_exact(d).flat_map(|x| w.iter().map(move |w| reference::dot(x, w))).collect()
}

/// Relative to the size that a product of such rows may have.
fn scaled(y: &[f64], x: &Tensor, w: &Tensor) -> Vec<f64> {
    let d = x.cols().max(1);
    let size = |t: &Tensor| t.f32().unwrap().chunks_exact(d).map(|r| f64::from(reference::factor(r) * MOST)).collect();
    let (of_x, of_w): (Vec<f64>, Vec<f64>) = (size(x), size(w));
    y.iter().enumerate().map(|(i, y)| y / (of_x[i / of_w.len()] * of_w[i % of_w.len()])).collect()
}

#[test]
fn codes_are_the_numbers_that_they_stand_for() {
    for code in 0..=0xff {
        let value = code::decode(code);
        match code & 0x7f {
            0x7f => assert!(value.is_nan() && code::encode(value) & 0x7f == 0x7f),
            _ => assert_eq!(code::encode(value), code, "{value}"),
        }
    }
    assert_eq!([0x38, 0x7e, 0x08, 0x01, 0xb8].map(code::decode), [1.0, 448.0, 1.0 / 64.0, 1.0 / 512.0, -1.0]);
}

#[test]
fn numbers_go_to_the_nearest_code() {
    // Between two codes lies a tie, which goes to the even one.
    for code in 0..0x7e {
        let [low, high] = [code, code + 1].map(code::decode);
        let middle = f32::midpoint(low, high);
        assert_eq!(code::encode(middle), code + (code & 1), "{middle}");
        assert_eq!(code::encode(middle.next_down()), code);
        assert_eq!(code::encode(middle.next_up()), code + 1);
        assert_eq!(code::encode(-middle.next_up()), 0x80 | (code + 1));
    }
    assert_eq!([448.0, 463.9, 464.0, 1e30, f32::INFINITY].map(code::encode), [0x7e; 5]);
}

#[test]
fn rows_are_cut_by_their_largest() {
    let x = Tensor::from_f32(&[2, 3], vec![2.0, -1.0, 0.5, 0.0, 0.0, 0.0]).unwrap();
    let cut = quantize(&x).unwrap();
    assert_eq!(cut.shape(), [2, 3]);
    assert_eq!(cut.factors.f32().unwrap(), [2.0 / 448.0, LEAST_FACTOR]);
    let codes = cut.codes.u8().unwrap();
    assert_eq!(codes[..3].iter().map(|c| code::decode(*c)).collect::<Vec<_>>(), [448.0, -224.0, 112.0]);
    assert!(codes[3..].iter().all(|code| *code == 0), "padding and a row of zeros");
    assert_eq!(cut.bytes(), 2 * 16 + 8);
}

#[test]
fn the_whole_range_of_floats_is_cut_without_infinities() {
    let x = Tensor::from_f32(&[3, 1], vec![f32::MAX, -1e-44, 1.2e-38]).unwrap();
    let cut = quantize(&x).unwrap();
    let back: Vec<f32> =
        (0..3).map(|row| code::decode(cut.codes.u8().unwrap()[16 * row]) * cut.factors.f32().unwrap()[row]).collect();
    assert!((back[0] / f32::MAX - 1.0).abs() < 1e-6 && back[1].abs() < 1e-40, "{back:?}");
    assert!(back[2] >= 0.0 && back[2] < 1e-37, "{back:?}");
}

#[test]
fn products_agree_with_the_reference_on_awkward_shapes() {
    for [n, d_in, d_out] in [[0, 3, 2], [1, 1, 1], [5, 7, 3], [3, 100, 33], [33, 160, 17]] {
        let [x, w] = [rows(1, [n, d_in]), rows(2, [d_out, d_in])];
        let y = linear(&x, &quantize_weight(&w).unwrap(), None).unwrap();
        let wide: Vec<f64> = y.f32().unwrap().iter().map(|v| f64::from(*v)).collect();
        let found: Vec<f32> = scaled(&wide, &x, &w).iter().map(|v| *v as f32).collect();
        let wanted = scaled(&reference_linear(&x, &w), &x, &w);
        assert!(largest_error(&found, &wanted) < 1e-5, "{n} x {d_in} x {d_out}");
    }
}

#[test]
fn products_are_near_to_those_of_floats() {
    let [x, w] = [noise_tensor(1, &[20, 512]), noise_tensor(2, &[30, 512])];
    let y = linear(&x, &quantize_weight(&w).unwrap(), None).unwrap();
    let exact = crate::gemm::linear(&x, &w, None).unwrap();
    let error = |f: fn(f32, f32) -> f32| {
        y.f32().unwrap().iter().zip(exact.f32().unwrap()).map(|(a, b)| f(*a, *b).powi(2)).sum::<f32>().sqrt()
    };
    let relative = error(|a, b| a - b) / error(|_, b| b);
    assert!((0.01..0.05).contains(&relative), "three bits of mantissa: {relative}");
}

#[test]
fn a_device_agrees_with_the_host() {
    let device = accelerator();
    for [n, d_in, d_out] in [[0, 16, 3], [1, 1, 1], [5, 7, 3], [131, 48, 20], [17, 200, 130], [140, 336, 70], [2, 0, 3]]
    {
        let [x, w] = [noise_tensor(1, &[n, d_in]), noise_tensor(2, &[d_out, d_in])];
        let w = quantize_weight(&w).unwrap();
        for x in [x.clone(), x.to_bf16()] {
            let (host, on_w) = (quantize(&x).unwrap(), w.on(&device).unwrap());
            let cut = quantize(&device.put(&x).unwrap()).unwrap();
            // The bits of both are the host's.
            assert_eq!(cut.codes.to_host().unwrap(), host.codes);
            assert_eq!(cut.factors.to_host().unwrap(), host.factors);
            // A card's tensor cores keep about 14 bits of sums of such numbers; of bfloat16 sums are rounded, and once more.
            let tolerance = if x.dtype() == Dtype::F32 { 2e-3 } else { 3.0 * BF16 };
            let bias = noise_tensor(3, &[d_out]);
            let wanted = linear(&x, &w, Some(&bias)).unwrap();
            let [on_x, on_bias] = [&x, &bias].map(|t| device.put(t).unwrap());
            near(&linear(&on_x, &on_w, Some(&on_bias)).unwrap(), &wanted, tolerance);
            // Where a card multiplies no eight bits, what they stand for.
            let stream = on_x.stream().unwrap();
            let other = cuda::linear_by(&stream, &on_x, &on_w, Some(&on_bias), None, false).unwrap();
            near(&other, &wanted, tolerance);
        }
    }
}

#[test]
fn rows_wider_than_registers_are_cut_alike() {
    let device = accelerator();
    for d in [8_193, 9_000] {
        let x = rows(3, [2, d]);
        let (found, wanted) = (quantize(&device.put(&x).unwrap()).unwrap(), quantize(&x).unwrap());
        assert_eq!(found.codes.to_host().unwrap(), wanted.codes);
        assert_eq!(found.factors.to_host().unwrap(), wanted.factors);
    }
}

#[test]
fn what_is_not_finite_stays_in_its_row() {
    let device = accelerator();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = noise_tensor(4, &[3, 20]);
        x.f32_mut().unwrap()[25] = bad;
        let w = quantize_weight(&noise_tensor(5, &[4, 20])).unwrap();
        let host = linear(&x, &w, None).unwrap();
        let found = linear(&device.put(&x).unwrap(), &w.on(&device).unwrap(), None).unwrap().to_host().unwrap();
        for y in [host, found] {
            let finite: Vec<bool> = y.f32().unwrap().iter().map(|v| v.is_finite()).collect();
            assert_eq!(finite, [[true; 4], [false; 4], [true; 4]].concat(), "{bad}");
        }
        let error = quantize_weight(&x).unwrap_err();
        assert_eq!(error.to_string(), "fp8: row 1 of the weight is not finite");
    }
}

#[test]
fn a_weight_that_is_not_padded_is_refused_on_a_device() {
    let device = accelerator();
    let [x, w] = [noise_tensor(6, &[3, 32]), noise_tensor(7, &[5, 32])].map(|t| device.put(&t).unwrap());
    let refused = linear(&x, &quantize(&w).unwrap(), None).unwrap_err().to_string();
    assert!(refused.contains("multiplies this in eight bits"), "{refused}");
    assert_eq!(linear(&x, &quantize_weight(&w).unwrap(), None).unwrap().shape(), [3, 5]);
}

#[test]
fn threads_do_not_change_the_bits() {
    let [x, w] = [noise_tensor(6, &[70, 300]), noise_tensor(7, &[90, 300])];
    same_on_threads(|| {
        let w = quantize_weight(&w).unwrap();
        [linear(&x, &w, None).unwrap(), linear(&x.to_bf16(), &w, None).unwrap()]
    });
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let w = quantize(&noise_tensor(1, &[4, 20])).unwrap();
    let error = linear(&noise_tensor(2, &[3, 21]), &w, None).unwrap_err();
    assert_eq!(error.to_string(), "fp8: x has shape [3, 21], expected [3, 20]");
    let bytes = Tensor::from_u8(&[3, 20], noise(1, 60).iter().map(|v| *v as u8).collect()).unwrap();
    assert!(matches!(linear(&bytes, &w, None), Err(Error::Dtype { .. })));
    assert!(matches!(quantize(&bytes), Err(Error::Dtype { .. })));
}
