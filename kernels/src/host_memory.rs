//! The memory of the host, as its system tells: of the machine, and of the container that this process may be in.

/// Bytes that this process may use.
pub(crate) fn total_bytes() -> Option<u64> {
    Some(of_machine("MemTotal")?.min(limit().unwrap_or(u64::MAX)))
}

/// Bytes that this process can still ask for.
pub(crate) fn available_bytes() -> Option<u64> {
    let left = limit().map_or(u64::MAX, |limit| limit.saturating_sub(used().unwrap_or(0)));
    Some(of_machine("MemAvailable")?.min(left))
}

fn of_machine(key: &str) -> Option<u64> {
    kibibytes(&read("/proc/meminfo")?, key)
}

/// What the container may use: of cgroups in version 2, then 1.
fn limit() -> Option<u64> {
    first_number(["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"])
}

/// What the container uses, without pages of files that it would give back.
fn used() -> Option<u64> {
    let all = first_number(["/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes"])?;
    let stat = ["/sys/fs/cgroup/memory.stat", "/sys/fs/cgroup/memory/memory.stat"].into_iter().find_map(read);
    Some(all.saturating_sub(stat.and_then(|stat| field(&stat, "inactive_file")).unwrap_or(0)))
}

fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok()
}

/// A container without a limit says `max`, which is no number.
fn first_number(paths: [&str; 2]) -> Option<u64> {
    paths.into_iter().find_map(|path| read(path)?.trim().parse().ok())
}

/// The bytes of `MemTotal:       24684092 kB`.
fn kibibytes(meminfo: &str, key: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|n| n * 1024)
}

/// The number of `inactive_file 4096`.
fn field(stat: &str, key: &str) -> Option<u64> {
    stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_writes_is_read() {
        let meminfo = "MemTotal:       24684092 kB\nMemAvailable:   24089424 kB\n";
        assert_eq!(kibibytes(meminfo, "MemTotal"), Some(24_684_092 * 1024));
        assert_eq!(kibibytes(meminfo, "Mem"), None);
        let stat = "anon 1\ninactive_anon 2\ninactive_file 4096\n";
        assert_eq!((field(stat, "inactive_file"), field(stat, "file")), (Some(4096), None));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_has_some_memory_and_no_more_than_all() {
        let (all, left) = (total_bytes().unwrap(), available_bytes().unwrap());
        assert!(0 < left && left <= all, "{left} of {all}");
    }
}
