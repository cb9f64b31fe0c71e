#![allow(clippy::unwrap_used)]
use super::reference::{matmul, transpose};
use super::*;
use crate::testing::{accelerator, check_gradient, largest_error, near, noise_tensor, same_on_threads, weighted_sum};

#[test]
fn a_small_layer_by_hand() {
    let x = Tensor::from_f32(&[1, 2], vec![1.0, 2.0]).unwrap();
    let w = Tensor::from_f32(&[3, 2], vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0]).unwrap();
    let b = Tensor::from_f32(&[3], vec![0.5, 0.0, -1.0]).unwrap();
    assert_eq!(linear(&x, &w, Some(&b)).unwrap().f32().unwrap(), [1.5, 2.0, 2.0]);
}

#[test]
fn products_match_the_triple_loop_on_awkward_shapes() {
    for (n, d_in, d_out) in [(0, 3, 2), (1, 1, 1), (1, 64, 130), (7, 13, 5), (131, 67, 129), (300, 64, 600)] {
        let x = noise_tensor(1, &[n, d_in]);
        let w = noise_tensor(2, &[d_out, d_in]);
        let dy = noise_tensor(3, &[n, d_out]);
        let (xs, ws, dys) = (x.f32().unwrap(), w.f32().unwrap(), dy.f32().unwrap());

        let y = linear(&x, &w, None).unwrap();
        assert!(largest_error(y.f32().unwrap(), &matmul(xs, &transpose(ws, d_out, d_in), n, d_in, d_out)) < 5e-5);

        let dx = linear_backward_input(&dy, &w).unwrap();
        assert!(largest_error(dx.f32().unwrap(), &matmul(dys, ws, n, d_out, d_in)) < 5e-5);

        let mut dw = Tensor::from_f32(&[d_out, d_in], vec![1.0; d_out * d_in]).unwrap();
        let mut db = Tensor::zeros(&[d_out]);
        linear_backward_weight(&dy, &x, &mut dw, Some(&mut db)).unwrap();
        let expected: Vec<f64> =
            matmul(&transpose(dys, n, d_out), xs, d_out, n, d_in).iter().map(|v| v + 1.0).collect();
        assert!(largest_error(dw.f32().unwrap(), &expected) < 5e-5);
        assert!(largest_error(db.f32().unwrap(), &matmul(&vec![1.0; n], dys, 1, n, d_out)) < 5e-5);
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (x, w, dy) = (noise_tensor(1, &[517, 64]), noise_tensor(2, &[1031, 64]), noise_tensor(3, &[517, 1031]));
    same_on_threads(|| {
        let (mut dw, mut db) = (Tensor::zeros(&[1031, 64]), Tensor::zeros(&[1031]));
        linear_backward_weight(&dy, &x, &mut dw, Some(&mut db)).unwrap();
        (linear(&x, &w, None).unwrap(), linear_backward_input(&dy, &w).unwrap(), dw, db)
    });
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let error = linear(&noise_tensor(1, &[2, 3]), &noise_tensor(2, &[4, 5]), None).unwrap_err().to_string();
    assert!(error.contains("weight") && error.contains("[4, 5]"), "{error}");
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    for (d_in, d_out) in [(64, 700), (515, 33), (1024, 700)] {
        let (x, w) = (noise_tensor(1, &[77, d_in]), noise_tensor(2, &[d_out, d_in]));
        let all = linear(&x, &w, None).unwrap();
        for row in [0, 5, 76] {
            let alone = Tensor::from_f32(&[1, d_in], x.f32().unwrap()[row * d_in..][..d_in].to_vec()).unwrap();
            let alone = linear(&alone, &w, None).unwrap();
            assert_eq!(all.f32().unwrap()[row * d_out..][..d_out], *alone.f32().unwrap());
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let (m, k, n) = (29, 530, 75);
    let (a, b) = (noise_tensor(1, &[m, k]), noise_tensor(2, &[n, k]));
    let (a, b) = (MatRef::new(a.f32().unwrap(), m, k), MatRef::new(b.f32().unwrap(), n, k).t());
    let bias = noise_tensor(3, &[n]);
    for onto in [cpu::Onto::Nothing, cpu::Onto::Result, cpu::Onto::Bias(bias.f32().unwrap())] {
        let mut wide = vec![0.5; m * n];
        let mut plain = wide.clone();
        cpu::sgemm_block(1.5, a, b, onto, MatMut::new(&mut wide, m, n));
        let packed = cpu::Packed::new(b);
        micro::multiply_portable(1.5, a, &packed, 0..packed.panels(), onto, MatMut::new(&mut plain, m, n));
        assert_eq!(wide, plain);
        #[cfg(target_arch = "x86_64")]
        if crate::simd::has_avx2() {
            let mut half = vec![0.5; m * n];
            // SAFETY: the processor has the instructions; the shapes fit.
            unsafe {
                micro::multiply_avx2(1.5, a, &packed, 0..packed.panels(), onto, MatMut::new(&mut half, m, n));
            }
            assert_eq!(half, plain);
        }
    }
}

#[test]
fn a_bias_is_added_to_every_row() {
    let mut y = Tensor::from_f32(&[2, 2], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
    add_bias(&mut y, &Tensor::from_f32(&[2], vec![0.5, -1.0]).unwrap()).unwrap();
    assert_eq!(y.f32().unwrap(), [1.5, 1.0, 3.5, 3.0]);
    assert!(add_bias(&mut y, &Tensor::zeros(&[3])).is_err());
}

#[test]
fn gradients_of_a_linear_layer_agree_with_differences() {
    let (x, w, b) = (noise_tensor(1, &[5, 7]), noise_tensor(2, &[6, 7]), noise_tensor(3, &[6]));
    let loss = |x: &Tensor, w: &Tensor, b: &Tensor| weighted_sum(4, &linear(x, w, Some(b)).unwrap());
    let dy = noise_tensor(4, &[5, 6]);
    let (mut dw, mut db) = (Tensor::zeros(&[6, 7]), Tensor::zeros(&[6]));
    linear_backward_weight(&dy, &x, &mut dw, Some(&mut db)).unwrap();
    check_gradient("dx", &x, &linear_backward_input(&dy, &w).unwrap(), |x| loss(x, &w, &b));
    check_gradient("dw", &w, &dw, |w| loss(&x, w, &b));
    check_gradient("db", &b, &db, |b| loss(&x, &w, b));
}

#[test]
fn tiles_are_written_apart() {
    let mut values = vec![0.0; 4 * 5];
    let tiles = MatMut::new(&mut values, 4, 5).tiles([0..1, 1..1, 2..4], 3);
    for (i, mut tile) in tiles.into_iter().enumerate() {
        for row in 0..tile.rows() {
            tile.row_mut(row).fill(i as f32 + 1.0);
        }
    }
    let wanted: [[f32; 5]; 4] =
        [[1.0, 1.0, 1.0, 2.0, 2.0], [0.0; 5], [5.0, 5.0, 5.0, 6.0, 6.0], [5.0, 5.0, 5.0, 6.0, 6.0]];
    assert_eq!(values, wanted.concat());
}

#[test]
#[should_panic(expected = "tiles of a matrix overlap")]
fn tiles_that_overlap_are_refused() {
    let _ = MatMut::new(&mut [0.0; 6], 3, 2).tiles([0..2, 1..3], 1);
}

#[test]
#[should_panic(expected = "part of a matrix lies outside of it")]
fn tiles_outside_are_refused() {
    let _ = MatMut::new(&mut [0.0; 6], 3, 2).tiles(std::iter::once(2..4), 1);
}

#[test]
fn an_empty_part_may_begin_behind_the_last_row() {
    let mut values = [1.0; 4];
    let mut matrix = MatMut::new(&mut values, 2, 2);
    assert_eq!(matrix.sub(2..2, 1..2).rows(), 0);
    matrix.sub(1..2, 1..2).row_mut(0).fill(3.0);
    assert_eq!(values, [1.0, 1.0, 1.0, 3.0]);
}

#[test]
fn products_in_bfloat16_match_the_triple_loop() {
    for (n, d_in, d_out) in [(0, 3, 2), (1, 1, 1), (1, 64, 130), (7, 13, 5), (131, 67, 129), (66, 4100, 70)] {
        let (x, w) = (noise_tensor(1, &[n, d_in]).to_bf16(), noise_tensor(2, &[d_out, d_in]).to_bf16());
        let bias = noise_tensor(3, &[d_out]);
        let y = linear(&x, &w, Some(&bias)).unwrap();
        let mut wanted = matmul(&x.to_f32(), &transpose(&w.to_f32(), d_out, d_in), n, d_in, d_out);
        let biases = bias.f32().unwrap().iter().cycle();
        wanted.iter_mut().zip(biases).for_each(|(y, b)| *y += f64::from(*b));
        assert!(largest_error(&y.to_f32(), &wanted) < 1.0 / 256.0, "{n} x {d_in} x {d_out}");
        // In single precision the sums are nearly exact.
        let mut sums = vec![0.0; n * d_out];
        let (x, w) = (bf16::Rows::new(x.bf16().unwrap(), d_in), bf16::Rows::new(w.bf16().unwrap(), d_in));
        bf16::multiply(x, w, None, MatMut::new(&mut sums, n, d_out), Finish::NOTHING);
        let biases = bias.f32().unwrap().iter().cycle();
        wanted.iter_mut().zip(biases).for_each(|(y, b)| *y -= f64::from(*b));
        assert!(largest_error(&sums, &wanted) < 5e-5, "{n} x {d_in} x {d_out}");
    }
}

#[test]
fn bfloat16_has_the_same_bits_with_and_without_its_instruction() {
    for (n, d_in, d_out) in [(7, 2049, 5), (1, 33, 9), (4, 4096, 8)] {
        let (x, w) = (noise_tensor(1, &[n, d_in]).to_bf16(), noise_tensor(2, &[d_out, d_in]).to_bf16());
        let (x, w) = (x.bf16().unwrap(), w.bf16().unwrap());
        let mut found = vec![0.0; n * d_out];
        let (left, right) = (bf16::Rows::new(x, d_in), bf16::Rows::new(w, d_in));
        bf16::multiply(left, right, None, MatMut::new(&mut found, n, d_out), Finish::NOTHING);
        for (i, found) in found.iter().enumerate() {
            let [x, w] = [&x[i / d_out * d_in..][..d_in], &w[i % d_out * d_in..][..d_in]];
            let chunks = x.chunks(2048).zip(w.chunks(2048)).map(|(x, w)| bf16::dot(x, w));
            assert_eq!(chunks.reduce(|a, b| a + b).unwrap(), *found);
        }
    }
}

/// What an epilogue does behind the bias, operation by operation.
fn one_by_one(mut y: Tensor, activation: Activation, residual: &Tensor) -> Tensor {
    match activation {
        Activation::None => {}
        Activation::Gelu => y = crate::gelu::forward(&y).unwrap(),
        Activation::Silu => {
            let ones = Tensor::from_f32(y.shape(), vec![1.0; y.len()]).unwrap();
            y = crate::swiglu::forward(&y, &ones).unwrap();
        }
        Activation::Relu => y.f32_mut().unwrap().iter_mut().for_each(|v| *v = v.max(0.0)),
    }
    y.add(residual).unwrap();
    y
}

#[test]
fn an_epilogue_gives_the_bits_of_the_operations_one_by_one() {
    for (n, d_in, d_out) in [(0, 3, 2), (1, 1, 1), (7, 13, 5), (131, 67, 129)] {
        let (x, w) = (noise_tensor(1, &[n, d_in]), noise_tensor(2, &[d_out, d_in]));
        let (bias, residual) = (noise_tensor(3, &[d_out]), noise_tensor(4, &[n, d_out]));
        for activation in [Activation::None, Activation::Gelu, Activation::Silu, Activation::Relu] {
            let wanted = one_by_one(linear(&x, &w, Some(&bias)).unwrap(), activation, &residual);
            let epilogue = Epilogue { bias: Some(&bias), activation, residual: Some(&residual) };
            assert_eq!(linear_then(&x, &w, &epilogue).unwrap(), wanted);
            let [wide, packed] = [&w, &w.to_bf16()].map(|w| PackedWeight::new(w).unwrap());
            assert_eq!(linear_packed(&x, &wide, &epilogue).unwrap(), wanted);
            let plain = linear_packed(&x, &packed, &Epilogue { bias: Some(&bias), ..Epilogue::default() }).unwrap();
            let (narrow_x, rounded) = (x.to_bf16(), linear_packed_rounded(&x, &packed, &epilogue).unwrap());
            assert_eq!(linear_packed_rounded(&x, &wide, &epilogue).unwrap(), wanted.to_bf16());
            assert_eq!(linear_packed_rounded(&narrow_x, &packed, &epilogue).unwrap(), rounded);
            let packed = linear_packed(&narrow_x, &packed, &epilogue).unwrap();
            assert_eq!(packed, one_by_one(plain, activation, &residual));
            assert_eq!(packed.to_bf16(), rounded);
            let narrow = linear_then(&x.to_bf16(), &w.to_bf16(), &epilogue).unwrap().to_f32();
            let wanted: Vec<f64> = wanted.f32().unwrap().iter().map(|&v| f64::from(v)).collect();
            assert!(largest_error(&narrow, &wanted) < 0.05, "{n} x {d_in} x {d_out} {activation:?}");
            assert!(largest_error(&packed.to_f32(), &wanted) < 0.05, "{n} x {d_in} x {d_out} {activation:?}");
        }
    }
}

#[test]
fn packed_products_in_bfloat16_match_the_triple_loop() {
    for (n, d_in, d_out) in
        [(0, 3, 2), (1, 1, 1), (1, 64, 130), (7, 13, 5), (131, 67, 129), (66, 4101, 70), (2, 0, 3), (29, 2048, 600)]
    {
        let (x, w) = (noise_tensor(1, &[n, d_in]).to_bf16(), noise_tensor(2, &[d_out, d_in]).to_bf16());
        let wanted = matmul(&x.to_f32(), &transpose(&w.to_f32(), d_out, d_in), n, d_in, d_out);
        let x = Tensor::from_f32(&[n, d_in], x.to_f32()).unwrap();
        let y = linear_packed(&x, &PackedWeight::new(&w).unwrap(), &Epilogue::default()).unwrap();
        assert!(largest_error(y.f32().unwrap(), &wanted) < 5e-5, "{n} x {d_in} x {d_out}");
    }
}

#[test]
fn a_row_of_bfloat16_has_the_same_bits_in_any_company_and_on_any_threads() {
    let (d_in, d_out) = (515, 333);
    let x = noise_tensor(1, &[77, d_in]);
    let w = PackedWeight::new(&noise_tensor(2, &[d_out, d_in]).to_bf16()).unwrap();
    let product = || linear_packed(&x, &w, &Epilogue::default()).unwrap();
    same_on_threads(product);
    let all = product();
    for row in [0, 5, 76] {
        let alone = Tensor::from_f32(&[1, d_in], x.f32().unwrap()[row * d_in..][..d_in].to_vec()).unwrap();
        let alone = linear_packed(&alone, &w, &Epilogue::default()).unwrap();
        assert_eq!(all.f32().unwrap()[row * d_out..][..d_out], *alone.f32().unwrap());
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits_of_pairs() {
    let (m, k, n) = (29, 1061, 75);
    let (a, b) = (noise_tensor(1, &[m, k]).to_bf16(), noise_tensor(2, &[n, k]).to_bf16());
    let (a, b) = (PairRows::copied(a.bf16().unwrap(), [m, k]), PairRows::copied(b.bf16().unwrap(), [n, k]));
    let packed = Packed::new(b.view().t());
    let bias = noise_tensor(3, &[n]);
    for onto in [Onto::Nothing, Onto::Result, Onto::Bias(bias.f32().unwrap())] {
        let mut wide = vec![0.5; m * n];
        let mut plain = wide.clone();
        let panels = 0..packed.panels();
        micro::multiply(1.5, a.view(), &packed, panels.clone(), onto, MatMut::new(&mut wide, m, n));
        pairs::multiply_portable(1.5, a.view(), &packed, panels.clone(), onto, MatMut::new(&mut plain, m, n));
        assert_eq!(wide, plain);
        #[cfg(target_arch = "x86_64")]
        if crate::simd::has_avx2() {
            let mut half = vec![0.5; m * n];
            // SAFETY: the processor has the instructions.
            unsafe { pairs::x86::multiply_avx2(1.5, a.view(), &packed, panels, onto, MatMut::new(&mut half, m, n)) };
            assert_eq!(half, plain);
        }
    }
}

/// Rows that collide in the first-level cache are copied where enough panels follow.
#[test]
fn rows_that_collide_give_the_same_bits() {
    let (m, k, n) = (29, 1030, 300);
    let wide = noise_tensor(1, &[m, 2 * k]);
    // The same columns of rows that begin 1,024 and 1,030 elements apart.
    let narrow: Vec<f32> = wide.f32().unwrap().chunks_exact(2 * k).flat_map(|row| &row[..1024]).copied().collect();
    let b = noise_tensor(2, &[n, 1024]);
    let [aligned, odd] = [MatRef::new(&narrow, m, 1024), MatRef::strided(wide.f32().unwrap(), m, 1024, 2 * k)];
    let packed = Packed::new(MatRef::new(b.f32().unwrap(), n, 1024).t());
    let product = |a| {
        let mut c = vec![0.0; m * n];
        micro::multiply(1.0, a, &packed, 0..packed.panels(), Onto::Nothing, MatMut::new(&mut c, m, n));
        c
    };
    assert_eq!(product(aligned), product(odd));
    let wanted = matmul(&narrow, &transpose(b.f32().unwrap(), n, 1024), m, 1024, n);
    assert!(largest_error(&product(aligned), &wanted) < 5e-5);

    // Pairs: half as many elements of the same size.
    let (b, collide) = (noise_tensor(3, &[n, 2048]), noise_tensor(4, &[m, 2048]));
    let (a, b) = (PairRows::rounded(collide.f32().unwrap(), [m, 2048]), PairRows::rounded(b.f32().unwrap(), [n, 2048]));
    let row = |i| a.view().row(i).iter().copied().chain([[half::bf16::ZERO; 2]; 6]);
    let padded: Vec<pairs::Pair> = (0..m).flat_map(row).collect();
    let packed = Packed::new(b.view().t());
    let product = |a| {
        let mut c = vec![0.0; m * n];
        micro::multiply(1.0, a, &packed, 0..packed.panels(), Onto::Nothing, MatMut::new(&mut c, m, n));
        c
    };
    assert_eq!(product(a.view()), product(MatRef::strided(&padded, m, 1024, 1030)));
}

#[test]
fn a_device_agrees_with_the_host() {
    let device = accelerator();
    for (n, d_in, d_out) in [(0, 3, 2), (1, 1, 1), (7, 13, 5), (131, 67, 129), (3, 0, 4)] {
        let [x, w] = [(1, n), (2, d_out)].map(|(seed, rows)| noise_tensor(seed, &[rows, d_in]));
        let [dy, residual, y] = [3, 4, 5].map(|seed| noise_tensor(seed, &[n, d_out]));
        let [bias, d_bias] = [6, 7].map(|seed| noise_tensor(seed, &[d_out]));
        let [dx, dw] = [(8, n), (9, d_out)].map(|(seed, rows)| noise_tensor(seed, &[rows, d_in]));
        let run = |[x, w, dy, residual, mut y, bias, mut d_bias, mut dx, mut dw]: [Tensor; 9]| {
            linear_backward_weight(&dy, &x, &mut dw, Some(&mut d_bias)).unwrap();
            add_linear(0.5, &x, &w, &mut y).unwrap();
            add_linear_backward_input(2.0, &dy, &w, &mut dx).unwrap();
            let mut biased = linear(&x, &w, None).unwrap();
            add_bias(&mut biased, &bias).unwrap();
            let activations = [Activation::None, Activation::Gelu, Activation::Silu, Activation::Relu];
            let epilogues = activations.map(|activation| {
                let epilogue = Epilogue { bias: Some(&bias), activation, residual: Some(&residual) };
                linear_then(&x, &w, &epilogue).unwrap()
            });
            let dx_alone = linear_backward_input(&dy, &w).unwrap();
            let packed = PackedWeight::new(&w).unwrap();
            let packed = linear_packed(&x, &packed, &Epilogue { bias: Some(&bias), ..Epilogue::default() }).unwrap();
            [vec![dw, d_bias, y, dx, biased, dx_alone, packed], epilogues.into()].concat()
        };
        let operands = [x, w, dy, residual, y, bias, d_bias, dx, dw];
        let found = run(operands.each_ref().map(|t| device.put(t).unwrap()));
        for (found, wanted) in found.iter().zip(run(operands)) {
            near(found, &wanted, 1e-5);
        }
    }
}

#[test]
fn a_device_agrees_with_the_host_in_bfloat16() {
    let device = accelerator();
    for (n, d_in, d_out) in [(0, 3, 2), (7, 13, 5), (131, 67, 129)] {
        let [x, w] = [(1, n), (2, d_out)].map(|(seed, rows)| noise_tensor(seed, &[rows, d_in]).to_bf16());
        let (bias, residual) = (noise_tensor(3, &[d_out]), noise_tensor(4, &[n, d_out]));
        let run = |[x, w, bias, residual]: [Tensor; 4]| {
            let packed = PackedWeight::new(&w).unwrap();
            let plain = Epilogue::default();
            let all = Epilogue { bias: Some(&bias), activation: Activation::Gelu, residual: Some(&residual) };
            [plain, all].map(|epilogue| {
                let rounded = linear_packed_rounded(&x, &packed, &epilogue).unwrap();
                [linear_then(&x, &w, &epilogue).unwrap(), linear_packed(&x, &packed, &epilogue).unwrap(), rounded]
            })
        };
        let operands = [x, w, bias, residual];
        let found = run(operands.each_ref().map(|t| device.put(t).unwrap()));
        for (found, wanted) in found.as_flattened().iter().zip(run(operands).as_flattened()) {
            near(found, wanted, if wanted.dtype() == Dtype::F32 { 1e-5 } else { 8e-3 });
        }
        let [dy, w] = [[n, d_out], [d_out, d_in]].map(|shape| noise_tensor(5, &shape).to_bf16());
        let wanted = linear_backward_input(&dy, &w).unwrap();
        let [mut dx, mut biased] = [noise_tensor(6, &[n, d_in]), dy.clone()];
        let bias = noise_tensor(3, &[d_out]);
        let [dy_there, w_there, mut dx_there] = [&dy, &w, &dx].map(|t| device.put(t).unwrap());
        near(&linear_backward_input(&dy_there, &w_there).unwrap(), &wanted, 8e-3);
        add_linear_backward_input(2.0, &dy_there, &w_there, &mut dx_there).unwrap();
        let wide = linear_backward_input(&dy.cast(Dtype::F32).unwrap(), &w.cast(Dtype::F32).unwrap()).unwrap();
        assert_eq!(wanted, wide.to_bf16());
        (0..2).for_each(|_| dx.add(&wide).unwrap());
        near(&dx_there, &dx, 1e-5);
        let mut biased_there = dy_there;
        add_bias(&mut biased_there, &device.put(&bias).unwrap()).unwrap();
        add_bias(&mut biased, &bias).unwrap();
        near(&biased_there, &biased, 8e-3);
    }
}

#[test]
fn operands_in_different_places_are_named() {
    let device = accelerator();
    let (x, w) = (noise_tensor(1, &[3, 4]), device.put(&noise_tensor(2, &[5, 4])).unwrap());
    let error = linear(&x, &w, None).unwrap_err().to_string();
    assert_eq!(error, format!("gemm::linear: weight is on {}, expected on the host", device.name()));
    let error = linear_packed(&x, &PackedWeight::new(&w).unwrap(), &Epilogue::default()).unwrap_err().to_string();
    assert_eq!(error, format!("gemm::linear_packed: x is on the host, expected on {}", device.name()));
}

#[test]
fn a_device_rounds_what_stands_beside_a_weight_in_bfloat16() {
    let device = accelerator();
    let (x, w) = (noise_tensor(1, &[7, 13]), noise_tensor(2, &[5, 13]).to_bf16());
    let packed = PackedWeight::new(&device.put(&w).unwrap()).unwrap();
    let found = linear_packed(&device.put(&x).unwrap(), &packed, &Epilogue::default()).unwrap();
    near(&found, &linear_packed(&x, &PackedWeight::new(&w).unwrap(), &Epilogue::default()).unwrap(), 1e-5);
}
