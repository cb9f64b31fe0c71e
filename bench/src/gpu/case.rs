//! What is measured: every case in its real shape, and in one that the emulator gets through.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Cases that are asked for together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Group {
    /// What the card can do at most; measured in every run.
    Ceilings,
    /// Four-bit weights.
    Nf4,
    /// Attention over packed sequences.
    Attention,
    /// Norm, rotation and gate.
    Rows,
    /// The linear recurrence alone.
    Scan,
    /// A training step of the retriever.
    Retriever,
    /// The best items of many users.
    Top,
    /// Captions of pictures.
    Captioner,
}

/// Who else does the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Peer {
    /// PyTorch with its libraries, in the dtype of ours.
    Torch,
    /// The same with products of TF32, which are less exact.
    TorchTf32,
    /// `torch.compile` of the formula.
    TorchCompile,
    /// bitsandbytes.
    Bitsandbytes,
    /// `torch.nn.attention.varlen`: packed sequences.
    Varlen,
    /// `scaled_dot_product_attention` of padded sequences.
    Padded,
    /// LRURec as it is published: scores at every padded position.
    AllPositions,
    /// LRURec without padding.
    Packed,
    /// transformers' `generate`, in half precision.
    Transformers,
}

impl Peer {
    /// As people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Torch => "PyTorch",
            Self::TorchTf32 => "PyTorch, TF32",
            Self::TorchCompile => "torch.compile",
            Self::Bitsandbytes => "bitsandbytes",
            Self::Varlen => "PyTorch varlen_attn",
            Self::Padded => "PyTorch SDPA, padded",
            Self::AllPositions => "PyTorch, all positions",
            Self::Packed => "PyTorch, no padding",
            Self::Transformers => "transformers, float16",
        }
    }
}

/// One thing that all contestants do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "bench", rename_all = "snake_case")]
pub(super) enum Case {
    /// Memory is copied: the ceiling of what is bound by bytes.
    Copy { bytes: usize },
    /// Square matrices in bfloat16: the ceiling of what is bound by products.
    Product { size: usize },
    /// A four-bit weight is decoded to bfloat16.
    Nf4Dequantize { d_out: usize, d_in: usize },
    /// `x · Wᵀ` of a four-bit weight and bfloat16.
    Nf4Product { d_out: usize, d_in: usize, rows: usize },
    /// `dy · W`, likewise.
    Nf4InputGradient { d_out: usize, d_in: usize, rows: usize },
    /// Causal attention of packed sequences in bfloat16.
    Attention { lengths: Vec<usize>, heads: usize, head_dim: usize },
    /// A residual is added and the sum normalised, f32.
    RmsNorm { rows: usize, cols: usize },
    /// Queries are rotated in place, f32.
    Rope { rows: usize, heads: usize, head_dim: usize },
    /// `silu(gate) * up`, f32.
    Swiglu { rows: usize, cols: usize },
    /// `h[t] = λ h[t-1] + γ v[t]` in complex f32.
    Scan { sequences: usize, length: usize, state: usize },
    /// Forward, backward and update of LRURec. `folder` holds the problem and the weights, see
    /// [`crate::retriever::Problem`].
    RetrieverStep { items: usize, max_length: usize, batch: usize, folder: String },
    /// The best items of users, by f32 scores.
    Top { items: usize, users: usize, width: usize, k: usize },
    /// Captions with BLIP-2 of a configuration and random weights.
    Captions { name: String, config: Value, images: usize, tokens: usize },
}

impl Case {
    pub(super) fn group(&self) -> Group {
        match self {
            Self::Copy { .. } | Self::Product { .. } => Group::Ceilings,
            Self::Nf4Dequantize { .. } | Self::Nf4Product { .. } | Self::Nf4InputGradient { .. } => Group::Nf4,
            Self::Attention { .. } => Group::Attention,
            Self::RmsNorm { .. } | Self::Rope { .. } | Self::Swiglu { .. } => Group::Rows,
            Self::Scan { .. } => Group::Scan,
            Self::RetrieverStep { .. } => Group::Retriever,
            Self::Top { .. } => Group::Top,
            Self::Captions { .. } => Group::Captioner,
        }
    }

    pub(super) fn peers(&self) -> &'static [Peer] {
        match self {
            Self::Copy { .. } | Self::Product { .. } | Self::Scan { .. } => &[Peer::Torch],
            Self::Nf4Dequantize { .. } => &[Peer::Bitsandbytes],
            Self::Nf4Product { .. } | Self::Nf4InputGradient { .. } => &[Peer::Bitsandbytes, Peer::Torch],
            Self::Attention { .. } => &[Peer::Varlen, Peer::Padded],
            Self::RmsNorm { .. } | Self::Rope { .. } | Self::Swiglu { .. } => &[Peer::TorchCompile],
            Self::RetrieverStep { .. } => &[Peer::AllPositions, Peer::Packed],
            Self::Top { .. } => &[Peer::Torch, Peer::TorchTf32],
            Self::Captions { .. } => &[Peer::Transformers],
        }
    }

    /// What people call it, and the shape.
    pub(super) fn label(&self) -> [String; 2] {
        let (what, shape) = match self {
            Self::Copy { bytes } => ("copy", format!("{:.1} MB", *bytes as f64 / 1e6)),
            Self::Product { size } => ("product, bf16", format!("{size}³")),
            Self::Nf4Dequantize { d_out, d_in } => ("NF4 decoded to bf16", format!("{d_out} × {d_in}")),
            Self::Nf4Product { d_out, d_in, rows } => ("NF4 product", format!("n = {rows}, {d_out} × {d_in}")),
            Self::Nf4InputGradient { d_out, d_in, rows } => {
                ("NF4 input gradient", format!("n = {rows}, {d_out} × {d_in}"))
            }
            Self::Attention { lengths, heads, head_dim } => {
                let sequences = format!("{} sequences, {} rows", lengths.len(), lengths.iter().sum::<usize>());
                ("attention, bf16", format!("{sequences}, {heads} × {head_dim}, causal"))
            }
            Self::RmsNorm { rows, cols } => ("residual and RMS norm, f32", format!("{rows} × {cols}")),
            Self::Rope { rows, heads, head_dim } => ("rotation, f32", format!("{rows} × {heads} × {head_dim}")),
            Self::Swiglu { rows, cols } => ("SwiGLU, f32", format!("{rows} × {cols}")),
            Self::Scan { sequences, length, state } => {
                ("recurrence alone, f32", format!("{sequences} × {length}, {state} complex"))
            }
            Self::RetrieverStep { items, max_length, batch, .. } => {
                ("LRURec training step", format!("{items} items, {batch} windows of up to {max_length}"))
            }
            Self::Top { items, users, width, k } => {
                ("best items", format!("{k} of {items}, {users} users, {width} wide"))
            }
            Self::Captions { name, images, tokens, .. } => {
                ("captions, bf16", format!("{name}, {images} images, {tokens} tokens"))
            }
        };
        [what.to_owned(), shape]
    }
}

/// Shapes of a weight, `[d_out, d_in]`: those of Llama-2-7B.
const WEIGHTS: [[usize; 2]; 3] = [[4096, 4096], [11008, 4096], [4096, 11008]];
/// Rows of `x`.
const ROWS: [usize; 5] = [1, 16, 128, 2048, 16384];
/// Rows of `dy`: training has many.
const GRADIENT_ROWS: [usize; 2] = [2048, 16384];
/// Sequences of attention, by a generator with a fixed seed: 700 to 1500 rows.
const LENGTHS: [usize; 16] = [1303, 756, 1021, 1467, 894, 1188, 739, 1365, 1092, 820, 1240, 968, 1431, 1147, 703, 1289];

/// All cases in the shapes of real work, cheap ones of a group first.
pub(super) fn real() -> Vec<Case> {
    let mut cases = vec![Case::Copy { bytes: 4 << 30 }, Case::Product { size: 8192 }];
    cases.extend(WEIGHTS.map(|[d_out, d_in]| Case::Nf4Dequantize { d_out, d_in }));
    for [d_out, d_in] in WEIGHTS {
        cases.extend(ROWS.map(|rows| Case::Nf4Product { d_out, d_in, rows }));
    }
    for [d_out, d_in] in WEIGHTS {
        cases.extend(GRADIENT_ROWS.map(|rows| Case::Nf4InputGradient { d_out, d_in, rows }));
    }
    cases.push(Case::Attention { lengths: LENGTHS.to_vec(), heads: 32, head_dim: 128 });
    cases.push(Case::RmsNorm { rows: 16384, cols: 4096 });
    cases.push(Case::Rope { rows: 16384, heads: 32, head_dim: 128 });
    cases.push(Case::Swiglu { rows: 16384, cols: 11008 });
    let scans = [(64, 50), (64, 200), (512, 200), (64, 1000), (8, 8192)];
    cases.extend(scans.map(|(sequences, length)| Case::Scan { sequences, length, state: 128 }));
    cases.extend([12_101, 57_289].map(|items| step(items, 50, 64)));
    cases.extend([12_101, 1_000_000, 10_000_000].map(|items| Case::Top { items, users: 4096, width: 64, k: 20 }));
    cases.push(captions("a small shape", small_captioner(), 64));
    cases.push(captions("BLIP-2-OPT-2.7b", blip2_opt(), 64));
    cases
}

/// All cases in shapes that take seconds on the emulator.
pub(super) fn tiny() -> Vec<Case> {
    let (d_out, d_in) = (192, 128);
    let mut cases =
        vec![Case::Copy { bytes: 1 << 16 }, Case::Product { size: 64 }, Case::Nf4Dequantize { d_out, d_in }];
    cases.extend([1, 16, 70].map(|rows| Case::Nf4Product { d_out, d_in, rows }));
    cases.extend([
        Case::Nf4InputGradient { d_out, d_in, rows: 20 },
        Case::Attention { lengths: vec![5, 70], heads: 2, head_dim: 64 },
        Case::RmsNorm { rows: 9, cols: 128 },
        Case::Rope { rows: 9, heads: 2, head_dim: 64 },
        Case::Swiglu { rows: 9, cols: 128 },
        Case::Scan { sequences: 3, length: 20, state: 32 },
        step(150, 10, 4),
        Case::Top { items: 300, users: 3, width: 64, k: 20 },
        captions("a tiny shape", tiny_captioner(), 2),
    ]);
    cases
}

fn step(items: usize, max_length: usize, batch: usize) -> Case {
    Case::RetrieverStep { items, max_length, batch, folder: String::new() }
}

fn captions(name: &str, config: Value, images: usize) -> Case {
    Case::Captions { name: name.to_owned(), config, images, tokens: 20 }
}

/// The sizes of a transformer: features, features inside of a layer, layers, heads.
type Sizes = [usize; 4];

/// A `config.json` as transformers writes it.
fn captioner(queries: usize, picture: [usize; 2], vision: Sizes, qformer: Sizes, decoder: Sizes) -> Value {
    let part = |[hidden, inner, layers, heads]: Sizes| json!({"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads});
    let [mut vision_config, mut qformer_config, mut text_config] = [part(vision), part(qformer), part(decoder)];
    vision_config["image_size"] = picture[0].into();
    vision_config["patch_size"] = picture[1].into();
    qformer_config["encoder_hidden_size"] = vision[0].into();
    text_config["ffn_dim"] = text_config["intermediate_size"].take();
    text_config["word_embed_proj_dim"] = decoder[0].into();
    text_config["vocab_size"] = 50_304.into();
    for (name, value) in [("bos_token_id", 2), ("eos_token_id", 50_118), ("pad_token_id", 1)] {
        text_config[name] = value.into();
    }
    text_config["model_type"] = "opt".into();
    json!({
        "model_type": "blip-2", "num_query_tokens": queries, "image_token_index": 50_265,
        "vision_config": vision_config, "qformer_config": qformer_config, "text_config": text_config,
    })
}

/// `Salesforce/blip2-opt-2.7b`.
fn blip2_opt() -> Value {
    captioner(32, [224, 14], [1408, 6144, 39, 16], [768, 3072, 12, 12], [2560, 10240, 32, 32])
}

/// About 100 million weights.
fn small_captioner() -> Value {
    captioner(32, [224, 14], [512, 2048, 8, 8], [512, 2048, 4, 8], [768, 3072, 6, 12])
}

fn tiny_captioner() -> Value {
    let mut config = captioner(4, [16, 8], [32, 64, 1, 2], [32, 64, 2, 2], [32, 64, 1, 2]);
    for (name, value) in [("vocab_size", 70), ("eos_token_id", 69), ("max_position_embeddings", 64)] {
        config["text_config"][name] = value.into();
    }
    config["image_token_index"] = 68.into();
    config
}
