#![allow(clippy::unwrap_used)]

mod update;

use super::*;
use crate::cuda::emulator_of;
use crate::nf4::{dequantize, dequantize_to, linear, linear_backward_input, quantize};
use crate::testing::{accelerator, near, noise_tensor};

/// A weight of noise, on the host and on a device.
fn weights(on: &Stream, shape: &[usize], double: bool) -> [Nf4Weight; 2] {
    let host = quantize(&noise_tensor(3, shape), double).unwrap();
    let device = host.to_device(on).unwrap();
    [host, device]
}

/// A product without an update.
fn plain<'a>(pass: Pass, x: &'a Tensor, weight: &'a Nf4Weight) -> Operands<'a> {
    Operands { pass, x, weight, update: None }
}

/// The product with the decoded weight, in double precision.
fn wanted(pass: Pass, x: &Tensor, w: &Nf4Weight, rounding: Rounding) -> Vec<f64> {
    let (x, w_values) = (x.to_f32(), dequantize(w, rounding).unwrap().to_f32());
    let [d_out, d_in] = w.dimensions().unwrap();
    let [outputs, terms] = pass.extents([d_out, d_in]);
    let value = |o: usize, i: usize| match pass {
        Pass::Forward => w_values[o * d_in + i],
        Pass::Backward => w_values[i * d_in + o],
    };
    let dot = |row: &[f32], o| row.iter().enumerate().map(|(i, &v)| f64::from(v) * f64::from(value(o, i))).sum();
    x.chunks_exact(terms).flat_map(|row| (0..outputs).map(move |o| dot(row, o))).collect()
}

/// Asserts that results are what is wanted, rounded to bfloat16.
fn rounded(found: &Tensor, wanted: &[f64], what: &str) {
    assert_eq!((found.dtype(), found.len()), (Dtype::Bf16, wanted.len()), "{what}");
    for (i, (&found, wanted)) in found.to_f32().iter().zip(wanted).enumerate() {
        let error = (f64::from(found) - wanted).abs();
        assert!(error <= wanted.abs() / 256.0 + 1e-3, "{what}: {found} for {wanted} at {i}");
    }
}

#[test]
fn a_weight_goes_to_a_device_and_comes_back() {
    let device = accelerator();
    for double in [false, true] {
        let host = quantize(&noise_tensor(1, &[70, 300]), double).unwrap();
        let there = host.on(&device).unwrap();
        assert_eq!((there.shape(), there.bytes()), (host.shape(), host.bytes()));
        assert_eq!(there.to_host().unwrap(), host);
        assert_eq!(there.on(&device).unwrap(), there);
        assert_eq!(there.on(&crate::Device::cpu(1).unwrap()).unwrap(), host);
        assert_ne!(there, host);
        assert_ne!(there, quantize(&noise_tensor(2, &[70, 300]), double).unwrap().on(&device).unwrap());
    }
}

#[test]
#[should_panic(expected = "the weight is on the host")]
fn the_codes_of_a_weight_on_a_device_are_not_the_hosts() {
    let there = quantize(&noise_tensor(1, &[2, 3]), true).unwrap().on(&accelerator()).unwrap();
    let _ = there.codes();
}

#[test]
fn a_weight_of_another_place_is_refused() {
    let device = accelerator();
    let host = quantize(&noise_tensor(1, &[2, 64]), true).unwrap();
    let there = host.on(&device).unwrap();
    let x = noise_tensor(2, &[1, 64]);
    let error = linear(&x, &there, Rounding::F32).unwrap_err().to_string();
    assert!(error.starts_with("nf4: x is on the host, expected on "), "{error}");
    let dy = device.put(&noise_tensor(2, &[1, 2])).unwrap();
    let error = linear_backward_input(&dy, &host, Rounding::F32).unwrap_err().to_string();
    assert!(error.starts_with("nf4: dy is on ") && error.ends_with("expected on the host"), "{error}");
    assert!(matches!(there.on(&accelerator()), Err(Error::Place { .. })));
}

#[test]
fn a_device_decodes_to_the_bits_of_the_host() {
    let device = accelerator();
    for shape in [&[0, 3][..], &[1, 1], &[5, 13], &[1, 65], &[3, 4, 22], &[33, 257], &[70, 300]] {
        for double in [false, true] {
            let [host, there] = weights(device.stream().unwrap(), shape, double);
            for rounding in [Rounding::F32, Rounding::Bf16, Rounding::F16] {
                let found = dequantize(&there, rounding).unwrap().to_host().unwrap();
                assert_eq!(found, dequantize(&host, rounding).unwrap(), "{shape:?} {rounding:?}");
            }
            for dtype in [Dtype::F32, Dtype::Bf16, Dtype::F16] {
                let found = dequantize_to(&there, dtype).unwrap().to_host().unwrap();
                assert_eq!(found, dequantize_to(&host, dtype).unwrap(), "{shape:?} {dtype:?}");
            }
            assert!(dequantize_to(&there, Dtype::U8).is_err());
        }
    }
}

#[test]
fn bands_of_decoded_rows_make_the_whole_product() {
    let device = accelerator();
    let on = device.stream().unwrap();
    let near_f32 = |found: &Tensor, wanted: &Tensor| near(found, wanted, 1e-5);
    for (n, d_out, d_in) in [(1, 1, 1), (3, 130, 33), (5, 200, 70), (2, 64, 64), (2, 130, 160)] {
        let [host, there] = weights(on, &[d_out, d_in], true);
        for (pass, cols) in [(Pass::Forward, d_in), (Pass::Backward, d_out)] {
            let x = noise_tensor(4, &[n, cols]);
            let by_host = |x: &Tensor| match pass {
                Pass::Forward => linear(x, &host, Rounding::F16).unwrap(),
                Pass::Backward => linear_backward_input(x, &host, Rounding::F16).unwrap(),
            };
            let put = device.put(&x).unwrap();
            // All at once, in bands of 64 rows, and in the smallest bands if not even those fit.
            for most in [usize::MAX, 64 * 4 * d_in, 0] {
                near_f32(&decoded::f32(on, &plain(pass, &put, &there), Rounding::F16, most).unwrap(), &by_host(&x));
            }
            let narrow = x.to_bf16();
            let (put, wanted) = (device.put(&narrow).unwrap(), wanted(pass, &narrow, &host, Rounding::Bf16));
            rounded(&decoded::bf16(on, &plain(pass, &put, &there)).unwrap(), &wanted, "at once");
            rounded(&decoded::bf16_in_bands(on, &plain(pass, &put, &there), 0).unwrap(), &wanted, "in bands");
        }
    }
}

#[test]
fn a_few_rows_in_f32_keep_every_bit_of_the_weight() {
    let device = accelerator();
    for (n, d_out, d_in, double) in [(1, 1, 8, true), (2, 17, 264, false), (3, 5, 520, true), (4, 33, 72, true)] {
        let [host, there] = weights(device.stream().unwrap(), &[d_out, d_in], double);
        let x = noise_tensor(4, &[n, d_in]);
        let put = device.put(&x).unwrap();
        for rounding in [Rounding::F32, Rounding::Bf16, Rounding::F16] {
            let found = few::f32(device.stream().unwrap(), &plain(Pass::Forward, &put, &there), rounding).unwrap();
            near(&found, &linear(&x, &host, rounding).unwrap(), 1e-5);
            assert_eq!(found, linear(&put, &there, rounding).unwrap());
        }
    }
}

#[test]
fn a_few_rows_are_multiplied_with_codes() {
    let device = accelerator();
    let on = device.stream().unwrap();
    for (n, d_out, d_in, double) in
        [(1, 1, 64, true), (3, 33, 192, false), (8, 40, 1024, true), (9, 31, 1216, true), (16, 70, 2112, false)]
    {
        let [host, there] = weights(on, &[d_out, d_in], double);
        let x = noise_tensor(4, &[n, d_in]).to_bf16();
        let put = device.put(&x).unwrap();
        let found = by(on, &plain(Pass::Forward, &put, &there), Regime::Few).unwrap();
        rounded(&found, &wanted(Pass::Forward, &x, &host, Rounding::Bf16), &format!("{n} x {d_out} x {d_in}"));
        assert_eq!(found, linear(&put, &there, Rounding::F32).unwrap());
    }
}

#[test]
fn some_rows_are_multiplied_with_codes_on_the_way() {
    let device = accelerator();
    let on = device.stream().unwrap();
    let shapes = [
        (1, 8, 64, 1),      // less than any tile
        (32, 136, 320, 1),  // a full tile of tokens, more than one of outputs, more steps than shared memory holds
        (33, 72, 448, 3),   // splits of unequal length
        (64, 8, 192, 2),    //
        (70, 200, 320, 1),  //
        (130, 40, 128, 16), // two tiles of tokens, and fewer steps than splits are asked for
        (200, 264, 704, 4), // several of everything
    ];
    for (n, d_out, d_in, splits) in shapes {
        let [host, there] = weights(on, &[d_out, d_in], n % 2 == 0);
        for (pass, cols) in [(Pass::Forward, d_in), (Pass::Backward, d_out)] {
            let x = noise_tensor(4, &[n, cols]).to_bf16();
            let put = device.put(&x).unwrap();
            let found = by(on, &plain(pass, &put, &there), Regime::Fused { splits }).unwrap();
            let what = format!("{pass:?} {n} x {d_out} x {d_in} in {splits}");
            rounded(&found, &wanted(pass, &x, &host, Rounding::Bf16), &what);
        }
    }
    // Rows of the result that do not begin with 16 bytes.
    let [host, there] = weights(on, &[131, 128], true);
    let x = noise_tensor(4, &[18, 128]).to_bf16();
    for splits in [1, 2] {
        let put = device.put(&x).unwrap();
        let found = by(on, &plain(Pass::Forward, &put, &there), Regime::Fused { splits }).unwrap();
        rounded(&found, &wanted(Pass::Forward, &x, &host, Rounding::Bf16), "an odd number of rows");
    }
}

#[test]
fn rows_do_not_depend_on_each_other_and_calls_give_the_same_bits() {
    let device = accelerator();
    let [_, there] = weights(device.stream().unwrap(), &[40, 192], true);
    let x = noise_tensor(4, &[70, 192]).to_bf16();
    let product = |n: usize| {
        let rows = Tensor::from_bf16(&[n, 192], x.bf16().unwrap()[..n * 192].to_vec()).unwrap();
        let y = linear(&device.put(&rows).unwrap(), &there, Rounding::Bf16).unwrap();
        assert_eq!(y, linear(&device.put(&rows).unwrap(), &there, Rounding::Bf16).unwrap());
        y.to_f32()
    };
    let [one, nine, some, more] = [1, 9, 20, 70].map(product);
    assert_eq!(nine[..40], one);
    assert_eq!(more[..20 * 40], some);
}

#[test]
fn a_device_without_room_for_the_decoded_weight_multiplies_with_codes() {
    let on = emulator_of(24 << 10);
    let [host, there] = weights(&on, &[128, 64], true);
    for (pass, cols) in [(Pass::Forward, 64), (Pass::Backward, 128)] {
        let x = noise_tensor(4, &[20, cols]).to_bf16();
        let put = x.to_device(&on).unwrap();
        assert!(matches!(decoded::bf16(&on, &plain(pass, &put, &there)), Err(Error::Memory { .. })));
        let found = by(&on, &plain(pass, &put, &there), Regime::Decoded).unwrap();
        rounded(&found, &wanted(pass, &x, &host, Rounding::Bf16), "without room");
    }
}

#[test]
fn products_without_terms_are_zeros() {
    let device = accelerator();
    for (n, d_out, d_in) in [(2, 3, 0), (2, 0, 3), (0, 3, 64)] {
        let [_, there] = weights(device.stream().unwrap(), &[d_out, d_in], true);
        for narrow in [false, true] {
            let operand = |cols| {
                let x = noise_tensor(2, &[n, cols]);
                device.put(&if narrow { x.to_bf16() } else { x }).unwrap()
            };
            let y = linear(&operand(d_in), &there, Rounding::Bf16).unwrap();
            let dx = linear_backward_input(&operand(d_out), &there, Rounding::Bf16).unwrap();
            assert_eq!((y.shape(), dx.shape()), (&[n, d_out][..], &[n, d_in][..]));
            assert!(y.to_f32().iter().chain(&dx.to_f32()).all(|&v| v == 0.0));
        }
    }
}
