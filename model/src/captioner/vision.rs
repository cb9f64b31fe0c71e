//! The vision tower: ViT as in EVA, one token for every patch and one for the whole picture.

use kernels::{
    Segments, Tensor,
    attention::{self, Mask, Operands},
    gemm::Activation,
};

use super::{
    block::Block,
    config::VisionConfig,
    linear::{Linear, Loader, Norm},
};
use crate::{Error, Result};

#[derive(Debug)]
pub(super) struct Vision {
    config: VisionConfig,
    patches: Linear,
    /// What the whole picture's token begins as, and where every token lies: `[rows, hidden]`.
    places: Tensor,
    layers: Vec<Block>,
    norm: Norm,
}

impl Vision {
    pub(super) fn load(config: &VisionConfig, loader: &Loader<'_>) -> Result<Self> {
        let (hidden, side) = (config.hidden_size, config.patch_size);
        let embedding = |name: &str| format!("vision_model.embeddings.{name}");
        let kernel = loader.tensor(&embedding("patch_embedding.weight"), &[hidden, 3, side, side])?;
        let bias = loader.tensor(&embedding("patch_embedding.bias"), &[hidden])?;
        let patches = Linear::new(kernel.reshaped(&[hidden, 3 * side * side])?, Some(bias), loader.precision)?;
        let whole = loader.tensor(&embedding("class_embedding"), &[1, 1, hidden])?;
        let mut places = loader.tensor(&embedding("position_embedding"), &[1, config.rows(), hidden])?;
        // The whole picture's token is the same for all pictures: its place is added here, once.
        places.f32_mut()?.iter_mut().zip(whole.f32()?).for_each(|(place, whole)| *place += whole);
        let layers = (0..config.layers).map(|i| load_block(config, i, loader)).collect::<Result<_>>()?;
        let norm = loader.norm("vision_model.post_layernorm", hidden, config.eps)?;
        Ok(Self { config: config.clone(), patches, places, layers, norm })
    }

    /// `pixels [pictures, 3, side, side]` to `[pictures * rows, hidden]`.
    pub(super) fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let mut x = self.embed(pixels)?;
        let segments = Segments::from_lengths(vec![self.config.rows(); pixels.shape()[0]]);
        for layer in &self.layers {
            let [q, k, v] = layer.look(&x)?;
            let operands = Operands::new(&q, &k, &v, Mask::Full(&segments));
            let (seen, _) = attention::forward(&operands, &self.config.attention())?;
            x = layer.rest(&seen, &x)?;
        }
        self.norm.forward(&x)
    }

    /// Tokens before the first layer.
    fn embed(&self, pixels: &Tensor) -> Result<Tensor> {
        let side = self.config.image_size;
        let &[pictures, 3, height, width] = pixels.shape() else {
            return Err(Error::Input(format!(
                "pixels have shape {:?}, expected [n, 3, {side}, {side}]",
                pixels.shape()
            )));
        };
        if (height, width) != (side, side) {
            return Err(Error::Input(format!(
                "pictures of {width} x {height} pixels, the model takes {side} x {side}"
            )));
        }
        let patches = self.patches.forward(&cut(pixels, &self.config)?)?;
        let (rows, hidden) = (self.config.rows(), self.config.hidden_size);
        let mut x = Tensor::zeros(&[pictures * rows, hidden]);
        let from = patches.f32()?.chunks_exact((rows - 1) * hidden);
        for (picture, patches) in x.f32_mut()?.chunks_exact_mut(rows * hidden).zip(from) {
            picture.copy_from_slice(self.places.f32()?);
            picture[hidden..].iter_mut().zip(patches).for_each(|(x, patch)| *x += patch);
        }
        Ok(x)
    }
}

/// The patches of all pictures, row by row: `[pictures * patches, 3 * side * side]`.
fn cut(pixels: &Tensor, config: &VisionConfig) -> Result<Tensor> {
    let (image, side) = (config.image_size, config.patch_size);
    let across = image / side;
    let mut patches = Vec::with_capacity(pixels.len());
    for picture in pixels.f32()?.chunks_exact(3 * image * image) {
        for (row, col) in (0..across).flat_map(|row| (0..across).map(move |col| (row, col))) {
            for (channel, y) in (0..3).flat_map(|channel| (0..side).map(move |y| (channel, y))) {
                let from = (channel * image + row * side + y) * image + col * side;
                patches.extend_from_slice(&picture[from..from + side]);
            }
        }
    }
    Ok(Tensor::from_f32(&[pixels.shape()[0] * across * across, 3 * side * side], patches)?)
}

fn load_block(config: &VisionConfig, layer: usize, loader: &Loader<'_>) -> Result<Block> {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let name = |part: &str| format!("vision_model.encoder.layers.{layer}.{part}");
    let [query, key, value] = split(loader, &name("self_attn.qkv"), hidden, config.qkv_bias)?;
    Ok(Block {
        before_attention: loader.norm(&name("layer_norm1"), hidden, config.eps)?,
        query,
        key,
        value,
        out: loader.linear(&name("self_attn.projection"), hidden, hidden)?,
        before_mlp: loader.norm(&name("layer_norm2"), hidden, config.eps)?,
        up: loader.linear(&name("mlp.fc1"), inner, hidden)?,
        activation: Activation::Gelu,
        down: loader.linear(&name("mlp.fc2"), hidden, inner)?,
    })
}

/// Queries, keys and values, which the checkpoint keeps in one layer.
fn split(loader: &Loader<'_>, name: &str, hidden: usize, with_bias: bool) -> Result<[Linear; 3]> {
    let weight = loader.tensor(&format!("{name}.weight"), &[3 * hidden, hidden])?;
    let bias = if with_bias { Some(loader.tensor(&format!("{name}.bias"), &[3 * hidden])?) } else { None };
    let part = |i: usize| {
        let rows = weight.f32()?[i * hidden * hidden..][..hidden * hidden].to_vec();
        let bias = bias.as_ref().map(|bias| Tensor::from_f32(&[hidden], bias.f32()?[i * hidden..][..hidden].to_vec()));
        Linear::new(Tensor::from_f32(&[hidden, hidden], rows)?, bias.transpose()?, loader.precision)
    };
    Ok([part(0)?, part(1)?, part(2)?])
}
