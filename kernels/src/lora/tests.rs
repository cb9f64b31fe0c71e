#![allow(clippy::unwrap_used)]

use super::*;
use crate::Device;
use crate::dropout::{self, Mask};
use crate::fp8;
use crate::nf4::{self, Rounding};
use crate::testing::{
    BF16, accelerator, check_gradient, largest_error, narrow_and_wide, near, noise_tensor, same_on_threads,
    weighted_sum,
};

fn update(x: &Tensor, a: &Tensor, b: &Tensor, scale: f32) -> Tensor {
    let mut y = Tensor::zeros(&[x.rows(), b.rows()]);
    forward(x, a, b, scale, &mut y).unwrap();
    y
}

/// Three loops in double precision.
fn reference(x: &Tensor, a: &Tensor, b: &Tensor, scale: f64) -> Vec<f64> {
    let (rank, d_in) = (a.rows(), a.cols());
    let value = |t: &Tensor, i: usize, j: usize| f64::from(t.f32().unwrap()[i * t.cols() + j]);
    let mut y = Vec::new();
    for i in 0..x.rows() {
        let inner: Vec<f64> = (0..rank).map(|r| (0..d_in).map(|k| value(x, i, k) * value(a, r, k)).sum()).collect();
        y.extend((0..b.rows()).map(|o| scale * (0..rank).map(|r| inner[r] * value(b, o, r)).sum::<f64>()));
    }
    y
}

#[test]
fn an_update_by_hand() {
    let x = Tensor::from_f32(&[1, 2], vec![1.0, 2.0]).unwrap();
    let a = Tensor::from_f32(&[1, 2], vec![3.0, 4.0]).unwrap();
    let b = Tensor::from_f32(&[2, 1], vec![5.0, 6.0]).unwrap();
    let mut y = Tensor::from_f32(&[1, 2], vec![1.0, 1.0]).unwrap();
    let inner = forward(&x, &a, &b, 2.0, &mut y).unwrap();
    assert_eq!(inner.f32().unwrap(), [11.0]);
    assert_eq!(y.f32().unwrap(), [111.0, 133.0]);
}

#[test]
fn agrees_with_the_reference_on_awkward_shapes() {
    for (n, d_in, rank, d_out) in [(0, 3, 1, 2), (1, 1, 1, 1), (5, 7, 3, 11), (131, 48, 8, 20)] {
        let (x, a, b) = (noise_tensor(1, &[n, d_in]), noise_tensor(2, &[rank, d_in]), noise_tensor(3, &[d_out, rank]));
        let y = update(&x, &a, &b, 4.0);
        assert!(largest_error(y.f32().unwrap(), &reference(&x, &a, &b, 4.0)) < 1e-5);
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let (x, a, b) = (noise_tensor(4, &[5, 6]), noise_tensor(5, &[2, 6]), noise_tensor(6, &[7, 2]));
    let dy = noise_tensor(7, &[5, 7]);
    let mut y = Tensor::zeros(&[5, 7]);
    let inner = forward(&x, &a, &b, 0.5, &mut y).unwrap();
    let (mut da, mut db) = (Tensor::zeros(&[2, 6]), Tensor::zeros(&[7, 2]));
    let dx = backward(&dy, &x, &inner, &a, &b, 0.5, &mut da, &mut db).unwrap();
    check_gradient("dx", &x, &dx, |x| weighted_sum(7, &update(x, &a, &b, 0.5)));
    check_gradient("da", &a, &da, |a| weighted_sum(7, &update(&x, a, &b, 0.5)));
    check_gradient("db", &b, &db, |b| weighted_sum(7, &update(&x, &a, b, 0.5)));
}

#[test]
fn threads_do_not_change_the_bits() {
    let (x, a, b) = (noise_tensor(4, &[300, 60]), noise_tensor(5, &[8, 60]), noise_tensor(6, &[70, 8]));
    same_on_threads(|| update(&x, &a, &b, 2.0));
}

#[test]
fn a_result_of_another_shape_is_refused() {
    let (x, a, b) = (noise_tensor(4, &[3, 6]), noise_tensor(5, &[2, 6]), noise_tensor(6, &[7, 2]));
    let error = forward(&x, &a, &b, 1.0, &mut Tensor::zeros(&[3, 6])).unwrap_err();
    assert_eq!(error.to_string(), "lora: y has shape [3, 6], expected [3, 7]");
}

#[test]
fn a_device_agrees_with_the_host() {
    let device = accelerator();
    for (n, d_in, rank, d_out) in [(0, 3, 1, 2), (5, 7, 3, 11), (131, 48, 8, 20)] {
        let [x, dy] = [(1, d_in), (2, d_out)].map(|(seed, width)| noise_tensor(seed, &[n, width]));
        let [a, da] = [3, 4].map(|seed| noise_tensor(seed, &[rank, d_in]));
        let [b, db] = [5, 6].map(|seed| noise_tensor(seed, &[d_out, rank]));
        let run = |[x, dy, a, mut da, b, mut db]: [Tensor; 6]| {
            let mut y = dy.clone();
            let inner = forward(&x, &a, &b, 2.0, &mut y).unwrap();
            let dx = backward(&dy, &x, &inner, &a, &b, 2.0, &mut da, &mut db).unwrap();
            [y, inner, dx, da, db]
        };
        let operands = [x, dy, a, da, b, db];
        let found = run(operands.each_ref().map(|t| device.put(t).unwrap()));
        for (found, wanted) in found.iter().zip(run(operands)) {
            near(found, &wanted, 1e-5);
        }
    }
}

#[test]
fn beside_eight_bits_there_is_an_update_and_no_gradient() {
    let device = accelerator();
    let case = Case::new([19, 40, 4, 24], false);
    let weight = fp8::quantize_weight(&noise_tensor(8, &[24, 40])).unwrap();
    let weight_there = weight.on(&device).unwrap();
    // As far as sums of eight bits lie apart on a card.
    for (case, tolerance) in [(case.rounded(), 5e-3), (case.narrow(), 4.0 * BF16)] {
        let wanted = case.forward(Base::Fp8(&weight));
        let there = case.on(&device);
        for (found, wanted) in there.forward(Base::Fp8(&weight_there)).iter().zip(&wanted) {
            near(found, wanted, tolerance);
        }
        for (case, weight) in [(&case, &weight), (&there, &weight_there)] {
            let d_inner = case.forward(Base::Fp8(weight))[1].zeros_like().unwrap();
            let refused = linear_backward_input(&case.dy, &d_inner, Base::Fp8(weight), &case.update(), None);
            assert!(refused.unwrap_err().to_string().contains("no gradient"));
        }
    }
    let wide = case.forward(Base::Fp8(&weight));
    let dense = case.forward(Base::Dense(&noise_tensor(8, &[24, 40])));
    near(&device.put(&wide[0]).unwrap(), &dense[0], 0.3);
    assert_eq!(wide[1], dense[1], "the update reads what was not cut");
}

const MASK: Mask = Mask { seed: 3, site: 7, rate: 0.25 };

/// A layer with an update and what its gradients need, all in one place.
struct Case {
    x: Tensor,
    dy: Tensor,
    bias: Tensor,
    factors: [Tensor; 2],
    gradients: [Tensor; 2],
    keys: Option<Vec<u64>>,
}

impl Case {
    fn new([n, d_in, rank, d_out]: [usize; 4], dropout: bool) -> Self {
        Self {
            x: noise_tensor(1, &[n, d_in]),
            dy: noise_tensor(2, &[n, d_out]),
            bias: noise_tensor(3, &[d_out]),
            factors: [noise_tensor(4, &[rank, d_in]), noise_tensor(5, &[d_out, rank])],
            gradients: [noise_tensor(6, &[rank, d_in]), noise_tensor(7, &[d_out, rank])],
            keys: dropout.then(|| (0..n as u64).collect()),
        }
    }

    /// The same in the memory of a device.
    fn on(&self, device: &Device) -> Self {
        let put = |tensor: &Tensor| device.put(tensor).unwrap();
        let Self { factors, gradients, .. } = self;
        Self {
            x: put(&self.x),
            dy: put(&self.dy),
            bias: put(&self.bias),
            factors: factors.each_ref().map(put),
            gradients: gradients.each_ref().map(put),
            keys: self.keys.clone(),
        }
    }

    /// The same with rows in bfloat16, to which its values are rounded first.
    fn narrow(&self) -> Self {
        Self { x: self.x.to_bf16(), dy: self.dy.to_bf16(), ..self.rounded() }
    }

    /// The same with rows and factors that are bfloat16 already.
    fn rounded(&self) -> Self {
        let round = |tensor: &Tensor| tensor.to_bf16().cast(Dtype::F32).unwrap();
        Self {
            x: round(&self.x),
            dy: round(&self.dy),
            bias: self.bias.clone(),
            factors: self.factors.each_ref().map(round),
            gradients: self.gradients.clone(),
            keys: self.keys.clone(),
        }
    }

    fn update(&self) -> Update<'_> {
        Update { a: &self.factors[0], b: &self.factors[1], scale: 2.0 }
    }

    fn input(&self) -> Tensor {
        let mut input = self.x.clone();
        if let Some(keys) = &self.keys {
            dropout::apply(&mut input, &MASK, keys).unwrap();
        }
        input
    }

    fn forward(&self, base: Base<'_>) -> [Tensor; 2] {
        let bias = Some(&self.bias).filter(|bias| !bias.is_empty());
        linear(&self.x, &self.input(), base, bias, &self.update()).unwrap().into()
    }

    /// All results: of the layer, the gradient of its input and those of its factors, with what they were before.
    fn run(&self, base: Base<'_>) -> [Tensor; 6] {
        let [y, inner] = self.forward(base);
        let [mut da, mut db] = self.gradients.clone();
        let (update, input) = (self.update(), self.input());
        let d_inner = backward_factors(&self.dy, &input, &inner, &update, &mut da, &mut db).unwrap();
        let dropout = self.keys.as_ref().map(|keys| (&MASK, &keys[..]));
        let dx = linear_backward_input(&self.dy, &d_inner, base, &update, dropout).unwrap();
        [y, inner, d_inner, dx, da, db]
    }
}

#[test]
fn on_the_host_a_layer_has_the_bits_of_its_parts() {
    for dropout in [false, true] {
        let case = Case::new([7, 33, 3, 20], dropout);
        let weight = noise_tensor(8, &[20, 33]);
        let packed = nf4::quantize(&weight, true).unwrap();
        for base in [Base::Dense(&weight), Base::Nf4(&packed, Rounding::Bf16)] {
            let (input, [a, b]) = (case.input(), &case.factors);
            let mut y = base.linear(&case.x, Some(&case.bias)).unwrap();
            let inner = forward(&input, a, b, 2.0, &mut y).unwrap();
            let mut dx = base.linear_backward_input(&case.dy).unwrap();
            let [mut da, mut db] = case.gradients.clone();
            let mut through = backward(&case.dy, &input, &inner, a, b, 2.0, &mut da, &mut db).unwrap();
            if let Some(keys) = &case.keys {
                dropout::apply(&mut through, &MASK, keys).unwrap();
            }
            dx.add(&through).unwrap();
            let [y_found, inner_found, _, dx_found, da_found, db_found] = case.run(base);
            assert_eq!([y_found, inner_found, dx_found, da_found, db_found], [y, inner, dx, da, db]);
        }
    }
}

#[test]
fn gradients_of_a_layer_agree_with_finite_differences() {
    let case = Case::new([5, 6, 2, 7], true);
    let weight = noise_tensor(8, &[7, 6]);
    let base = Base::Dense(&weight);
    let [_, _, _, dx, mut da, mut db] = case.run(base);
    for (sum, before) in [&mut da, &mut db].into_iter().zip(&case.gradients) {
        sum.f32_mut().unwrap().iter_mut().zip(before.f32().unwrap()).for_each(|(sum, before)| *sum -= before);
    }
    let loss = |case: &Case| weighted_sum(2, &case.forward(base)[0]);
    let with = |x: &Tensor, a: &Tensor, b: &Tensor| {
        loss(&Case { x: x.clone(), factors: [a.clone(), b.clone()], ..Case::new([5, 6, 2, 7], true) })
    };
    let (x, [a, b]) = (&case.x, &case.factors);
    check_gradient("dx", x, &dx, |x| with(x, a, b));
    check_gradient("da", a, &da, |a| with(x, a, b));
    check_gradient("db", b, &db, |b| with(x, a, b));
}

#[test]
fn a_device_agrees_with_the_host_on_layers() {
    let device = accelerator();
    let shapes = [
        [0, 64, 8, 16],
        [1, 64, 1, 33],
        [3, 72, 24, 17],
        [7, 128, 4, 24],
        [17, 64, 8, 40],
        [65, 192, 16, 72],
        [5, 7, 3, 11],
    ];
    for (i, shape) in shapes.into_iter().enumerate() {
        let [_, d_in, _, d_out] = shape;
        let case = Case::new(shape, i % 2 == 0);
        let there = case.on(&device);
        let weight = noise_tensor(8, &[d_out, d_in]);
        let packed = nf4::quantize(&weight, true).unwrap();
        let (weight_there, packed_there) = (device.put(&weight).unwrap(), packed.on(&device).unwrap());
        let four_bits = |packed| Base::Nf4(packed, Rounding::Bf16);
        let bases =
            [(Base::Dense(&weight), Base::Dense(&weight_there)), (four_bits(&packed), four_bits(&packed_there))];
        for (base, base_there) in bases {
            let found = there.run(base_there);
            assert_eq!(found, there.run(base_there), "two calls");
            for (found, wanted) in found.iter().zip(case.run(base)) {
                near(found, &wanted, 2e-5);
            }
        }
    }
}

#[test]
fn layers_in_bfloat16_are_rounded_layers() {
    let device = accelerator();
    // Few rows, some, and a width that no kernel takes, so that the weight is decoded.
    let shapes = [
        [0, 64, 8, 16],
        [1, 64, 1, 16],
        [7, 128, 4, 24],
        [17, 64, 24, 40],
        [65, 192, 16, 72],
        [9, 96, 8, 24],
        [9, 12, 3, 20],
        [12, 20, 3, 12],
        [11, 12, 3, 16],
    ];
    for (shape, dropout) in shapes.into_iter().flat_map(|shape| [(shape, false), (shape, true)]) {
        let [_, d_in, _, d_out] = shape;
        let case = Case::new(shape, dropout);
        let (wide, narrow, there) = (case.rounded(), case.narrow(), case.narrow().on(&device));
        let close = |found: &[Tensor], wanted: &[Tensor]| {
            assert_eq!(found[0].dtype(), Dtype::Bf16);
            for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
                // What is rounded on the way is as large as the largest results, which others come out of by cancellation.
                let (found, wanted) = (found.to_f32(), wanted.to_f32());
                let largest = wanted.iter().fold(1.0f32, |top, v| top.max(v.abs()));
                let error = found.iter().zip(&wanted).map(|(found, wanted)| (found - wanted).abs()).fold(0.0, f32::max);
                assert!(error < largest / 100.0, "result {i} of {shape:?}: {error} of {largest}");
            }
        };
        let packed = nf4::quantize(&noise_tensor(8, &[d_out, d_in]), true).unwrap();
        let packed_there = packed.on(&device).unwrap();
        let four_bits = |packed| Base::Nf4(packed, Rounding::Bf16);
        let (wanted, found) = (wide.run(four_bits(&packed)), there.run(four_bits(&packed_there)));
        assert_eq!(found, there.run(four_bits(&packed_there)), "two calls");
        close(&found, &wanted);
        close(&narrow.run(four_bits(&packed)), &wanted);

        let [weight, weight_wide] = narrow_and_wide(&noise_tensor(8, &[d_out, d_in]));
        let wanted = wide.run(Base::Dense(&weight_wide));
        close(&there.run(Base::Dense(&device.put(&weight).unwrap())), &wanted);
        close(&narrow.run(Base::Dense(&weight)), &wanted);
    }
}

#[test]
fn operands_that_a_layer_does_not_take_are_refused() {
    let case = Case::new([3, 64, 2, 8], true);
    let packed = nf4::quantize(&noise_tensor(8, &[8, 64]), true).unwrap();
    let base = Base::Nf4(&packed, Rounding::Bf16);
    let elsewhere = packed.on(&accelerator()).unwrap();
    let refused = |x: &Tensor, base, update: &Update<'_>| linear(x, x, base, None, update).unwrap_err().to_string();
    let short = noise_tensor(1, &[3, 63]);
    assert_eq!(refused(&short, base, &case.update()), "lora: x has shape [3, 63], expected [3, 64]");
    let wide = Update { b: &noise_tensor(1, &[8, 3]), ..case.update() };
    assert_eq!(refused(&case.x, base, &wide), "lora: b has shape [8, 3], expected [8, 2]");
    let error = refused(&case.x, Base::Nf4(&elsewhere, Rounding::Bf16), &case.update());
    assert!(error.starts_with("lora: x is on the host, expected on "), "{error}");
    let weight = noise_tensor(8, &[8, 64]);
    let error = refused(&case.x.to_bf16(), Base::Dense(&weight), &case.update());
    assert_eq!(error, "lora: weight is F32, expected Bf16");
}
