#![allow(clippy::unwrap_used)]
use super::*;
use crate::gemm::reference::{matmul, transpose};
use crate::testing::{accelerator, check_gradient, largest_error, near, noise, noise_tensor, same_on_threads};

fn labels(n: usize, classes: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 7919 + 3) % classes) as u32).collect()
}

#[test]
fn two_classes_by_hand() {
    let x = Tensor::from_f32(&[1, 1], vec![1.0]).unwrap();
    let w = Tensor::from_f32(&[2, 1], vec![0.0, 3.0f32.ln()]).unwrap();
    // The softmax is (1/4, 3/4).
    let loss = forward(&x, &w, None, &[0]).unwrap();
    assert!((loss.f32().unwrap()[0] - 4.0f32.ln()).abs() < 1e-6);
    let (mut dw, mut db) = (Tensor::zeros(&[2, 1]), Tensor::zeros(&[2]));
    let grads = Grads { dw: Some(&mut dw), db: Some(&mut db) };
    let out = forward_backward(&x, &w, None, &[0], &[2.0], grads).unwrap();
    assert_eq!(out.losses, loss);
    assert!(largest_error(dw.f32().unwrap(), &[-1.5, 1.5]) < 1e-6);
    assert!(largest_error(db.f32().unwrap(), &[-1.5, 1.5]) < 1e-6);
    assert!(largest_error(out.dx.f32().unwrap(), &[1.5 * 3.0f64.ln()]) < 1e-6);
}

#[test]
fn agrees_with_the_whole_softmax_on_awkward_shapes() {
    for (n, classes, d) in [(0, 5, 3), (1, 1, 1), (1, 600, 64), (7, 17, 5), (131, 1031, 13), (300, 3651, 64)] {
        let (x, w, bias) = (noise_tensor(1, &[n, d]), noise_tensor(2, &[classes, d]), noise_tensor(3, &[classes]));
        let labels = labels(n, classes);
        let (mut p, losses) = reference::softmax(x.f32().unwrap(), w.f32().unwrap(), bias.f32().unwrap(), &labels, d);
        let scale: Vec<f32> = noise(4, n);
        for (row, s) in p.chunks_exact_mut(classes).zip(&scale) {
            row.iter_mut().for_each(|v| *v *= f64::from(*s));
        }
        let p: Vec<f32> = p.iter().map(|v| *v as f32).collect();

        let (mut dw, mut db) = (Tensor::zeros(&[classes, d]), Tensor::zeros(&[classes]));
        let grads = Grads { dw: Some(&mut dw), db: Some(&mut db) };
        let out = forward_backward(&x, &w, Some(&bias), &labels, &scale, grads).unwrap();

        assert!(largest_error(out.losses.f32().unwrap(), &losses) < 2e-6, "losses of {n} x {classes} x {d}");
        assert_eq!(forward(&x, &w, Some(&bias), &labels).unwrap(), out.losses);
        let wanted = matmul(&p, w.f32().unwrap(), n, classes, d);
        assert!(largest_error(out.dx.f32().unwrap(), &wanted) < 1e-5, "dx");
        let wanted = matmul(&transpose(&p, n, classes), x.f32().unwrap(), classes, n, d);
        assert!(largest_error(dw.f32().unwrap(), &wanted) < 1e-5, "dw");
        let wanted = matmul(&vec![1.0; n], &p, 1, n, classes);
        assert!(largest_error(db.f32().unwrap(), &wanted) < 1e-5, "db");
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    let (x, w, bias) = (noise_tensor(1, &[5, 4]), noise_tensor(2, &[11, 4]), noise_tensor(3, &[11]));
    let (labels, scale) = (labels(5, 11), noise(4, 5));
    let loss = |x: &Tensor, w: &Tensor, b: &Tensor| -> f64 {
        let losses = forward(x, w, Some(b), &labels).unwrap();
        losses.to_f32().iter().zip(&scale).map(|(l, s)| f64::from(*l) * f64::from(*s)).sum()
    };
    let (mut dw, mut db) = (Tensor::zeros(&[11, 4]), Tensor::zeros(&[11]));
    let grads = Grads { dw: Some(&mut dw), db: Some(&mut db) };
    let out = forward_backward(&x, &w, Some(&bias), &labels, &scale, grads).unwrap();
    check_gradient("dx", &x, &out.dx, |x| loss(x, &w, &bias));
    check_gradient("dw", &w, &dw, |w| loss(&x, w, &bias));
    check_gradient("db", &bias, &db, |b| loss(&x, &w, b));
}

#[test]
fn gradients_of_a_log_sum_exp_agree_with_finite_differences() {
    let (x, w, bias, dy) = (noise_tensor(1, &[5, 4]), noise_tensor(2, &[11, 4]), noise_tensor(3, &[11]), noise(4, 5));
    let value = |x: &Tensor, w: &Tensor, b: &Tensor| -> f64 {
        let lse = log_sum_exp(x, w, Some(b)).unwrap();
        lse.to_f32().iter().zip(&dy).map(|(l, s)| f64::from(*l) * f64::from(*s)).sum()
    };
    let (mut dw, mut db) = (Tensor::zeros(&[11, 4]), Tensor::zeros(&[11]));
    let grads = Grads { dw: Some(&mut dw), db: Some(&mut db) };
    let lse = log_sum_exp(&x, &w, Some(&bias)).unwrap().to_f32();
    let dx = log_sum_exp_backward(&x, &w, Some(&bias), &lse, &dy, grads).unwrap();
    check_gradient("dx", &x, &dx, |x| value(x, &w, &bias));
    check_gradient("dw", &w, &dw, |w| value(&x, w, &bias));
    check_gradient("db", &bias, &db, |b| value(&x, &w, b));
}

/// Losses and gradients as [`Given::run`] makes them, from some parts of the classes that do not know of labels.
fn in_parts(given: &Given, cuts: &[usize]) -> [Tensor; 4] {
    let (d, ends) = (given.w.cols(), [cuts, &[given.w.rows()]].concat());
    let starts = std::iter::once(0).chain(cuts.iter().copied());
    let ranges: Vec<_> = starts.zip(ends).map(|(start, end)| start..end).collect();
    let of = |t: &Tensor, range: &std::ops::Range<usize>| {
        let width = t.len() / t.shape()[0];
        let values = t.to_f32()[range.start * width..range.end * width].to_vec();
        let shape = if t.shape().len() == 2 { vec![range.len(), width] } else { vec![range.len()] };
        Tensor::from_f32(&shape, values).unwrap().beside(t).unwrap()
    };
    let parts: Vec<_> =
        ranges.iter().map(|r| [&given.w, &given.bias, &given.dw, &given.db].map(|t| of(t, r))).collect();
    let lses: Vec<Vec<f32>> =
        parts.iter().map(|[w, b, ..]| log_sum_exp(&given.x, w, Some(b)).unwrap().to_f32()).collect();
    let n = given.x.rows();
    let lse: Vec<f32> = (0..n).map(|i| lses.iter().map(|l| f64::from(l[i]).exp()).sum::<f64>().ln() as f32).collect();
    let mut dx = vec![0.0; n * d];
    let (mut dw, mut db) = (Vec::new(), Vec::new());
    for [w, b, mut own_dw, mut own_db] in parts {
        let grads = Grads { dw: Some(&mut own_dw), db: Some(&mut own_db) };
        let part = log_sum_exp_backward(&given.x, &w, Some(&b), &lse, &given.scale, grads).unwrap();
        dx.iter_mut().zip(part.to_f32()).for_each(|(sum, part)| *sum += part);
        dw.extend(own_dw.to_f32());
        db.extend(own_db.to_f32());
    }
    // What the labels take away.
    let (x, w, bias) = (given.x.to_f32(), given.w.to_f32(), given.bias.to_f32());
    let mut losses = lse;
    for (i, (&label, scale)) in given.labels.iter().zip(&given.scale).enumerate() {
        let label = label as usize;
        losses[i] -= (0..d).map(|k| x[i * d + k] * w[label * d + k]).sum::<f32>() + bias[label];
        db[label] -= scale;
        for k in 0..d {
            dx[i * d + k] -= scale * w[label * d + k];
            dw[label * d + k] -= scale * x[i * d + k];
        }
    }
    let classes = given.w.rows();
    [(vec![n], losses), (vec![n, d], dx), (vec![classes, d], dw), (vec![classes], db)]
        .map(|(shape, values)| Tensor::from_f32(&shape, values).unwrap())
}

#[test]
fn parts_of_the_classes_give_what_all_of_them_give() {
    let device = accelerator();
    for (n, classes, d, cuts) in [(7, 17, 5, vec![3, 11]), (130, 900, 64, vec![64, 700, 701]), (33, 40, 130, vec![9])] {
        let given = Given::new(n, classes, d);
        let wanted = given.run();
        for found in [in_parts(&given, &cuts), in_parts(&given.put(&device), &cuts)] {
            for (found, wanted) in found.iter().zip(&wanted) {
                let wide: Vec<f64> = wanted.to_f32().iter().map(|v| f64::from(*v)).collect();
                assert!(largest_error(&found.to_f32(), &wide) < 2e-5, "{n} x {classes} x {d}");
            }
        }
    }
}

#[test]
fn large_logits_do_not_overflow() {
    let x = Tensor::from_f32(&[1, 1], vec![1000.0]).unwrap();
    let w = Tensor::from_f32(&[3, 1], vec![1.0, -1.0, 0.5]).unwrap();
    assert!(forward(&x, &w, None, &[0]).unwrap().to_f32()[0].abs() < 1e-6);
    assert!((forward(&x, &w, None, &[1]).unwrap().to_f32()[0] - 2000.0).abs() < 1e-3);
}

#[test]
fn large_logits_do_not_overflow_on_a_device() {
    let device = accelerator();
    for d in [1, 129] {
        let mut x = Tensor::zeros(&[3, d]);
        x.f32_mut().unwrap().iter_mut().step_by(d).for_each(|v| *v = 1000.0);
        let mut w = Tensor::zeros(&[3, d]);
        w.f32_mut().unwrap().iter_mut().step_by(d).zip([1.0, -1.0, 0.5]).for_each(|(v, w)| *v = w);
        let [x, w] = [x, w].map(|t| device.put(&t).unwrap());
        let losses = forward(&x, &w, None, &[0, 1, 2]).unwrap().to_f32();
        assert!(
            losses[0] == 0.0 && (losses[1] - 2000.0).abs() < 1e-3 && (losses[2] - 500.0).abs() < 1e-3,
            "{losses:?}"
        );
    }
}

#[test]
fn stripes_cover_every_class_once() {
    for classes in [0, 1, 15, 512, 513, 3651, 12_102, 1_000_003] {
        let stripes = cpu::stripes(classes);
        assert!(stripes.len() <= 33);
        assert_eq!(stripes.iter().map(|s| s.len()).sum::<usize>(), classes);
        assert!(stripes.windows(2).all(|w| w[0].end == w[1].start));
    }
}

#[test]
fn bits_do_not_depend_on_the_number_of_threads() {
    let (x, w) = (noise_tensor(1, &[200, 16]), noise_tensor(2, &[2000, 16]));
    let (labels, scale) = (labels(200, 2000), vec![0.005; 200]);
    same_on_threads(|| {
        let mut dw = Tensor::zeros(&[2000, 16]);
        let grads = Grads { dw: Some(&mut dw), db: None };
        (forward_backward(&x, &w, None, &labels, &scale, grads).unwrap(), dw)
    });
}

#[test]
fn logits_that_are_kept_and_logits_that_are_computed_again_give_the_same_bits() {
    for (n, classes) in [(1, 3), (300, 1700), (700, 9000)] {
        let (x, w, bias) = (noise_tensor(1, &[n, 8]), noise_tensor(2, &[classes, 8]), noise_tensor(3, &[classes]));
        let (labels, scale) = (labels(n, classes), noise(4, n));
        let problem = Operands { x: &x, weight: &w, bias: Some(&bias), labels: &labels }.on_host().unwrap();
        let run = |plan| {
            let (mut dw, mut db) = (vec![0.0; classes * 8], vec![0.0; classes]);
            let gradients = cpu::Gradients { dw: Some(&mut dw), db: Some(&mut db) };
            let mut dx = vec![0.0; n * 8];
            let rows = cpu::forward_backward(&problem, plan, &scale, gradients, &mut dx);
            (rows.iter().map(softmax::Row::loss).collect::<Vec<_>>(), dx, dw, db)
        };
        assert!(run(cpu::Plan::new(classes, 8)) == run(cpu::Plan::COMPUTED_AGAIN), "{n} x {classes}");
    }
}

#[test]
fn a_label_outside_of_the_classes_is_refused() {
    let (x, w) = (noise_tensor(1, &[1, 2]), noise_tensor(2, &[3, 2]));
    let error = forward(&x, &w, None, &[3]).unwrap_err().to_string();
    assert_eq!(error, "linear_cross_entropy::forward: label 3 is out of range 0..3");
}

/// Operands of a problem, and gradients that hold something already.
struct Given {
    x: Tensor,
    w: Tensor,
    bias: Tensor,
    dw: Tensor,
    db: Tensor,
    labels: Vec<u32>,
    scale: Vec<f32>,
}

impl Given {
    fn new(n: usize, classes: usize, d: usize) -> Self {
        let [x, w, bias] = [noise_tensor(1, &[n, d]), noise_tensor(2, &[classes, d]), noise_tensor(3, &[classes])];
        let [dw, db] = [noise_tensor(4, &[classes, d]), noise_tensor(5, &[classes])];
        Self { x, w, bias, dw, db, labels: labels(n, classes), scale: noise(6, n) }
    }

    fn put(&self, device: &crate::Device) -> Self {
        let [x, w, bias] = [&self.x, &self.w, &self.bias].map(|t| device.put(t).unwrap());
        let [dw, db] = [&self.dw, &self.db].map(|t| device.put(t).unwrap());
        Self { x, w, bias, dw, db, labels: self.labels.clone(), scale: self.scale.clone() }
    }

    fn operands(&self) -> Operands<'_> {
        Operands { x: &self.x, weight: &self.w, bias: Some(&self.bias), labels: &self.labels }
    }

    /// Losses, `dx`, `dW` and `db`, by the operation itself.
    fn run(&self) -> [Tensor; 4] {
        self.gradients(|given, grads| {
            forward_backward(&given.x, &given.w, Some(&given.bias), &given.labels, &given.scale, grads)
        })
    }

    fn gradients(&self, run: impl Fn(&Self, Grads<'_>) -> Result<Output>) -> [Tensor; 4] {
        let (mut dw, mut db) = (self.dw.clone(), self.db.clone());
        let out = run(self, Grads { dw: Some(&mut dw), db: Some(&mut db) }).unwrap();
        [out.losses, out.dx, dw, db]
    }
}

#[test]
fn a_device_agrees_with_the_host() {
    let device = accelerator();
    for (n, classes, d) in
        [(0, 5, 3), (1, 1, 1), (7, 17, 130), (130, 67, 13), (33, 530, 64), (3, 65, 128), (70, 66, 65)]
    {
        let given = Given::new(n, classes, d);
        let there = given.put(&device);
        let found = there.run();
        for (found, wanted) in found.iter().zip(given.run()) {
            near(found, &wanted, 1e-5);
        }
        assert!(there.run() == found, "{n} x {classes} x {d} twice");
        let losses = forward(&there.x, &there.w, Some(&there.bias), &there.labels).unwrap();
        assert!(losses == found[0], "losses alone");
    }
}

#[test]
fn every_plan_agrees_with_the_host() {
    let device = accelerator();
    let products = [(100, 100), (70, 45), (33, 45), (70, 12), (64, 44), (1, 4)]
        .map(|(rows, classes)| cuda::Plan::Products(cuda::Tiles { rows, classes }));
    let divided = |range, ranges, group, class_threads, row_ranges| {
        cuda::Plan::Fused(cuda::Division { range, ranges, group, class_threads, row_ranges })
    };
    let fused = [divided(1, 3, 64, 64, 2), divided(2, 2, 128, 128, 1), divided(3, 1, 64, 128, 8)];
    for (given, plans) in [(Given::new(70, 45, 9), &products[..]), (Given::new(300, 150, 6), &fused)] {
        let (wanted, there) = (given.run(), given.put(&device));
        let on = there.x.stream().unwrap();
        for &plan in plans {
            let run = |given: &Given, grads: Grads<'_>| {
                cuda::forward_backward(&on, &given.operands(), &given.scale, grads, plan)
            };
            let found = there.gradients(run);
            for (found, wanted) in found.iter().zip(&wanted) {
                near(found, wanted, 1e-5);
            }
            assert!(there.gradients(run) == found, "{plan:?} twice");
        }
    }
}

#[test]
fn the_shape_of_the_weight_decides_the_plan() {
    for (classes, d, range, ranges, group, class_threads, row_ranges) in [
        (1, 1, 8, 1, 1 << 24, 64, 8),
        (12_102, 64, 8, 24, 10_880, 64, 3),
        (12_102, 128, 8, 24, 5440, 128, 2),
        (57_290, 64, 14, 64, 4096, 128, 1),
        (10_000_000, 64, 2442, 64, 4096, 128, 1),
    ] {
        let division = cuda::Division { range, ranges, group, class_threads, row_ranges };
        assert_eq!(cuda::Plan::new(classes, d), cuda::Plan::Fused(division), "{classes} x {d}");
    }
    for (classes, rows, width) in [
        (1, 1 << 14, 1),
        (12_102, 2752, 12_102),
        (128_256, 256, 128_256),
        (524_288, 64, 524_288),
        (524_289, 4096, 8192),
    ] {
        assert_eq!(
            cuda::Plan::new(classes, 129),
            cuda::Plan::Products(cuda::Tiles { rows, classes: width }),
            "{classes}"
        );
    }
}

#[test]
fn logits_in_pairs_of_halves_are_as_exact_as_on_the_host() {
    let device = accelerator();
    let (n, classes, d) = (33, 700, 64);
    for size in [1e-3, 1.0, 6.0] {
        let mut given = Given::new(n, classes, d);
        given.x.f32_mut().unwrap().iter_mut().for_each(|v| *v *= size);
        // A class far larger than the others does not make them less exact.
        given.w.f32_mut().unwrap()[5 * d..6 * d].iter_mut().for_each(|v| *v *= 100.0);
        let (x, w, bias) = (given.x.f32().unwrap(), given.w.f32().unwrap(), given.bias.f32().unwrap());
        let (p, losses) = reference::softmax(x, w, bias, &given.labels, d);
        let row = |i: usize, column: usize| -> f64 {
            (0..classes).map(|c| p[i * classes + c] * f64::from(w[c * d + column])).sum::<f64>()
                * f64::from(given.scale[i])
        };
        let dx: Vec<f64> = (0..n * d).map(|i| row(i / d, i % d)).collect();
        let [there, here] = [given.put(&device).run(), given.run()];
        for (i, wanted) in [losses, dx].iter().enumerate() {
            let [found, least] = [&there, &here].map(|results| largest_error(&results[i].to_f32(), wanted));
            // Tensor cores of a card cut sums off where the emulator rounds them.
            assert!(found < 3.0 * least + 1e-6, "{i} of logits of {size}: {found:e}, on the host {least:e}");
        }
    }
}

/// Losses and gradients of operands, one value of which is spoiled.
fn spoiled(device: &crate::Device, d: usize, spoil: impl FnOnce(&mut Given)) -> [Vec<f32>; 4] {
    let mut given = Given::new(3, 70, d);
    spoil(&mut given);
    given.put(device).run().map(|t| t.to_f32())
}

#[test]
fn what_is_not_finite_shows_on_a_device_where_it_shows_on_the_host() {
    let device = accelerator();
    for d in [5, 130] {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let [losses, dx, dw, db] = spoiled(&device, d, |given| {
                given.x.f32_mut().unwrap()[d + 1] = bad;
                given.scale[1] = 0.0;
            });
            assert!(losses[1].is_nan() && losses[0].is_finite() && losses[2].is_finite(), "{bad} in x: {losses:?}");
            assert!(
                dx[d..2 * d].iter().all(|v| v.is_nan()) && dx[..d].iter().chain(&dx[2 * d..]).all(|v| v.is_finite())
            );
            assert!(dw.iter().chain(&db).all(|v| v.is_nan()), "{bad} in x");
        }
        for found in spoiled(&device, d, |given| given.w.f32_mut().unwrap()[4 * d] = f32::NAN) {
            assert!(found.iter().all(|v| v.is_nan()), "in the weight");
        }
        let found = spoiled(&device, d, |given| {
            given.bias.f32_mut().unwrap()[5] = f32::NEG_INFINITY;
            given.labels = vec![5, 6, 7];
        });
        assert!(found[0][0] == f32::INFINITY && found[0][1].is_finite(), "a class that cannot be: {:?}", found[0]);
        assert!(found[1..].iter().flatten().all(|v| v.is_finite()));
    }
}

#[test]
fn an_operand_on_the_host_beside_others_on_a_device_is_refused() {
    let given = Given::new(2, 3, 4);
    let there = given.put(&accelerator());
    let refused = |result: Result<Output>, what: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(what) && error.contains("forward_backward"), "{error}");
    };
    let run = |w: &Tensor, bias: &Tensor, grads: Grads<'_>| {
        forward_backward(&there.x, w, Some(bias), &there.labels, &there.scale, grads)
    };
    refused(run(&given.w, &there.bias, Grads::default()), "weight");
    refused(run(&there.w, &given.bias, Grads::default()), "bias");
    let mut dw = given.dw.clone();
    refused(run(&there.w, &there.bias, Grads { dw: Some(&mut dw), db: None }), "dw");
    let mut db = given.db.clone();
    refused(run(&there.w, &there.bias, Grads { dw: None, db: Some(&mut db) }), "db");
}
