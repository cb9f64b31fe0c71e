//! Gradients against differences.

use super::*;
use crate::testing::{check_gradient, weighted_sum};

/// Every kind with short sequences, empty ones and blocks that are not full.
fn cases() -> Vec<Case> {
    let s = shape(4, 2, 3);
    vec![
        Case::own(Kind::Causal, s, &[3, 0, 1, 5]),
        Case::own(Kind::Causal, s, &[70]),
        Case::own(Kind::Full, s, &[4, 3]),
        Case::own(Kind::Full, s, &[66]),
        Case::cross(s, &[4, 2, 0, 3], &[2, 0, 3, 7]),
        Case::cross(s, &[1, 66], &[70, 3]),
    ]
}

fn check(case: &Case, name: &str, found: &Tensor, place: impl Fn(&mut Case) -> &mut Tensor) {
    let mut moved = case.clone();
    let at = place(&mut moved).clone();
    check_gradient(&format!("{:?} {name}", case.kind), &at, found, |value| {
        *place(&mut moved) = value.clone();
        weighted_sum(19, &moved.forward())
    });
}

fn check_own(case: &Case, [dq, dk, dv]: [&Tensor; 3]) {
    check(case, "dq", dq, |case| &mut case.q);
    check(case, "dk", dk, |case| &mut case.k);
    check(case, "dv", dv, |case| &mut case.v);
}

#[test]
fn of_sequences_agree_with_differences() {
    for case in cases() {
        check_own(&case, case.gradients(&noise_tensor(19, case.q.shape())).each_ref());
    }
}

#[test]
fn of_a_prefix_agree_with_differences() {
    for (case, rows) in cases().into_iter().flat_map(|case| [(case.clone(), 3), (case, 61)]) {
        let case = case.with_prefix(rows);
        let [dq, dk, dv, prefix_dk, prefix_dv] = case.all_gradients(&noise_tensor(19, case.q.shape()));
        check_own(&case, [&dq, &dk, &dv]);
        check(&case, "prefix dk", &prefix_dk, |case| &mut case.prefix.as_mut().unwrap()[0]);
        check(&case, "prefix dv", &prefix_dv, |case| &mut case.prefix.as_mut().unwrap()[1]);
    }
}

#[test]
fn of_a_prefix_are_added_to_what_is_there() {
    let case = Case::own(Kind::Causal, shape(2, 1, 3), &[2, 4]).with_prefix(3);
    let d_out = noise_tensor(19, case.q.shape());
    let [.., from_zero_k, from_zero_v] = case.all_gradients(&d_out);
    let (out, saved) = forward(&case.operands(), &case.shape).unwrap();
    let [mut dk, mut dv] = [7, 8].map(|seed| noise_tensor(seed, &[3, 3]));
    let asked = PrefixGradient { dk: &mut dk, dv: &mut dv };
    backward(&d_out, &case.operands(), &out, &saved, &case.shape, Some(asked)).unwrap();
    for (found, seed, from_zero) in [(dk, 7, from_zero_k), (dv, 8, from_zero_v)] {
        let pairs = noise_tensor(seed, &[3, 3]).to_f32().into_iter().zip(from_zero.to_f32());
        let wanted: Vec<f64> = pairs.map(|(before, added)| f64::from(before) + f64::from(added)).collect();
        assert!(largest_error(found.f32().unwrap(), &wanted) < 1e-6);
    }
}

#[test]
fn of_many_sequences_sum_up_in_the_prefix() {
    let lengths: Vec<usize> = (0..37).map(|i| i * 5 % 9).collect();
    let case = Case::own(Kind::Causal, shape(2, 1, 4), &lengths).with_prefix(5);
    let d_out = noise_tensor(19, case.q.shape());
    let [.., dk, dv] = case.all_gradients(&d_out);
    let mut sums = [vec![0.0f64; dk.len()], vec![0.0; dv.len()]];
    for (i, &len) in lengths.iter().enumerate() {
        let part = |t: &Tensor| rows_of(t, case.queries.range(i));
        let own = Case::own(Kind::Causal, case.shape, &[len]);
        let alone = Case { q: part(&case.q), k: part(&case.k), v: part(&case.v), prefix: case.prefix.clone(), ..own };
        let [.., dk, dv] = alone.all_gradients(&part(&d_out));
        for (sum, part) in sums.iter_mut().zip([dk, dv]) {
            sum.iter_mut().zip(part.f32().unwrap()).for_each(|(sum, &x)| *sum += f64::from(x));
        }
    }
    assert!(largest_error(dk.f32().unwrap(), &sums[0]) < 1e-5);
    assert!(largest_error(dv.f32().unwrap(), &sums[1]) < 1e-5);
}

#[test]
fn of_rows_without_keys_and_of_keys_without_rows_are_zero() {
    let case = Case::cross(shape(2, 1, 4), &[3, 0, 5], &[0, 4, 0]);
    assert!(case.forward().f32().unwrap().iter().all(|&x| x == 0.0));
    for gradient in case.gradients(&noise_tensor(19, case.q.shape())) {
        assert!(gradient.f32().unwrap().iter().all(|&x| x == 0.0));
    }
}
