//! The CPU and its memory.

use crate::{host_memory, simd};

/// What the CPU has for computations.
#[derive(Clone, Debug)]
pub struct Processor {
    /// Its model, or its architecture where the system does not tell.
    pub name: String,
    /// The vector instructions that are used: the widest it has, unless `MLLM4REC_SIMD` asks for others.
    pub instructions: &'static str,
    /// Threads that this process may use.
    pub threads: usize,
    /// Memory that this process may use, if the system tells.
    pub memory_bytes: Option<u64>,
    /// What of that it can still ask for.
    pub available_bytes: Option<u64>,
}

impl Processor {
    pub(super) fn inspect() -> Self {
        Self {
            name: std::fs::read_to_string("/proc/cpuinfo")
                .ok()
                .and_then(|text| model(&text))
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            instructions: simd::described(),
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: host_memory::total_bytes(),
            available_bytes: host_memory::available_bytes(),
        }
    }
}

/// The value of a line such as `model name : AMD EPYC`.
pub(super) fn model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned()).filter(|name| !name.is_empty())
}
