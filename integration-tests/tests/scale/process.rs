//! What the system says of a process.

use std::time::Duration;

const TICKS_PER_SECOND: f64 = 100.0;

/// Memory that a process holds, and the most that it ever held, in MiB.
pub(crate) fn memory(pid: u32) -> (f64, f64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key))?;
        line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()
    };
    let mib = |key: &str| kib(key).unwrap_or(f64::NAN) / 1024.0;
    (mib("VmRSS:"), mib("VmHWM:"))
}

/// Time that a process has computed.
pub(crate) fn computed(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name of the program, in parentheses, may hold spaces.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    Duration::from_secs_f64((ticks(11) + ticks(12)) / TICKS_PER_SECOND)
}
