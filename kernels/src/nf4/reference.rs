//! Nearest code by trying all of them.

use super::{BLOCK, CODE};

pub(super) fn codes(values: &[f32]) -> Vec<u8> {
    let mut codes = Vec::new();
    for block in values.chunks(BLOCK) {
        let magnitude = block.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        for &value in block {
            let x = if magnitude > 0.0 { value * (1.0 / magnitude) } else { 0.0 };
            let distance = |i: &usize| (x - CODE[*i]).abs();
            let best = (0..16).min_by(|a, b| distance(a).total_cmp(&distance(b))).expect("there are 16 codes");
            codes.push(best as u8);
        }
    }
    codes
}
