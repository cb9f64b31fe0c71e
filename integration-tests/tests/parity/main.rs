//! Our models against public libraries, by way of golden files.
//!
//! A set of golden files may lack a topic: its test says so and passes. `MLLM4REC_FIXTURES` names another set.
#![allow(clippy::unwrap_used)]

mod bad_pictures;
mod blip2;
mod fixtures;
mod golden;
mod llama;
mod lora;
mod lrurec;
mod metrics;
mod nf4;
mod padded;
mod pictures;
mod prompt;
mod ranker;
mod tokenizer;
