#![allow(clippy::unwrap_used)]

use super::*;
use crate::gemm;
use crate::testing::{check_gradient, noise_tensor, same_on_threads, weighted_sum};

#[test]
fn a_block_by_hand() {
    let w = Tensor::from_f32(&[1, 3], vec![2.0, -2.0, 0.9]).unwrap();
    let q = quantize(&w, false).unwrap();
    // 1 is code 15, -1 is code 0, 0.45 is nearest to code 12; the odd nibble is zero, code 7.
    assert_eq!(q.codes(), [0xf0, 0xc7]);
    assert_eq!(q.magnitudes(), &Magnitudes::Plain(vec![2.0]));
    assert_eq!(dequantize(&q, Rounding::F32).unwrap().f32().unwrap(), [2.0, -2.0, 2.0 * CODE[12]]);
}

#[test]
fn codes_agree_with_the_reference_on_awkward_shapes() {
    for shape in [[0, 3], [1, 1], [5, 13], [7, 300], [1, 65]] {
        let w = noise_tensor(1, &shape);
        let q = quantize(&w, false).unwrap();
        let wanted = reference::codes(w.f32().unwrap());
        let found: Vec<u8> = q.codes().iter().flat_map(|b| [b >> 4, b & 15]).take(w.len()).collect();
        assert_eq!(found, wanted, "{shape:?}");
    }
}

#[test]
fn zeros_stay_zero() {
    let q = quantize(&Tensor::zeros(&[2, 70]), true).unwrap();
    assert!(dequantize(&q, Rounding::Bf16).unwrap().f32().unwrap().iter().all(|&v| v == 0.0));
}

#[test]
fn the_dynamic_code_is_ascending_and_spans_both_signs() {
    let code = dynamic_code();
    assert!(code.windows(2).all(|w| w[0] < w[1]));
    assert_eq!((code[127], code[255]), (0.0, 1.0));
}

#[test]
fn double_quantisation_costs_little_and_takes_half_a_byte() {
    let w = noise_tensor(2, &[256, 512]);
    let q = quantize(&w, true).unwrap();
    assert!((q.bytes() as f64 / w.len() as f64) < 0.517);
    let (plain, double) = (quantize(&w, false).unwrap(), dequantize(&q, Rounding::F32).unwrap());
    let plain = dequantize(&plain, Rounding::F32).unwrap();
    let worst = plain.f32().unwrap().iter().zip(double.f32().unwrap()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 0.01, "{worst}");
}

#[test]
fn products_have_the_bits_of_those_with_the_decoded_weight() {
    for (n, d_out, d_in) in [
        (0, 2, 3),
        (1, 1, 1),
        (3, 130, 96),
        (5, 300, 4000),
        (131, 65, 33),
        (40, 70, 2112),
        (1, 9, 64),
        (2, 70, 4160),
        (3, 5, 2112),
        (4, 17, 128),
        (7, 67, 192),
        (13, 130, 2176),
        (16, 3, 64),
    ] {
        let q = quantize(&noise_tensor(3, &[d_out, d_in]), true).unwrap();
        let w = dequantize(&q, Rounding::Bf16).unwrap();
        let (x, dy) = (noise_tensor(4, &[n, d_in]), noise_tensor(5, &[n, d_out]));
        assert_eq!(linear(&x, &q, Rounding::Bf16).unwrap(), gemm::linear(&x, &w, None).unwrap());
        let dx = linear_backward_input(&dy, &q, Rounding::Bf16).unwrap();
        assert_eq!(dx, gemm::linear_backward_input(&dy, &w).unwrap());

        let (narrow, decoded) = (x.to_bf16(), dequantize_to(&q, Dtype::Bf16).unwrap());
        assert_eq!(decoded.to_f32(), w.f32().unwrap());
        let y = linear(&narrow, &q, Rounding::Bf16).unwrap();
        assert_eq!(y, gemm::linear(&narrow, &decoded, None).unwrap(), "{n} x {d_out} x {d_in}");
    }
}

#[test]
fn any_range_decodes_to_the_same_values() {
    let q = quantize(&noise_tensor(3, &[7, 100]), true).unwrap();
    for rounding in [Rounding::F32, Rounding::Bf16, Rounding::F16] {
        let all = dequantize(&q, rounding).unwrap();
        for (start, len) in [(0, 700), (0, 1), (63, 2), (64, 64), (65, 200), (699, 1), (130, 0), (5, 7)] {
            let mut part = vec![f32::NAN; len];
            decode::range(&q, rounding, start, &mut part);
            assert_eq!(part, all.f32().unwrap()[start..start + len], "{start} {len}");
        }
    }
    let [f16, f32] = [Dtype::F16, Dtype::F32].map(|dtype| dequantize_to(&q, dtype).unwrap().to_f32());
    assert_eq!(f16, dequantize(&q, Rounding::F16).unwrap().f32().unwrap());
    assert_eq!(f32, dequantize(&q, Rounding::F32).unwrap().f32().unwrap());
}

#[test]
fn every_set_of_instructions_finds_the_same_values() {
    let wide: [f32; 16] = CODE.map(|c| c * 0.37);
    let narrow: [u16; 16] = std::array::from_fn(|i| (i * 4_369 + 7) as u16);
    let codes: lookup::Codes = std::array::from_fn(|i| (i * 37 + 11) as u8);
    fn both<L: lookup::Lookup>(w: &[f32; 16], n: &[u16; 16], codes: &lookup::Codes) -> ([f32; BLOCK], [u16; BLOCK]) {
        let (mut wide, mut narrow) = ([0.0; BLOCK], [0; BLOCK]);
        // SAFETY: the test asked for the instructions.
        unsafe {
            L::wide(w, codes, &mut wide);
            L::narrow(n, codes, &mut narrow);
        }
        (wide, narrow)
    }
    let wanted = both::<lookup::Portable>(&wide, &narrow, &codes);
    assert_eq!(wanted.0[..2], [wide[0], wide[11]]);
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
        fn avx512(w: &[f32; 16], n: &[u16; 16], codes: &lookup::Codes) -> ([f32; BLOCK], [u16; BLOCK]) {
            both::<lookup::Avx512>(w, n, codes)
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2(w: &[f32; 16], n: &[u16; 16], codes: &lookup::Codes) -> ([f32; BLOCK], [u16; BLOCK]) {
            both::<lookup::Avx2>(w, n, codes)
        }
        if crate::simd::has_avx512() {
            // SAFETY: the processor has the instructions.
            assert_eq!(unsafe { avx512(&wide, &narrow, &codes) }, wanted);
        }
        if crate::simd::has_avx2() {
            // SAFETY: as above.
            assert_eq!(unsafe { avx2(&wide, &narrow, &codes) }, wanted);
        }
    }
}

#[test]
fn the_input_gradient_agrees_with_finite_differences() {
    let q = quantize(&noise_tensor(6, &[5, 7]), true).unwrap();
    let (x, dy) = (noise_tensor(7, &[2, 7]), noise_tensor(8, &[2, 5]));
    let dx = linear_backward_input(&dy, &q, Rounding::F32).unwrap();
    check_gradient("dx", &x, &dx, |x| weighted_sum(8, &linear(x, &q, Rounding::F32).unwrap()));
}

#[test]
fn threads_do_not_change_the_bits() {
    for (n, d_out, d_in) in [(40, 300, 1111), (1, 130, 128), (70, 70, 640)] {
        let (w, x) = (noise_tensor(9, &[d_out, d_in]), noise_tensor(10, &[n, d_in]));
        let dy = noise_tensor(11, &[n, d_out]);
        same_on_threads(|| {
            let q = quantize(&w, true).unwrap();
            let y = [&x, &x.to_bf16()].map(|x| linear(x, &q, Rounding::Bf16).unwrap());
            let dx = linear_backward_input(&dy, &q, Rounding::Bf16).unwrap();
            (q, y, dx)
        });
    }
}

#[test]
fn weights_without_columns_or_rows_give_zeros_or_nothing() {
    for (n, d_out, d_in) in [(2, 3, 0), (2, 0, 3), (0, 3, 64)] {
        let q = quantize(&noise_tensor(1, &[d_out, d_in]), true).unwrap();
        for x in [noise_tensor(2, &[n, d_in]), noise_tensor(2, &[n, d_in]).to_bf16()] {
            let y = linear(&x, &q, Rounding::Bf16).unwrap();
            assert_eq!((y.shape(), y.dtype()), (&[n, d_out][..], x.dtype()));
            assert!(y.to_f32().iter().all(|&v| v == 0.0));
        }
    }
}

#[test]
fn parts_of_another_length_are_refused() {
    let error = Nf4Weight::from_parts(&[2, 64], vec![0; 64], Magnitudes::Plain(vec![1.0])).unwrap_err();
    assert_eq!(error.to_string(), "nf4: magnitudes has shape [1], expected [2]");
}
