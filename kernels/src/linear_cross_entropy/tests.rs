#![allow(clippy::unwrap_used)]
use super::*;
use crate::gemm::reference::{matmul, transpose};
use crate::testing::{check_gradient, largest_error, noise, noise_tensor, same_on_threads};

fn labels(n: usize, classes: usize) -> Vec<u32> {
    (0..n).map(|i| ((i * 7919 + 3) % classes) as u32).collect()
}

#[test]
fn two_classes_by_hand() {
    let x = Tensor::from_f32(&[1, 1], vec![1.0]).unwrap();
    let w = Tensor::from_f32(&[2, 1], vec![0.0, 3.0f32.ln()]).unwrap();
    // The softmax is (1/4, 3/4).
    let loss = forward(&x, &w, None, &[0]).unwrap();
    assert!((loss[0] - 4.0f32.ln()).abs() < 1e-6);
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

        assert!(largest_error(&out.losses, &losses) < 2e-6, "losses of {n} x {classes} x {d}");
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
        losses.iter().zip(&scale).map(|(l, s)| f64::from(*l) * f64::from(*s)).sum()
    };
    let (mut dw, mut db) = (Tensor::zeros(&[11, 4]), Tensor::zeros(&[11]));
    let grads = Grads { dw: Some(&mut dw), db: Some(&mut db) };
    let out = forward_backward(&x, &w, Some(&bias), &labels, &scale, grads).unwrap();
    check_gradient("dx", &x, &out.dx, |x| loss(x, &w, &bias));
    check_gradient("dw", &w, &dw, |w| loss(&x, w, &bias));
    check_gradient("db", &bias, &db, |b| loss(&x, &w, b));
}

#[test]
fn large_logits_do_not_overflow() {
    let x = Tensor::from_f32(&[1, 1], vec![1000.0]).unwrap();
    let w = Tensor::from_f32(&[3, 1], vec![1.0, -1.0, 0.5]).unwrap();
    assert!(forward(&x, &w, None, &[0]).unwrap()[0].abs() < 1e-6);
    assert!((forward(&x, &w, None, &[1]).unwrap()[0] - 2000.0).abs() < 1e-3);
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
        let problem = Problem::new("test", &x, &w, Some(&bias), &labels).unwrap();
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
