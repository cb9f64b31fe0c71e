#![allow(clippy::unwrap_used)]
use super::*;
use crate::testing::{accelerator, near, noise_tensor};

#[test]
fn rows_are_put_one_after_the_other() {
    let parts = [2, 0, 3].map(|n| noise_tensor(n as u64, &[n, 4]));
    let all = concat(&parts).unwrap();
    assert_eq!((all.shape(), all.to_f32()), (&[5, 4][..], [parts[0].to_f32(), parts[2].to_f32()].concat()));
    let narrow = parts.each_ref().map(Tensor::to_bf16);
    assert_eq!(concat(&narrow).unwrap(), all.to_bf16());
    assert!(concat(&[]).is_err());
    assert!(concat(&[noise_tensor(1, &[2, 4]), noise_tensor(1, &[2, 3])]).unwrap_err().to_string().contains("part"));
    assert!(concat(&[parts[0].clone(), narrow[0].clone()]).unwrap_err().to_string().contains("part is Bf16"));
}

#[test]
fn groups_are_woven() {
    let [own, shared] = [noise_tensor(1, &[6, 2]), noise_tensor(2, &[1, 2])];
    let strands = [Strand { rows: &shared, each: 1 }, Strand { rows: &own, each: 2 }];
    let (row, pairs) = (shared.to_f32(), own.to_f32());
    let wanted = [&row[..], &pairs[..4], &row, &pairs[4..8], &row, &pairs[8..]].concat();
    assert_eq!(weave(&strands, 3).unwrap(), Tensor::from_f32(&[9, 2], wanted).unwrap());
    assert!(weave(&strands, 4).unwrap_err().to_string().contains("strand has shape [6, 2], expected [8, 2]"));
    assert!(weave(&strands[..1], 0).unwrap().is_empty());
    assert!(weave(&[Strand { rows: &own, each: 0 }], 1).is_err() && weave(&[], 1).is_err());
}

#[test]
fn rows_are_added_to_every_group() {
    let mut x = Tensor::from_f32(&[4, 1], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
    add_repeated(&mut x, &Tensor::from_f32(&[2, 1], vec![10.0, 20.0]).unwrap()).unwrap();
    assert_eq!(x.f32().unwrap(), [11.0, 22.0, 13.0, 24.0]);
    let three = noise_tensor(1, &[3, 1]);
    assert!(add_repeated(&mut x, &three).unwrap_err().to_string().contains("expected [n * 3, 1]"));
    assert!(add_repeated(&mut x, &Tensor::zeros(&[0, 1])).is_err());
}

/// Rows whose largest value is hard to find.
fn awkward() -> (Tensor, Vec<u32>) {
    let d = 700;
    let mut rows: Vec<Vec<f32>> = (0..4).map(|seed| noise_tensor(seed, &[1, d]).to_f32()).collect();
    rows[1][699] = 7.0;
    rows[1][650] = 7.0;
    rows[2] = vec![f32::NAN; d];
    rows[2][3] = f32::NEG_INFINITY;
    rows[3] = vec![f32::NAN; d];
    let first = rows[0].iter().position(|v| rows[0].iter().all(|other| other <= v)).unwrap();
    (Tensor::from_f32(&[4, d], rows.concat()).unwrap(), vec![first as u32, 650, 3, 0])
}

#[test]
fn the_largest_is_the_first_of_equal_ones_and_no_nan() {
    let (x, columns) = awkward();
    assert_eq!(largest(&x).unwrap(), columns);
    assert_eq!(largest(&Tensor::zeros(&[0, 0])).unwrap(), [0; 0]);
    assert!(largest(&Tensor::zeros(&[2, 0])).is_err());
}

#[test]
fn a_device_agrees_with_the_host() {
    let device = accelerator();
    for (n, r, d) in [(0, 2, 3), (3, 1, 5), (2, 7, 100)] {
        let (mut x, rows) = (noise_tensor(1, &[n * r, d]), noise_tensor(2, &[r, d]));
        let [mut found, repeated] = [&x, &rows].map(|t| device.put(t).unwrap());
        add_repeated(&mut found, &repeated).unwrap();
        add_repeated(&mut x, &rows).unwrap();
        near(&found, &x, 0.0);
        let parts = [x, rows];
        near(&concat(&parts.each_ref().map(|t| device.put(t).unwrap())).unwrap(), &concat(&parts).unwrap(), 0.0);
    }
    let (x, columns) = awkward();
    assert_eq!(largest(&device.put(&x).unwrap()).unwrap(), columns);
    assert_eq!(largest(&device.put(&Tensor::zeros(&[0, 4])).unwrap()).unwrap(), [0; 0]);
}
