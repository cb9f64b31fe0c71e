//! Which projections carry a low-rank update, and how the updates begin.

use std::{collections::BTreeSet, fmt, str::FromStr};

use kernels::Tensor;

use crate::{Error, Result};

/// The projections of a layer, by the names that checkpoints give them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Projection {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
    /// Output of attention.
    O,
    /// Gate of the gated block.
    Gate,
    /// What is gated.
    Up,
    /// Output of the gated block.
    Down,
}

impl Projection {
    /// All projections in the order of computation.
    pub const ALL: [Self; 7] = [Self::Q, Self::K, Self::V, Self::O, Self::Gate, Self::Up, Self::Down];

    /// `q_proj`, `gate_proj` and so on.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Q => "q_proj",
            Self::K => "k_proj",
            Self::V => "v_proj",
            Self::O => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    /// The module inside of a layer: `self_attn.q_proj`, `mlp.gate_proj` and so on.
    pub(crate) fn path(self) -> String {
        let block = if matches!(self, Self::Gate | Self::Up | Self::Down) { "mlp" } else { "self_attn" };
        format!("{block}.{}", self.name())
    }
}

impl FromStr for Projection {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::Config(format!("`{name}` is no target of a low-rank update; the targets are {known}"))
        })
    }
}

impl fmt::Display for Projection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Low-rank updates of some projections of every layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraOptions {
    /// Inner dimension.
    pub rank: usize,
    /// The update is scaled by `alpha / rank`.
    pub alpha: f32,
    /// Share of the update's inputs that are dropped in training.
    pub dropout: f32,
    /// The projections that carry an update.
    pub targets: BTreeSet<Projection>,
}

impl Default for LoraOptions {
    /// The paper's: rank 8, alpha 32, dropout 0.05, queries and values.
    fn default() -> Self {
        Self { rank: 8, alpha: 32.0, dropout: 0.05, targets: BTreeSet::from([Projection::Q, Projection::V]) }
    }
}

impl LoraOptions {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`] for rank 0, no target or a dropout rate outside of `[0, 1)`.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::Config(format!("ranker.lora: {what}")));
        match self {
            Self { rank: 0, .. } => wrong("rank must be at least 1"),
            Self { targets, .. } if targets.is_empty() => wrong("targets names no projection"),
            Self { dropout, .. } if !(0.0..1.0).contains(dropout) => wrong("dropout must be in 0 <= dropout < 1"),
            _ => Ok(()),
        }
    }

    pub(crate) fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }
}

/// The first factor of an update: uniform in `±1 / sqrt(d_in)`, every value a function of (seed, name, place).
///
/// # Source
/// PEFT's default, Kaiming-uniform with a = √5; the second factor begins at zero.
pub(crate) fn initial_a(seed: u64, name: &str, rank: usize, d_in: usize) -> Result<Tensor> {
    let key = name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let bound = 1.0 / (d_in.max(1) as f32).sqrt();
    let values = (0..(rank * d_in) as u64).map(|i| {
        let unit = (mix(key.wrapping_add(mix(i))) >> 40) as f32 / (1u64 << 23) as f32; // [0, 2)
        (unit - 1.0) * bound
    });
    Ok(Tensor::from_f32(&[rank, d_in], values.collect())?)
}

/// One output of splitmix64 (Steele, Lea and Flood, 2014) for a given state.
pub(crate) fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_first_factor_is_uniform_and_depends_on_seed_and_name_only() {
        let a = initial_a(1, "layers.0.q", 8, 400).unwrap();
        let values = a.f32().unwrap();
        assert!(values.iter().all(|v| v.abs() <= 0.05));
        let variance = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64;
        assert!((variance / (0.05f64.powi(2) / 3.0) - 1.0).abs() < 0.1);
        assert_eq!(a, initial_a(1, "layers.0.q", 8, 400).unwrap());
        assert_ne!(a, initial_a(2, "layers.0.q", 8, 400).unwrap());
        assert_ne!(a, initial_a(1, "layers.1.q", 8, 400).unwrap());
    }

    #[test]
    fn targets_are_read_by_name() {
        assert_eq!("up_proj".parse::<Projection>().unwrap(), Projection::Up);
        assert!("w_proj".parse::<Projection>().unwrap_err().to_string().contains("the targets are q_proj, k_proj"));
    }
}
