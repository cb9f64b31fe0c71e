//! The sections of a job file as checked types, with their defaults.

mod captions;
mod dataset;
mod model_from;
mod ranker;
mod retriever;
mod run;

pub use captions::{Captions, CaptionsFrom, Fetch, Precision, Transparency};
pub use dataset::{Columns, Dataset, Format};
pub use model_from::ModelFrom;
pub(super) use model_from::earlier_job;
pub use ranker::{
    Blend, CandidateOrder, Labels, Lora, MicroBatch, Negatives, Quantize, Ranker, RankerPrecision, Trainable,
};
pub use retriever::Retriever;
pub use run::{Cluster, Limits, Output};

use super::reader::Section;

/// A probability below one.
fn rate(s: &mut Section<'_>, key: &'static str, default: f64) -> f64 {
    s.number(key, default, 0.0..=0.95)
}
