//! Our side of the bench, as a contestant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};
use kernels::{Device, Tensor};
use model::Precision;
use model::captioner::{BlipConfig, Captioner, Generation};
use model::checkpoint::Checkpoint;
use model::weights;

use super::{Answer, Float, Order};
use crate::contest::serve;

/// Token ids are compared, so no text is decoded.
const TOKENIZER: &str = r#"{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"}}"#;

/// Answers commands until standard input ends.
pub(crate) fn contestant() -> Result<()> {
    let mut captioners: BTreeMap<(PathBuf, bool), Captioner> = BTreeMap::new();
    serve(|order: Order| {
        let Order::Caption { model, pixels, dtype, threads, max_tokens, repeats } = order else {
            bail!("only the twin makes checkpoints");
        };
        let pixels = weights::from_bytes_f32("pixels", &std::fs::read(pixels)?)?.get("pixels")?.clone();
        let key = (model.clone(), dtype == Float::Bf16);
        let device = Device::cpu(threads)?;
        device.run(|| {
            if !captioners.contains_key(&key) {
                captioners.insert(key.clone(), load(&model, dtype, &device)?);
            }
            answer(&captioners[&key], &pixels, max_tokens, repeats)
        })
    })
}

fn load(model: &Path, dtype: Float, device: &Device) -> Result<Captioner> {
    let precision = match dtype {
        Float::F32 => Precision::F32,
        Float::Bf16 => Precision::Bf16,
    };
    let tokenizer = TOKENIZER.parse().map_err(|e| anyhow::anyhow!("the tokenizer of the bench: {e}"))?;
    let (config, checkpoint) = (BlipConfig::load(model)?, Checkpoint::open(model)?);
    Ok(Captioner::from_source(config, &checkpoint, tokenizer, precision, device)?)
}

fn answer(captioner: &Captioner, pixels: &Tensor, max_tokens: usize, repeats: usize) -> Result<Answer> {
    let generation = Generation { max_tokens, ends: captioner.config().ends.clone() };
    let mut tokens = captioner.generate(pixels, &generation)?;
    let mut milliseconds = Vec::with_capacity(repeats);
    for _ in 0..repeats {
        let started = Instant::now();
        tokens = captioner.generate(pixels, &generation)?;
        milliseconds.push(started.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Answer { milliseconds, tokens })
}
