//! Rows in parallel, elements in vector lanes.

use half::{bf16, f16};
use rayon::prelude::*;

use super::Strand;
use crate::simd::{self, lanes, vectorised};
use crate::{Dtype, Result, Tensor};

pub(super) fn concat(parts: &[Tensor], shape: &[usize]) -> Result<Tensor> {
    let len = shape.iter().product();
    match parts[0].dtype() {
        Dtype::F32 => Tensor::from_f32(shape, joined(parts.iter().map(Tensor::f32), len)?),
        Dtype::Bf16 => Tensor::from_bf16(shape, joined::<bf16>(parts.iter().map(Tensor::bf16), len)?),
        Dtype::F16 => Tensor::from_f16(shape, joined::<f16>(parts.iter().map(Tensor::f16), len)?),
        Dtype::U8 => Tensor::from_u8(shape, joined(parts.iter().map(Tensor::u8), len)?),
    }
}

fn joined<'a, T: Copy + 'a>(parts: impl Iterator<Item = Result<&'a [T]>>, len: usize) -> Result<Vec<T>> {
    let mut all = Vec::with_capacity(len);
    for part in parts {
        all.extend_from_slice(part?);
    }
    Ok(all)
}

pub(super) fn weave(strands: &[Strand<'_>], shape: &[usize]) -> Result<Tensor> {
    let d = shape[1];
    let each: usize = strands.iter().map(|strand| strand.each).sum();
    let parts = strands.iter().map(|strand| Ok((strand.rows.f32()?, strand.each * d))).collect::<Result<Vec<_>>>()?;
    let mut woven = Tensor::dirty(shape);
    woven.f32_mut()?.par_chunks_mut((each * d).max(1)).enumerate().for_each(|(group, mut into)| {
        for &(rows, len) in &parts {
            let begin = if rows.len() == len { 0 } else { group * len };
            let (own, rest) = into.split_at_mut(len);
            own.copy_from_slice(&rows[begin..begin + len]);
            into = rest;
        }
    });
    Ok(woven)
}

pub(super) fn add_repeated(x: &mut [f32], rows: &[f32]) {
    if !rows.is_empty() {
        x.par_chunks_mut(rows.len()).for_each(|x| simd::add(x, rows));
    }
}

pub(super) fn largest(x: &[f32], d: usize) -> Vec<u32> {
    x.par_chunks(d.max(1)).map(largest_of).collect()
}

vectorised! {
    fn largest_of(row: &[f32]) -> u32 {
        let largest = lanes::max(row);
        row.iter().position(|&v| v == largest).unwrap_or(0) as u32
    }
}
