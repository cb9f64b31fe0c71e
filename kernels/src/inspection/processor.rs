//! The CPU and its memory.

use crate::simd;

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
    /// What of the machine's memory is available.
    pub available_bytes: Option<u64>,
}

impl Processor {
    pub(super) fn inspect() -> Self {
        let read = |path| std::fs::read_to_string(path).ok();
        let memory = read("/proc/meminfo").unwrap_or_default();
        let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        let limit = limits.into_iter().find_map(|path| read(path)?.trim().parse().ok()).unwrap_or(u64::MAX);
        let of = |key| kibibytes(&memory, key).map(|bytes| bytes.min(limit));
        Self {
            name: read("/proc/cpuinfo")
                .and_then(|text| model(&text))
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            instructions: simd::described(),
            threads: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: of("MemTotal"),
            available_bytes: of("MemAvailable"),
        }
    }
}

/// The value of a line such as `model name : AMD EPYC`.
pub(super) fn model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, name)| name.trim().to_owned()).filter(|name| !name.is_empty())
}

/// The bytes of `MemTotal:       24684092 kB`.
pub(super) fn kibibytes(meminfo: &str, key: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|n| n * 1024)
}
