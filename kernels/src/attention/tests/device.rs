//! What a device computes, against the host.

use super::bits::{alone, without};
use super::*;
use crate::testing::{accelerator, near};
use crate::{Device, Error};

impl Case {
    /// The same operands after some change of each.
    fn map(&self, change: impl Fn(&Tensor) -> Tensor) -> Self {
        let prefix = self.prefix.as_ref().map(|prefix| prefix.each_ref().map(&change));
        Self { q: change(&self.q), k: change(&self.k), v: change(&self.v), prefix, ..self.clone() }
    }

    fn narrow(&self) -> Self {
        self.map(Tensor::to_bf16)
    }

    fn on(&self, device: &Device) -> Self {
        self.map(|tensor| device.put(tensor).unwrap())
    }
}

/// Sequences that fill tiles, miss them by one and have none.
const LENGTHS: [&[usize]; 2] = [&[1, 64, 0, 17], &[130, 65]];

/// Every kind of mask, with and without a prefix that ends within a tile of keys.
fn cases(shape: Shape) -> Vec<Case> {
    let [short, long] = LENGTHS;
    vec![
        Case::own(Kind::Causal, shape, short),
        Case::own(Kind::Causal, shape, long).with_prefix(70),
        Case::own(Kind::Full, shape, long),
        Case::own(Kind::Full, shape, short).with_prefix(3),
        Case::cross(shape, &[3, 0, 33, 2], &[65, 5, 0, 64]),
        Case::cross(shape, &[3, 1], &[0, 130]).with_prefix(64),
    ]
}

fn name(case: &Case) -> String {
    let prefix = case.prefix.as_ref().map(|[k, _]| k.rows());
    format!("{:?} {:?} {:?} {prefix:?}", case.kind, case.shape, case.queries)
}

/// Widths of heads for each of which there are kernels, some of them not aligned.
fn shapes() -> [Shape; 5] {
    [shape(4, 2, 8), shape(3, 1, 5), shape(2, 1, 24), shape(2, 2, 64), shape(1, 1, 88)]
}

/// Cases of all widths, few of the widest.
fn all_cases() -> Vec<Case> {
    let wide = [128, 200].map(|head_dim| Case::own(Kind::Causal, shape(2, 1, head_dim), &[130]).with_prefix(3));
    shapes().into_iter().flat_map(cases).chain(wide).collect()
}

#[test]
fn a_device_agrees_with_the_host_in_bfloat16() {
    let device = accelerator();
    for case in all_cases().iter().map(Case::narrow) {
        let wanted = forward_bf16(&case.operands(), &case.shape).unwrap();
        let case = case.on(&device);
        println!("{}", name(&case));
        near(&forward_bf16(&case.operands(), &case.shape).unwrap(), &wanted, 1e-2);
    }
}

#[test]
fn a_device_agrees_with_the_host() {
    let device = accelerator();
    for case in all_cases() {
        println!("{}", name(&case));
        let (wanted, saved) = forward(&case.operands(), &case.shape).unwrap();
        let case = case.on(&device);
        let (found, found_saved) = forward(&case.operands(), &case.shape).unwrap();
        near(&found, &wanted, 2e-6);
        assert!(same_log_sums(&found_saved.log_sums, &saved.log_sums));
    }
}

/// Whether logarithms are near each other; those of nothing are infinite.
fn same_log_sums(found: &Tensor, wanted: &Tensor) -> bool {
    let pairs = found.to_f32().into_iter().zip(wanted.to_f32());
    found.shape() == wanted.shape() && pairs.into_iter().all(|(f, w)| f == w || (f - w).abs() < 2e-6 * w.abs().max(1.0))
}

/// The bits of what a device computes of a case: the f32 and the bfloat16 results.
fn device_bits(case: &Case, device: &Device) -> [Tensor; 2] {
    let (wide, narrow) = (case.on(device), case.narrow().on(device));
    let results = [wide.forward(), forward_bf16(&narrow.operands(), &case.shape).unwrap()];
    results.map(|t| Tensor::from_f32(t.shape(), t.to_f32()).unwrap())
}

#[test]
fn a_sequence_has_the_same_bits_in_any_company_on_a_device() {
    let device = accelerator();
    for case in cases(shape(2, 1, 8)) {
        let together = device_bits(&case, &device);
        assert_eq!(together, device_bits(&case, &device));
        for sequence in 0..case.queries.len() {
            let own = together.each_ref().map(|t| rows_of(t, case.queries.range(sequence)));
            assert_eq!(device_bits(&alone(&case, sequence), &device), own, "{}", name(&case));
        }
    }
}

#[test]
fn a_shared_prefix_gives_the_bits_of_a_repeated_one_on_a_device() {
    let device = accelerator();
    let shared = Case::own(Kind::Causal, shape(2, 1, 8), &[1, 66]).with_prefix(70);
    let repeated = shared.repeated();
    let wanted = device_bits(&repeated, &device).map(|t| without(70, &t, &repeated.queries));
    assert_eq!(device_bits(&shared, &device), wanted);
}

#[test]
fn what_is_not_a_number_stays_in_its_sequence_on_a_device() {
    let device = accelerator();
    let case = Case::own(Kind::Full, shape(2, 1, 8), &[3, 5]);
    let (good, mut spoiled) = (device_bits(&case, &device), case.clone());
    for bad in [f32::NAN, f32::INFINITY] {
        spoiled.v.f32_mut().unwrap()[4 * 8] = bad;
        for (found, wanted) in device_bits(&spoiled, &device).iter().zip(&good) {
            assert_eq!(rows_of(found, 0..3), rows_of(wanted, 0..3));
            assert!(rows_of(found, 3..8).to_f32().chunks(8).all(|row| !row[0].is_finite()));
        }
    }
    // A key of -∞ weighs nothing beside others, and alone makes NaN.
    let case = Case::cross(shape(1, 1, 8), &[1, 1], &[1, 2]);
    let positive =
        |t: &Tensor| Tensor::from_f32(t.shape(), t.to_f32().iter().map(|v| v.abs() + 0.1).collect()).unwrap();
    let mut spoiled = Case { q: positive(&case.q), ..case };
    spoiled.k.f32_mut().unwrap()[..16].fill(f32::NEG_INFINITY);
    for found in device_bits(&spoiled, &device) {
        assert!(found.to_f32()[..8].iter().all(|v| v.is_nan()));
        assert!(found.to_f32()[8..].iter().zip(&spoiled.v.to_f32()[16..]).all(|(f, v)| (f - v).abs() < 1e-2));
    }
}

#[test]
fn what_a_device_does_not_take_is_named() {
    let device = accelerator();
    let case = Case::own(Kind::Causal, shape(2, 1, 8), &[3]).with_prefix(2);
    let [prefix_k, prefix_v] = case.prefix.clone().unwrap();
    let there = case.on(&device);
    let [there_k, _] = there.prefix.clone().unwrap();
    let mixed = [
        ("k", Case { k: case.k.clone(), ..there.clone() }),
        ("v", Case { v: case.v.clone(), ..there.clone() }),
        ("prefix k", Case { prefix: Some([prefix_k.clone(), prefix_v.clone()]), ..there.clone() }),
        ("prefix v", Case { prefix: Some([there_k, prefix_v.clone()]), ..there.clone() }),
        ("k", Case { q: case.q.clone(), ..there.clone() }),
    ];
    for (name, case) in mixed {
        let error = forward(&case.operands(), &case.shape).unwrap_err();
        assert!(matches!(error, Error::Place { what, .. } if what == name), "{error}");
    }
    let wide = Case::own(Kind::Causal, shape(1, 1, 257), &[3]).on(&device);
    let error = forward(&wide.operands(), &wide.shape).unwrap_err().to_string();
    assert_eq!(error, "attention: heads of 257 features, a device takes up to 256");
}

#[test]
fn heads_without_rows_cost_nothing_on_a_device() {
    let device = accelerator();
    let case = Case::own(Kind::Causal, shape(1 << 40, 1 << 40, 1), &[0, 0]).on(&device);
    assert!(case.forward().is_empty());
}
