//! The shapes: those of real work, and small ones.

use serde_json::Value;

use super::{Case, Reading, captioner};

/// Shapes of a weight, `[d_out, d_in]`: those of Llama-2-7B.
const WEIGHTS: [[usize; 2]; 3] = [[4096, 4096], [11008, 4096], [4096, 11008]];
/// Rows of `x`.
const ROWS: [usize; 5] = [1, 16, 128, 2048, 16384];
/// Rows of training and of scoring, which are many.
const MANY_ROWS: [usize; 2] = [2048, 16384];
/// Sequences of attention, by a generator with a fixed seed: 700 to 1500 rows.
const LENGTHS: [usize; 16] = [1303, 756, 1021, 1467, 894, 1188, 739, 1365, 1092, 820, 1240, 968, 1431, 1147, 703, 1289];

/// Prompts of a training step of the ranker.
const TRAINED: [usize; 3] = [2, 6, 16];
/// Prompts that the ranker scores.
const SCORED: usize = 256;
/// Tokens of the instruction that all prompts of a job begin with.
const SHARED: usize = 120;

/// All cases in the shapes of real work, cheap ones of a group first.
pub(in super::super) fn real(sustained_s: f64, layers: usize) -> Vec<Case> {
    let mut cases = vec![Case::Copy { bytes: 4 << 30 }, Case::Product { size: 8192 }];
    cases.push(Case::Sustained { size: 8192, seconds: sustained_s });
    cases.extend(WEIGHTS.map(|[d_out, d_in]| Case::Nf4Dequantize { d_out, d_in }));
    for [d_out, d_in] in WEIGHTS {
        cases.extend(ROWS.map(|rows| Case::Nf4Product { d_out, d_in, rows }));
    }
    for [d_out, d_in] in WEIGHTS {
        cases.extend(MANY_ROWS.map(|rows| Case::Nf4InputGradient { d_out, d_in, rows }));
    }
    for [d_out, d_in] in WEIGHTS {
        cases.extend(MANY_ROWS.map(|rows| Case::Fp8Product { d_out, d_in, rows }));
    }
    cases.push(Case::Attention { lengths: LENGTHS.to_vec(), heads: 32, head_dim: 128 });
    cases.push(Case::AttentionBackward { lengths: LENGTHS.to_vec(), heads: 32, head_dim: 128 });
    cases.push(Case::RmsNorm { rows: 16384, cols: 4096 });
    cases.push(Case::Rope { rows: 16384, heads: 32, head_dim: 128 });
    cases.push(Case::Swiglu { rows: 16384, cols: 11008 });
    let scans = [(64, 50), (64, 200), (512, 200), (64, 1000), (8, 8192)];
    cases.extend(scans.map(|(sequences, length)| Case::Scan { sequences, length, state: 128 }));
    cases.extend([12_101, 57_289].map(|items| step(items, 50, 64)));
    cases.extend([12_101, 1_000_000, 10_000_000].map(|items| Case::Top { items, users: 4096, width: 64, k: 20 }));
    cases.push(captions("a small shape", captioner::small(), 64));
    cases.push(captions("BLIP-2-OPT-2.7b", captioner::blip2_opt(), 64));
    cases.extend(TRAINED.map(|prompts| Case::RankerStep(Reading::llama2_7b(layers, prompts))));
    cases.push(Case::RankerScores(Reading::llama2_7b(layers, SCORED)));
    cases.push(Case::RankerScores(Reading::llama2_7b(layers, SCORED).sharing(SHARED)));
    cases.push(Case::RankerScores(Reading::llama2_7b(layers, SCORED).sharing(SHARED).in_eight_bits()));
    cases
}

/// All cases in shapes that take seconds on the emulator.
pub(in super::super) fn tiny(sustained_s: f64) -> Vec<Case> {
    let (d_out, d_in) = (192, 128);
    let mut cases = vec![
        Case::Copy { bytes: 1 << 16 },
        Case::Product { size: 64 },
        Case::Sustained { size: 64, seconds: sustained_s },
    ];
    cases.push(Case::Nf4Dequantize { d_out, d_in });
    cases.extend([1, 16, 70].map(|rows| Case::Nf4Product { d_out, d_in, rows }));
    cases.extend([
        Case::Nf4InputGradient { d_out, d_in, rows: 20 },
        Case::Fp8Product { d_out, d_in, rows: 20 },
        Case::Attention { lengths: vec![5, 70], heads: 2, head_dim: 64 },
        Case::AttentionBackward { lengths: vec![5, 70], heads: 2, head_dim: 64 },
        Case::RmsNorm { rows: 9, cols: 128 },
        Case::Rope { rows: 9, heads: 2, head_dim: 64 },
        Case::Swiglu { rows: 9, cols: 128 },
        Case::Scan { sequences: 3, length: 20, state: 32 },
        step(150, 10, 4),
        Case::Top { items: 300, users: 3, width: 64, k: 20 },
        captions("a tiny shape", captioner::tiny(), 2),
        Case::RankerStep(Reading::tiny()),
        Case::RankerScores(Reading::tiny()),
        Case::RankerScores(Reading::tiny().sharing(4)),
        Case::RankerScores(Reading::tiny().sharing(4).in_eight_bits()),
    ]);
    cases
}

fn step(items: usize, max_length: usize, batch: usize) -> Case {
    Case::RetrieverStep { items, max_length, batch, folder: String::new() }
}

fn captions(name: &str, config: Value, images: usize) -> Case {
    Case::Captions { name: name.to_owned(), config, images, tokens: 20 }
}
