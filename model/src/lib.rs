//! Networks, weights, tokenizer and prompt of the recommender.
//!
//! A model is a sequence of [`kernels`] operations that reads top to bottom like the paper, once forward and once
//! backward. This crate knows nothing of Parquet, of the network or of ranks in a gang: it takes ids and text, and gives
//! scores, gradients and bytes.

pub mod captioner;
pub mod checkpoint;
mod error;
pub mod params;
mod precision;
pub mod ranker;
pub mod retriever;
pub mod weights;

pub use error::{Error, Result};
pub use precision::Precision;
