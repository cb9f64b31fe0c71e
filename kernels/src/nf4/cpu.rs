//! Quantising: blocks are independent, chunks of them go to the threads.

use rayon::prelude::*;

use super::{BLOCK, CODE, Magnitudes, NESTED_BLOCK, dynamic_code};

/// Blocks of one task.
const TASK: usize = 256;

/// Codes and plain magnitudes.
pub(super) fn quantize(values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let mut codes = vec![0u8; values.len().div_ceil(2)];
    let mut magnitudes = vec![0.0f32; values.len().div_ceil(BLOCK)];
    let tasks = codes.par_chunks_mut(TASK * BLOCK / 2).zip(magnitudes.par_chunks_mut(TASK));
    tasks.zip(values.par_chunks(TASK * BLOCK)).for_each(|((codes, magnitudes), values)| {
        let blocks = codes.chunks_mut(BLOCK / 2).zip(magnitudes).zip(values.chunks(BLOCK));
        blocks.for_each(|((codes, magnitude), values)| *magnitude = quantize_block(values, codes));
    });
    (codes, magnitudes)
}

fn quantize_block(values: &[f32], codes: &mut [u8]) -> f32 {
    let magnitude = largest(values);
    let inverse = if magnitude > 0.0 { 1.0 / magnitude } else { 0.0 };
    for (byte, pair) in codes.iter_mut().zip(values.chunks(2)) {
        let first = nearest(&CODE, pair[0] * inverse);
        let second = nearest(&CODE, pair.get(1).copied().unwrap_or(0.0) * inverse);
        *byte = (first << 4 | second) as u8;
    }
    magnitude
}

/// Double quantisation of the magnitudes.
pub(super) fn quantize_magnitudes(magnitudes: &[f32]) -> Magnitudes {
    let sum: f64 = magnitudes.iter().map(|&m| f64::from(m)).sum();
    let offset = (sum / magnitudes.len().max(1) as f64) as f32;
    let centred: Vec<f32> = magnitudes.iter().map(|m| m - offset).collect();
    let (mut codes, mut scales) = (Vec::with_capacity(centred.len()), Vec::new());
    for block in centred.chunks(NESTED_BLOCK) {
        let scale = largest(block);
        let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
        codes.extend(block.iter().map(|m| nearest(dynamic_code(), m * inverse) as u8));
        scales.push(scale);
    }
    Magnitudes::Double { codes, scales, offset }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |top, v| if v.abs() > top { v.abs() } else { top })
}

/// The index of the value of an ascending table that is nearest to `x`; the lower one if two are equally near.
fn nearest(table: &[f32], x: f32) -> usize {
    let above = table.partition_point(|&t| t < x).clamp(1, table.len() - 1);
    if (x - table[above - 1]).abs() <= (table[above] - x).abs() { above - 1 } else { above }
}
