//! Tensor operations with explicit forward and backward passes.
//!
//! One folder per operation: `mod.rs` holds the contract (shapes, gradient, errors, source), `reference.rs` a slow and
//! obvious version, `cpu.rs` the fast one, `tests.rs` the proof. There is no autograd: a model calls the forwards in
//! order and the backwards in reverse.
//!
//! This crate knows nothing of recommendation, of files or of networks. Work is cut into a fixed partition and summed in
//! a fixed order, so the same input gives the same bits for any number of threads.
//!
//! # Layout
//! Tensors are dense and row-major. Sequences of different lengths are packed one after the other without padding;
//! [`Segments`] says where each begins.
//!
//! # Environment
//! `MLLM4REC_SIMD=avx512|avx2|portable`, read once, asks for other instructions than the widest that an x86-64 processor
//! has, so that tests see what other processors do; the bits are the same, save for bfloat16 below 1.2e-38
//! (see [`gemm`]). What is not known or not there is told once on
//! stderr and passed over.

mod cuda;
mod device;
mod error;
mod host_memory;
mod inspection;
mod memory;
mod segments;
mod simd;
mod tensor;
#[cfg(test)]
mod testing;

pub mod attention;
pub mod collective;
pub mod dropout;
pub mod embedding;
pub mod fp8;
pub mod gelu;
pub mod gemm;
pub mod layer_norm;
pub mod linear_cross_entropy;
pub mod lora;
pub mod lru_scan;
pub mod nf4;
pub mod patches;
pub mod rms_norm;
pub mod rope;
pub mod rows;
pub mod swiglu;
pub mod top_k;

pub mod adamw;
pub mod grad_norm;

pub mod health;

pub use cuda::Recording;
pub use device::Device;
pub use error::{Error, Result};
pub use inspection::{
    Card, CardReport, Inspection, Lacking, Library, NoCard, Opened, Processor, cards, inspect, misnamed_folders,
};
pub use segments::Segments;
pub use tensor::{Dtype, Tensor};
