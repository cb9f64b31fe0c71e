//! Datasets, histories, tables, object store and metrics: everything that is read or written. No tensors.

mod error;
mod input;

pub mod job;

pub mod store;

pub mod artifact;

pub mod tables;

pub mod prepare;

pub mod dataset;

pub mod pictures;

pub mod captions;

pub mod examples;

pub mod metrics;

pub use error::{Class, Error, Result};
