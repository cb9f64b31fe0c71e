//! The weights of a network: what is frozen, perhaps in four bits, and what is trained.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use kernels::{
    Device, Dtype, Tensor,
    fp8::{self, Fp8Rows},
    nf4::{self, Nf4Weight, Rounding},
};

use super::{
    config::LlamaConfig,
    linear::Linear,
    lora::{LoraOptions, initial_a},
    options::{Dequantize, Quantize, RankerOptions, Trainable},
};
use crate::{
    Error, Precision, Result,
    checkpoint::{StoredNf4, TensorSource},
    params::Params,
};

/// The embedding table.
pub(crate) const EMBEDDINGS: &str = "model.embed_tokens.weight";
/// The gain of the last norm.
pub(crate) const FINAL_NORM: &str = "model.norm.weight";
/// The output projection, unless it is the embedding table.
pub(crate) const HEAD: &str = "lm_head.weight";

/// Decoded weights of more than this stay in four bits between uses where nobody says how much memory is free.
const DECODED_LIMIT_BYTES: u64 = 2 << 30;

/// A weight that is not trained.
#[derive(Debug)]
pub(crate) enum Frozen {
    Dense(Tensor),
    /// In four bits, and how its values are rounded when they are decoded.
    Nf4(Box<Nf4Weight>, Rounding),
    /// In eight bits, for scoring.
    Fp8(Fp8Rows),
}

/// All weights of a network.
#[derive(Debug)]
pub(crate) struct Weights {
    pub(crate) frozen: BTreeMap<String, Frozen>,
    /// Checksums of the codes of what came in four bits, whether it has been decoded or not.
    packed: BTreeMap<String, u64>,
    precision: Precision,
    pub(crate) trainable: Params,
    pub(crate) lora: Option<LoraOptions>,
}

impl Weights {
    /// Reads every weight to a device, layer by layer, quantising while it reads. Options say for certain when weights are
    /// decoded.
    pub(crate) fn load(
        config: &LlamaConfig,
        linears: &[&Linear],
        source: &dyn TensorSource,
        options: &RankerOptions,
        device: &Device,
    ) -> Result<Self> {
        let mut weights = Self {
            frozen: BTreeMap::new(),
            packed: BTreeMap::new(),
            precision: options.precision,
            trainable: Params::new(),
            lora: None,
        };
        let full = matches!(options.trainable, Trainable::Full);
        for (name, shape) in dense_shapes(config) {
            weights.add(&name, device.put(&source.shaped(&name, &shape)?)?, full);
        }
        let decode = options.dequantize == Dequantize::Once;
        let dtype = if full { Dtype::F32 } else { options.precision.dtype() };
        for linear in linears {
            if let Some(bias) = &linear.bias {
                weights.add(bias, device.put(&source.shaped(bias, &[linear.d_out])?)?, full);
            }
            let shape = [linear.d_out, linear.d_in];
            match options.quantize {
                Quantize::None => {
                    let weight = source.shaped(&linear.weight, &shape)?.cast(dtype)?;
                    weights.add(&linear.weight, device.put(&weight)?, full);
                }
                Quantize::Nf4 => {
                    let (packed, rounding) = four_bits(source, &linear.weight, &shape)?;
                    weights.packed.insert(linear.weight.clone(), checksum(|hasher| hasher.write(packed.codes())));
                    let packed = packed.on(device)?;
                    let frozen = if decode {
                        Frozen::Dense(decoded(&packed, rounding, dtype)?)
                    } else {
                        Frozen::Nf4(Box::new(packed), rounding)
                    };
                    weights.frozen.insert(linear.weight.clone(), frozen);
                }
            }
        }
        if let Trainable::Lora(lora) = &options.trainable {
            weights.begin_lora(lora, linears, options.seed)?;
        }
        Ok(weights)
    }

    /// Puts fresh low-rank updates in place: they change nothing until they are trained.
    pub(crate) fn begin_lora(&mut self, lora: &LoraOptions, linears: &[&Linear], seed: u64) -> Result<()> {
        let mut trainable = Params::new();
        for linear in linears.iter().filter(|l| lora.targets.contains(&l.projection)) {
            let a = initial_a(seed, &linear.lora_a, lora.rank, linear.d_in)?;
            let place = self.dense(EMBEDDINGS)?;
            let (a, b) = (a.beside(place)?, Tensor::zeros(&[linear.d_out, lora.rank]).beside(place)?);
            trainable.insert(&*linear.lora_a, a);
            trainable.insert(&*linear.lora_b, b);
        }
        self.trainable = trainable;
        self.lora = Some(lora.clone());
        Ok(())
    }

    /// Cuts every linear layer to eight bits, one by one.
    pub(crate) fn cut_to_fp8(&mut self, linears: &[&Linear]) -> Result<()> {
        let dtype = self.precision.dtype();
        for linear in linears {
            let Some(frozen) = self.frozen.get_mut(&linear.weight) else {
                return Err(Error::Config(
                    "what is trained is not cut to eight bits: save it, and load it to score".to_owned(),
                ));
            };
            let cut = match frozen {
                Frozen::Dense(weight) => fp8::quantize_weight(weight),
                Frozen::Nf4(packed, rounding) => fp8::quantize_weight(&decoded(packed, *rounding, dtype)?),
                Frozen::Fp8(_) => continue,
            };
            *frozen = Frozen::Fp8(cut.map_err(|e| match e {
                kernels::Error::Setting { what, .. } => {
                    Error::Config(format!("{} in eight bits: {what}", linear.weight))
                }
                e => e.into(),
            })?);
        }
        Ok(())
    }

    /// A checksum of what is frozen and of what products are made of; when four bits are decoded makes no difference.
    pub(crate) fn fingerprint(&self) -> Result<u64> {
        let mut hasher = DefaultHasher::new();
        self.precision.hash(&mut hasher);
        for (name, weight) in &self.frozen {
            name.hash(&mut hasher);
            if let Some(codes) = self.packed.get(name) {
                hasher.write_u64(*codes);
            } else if let Frozen::Dense(tensor) = weight {
                let tensor = tensor.to_host()?;
                match tensor.dtype() {
                    Dtype::Bf16 => tensor.bf16()?.iter().for_each(|x| hasher.write_u16(x.to_bits())),
                    _ => tensor.f32()?.iter().for_each(|x| hasher.write_u32(x.to_bits())),
                }
            }
        }
        Ok(hasher.finish())
    }

    fn add(&mut self, name: &str, tensor: Tensor, trainable: bool) {
        if trainable {
            self.trainable.insert(name, tensor);
        } else {
            self.frozen.insert(name.to_owned(), Frozen::Dense(tensor));
        }
    }

    /// A weight that is never quantised.
    pub(crate) fn dense(&self, name: &str) -> Result<&Tensor> {
        match self.frozen.get(name) {
            Some(Frozen::Dense(tensor)) => Ok(tensor),
            _ => self.trainable.get(name),
        }
    }

    /// The output projection: the embedding table where the two are tied.
    pub(crate) fn head_name(config: &LlamaConfig) -> &'static str {
        if config.tied_embeddings { EMBEDDINGS } else { HEAD }
    }
}

fn checksum(of: impl FnOnce(&mut DefaultHasher)) -> u64 {
    let mut hasher = DefaultHasher::new();
    of(&mut hasher);
    hasher.finish()
}

/// When weights in four bits are decoded on a device with so many free bytes: once if they take no more than half of them.
pub(crate) fn when_decoded(options: &RankerOptions, linears: &[&Linear], free: Option<u64>) -> Dequantize {
    let weights: usize = linears.iter().map(|l| l.d_in * l.d_out).sum();
    let decoded = (weights * options.precision.dtype().bytes()) as u64;
    match options.dequantize {
        Dequantize::Auto if decoded <= free.map_or(DECODED_LIMIT_BYTES, |free| free / 2) => Dequantize::Once,
        Dequantize::Auto => Dequantize::PerUse,
        said => said,
    }
}

/// The values of a weight in four bits.
fn decoded(packed: &Nf4Weight, rounding: Rounding, dtype: Dtype) -> Result<Tensor> {
    Ok(match dtype {
        Dtype::F32 => nf4::dequantize(packed, rounding)?,
        narrow => nf4::dequantize_to(packed, narrow)?,
    })
}

/// A weight in four bits: as the source holds it, or quantised now and decoded as a checkpoint in bfloat16 is.
fn four_bits(source: &dyn TensorSource, name: &str, shape: &[usize]) -> Result<(Nf4Weight, Rounding)> {
    let Some(StoredNf4 { weight, rounding }) = source.four_bits(name)? else {
        return Ok((nf4::quantize(&source.shaped(name, shape)?, true)?, Rounding::Bf16));
    };
    if weight.shape() != shape {
        let (found, expected) = (weight.shape().to_vec(), shape.to_vec());
        return Err(Error::TensorShape { name: name.to_owned(), found, expected });
    }
    Ok((weight, rounding))
}

/// Every tensor that a checkpoint of this network holds, with its shape.
pub(crate) fn expected(config: &LlamaConfig, linears: &[&Linear]) -> Vec<(String, Vec<usize>)> {
    let mut shapes = dense_shapes(config);
    for linear in linears {
        shapes.extend(linear.bias.iter().map(|bias| (bias.clone(), vec![linear.d_out])));
        shapes.push((linear.weight.clone(), vec![linear.d_out, linear.d_in]));
    }
    shapes
}

/// Names and shapes of the weights outside of the linear layers.
fn dense_shapes(config: &LlamaConfig) -> Vec<(String, Vec<usize>)> {
    let (vocab, hidden) = (config.vocab_size, config.hidden_size);
    let mut shapes = vec![(EMBEDDINGS.to_owned(), vec![vocab, hidden]), (FINAL_NORM.to_owned(), vec![hidden])];
    if !config.tied_embeddings {
        shapes.push((HEAD.to_owned(), vec![vocab, hidden]));
    }
    for layer in 0..config.layers {
        shapes.push((format!("model.layers.{layer}.input_layernorm.weight"), vec![hidden]));
        shapes.push((format!("model.layers.{layer}.post_attention_layernorm.weight"), vec![hidden]));
    }
    shapes
}
