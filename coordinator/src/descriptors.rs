//! Open files: every connection is one.

/// Lets this process open as many files as the system allows it. A worker keeps a connection for as long as it lives, and
/// the usual limit of 1024 would turn the others away. Where the limit cannot be raised it stays.
pub fn allow_many_connections() {
    #[cfg(unix)]
    raise();
}

#[cfg(unix)]
fn raise() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a value of the type that the call fills.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return;
    }
    let before = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to an initialised value of the type that the call reads.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0;
    tracing::debug!(before, now = limit.rlim_cur, raised, "limit of open files");
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn the_limit_of_open_files_is_as_high_as_it_may_be() {
        super::allow_many_connections();
        let text = std::fs::read_to_string("/proc/self/limits").expect("Linux tells a process its limits");
        let line = text.lines().find_map(|l| l.strip_prefix("Max open files")).expect("files are limited");
        let mut limits = line.split_whitespace();
        assert_eq!(limits.next(), limits.next(), "{line}");
    }
}
