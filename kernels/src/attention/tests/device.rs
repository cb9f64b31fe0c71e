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
fn shapes() -> [Shape; 4] {
    [shape(4, 2, 8), shape(3, 1, 5), shape(2, 2, 64), shape(1, 1, 88)]
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
        near(&forward_bf16(&case.operands(), &case.shape).unwrap(), &wanted, 6e-3);
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

#[test]
fn gradients_on_a_device_agree_with_those_of_the_host() {
    let device = accelerator();
    for case in all_cases() {
        println!("{}", name(&case));
        let d_out = noise_tensor(39, case.q.shape());
        let (there, d_out_there) = (case.on(&device), device.put(&d_out).unwrap());
        let (wanted, found) = match case.prefix {
            Some(_) => (case.all_gradients(&d_out).to_vec(), there.all_gradients(&d_out_there).to_vec()),
            None => (case.gradients(&d_out).to_vec(), there.gradients(&d_out_there).to_vec()),
        };
        found.iter().zip(&wanted).for_each(|(found, wanted)| near(found, wanted, 4e-6));
    }
}

/// The gradients of a case in bfloat16, in f32 with those of the prefix where there is one.
fn gradients_bf16(case: &Case, d_out: &Tensor) -> Vec<Tensor> {
    let (out, saved) = forward_bf16_saved(&case.operands(), &case.shape).unwrap();
    let mut d_prefix = case.prefix.as_ref().map(|prefix| prefix.each_ref().map(|t| t.zeros_like().unwrap()));
    let asked = d_prefix.as_mut().map(|[dk, dv]| PrefixGradient { dk, dv });
    let (dq, dk, dv) = backward_bf16(d_out, &case.operands(), &out, &saved, &case.shape, asked).unwrap();
    [dq, dk, dv].into_iter().chain(d_prefix.into_iter().flatten()).collect()
}

#[test]
fn gradients_in_bfloat16_on_a_device_agree_with_those_of_the_host() {
    let device = accelerator();
    for case in all_cases().iter().map(Case::narrow) {
        println!("{}", name(&case));
        let d_out = noise_tensor(39, case.q.shape()).to_bf16();
        let wanted = gradients_bf16(&case, &d_out);
        let found = gradients_bf16(&case.on(&device), &device.put(&d_out).unwrap());
        assert_eq!(found.len(), wanted.len());
        found.iter().zip(&wanted).for_each(|(found, wanted)| near(found, wanted, 1e-2));
    }
}

#[test]
fn gradients_of_many_sequences_sum_up_in_the_prefix_on_a_device() {
    let device = accelerator();
    let lengths: Vec<usize> = (0..37).map(|i| i * 5 % 9).collect();
    let case = Case::own(Kind::Causal, shape(2, 1, 4), &lengths).with_prefix(5);
    let (out, saved) = forward(&case.operands(), &case.shape).unwrap();
    let before = [7, 8].map(|seed| noise_tensor(seed, &[5, 4]));
    let (out, d_out) = (device.put(&out).unwrap(), noise_tensor(39, case.q.shape()));
    let run = |case: &Case, d_out: &Tensor, place: &dyn Fn(&Tensor) -> Tensor| {
        let (out, saved) = forward(&case.operands(), &case.shape).unwrap();
        let [mut dk, mut dv] = before.each_ref().map(place);
        let asked = PrefixGradient { dk: &mut dk, dv: &mut dv };
        backward(d_out, &case.operands(), &out, &saved, &case.shape, Some(asked)).unwrap();
        [dk, dv]
    };
    let wanted = run(&case, &d_out, &Tensor::clone);
    let there = case.on(&device);
    let d_out = device.put(&d_out).unwrap();
    let found = run(&there, &d_out, &|t| device.put(t).unwrap());
    found.iter().zip(&wanted).for_each(|(found, wanted)| near(found, wanted, 1e-5));
    let (narrow, d_narrow) = (case.narrow(), d_out.to_host().unwrap().to_bf16());
    let found = gradients_bf16(&narrow.on(&device), &device.put(&d_narrow).unwrap());
    let wanted = gradients_bf16(&narrow, &d_narrow);
    found.iter().zip(&wanted).for_each(|(found, wanted)| near(found, wanted, 1e-2));

    let error = backward(&d_out, &there.operands(), &out, &saved, &case.shape, None).unwrap_err();
    assert!(matches!(error, Error::Place { what: "saved", .. }), "{error}");
    let [mut dk, mut dv] = before;
    let (out, saved) = forward(&there.operands(), &case.shape).unwrap();
    let asked = PrefixGradient { dk: &mut dk, dv: &mut dv };
    let error = backward(&d_out, &there.operands(), &out, &saved, &case.shape, Some(asked)).unwrap_err();
    assert!(matches!(error, Error::Place { what: "prefix dk", .. }), "{error}");
}

/// Whether logarithms are near each other; those of nothing are infinite.
fn same_log_sums(found: &Tensor, wanted: &Tensor) -> bool {
    let pairs = found.to_f32().into_iter().zip(wanted.to_f32());
    found.shape() == wanted.shape() && pairs.into_iter().all(|(f, w)| f == w || (f - w).abs() < 2e-6 * w.abs().max(1.0))
}

/// What a device computes of a case, brought to the host: the f32 and the bfloat16 result and the gradients of queries,
/// keys and values in both.
fn device_bits(case: &Case, d_out: &Tensor, device: &Device) -> [Tensor; 8] {
    let (wide, narrow) = (case.on(device), case.narrow().on(device));
    let [dq, dk, dv] = wide.gradients(&device.put(d_out).unwrap());
    let (out, rounded) = (wide.forward(), forward_bf16(&narrow.operands(), &case.shape).unwrap());
    let mut narrow = gradients_bf16(&narrow, &device.put(&d_out.to_bf16()).unwrap()).into_iter();
    let [rounded_dq, rounded_dk, rounded_dv] = std::array::from_fn(|_| narrow.next().unwrap());
    let results = [out, rounded, dq, rounded_dq, dk, dv, rounded_dk, rounded_dv];
    results.map(|t| Tensor::from_f32(t.shape(), t.to_f32()).unwrap())
}

#[test]
fn a_sequence_has_the_same_bits_in_any_company_on_a_device() {
    let device = accelerator();
    for case in cases(shape(2, 1, 8)) {
        let d_out = noise_tensor(39, case.q.shape());
        let together = device_bits(&case, &d_out, &device);
        assert_eq!(together, device_bits(&case, &d_out, &device));
        for sequence in 0..case.queries.len() {
            let (queries, keys) = (case.queries.range(sequence), case.keys.range(sequence));
            let by_query: Vec<_> = together[..4].iter().map(|t| rows_of(t, queries.clone())).collect();
            let by_key: Vec<_> = together[4..].iter().map(|t| rows_of(t, keys.clone())).collect();
            let d_out = rows_of(&d_out, queries);
            let found = device_bits(&alone(&case, sequence), &d_out, &device);
            assert_eq!(found[..4], by_query, "{}", name(&case));
            assert_eq!(found[4..], by_key, "{}", name(&case));
        }
    }
}

#[test]
fn a_shared_prefix_gives_the_bits_of_a_repeated_one_on_a_device() {
    let device = accelerator();
    let shared = Case::own(Kind::Causal, shape(2, 1, 8), &[1, 66]).with_prefix(70);
    let repeated = shared.repeated();
    let found = device_bits(&shared, &shared.q, &device);
    let wanted = device_bits(&repeated, &repeated.q, &device).map(|t| without(70, &t, &repeated.queries));
    assert_eq!(found[..6], wanted[..6]);
}

#[test]
fn what_is_not_a_number_stays_in_its_sequence_on_a_device() {
    let device = accelerator();
    let case = Case::own(Kind::Full, shape(2, 1, 8), &[3, 5]);
    let (good, mut spoiled) = (device_bits(&case, &case.q, &device), case.clone());
    for bad in [f32::NAN, f32::INFINITY] {
        spoiled.v.f32_mut().unwrap()[4 * 8] = bad;
        let found = device_bits(&spoiled, &case.q, &device);
        found.iter().zip(&good).for_each(|(found, wanted)| assert_eq!(rows_of(found, 0..3), rows_of(wanted, 0..3)));
        for found in &found[..2] {
            assert!(rows_of(found, 3..8).to_f32().chunks(8).all(|row| !row[0].is_finite()));
        }
    }
    // A key of -∞ weighs nothing beside others, and alone makes NaN.
    let case = Case::cross(shape(1, 1, 8), &[1, 1], &[1, 2]);
    let positive =
        |t: &Tensor| Tensor::from_f32(t.shape(), t.to_f32().iter().map(|v| v.abs() + 0.1).collect()).unwrap();
    let mut spoiled = Case { q: positive(&case.q), ..case };
    spoiled.k.f32_mut().unwrap()[..16].fill(f32::NEG_INFINITY);
    for found in &device_bits(&spoiled, &spoiled.q, &device)[..2] {
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
fn where_there_is_nothing_gradients_are_zero_on_a_device() {
    let device = accelerator();
    let s = shape(2, 1, 8);
    let behind_nothing = Case::own(Kind::Causal, s, &[5]).with_prefix(0);
    let without_queries = Case::cross(s, &[0, 0], &[5, 0]).with_prefix(3);
    for (case, narrow) in [behind_nothing, without_queries].map(|case| (case.clone(), case.narrow())) {
        let d_out = noise_tensor(39, case.q.shape());
        let found = case.on(&device).all_gradients(&device.put(&d_out).unwrap());
        found.iter().zip(&case.all_gradients(&d_out)).for_each(|(found, wanted)| near(found, wanted, 4e-6));
        let found = gradients_bf16(&narrow.on(&device), &device.put(&d_out.to_bf16()).unwrap());
        let wanted = gradients_bf16(&narrow, &d_out.to_bf16());
        found.iter().zip(&wanted).for_each(|(found, wanted)| near(found, wanted, 1e-2));
    }
}

#[test]
fn heads_without_rows_cost_nothing_on_a_device() {
    let device = accelerator();
    let case = Case::own(Kind::Causal, shape(1 << 40, 1 << 40, 1), &[0, 0]).on(&device);
    assert!(case.forward().is_empty());
}
