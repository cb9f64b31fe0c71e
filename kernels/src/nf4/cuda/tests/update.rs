//! Products with a low-rank update, in every regime.

use half::bf16;

use super::*;
use crate::Device;
use crate::testing::largest_error;

/// The factor of updates.
const SCALE: f32 = 0.75;

/// Factors of an update for the result of a pass, on the host.
fn factors(pass: Pass, [n, outputs]: [usize; 2], rank: usize) -> [Tensor; 2] {
    let right = if pass == Pass::Forward { [outputs, rank] } else { [rank, outputs] };
    [noise_tensor(5, &[n, rank]), noise_tensor(6, &right)]
}

/// What an update adds, in double precision, of factors that are rounded as its form says.
fn added(pass: Pass, [left, right]: &[Tensor; 2], form: impl Fn(f32) -> f32) -> Vec<f64> {
    let (rank, right_cols) = (left.cols(), right.cols());
    let [left, right] = [left.to_f32(), right.to_f32()];
    let outputs = right.len() / rank;
    let value = |o: usize, k: usize| match pass {
        Pass::Forward => right[o * rank + k],
        Pass::Backward => right[k * right_cols + o],
    };
    let dot = |row: &[f32], o| {
        let products = row.iter().enumerate().map(|(k, &v)| f64::from(form(SCALE * v)) * f64::from(form(value(o, k))));
        products.sum()
    };
    left.chunks_exact(rank).flat_map(|row| (0..outputs).map(move |o| dot(row, o))).collect()
}

/// Runs a product with an update, twice, on factors of a rank.
fn with_update(
    device: &Device,
    (pass, x, weight): (Pass, &Tensor, &Nf4Weight),
    factors: &[Tensor; 2],
    run: impl Fn(&Operands<'_>) -> Result<Tensor>,
) -> Tensor {
    let [left, right] = factors.each_ref().map(|factor| device.put(factor).unwrap());
    let update = LowRank { left: &left, right: &right, transposed: pass == Pass::Forward, scale: SCALE };
    let operands = Operands { update: Some(update), ..plain(pass, x, weight) };
    let found = run(&operands).unwrap();
    assert_eq!(found, run(&operands).unwrap(), "two calls");
    found
}

/// What both come to.
fn sums(products: Vec<f64>, updates: &[f64]) -> Vec<f64> {
    assert_eq!(products.len(), updates.len());
    products.iter().zip(updates).map(|(a, b)| a + b).collect()
}

#[test]
fn an_update_is_part_of_the_sums_of_a_few_rows() {
    let device = accelerator();
    let on = device.stream().unwrap();
    for (n, d_out, d_in, rank) in [(1, 33, 64, 1), (7, 40, 192, 4), (8, 31, 1088, 8), (9, 5, 64, 16), (16, 70, 128, 27)]
    {
        let [host, there] = weights(on, &[d_out, d_in], n % 2 == 0);
        let (x, factors) = (noise_tensor(4, &[n, d_in]).to_bf16(), factors(Pass::Forward, [n, d_out], rank));
        let put = device.put(&x).unwrap();
        let found = with_update(&device, (Pass::Forward, &put, &there), &factors, |o| by(on, o, Regime::Few));
        let products = wanted(Pass::Forward, &x, &host, Rounding::Bf16);
        rounded(&found, &sums(products, &added(Pass::Forward, &factors, |v| v)), &format!("{n} rows, rank {rank}"));
    }
    for (n, d_out, d_in, rank) in [(1, 1, 8, 1), (2, 17, 264, 8), (3, 16, 72, 33), (4, 33, 520, 70)] {
        let [host, there] = weights(on, &[d_out, d_in], n % 2 == 0);
        let (x, factors) = (noise_tensor(4, &[n, d_in]), factors(Pass::Forward, [n, d_out], rank));
        let put = device.put(&x).unwrap();
        let few = |o: &Operands<'_>| few::f32(on, o, Rounding::Bf16);
        let found = with_update(&device, (Pass::Forward, &put, &there), &factors, few);
        let wanted = sums(wanted(Pass::Forward, &x, &host, Rounding::Bf16), &added(Pass::Forward, &factors, |v| v));
        assert!(largest_error(&found.to_f32(), &wanted) < 1e-5, "{n} rows, rank {rank}");
    }
}

#[test]
fn an_update_is_part_of_the_sums_of_some_rows() {
    let device = accelerator();
    let on = device.stream().unwrap();
    let narrow = |v| bf16::from_f32(v).to_f32();
    let shapes = [
        (1, 8, 64, 1, 1),
        (7, 136, 320, 4, 3), // two tiles of outputs, of which the second is cut; the update is part of the first split
        (17, 40, 192, 8, 1),
        (33, 72, 128, 16, 2),
        (65, 200, 192, 24, 1), // both halves of the warps have terms
        (130, 24, 64, 35, 1),  // two tiles of tokens; a half has terms twice, the last ones are not four
    ];
    for (n, d_out, d_in, rank, splits) in shapes {
        let [host, there] = weights(on, &[d_out, d_in], n % 2 == 0);
        for (pass, cols) in [(Pass::Forward, d_in), (Pass::Backward, d_out)] {
            let x = noise_tensor(4, &[n, cols]).to_bf16();
            let factors = factors(pass, [n, pass.extents([d_out, d_in])[0]], rank);
            let put = device.put(&x).unwrap();
            let wanted = sums(wanted(pass, &x, &host, Rounding::Bf16), &added(pass, &factors, narrow));
            let fused = |o: &Operands<'_>| by(on, o, Regime::Fused { splits });
            let found = with_update(&device, (pass, &put, &there), &factors, fused);
            rounded(&found, &wanted, &format!("{pass:?} {n} x {d_out} x {d_in}, rank {rank} in {splits}"));
        }
    }
}

#[test]
fn products_with_the_decoded_weight_are_added_to_an_update() {
    let device = accelerator();
    let on = device.stream().unwrap();
    for (n, d_out, d_in, rank) in [(1, 1, 1, 1), (5, 200, 70, 8), (2, 130, 160, 3)] {
        let [host, there] = weights(on, &[d_out, d_in], true);
        for (pass, cols) in [(Pass::Forward, d_in), (Pass::Backward, d_out)] {
            let factors = factors(pass, [n, pass.extents([d_out, d_in])[0]], rank);
            let x = noise_tensor(4, &[n, cols]);
            let put = device.put(&x).unwrap();
            let products = sums(wanted(pass, &x, &host, Rounding::Bf16), &added(pass, &factors, |v| v));
            for most in [usize::MAX, 0] {
                let decoded = |o: &Operands<'_>| decoded::f32(on, o, Rounding::Bf16, most);
                let found = with_update(&device, (pass, &put, &there), &factors, decoded);
                assert!(largest_error(&found.to_f32(), &products) < 1e-5, "{pass:?} {n} x {d_out} x {d_in}");
            }
            // Factors and the update itself are rounded before the product is added.
            let x = x.to_bf16();
            let put = device.put(&x).unwrap();
            let products = sums(wanted(pass, &x, &host, Rounding::Bf16), &added(pass, &factors, |v| v));
            let at_once = with_update(&device, (pass, &put, &there), &factors, |o| decoded::bf16(on, o));
            let bands = with_update(&device, (pass, &put, &there), &factors, |o| decoded::bf16_in_bands(on, o, 0));
            for found in [at_once, bands] {
                assert!(largest_error(&found.to_f32(), &products) < 0.02, "{pass:?} {n} x {d_out} x {d_in}, narrow");
            }
        }
    }
}
