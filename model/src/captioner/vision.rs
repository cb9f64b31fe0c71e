//! The vision tower: ViT as in EVA, one token for every patch and one for the whole picture.

use kernels::{
    Segments, Tensor,
    attention::{Mask, Operands},
    gemm::Activation,
    rows::{self, Strand},
};

use super::{
    block::Block,
    config::VisionConfig,
    linear::{Linear, Loader, Norm},
};
use crate::{Precision, Result};

#[derive(Debug)]
pub(super) struct Vision {
    config: VisionConfig,
    precision: Precision,
    patches: Linear,
    /// Where every token lies, and what the whole picture's begins as: `[rows, hidden]`.
    places: Tensor,
    /// Zeros, `[1, hidden]`: all else of the whole picture's token.
    nothing: Tensor,
    layers: Vec<Block>,
    norm: Norm,
}

impl Vision {
    pub(super) fn load(config: &VisionConfig, loader: &Loader<'_>) -> Result<Self> {
        let (hidden, side) = (config.hidden_size, config.patch_size);
        let embedding = |name: &str| format!("vision_model.embeddings.{name}");
        let kernel = loader.tensor(&embedding("patch_embedding.weight"), &[hidden, 3, side, side])?;
        let bias = loader.tensor(&embedding("patch_embedding.bias"), &[hidden])?;
        let patches = Linear::new(kernel.reshaped(&[hidden, 3 * side * side])?, Some(bias), loader)?;
        let whole = loader.tensor(&embedding("class_embedding"), &[1, 1, hidden])?;
        let mut places = loader.tensor(&embedding("position_embedding"), &[1, config.rows(), hidden])?;
        // The whole picture's token is the same for all pictures: it is added to its place here, once.
        places.f32_mut()?.iter_mut().zip(whole.f32()?).for_each(|(place, whole)| *place += whole);
        let layers = (0..config.layers).map(|i| load_block(config, i, loader)).collect::<Result<_>>()?;
        let norm = loader.norm("vision_model.post_layernorm", hidden, config.eps)?;
        Ok(Self {
            precision: loader.precision,
            patches,
            places: loader.device.put(&places.reshaped(&[config.rows(), hidden])?)?,
            nothing: loader.device.put(&Tensor::zeros(&[1, hidden]))?,
            layers,
            norm,
            config: config.clone(),
        })
    }

    /// A tensor where the network is.
    pub(super) fn place(&self) -> &Tensor {
        &self.nothing
    }

    /// Patches `[pictures * (rows - 1), 3 * side * side]` to `[pictures * rows, hidden]`, an operand.
    pub(super) fn forward(&self, patches: &Tensor) -> Result<Tensor> {
        let mut x = self.embed(patches)?;
        let segments = Segments::from_lengths(vec![self.config.rows(); x.rows() / self.config.rows()]);
        for layer in &self.layers {
            let [q, k, v] = layer.look(&x)?;
            let operands = Operands::new(&q, &k, &v, Mask::Full(&segments));
            let seen = self.precision.attention(&operands, &self.config.attention())?;
            x = layer.rest(&seen, &x)?;
        }
        self.norm.operand(&x)
    }

    /// Tokens before the first layer.
    fn embed(&self, patches: &Tensor) -> Result<Tensor> {
        let patches = self.patches.forward(patches)?;
        let each = self.config.rows() - 1;
        let strands = [Strand { rows: &self.nothing, each: 1 }, Strand { rows: &patches, each }];
        let mut x = rows::weave(&strands, patches.rows() / each)?;
        rows::add_repeated(&mut x, &self.places)?;
        Ok(x)
    }
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
        Linear::new(Tensor::from_f32(&[hidden, hidden], rows)?, bias.transpose()?, loader)
    };
    Ok([part(0)?, part(1)?, part(2)?])
}
