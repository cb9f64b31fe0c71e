//! What the contestants of a ranker's case share: prompts, settings, and weights that four bits hold exactly.

use std::path::Path;

use anyhow::{Context, Result};
use data::examples::Rng;
use kernels::Tensor;
use kernels::nf4::{self, BLOCK, Rounding};
use model::checkpoint::TensorSource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::case::Reading;
use super::noise;

/// What the files of a problem are called.
const FILES: [&str; 2] = ["problem.json", "stock.f32"];
/// Labels that a prompt is scored for.
const LABELS: u32 = 20;
/// Blocks of the stock: a prime, so that a weight's rows are all different.
const BLOCKS: usize = 65_537;
/// The largest value of every block, a power of two. The deviation of all values is about 0.024.
const MAGNITUDE: f32 = 0.0625;
/// How far gains are from one, in values of the stock.
const GAIN: f32 = 4.0;

/// Prompts and settings; the twin reads the same.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Problem {
    pub(super) config: Value,
    /// Of one token more than a case's lengths say: the last one is an answer only.
    pub(super) texts: Vec<Vec<u32>>,
    /// So many tokens all texts begin with.
    pub(super) shared: usize,
    /// Tokens that are scored.
    pub(super) labels: Vec<u32>,
    pub(super) rank: usize,
    pub(super) alpha: f32,
    pub(super) learning_rate: f32,
    pub(super) max_grad_norm: f64,
    pub(super) micro_batch_tokens: usize,
}

impl Problem {
    /// Random tokens, and the settings of QLoRA's recipe without dropout, which every library draws in its own way.
    pub(super) fn new(reading: &Reading) -> Self {
        let vocabulary = reading.config["vocab_size"].as_u64().unwrap_or(1);
        let text = |(i, &length): (usize, &usize)| {
            let (mut own, mut all) = (Rng::keyed(&[5, i as u64]), Rng::keyed(&[5]));
            let mut token = |at| if at < reading.shared { &mut all } else { &mut own }.below(vocabulary) as u32;
            (0..=length).map(&mut token).collect()
        };
        let first = vocabulary as u32 / 2;
        Self {
            config: reading.config.clone(),
            texts: reading.lengths.iter().enumerate().map(text).collect(),
            shared: reading.shared,
            labels: (first..first + LABELS).collect(),
            rank: 8,
            alpha: 32.0,
            learning_rate: 1e-4,
            max_grad_norm: 1.0,
            micro_batch_tokens: reading.micro_batch_tokens,
        }
    }

    /// Writes the problem and the stock of its weights.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let [problem, stock] = FILES.map(|name| folder.join(name));
        std::fs::write(problem, serde_json::to_vec(self)?)?;
        let bytes: Vec<u8> = stock_of_weights()?.iter().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(&stock, bytes).with_context(|| format!("cannot write {}", stock.display()))
    }

    /// What [`Problem::write`] wrote.
    pub(super) fn read(folder: &Path) -> Result<(Self, Weights)> {
        let [problem, stock] = FILES.map(|name| folder.join(name));
        let bytes = std::fs::read(&stock).with_context(|| format!("cannot read {}", stock.display()))?;
        let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        Ok((serde_json::from_slice(&std::fs::read(problem)?)?, Weights(values)))
    }
}

/// Normals as four bits round them, in blocks of the same magnitude; then bfloat16 holds them too.
///
/// All contestants, whether they hold weights in four bits or decoded, have the same network then, and what comes out of it
/// can be compared.
fn stock_of_weights() -> Result<Vec<f32>> {
    let mut values = noise::normals(6, BLOCKS * BLOCK, 1.0);
    for block in values.chunks_mut(BLOCK) {
        let most = block.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        block.iter_mut().for_each(|v| *v /= most);
    }
    let packed = nf4::quantize(&Tensor::from_f32(&[BLOCKS, BLOCK], values)?, false)?;
    let codes = nf4::dequantize(&packed, Rounding::Bf16)?;
    Ok(codes.f32()?.iter().map(|code| code * MAGNITUDE).collect())
}

/// Weights of any name and shape: runs of one stock, each from a block that the name tells.
pub(super) struct Weights(Vec<f32>);

impl Weights {
    fn take(&self, name: &str, n: usize) -> Vec<f32> {
        let key = name.bytes().fold(0, |key: u64, byte| key.wrapping_mul(31).wrapping_add(u64::from(byte)));
        let mut begin = (key % BLOCKS as u64) as usize * BLOCK;
        let mut values = Vec::with_capacity(n);
        while values.len() < n {
            let end = self.0.len().min(begin + n - values.len());
            values.extend_from_slice(&self.0[begin..end]);
            begin = 0;
        }
        values
    }
}

impl TensorSource for Weights {
    fn tensor(&self, name: &str) -> model::Result<Tensor> {
        Err(model::Error::MissingTensor { name: name.to_owned() })
    }

    fn shaped(&self, name: &str, shape: &[usize]) -> model::Result<Tensor> {
        let values = self.take(name, shape.iter().product());
        if name.contains("norm") {
            let gains = Tensor::from_f32(shape, values.iter().map(|v| 1.0 + GAIN * v).collect())?.to_bf16();
            return Ok(Tensor::from_f32(shape, gains.to_f32())?);
        }
        Ok(Tensor::from_f32(shape, values)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn four_bits_hold_the_weights_exactly() {
        let weights = Weights(stock_of_weights().unwrap());
        let weight = weights.shaped("model.layers.1.mlp.up_proj.weight", &[300, 256]).unwrap();
        for double in [false, true] {
            let packed = nf4::quantize(&weight, double).unwrap();
            assert_eq!(nf4::dequantize(&packed, Rounding::Bf16).unwrap(), weight, "double {double}");
        }
        assert_eq!(weight.to_bf16().to_f32(), weight.to_f32());
        let deviation = (weight.to_f32().iter().map(|v| v * v).sum::<f32>() / weight.len() as f32).sqrt();
        assert!((0.02..0.03).contains(&deviation), "{deviation}");
        let rows: std::collections::BTreeSet<Vec<u32>> =
            weight.to_f32().chunks(256).map(|row| row.iter().map(|v| v.to_bits()).collect()).collect();
        assert_eq!(rows.len(), 300);
    }

    #[test]
    fn what_is_longer_than_the_stock_goes_through_it_again() {
        let weights = Weights((0..BLOCKS * BLOCK).map(|i| i as f32).collect());
        let stock = BLOCKS * BLOCK;
        let values = weights.take("model.embed_tokens.weight", 2 * stock + 7);
        assert_eq!(values.len(), 2 * stock + 7);
        assert_eq!(values[0] as usize % BLOCK, 0);
        assert!((0..values.len()).all(|i| values[i] as usize == (values[0] as usize + i) % stock));
        assert_ne!(values[0], weights.take("lm_head.weight", 1)[0]);
    }
}
