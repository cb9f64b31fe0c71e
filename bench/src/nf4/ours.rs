//! Our side of the bench, as a contestant.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Instant;

use anyhow::Result;
use data::examples::Rng;
use kernels::nf4::{self, Nf4Weight, Rounding};
use kernels::{Device, Dtype, Tensor};

use super::{Answer, Case, Float, Order, Path};
use crate::contest::serve;

/// Answers commands until standard input ends.
pub(crate) fn contestant() -> Result<()> {
    let mut devices: BTreeMap<usize, Device> = BTreeMap::new();
    let mut weights: BTreeMap<[usize; 2], Nf4Weight> = BTreeMap::new();
    serve(|order: Order| {
        let Case { threads, d_out, d_in, .. } = order.case;
        let device = match devices.entry(threads) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(Device::cpu(threads)?),
        };
        let weight = match weights.entry([d_out, d_in]) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(nf4::quantize(&noise(&[d_out, d_in], 0.02)?, true)?),
        };
        device.run(|| answer(&order, weight))
    })
}

fn answer(order: &Order, weight: &Nf4Weight) -> Result<Answer> {
    let case = order.case;
    let x = noise(&[case.rows, case.d_in], 1.0)?;
    let (x, dtype) = match case.dtype {
        Float::F32 => (x, Dtype::F32),
        Float::Bf16 => (x.to_bf16(), Dtype::Bf16),
    };
    let work = || match case.path {
        Path::Dequantize => nf4::dequantize_to(weight, dtype),
        Path::Product | Path::Fused => nf4::linear(&x, weight, Rounding::F32),
    };
    work()?;
    let mut milliseconds = Vec::with_capacity(order.repeats);
    for _ in 0..order.repeats {
        let started = Instant::now();
        work()?;
        milliseconds.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Answer { milliseconds })
}

/// Values around zero.
fn noise(shape: &[usize], size: f32) -> Result<Tensor> {
    let mut rng = Rng::keyed(&[1]);
    let values = (0..shape.iter().product()).map(|_| (rng.unit() as f32 - 0.5) * 2.0 * size).collect();
    Ok(Tensor::from_f32(shape, values)?)
}
