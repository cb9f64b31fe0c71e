//! What is measured: every case in its real shape, and in one that the emulator gets through.

mod captioner;
mod ranker;
mod shapes;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub(super) use ranker::{LAYERS, Reading};
pub(super) use shapes::{real, tiny};

/// Cases that are asked for together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(super) enum Group {
    /// What the card can do at most; measured in every run.
    Ceilings,
    /// Four-bit weights.
    Nf4,
    /// Eight-bit weights.
    Fp8,
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
    /// Training steps and scores of a large ranker.
    Ranker,
}

/// Who else does the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Peer {
    /// PyTorch with its libraries, in the dtype of ours.
    Torch,
    /// Its products of eight bits with a factor for every row.
    TorchFp8,
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
    /// The ranker as it is published: transformers, bitsandbytes and PEFT, padded, scores at every position, layers computed
    /// again in the backward.
    Reference,
    /// The same libraries at their best: fused attention, prompts sorted by length, scores only where they are needed.
    Hardened,
    /// PyTorch alone at its best: dense weights in bfloat16, packed prompts, nothing computed twice.
    Strongest,
}

impl Peer {
    /// As people call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Torch => "PyTorch",
            Self::TorchFp8 => "PyTorch, FP8",
            Self::TorchTf32 => "PyTorch, TF32",
            Self::TorchCompile => "torch.compile",
            Self::Bitsandbytes => "bitsandbytes",
            Self::Varlen => "PyTorch varlen_attn",
            Self::Padded => "PyTorch SDPA, padded",
            Self::AllPositions => "PyTorch, all positions",
            Self::Packed => "PyTorch, no padding",
            Self::Transformers => "transformers, float16",
            Self::Reference => "transformers as published (R)",
            Self::Hardened => "transformers, hardened (H)",
            Self::Strongest => "PyTorch, dense bf16, packed (P)",
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
    /// The same for so many seconds, by ours alone and turn after turn: the ceiling once the card is warm.
    Sustained { size: usize, seconds: f64 },
    /// A four-bit weight is decoded to bfloat16.
    Nf4Dequantize { d_out: usize, d_in: usize },
    /// `x · Wᵀ` of a four-bit weight and bfloat16.
    Nf4Product { d_out: usize, d_in: usize, rows: usize },
    /// `dy · W`, likewise.
    Nf4InputGradient { d_out: usize, d_in: usize, rows: usize },
    /// `x · Wᵀ` of an eight-bit weight and bfloat16, which is cut to eight bits too.
    Fp8Product { d_out: usize, d_in: usize, rows: usize },
    /// Causal attention of packed sequences in bfloat16.
    Attention { lengths: Vec<usize>, heads: usize, head_dim: usize },
    /// Its gradient: that of queries, keys and values, from what the forward has saved.
    AttentionBackward { lengths: Vec<usize>, heads: usize, head_dim: usize },
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
    /// Forward, backward and update of a Llama with four-bit weights and low-rank updates, on all its prompts.
    RankerStep(Reading),
    /// The scores of a list of labels after every prompt, by the same network.
    RankerScores(Reading),
}

impl Case {
    pub(super) fn group(&self) -> Group {
        match self {
            Self::Copy { .. } | Self::Product { .. } | Self::Sustained { .. } => Group::Ceilings,
            Self::Nf4Dequantize { .. } | Self::Nf4Product { .. } | Self::Nf4InputGradient { .. } => Group::Nf4,
            Self::Fp8Product { .. } => Group::Fp8,
            Self::Attention { .. } | Self::AttentionBackward { .. } => Group::Attention,
            Self::RmsNorm { .. } | Self::Rope { .. } | Self::Swiglu { .. } => Group::Rows,
            Self::Scan { .. } => Group::Scan,
            Self::RetrieverStep { .. } => Group::Retriever,
            Self::Top { .. } => Group::Top,
            Self::Captions { .. } => Group::Captioner,
            Self::RankerStep(_) | Self::RankerScores(_) => Group::Ranker,
        }
    }

    pub(super) fn peers(&self) -> &'static [Peer] {
        match self {
            Self::Copy { .. } | Self::Product { .. } | Self::Scan { .. } => &[Peer::Torch],
            Self::Sustained { .. } => &[],
            Self::Nf4Dequantize { .. } => &[Peer::Bitsandbytes],
            Self::Nf4Product { .. } | Self::Nf4InputGradient { .. } => &[Peer::Bitsandbytes, Peer::Torch],
            Self::Fp8Product { .. } => &[Peer::TorchFp8, Peer::Torch],
            Self::Attention { .. } | Self::AttentionBackward { .. } => &[Peer::Varlen, Peer::Padded],
            Self::RmsNorm { .. } | Self::Rope { .. } | Self::Swiglu { .. } => &[Peer::TorchCompile],
            Self::RetrieverStep { .. } => &[Peer::AllPositions, Peer::Packed],
            Self::Top { .. } => &[Peer::Torch, Peer::TorchTf32],
            Self::Captions { .. } => &[Peer::Transformers],
            Self::RankerStep(_) | Self::RankerScores(_) => &[Peer::Reference, Peer::Hardened, Peer::Strongest],
        }
    }

    /// What people call it, and the shape.
    pub(super) fn label(&self) -> [String; 2] {
        let (what, shape) = match self {
            Self::Copy { bytes } => ("copy", format!("{:.1} MB", *bytes as f64 / 1e6)),
            Self::Product { size } => ("product, bf16", format!("{size}³")),
            Self::Sustained { size, seconds } => ("product, bf16, without a pause", format!("{size}³, {seconds} s")),
            Self::Nf4Dequantize { d_out, d_in } => ("NF4 decoded to bf16", format!("{d_out} × {d_in}")),
            Self::Nf4Product { d_out, d_in, rows } => ("NF4 product", format!("n = {rows}, {d_out} × {d_in}")),
            Self::Nf4InputGradient { d_out, d_in, rows } => {
                ("NF4 input gradient", format!("n = {rows}, {d_out} × {d_in}"))
            }
            Self::Fp8Product { d_out, d_in, rows } => ("FP8 product", format!("n = {rows}, {d_out} × {d_in}")),
            Self::Attention { lengths, heads, head_dim } => ("attention, bf16", packed(lengths, *heads, *head_dim)),
            Self::AttentionBackward { lengths, heads, head_dim } => {
                ("attention's gradient, bf16", packed(lengths, *heads, *head_dim))
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
            Self::RankerStep(reading) => ("ranker's training step, NF4 and LoRA, bf16", reading.label()),
            Self::RankerScores(reading) if reading.fp8 => ("ranker's scores, FP8 and LoRA", reading.label()),
            Self::RankerScores(reading) => ("ranker's scores, NF4 and LoRA, bf16", reading.label()),
        };
        [what.to_owned(), shape]
    }
}

/// The shape of attention, for people.
fn packed(lengths: &[usize], heads: usize, head_dim: usize) -> String {
    let rows = lengths.iter().sum::<usize>();
    format!("{} sequences, {rows} rows, {heads} × {head_dim}, causal", lengths.len())
}
