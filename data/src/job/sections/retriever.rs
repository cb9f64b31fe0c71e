//! `[retriever]`: what proposes candidates.

use serde::Serialize;

use super::{ModelFrom, rate};
use crate::job::reader::Section;

/// `[retriever]`: LRURec and its training.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Retriever {
    /// Whose training it is of; counts by what it leads to.
    #[serde(skip)]
    pub from: ModelFrom,
    /// Width of the embeddings.
    pub hidden: u32,
    /// Number of recurrent blocks.
    pub layers: u32,
    /// Dropout rate.
    pub dropout: f64,
    /// Longest history that is read.
    pub max_length: u32,
    /// Training sequences in a batch.
    pub batch_size: u32,
    /// Slices of a step, whose gradients are computed one by one and summed in one order: so many workers can share it.
    pub slices: u32,
    /// Catalogues from so many items on are shared out over the workers that share a step.
    pub share_items_from: u32,
    /// Learning rate of AdamW.
    pub learning_rate: f64,
    /// Weight decay of AdamW.
    pub weight_decay: f64,
    /// Passes over the training sequences at most.
    pub max_epochs: u32,
    /// Steps between two validations.
    pub validate_every: u32,
    /// Validations without improvement before training stops.
    pub patience: u32,
    /// Whether early stopping looks at ranks without the user's own history.
    pub validation_excludes_history: bool,
    /// Candidates per user, K.
    #[serde(skip)]
    pub candidates: u32,
}

impl Retriever {
    pub(in crate::job) fn read(mut s: Section<'_>) -> Self {
        let this = Self {
            from: ModelFrom::read(&mut s, &["candidates"]),
            hidden: s.number("hidden", 64, 1..=4096),
            layers: s.number("layers", 2, 1..=64),
            dropout: rate(&mut s, "dropout", 0.2),
            max_length: s.number("max_length", 50, 1..=1_000_000),
            batch_size: s.number("batch_size", 64, 1..=1_000_000),
            slices: s.number("slices", 8, 1..=1024),
            share_items_from: s.number("share_items_from", 1_000_000, 1..=u32::MAX),
            learning_rate: s.number("learning_rate", 1e-3, 0.0..=10.0),
            weight_decay: s.number("weight_decay", 0.01, 0.0..=10.0),
            max_epochs: s.number("max_epochs", 500, 1..=1_000_000),
            validate_every: s.number("validate_every", 500, 1..=1_000_000_000),
            patience: s.number("patience", 20, 1..=1_000_000),
            validation_excludes_history: s.get("validation_excludes_history", false),
            candidates: s.number("candidates", 20, 1..=1000),
        };
        s.finish();
        this
    }
}
