//! The Q-Former: a few learned queries that look at each other and, in some layers, at the picture.

use kernels::{
    Segments, Tensor,
    attention::{Mask, Operands, Shape},
    gemm::Activation,
    rows::{self, Strand},
};

use super::{
    config::BlipConfig,
    linear::{Linear, Loader, Norm},
};
use crate::{Precision, Result};

#[derive(Debug)]
pub(super) struct QFormer {
    /// The queries after the first layer's look at each other, which no picture changes: `[queries, hidden]`.
    begin: Tensor,
    layers: Vec<Layer>,
    shape: Shape,
}

#[derive(Debug)]
struct Layer {
    selves: Attention,
    picture: Option<Attention>,
    up: Linear,
    down: Linear,
    norm: Norm,
}

/// Attention, its output and the norm behind it.
#[derive(Debug)]
struct Attention {
    precision: Precision,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    norm: Norm,
}

impl QFormer {
    pub(super) fn load(config: &BlipConfig, loader: &Loader<'_>) -> Result<Self> {
        let c = &config.qformer;
        let layers: Vec<Layer> = (0..c.layers).map(|i| Layer::load(config, i, loader)).collect::<Result<_>>()?;
        let queries = loader.tensor("query_tokens", &[1, config.queries, c.hidden_size])?;
        let queries = loader.device.put(&queries.reshaped(&[config.queries, c.hidden_size])?)?;
        let begin = loader.norm("qformer.layernorm", c.hidden_size, c.eps)?.forward(&queries)?;
        let alone = Segments::from_lengths([config.queries]);
        let shape = c.attention();
        let begin = match layers.first() {
            Some(first) => first.selves.forward(&begin, &begin, Mask::Full(&alone), &shape)?,
            None => begin,
        };
        Ok(Self { begin, layers, shape })
    }

    /// Features of pictures, `each` rows of them, `[pictures * each, vision hidden]`, to `[pictures * queries, hidden]`.
    pub(super) fn forward(&self, patches: &Tensor, each: usize) -> Result<Tensor> {
        let pictures = patches.rows() / each;
        let queries = Segments::from_lengths(vec![self.begin.rows(); pictures]);
        let keys = Segments::from_lengths(vec![each; pictures]);
        let mut x = rows::weave(&[Strand { rows: &self.begin, each: self.begin.rows() }], pictures)?;
        for (i, layer) in self.layers.iter().enumerate() {
            if i > 0 {
                x = layer.selves.forward(&x, &x, Mask::Full(&queries), &self.shape)?;
            }
            if let Some(picture) = &layer.picture {
                let mask = Mask::Cross { queries: &queries, keys: &keys };
                x = picture.forward(&x, patches, mask, &self.shape)?;
            }
            let inner = layer.up.operand(&x, Activation::Gelu)?;
            x = layer.norm.forward(&layer.down.onto(&x, &inner)?)?;
        }
        Ok(x)
    }
}

impl Layer {
    fn load(config: &BlipConfig, layer: usize, loader: &Loader<'_>) -> Result<Self> {
        let c = &config.qformer;
        let name = |part: &str| format!("qformer.encoder.layer.{layer}.{part}");
        let attention = |part: &str, d_in: usize| Attention::load(&name(part), c.hidden_size, d_in, c.eps, loader);
        let looks = layer.is_multiple_of(c.cross_attention_frequency);
        let picture = looks.then(|| attention("crossattention", config.vision.hidden_size)).transpose()?;
        Ok(Self {
            selves: attention("attention", c.hidden_size)?,
            picture,
            up: loader.linear(&name("intermediate_query.dense"), c.intermediate_size, c.hidden_size)?,
            down: loader.linear(&name("output_query.dense"), c.hidden_size, c.intermediate_size)?,
            norm: loader.norm(&name("output_query.LayerNorm"), c.hidden_size, c.eps)?,
        })
    }
}

impl Attention {
    fn load(name: &str, hidden: usize, d_keys: usize, eps: f32, loader: &Loader<'_>) -> Result<Self> {
        Ok(Self {
            precision: loader.precision,
            query: loader.linear(&format!("{name}.attention.query"), hidden, hidden)?,
            key: loader.linear(&format!("{name}.attention.key"), hidden, d_keys)?,
            value: loader.linear(&format!("{name}.attention.value"), hidden, d_keys)?,
            out: loader.linear(&format!("{name}.output.dense"), hidden, hidden)?,
            norm: loader.norm(&format!("{name}.output.LayerNorm"), hidden, eps)?,
        })
    }

    fn forward(&self, x: &Tensor, seen: &Tensor, mask: Mask<'_>, shape: &Shape) -> Result<Tensor> {
        let of = |layer: &Linear, rows: &Tensor| layer.operand(rows, Activation::None);
        let (q, k, v) = (of(&self.query, x)?, of(&self.key, seen)?, of(&self.value, seen)?);
        let mixed = self.precision.attention(&Operands::new(&q, &k, &v, mask), shape)?;
        self.norm.forward(&self.out.onto(x, &mixed)?)
    }
}
