//! What the codes of NCCL mean for whoever has to do something about them.

use std::path::Path;

use super::api::Code;

/// Shared memory that NVIDIA advises for the members on one machine.
const ADVISED_BYTES: u64 = 1 << 30;
/// What a container gets if nobody asks for more, where NCCL is known to fail.
const HOW_TO_ENLARGE: &str =
    "give the container more (docker run --shm-size=1g; in Kubernetes an emptyDir of medium Memory at /dev/shm)";

/// An error in words, with the way out where there is a frequent one. Remarks are what was noticed when the group was joined.
pub(super) fn explain(what: &str, code: Code, said: &str, remarks: &[String]) -> String {
    let lower = said.to_lowercase();
    let mut text = format!("NCCL: {what} failed: {said}");
    let mut add = |hint: &str| {
        text.push_str("; ");
        text.push_str(hint);
    };
    if ["shm", "no space left", "shared memory"].iter().any(|word| lower.contains(word)) {
        add(&format!("/dev/shm may be too small: {HOW_TO_ENLARGE}"));
    } else if code == Code::CUDA || lower.contains("out of memory") {
        add(
            "if the card has too little memory left, let less run beside: NCCL takes its own besides that of the tensors",
        );
    } else if code == Code::SYSTEM || code == Code::REMOTE || lower.contains("connect") {
        add(
            "another worker may be gone, or may not be reached: where machines have several networks NCCL_SOCKET_IFNAME names \
             the one to use, and workers must reach each other on all ports",
        );
    }
    remarks.iter().for_each(|remark| add(remark));
    add("NCCL_DEBUG=WARN makes NCCL tell more");
    text
}

/// What is to be said of `/dev/shm` where so many members are on this machine.
pub(super) fn remark_on_shared_memory(members_here: usize) -> Option<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    too_small(members_here, size_of_mount(&mounts, Path::new("/dev/shm"))?)
}

fn too_small(members_here: usize, bytes: u64) -> Option<String> {
    (members_here > 1 && bytes < ADVISED_BYTES).then(|| {
        format!(
            "/dev/shm has {} MiB here for {members_here} workers, and NVIDIA advises 1 GiB: {HOW_TO_ENLARGE}",
            bytes >> 20
        )
    })
}

/// The `size=65536k` of a file system in memory; nothing if none is said, which is half of the machine's memory then.
fn size_of_mount(mounts: &str, at: &Path) -> Option<u64> {
    let is_there = |line: &&str| line.split(' ').nth(1).is_some_and(|place| Path::new(place) == at);
    let options = mounts.lines().rfind(is_there)?.split(' ').nth(3)?;
    let size = options.split(',').find_map(|option| option.strip_prefix("size="))?;
    let digits = size.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match &size[digits.len()..] {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_size_of_shared_memory_is_read_from_the_mounts() {
        let mounts =
            "proc /proc proc rw 0 0\nshm /dev/shm tmpfs rw,nosuid,size=65536k,inode64 0 0\ntmpfs /run tmpfs rw 0 0\n";
        assert_eq!(size_of_mount(mounts, Path::new("/dev/shm")), Some(64 << 20));
        assert_eq!(size_of_mount(mounts, Path::new("/run")), None);
        assert_eq!(size_of_mount(&mounts.replace("65536k", "2g"), Path::new("/dev/shm")), Some(2 << 30));
    }

    #[test]
    fn little_shared_memory_is_told_where_several_workers_need_it() {
        assert!(too_small(2, 64 << 20).unwrap().contains("64 MiB here for 2 workers"));
        assert_eq!([too_small(1, 64 << 20), too_small(2, 1 << 30)], [None, None]);
    }

    #[test]
    fn errors_name_the_way_out() {
        let explained = |code, said: &str| explain("joining the group", code, said, &["a remark".to_owned()]);
        let shared = explained(Code::SYSTEM, "Error: failed to extend /dev/shm/nccl-03v824 to 4194660 bytes");
        assert!(shared.contains("--shm-size=1g") && shared.contains("nccl-03v824"), "{shared}");
        let network = explained(Code::REMOTE, "remote process exited or there was a network error");
        assert!(network.contains("NCCL_SOCKET_IFNAME") && network.contains("a remark"), "{network}");
        assert!(explained(Code::CUDA, "Cuda failure 2 'out of memory'").contains("memory left"));
        assert!(explained(Code(3), "internal error").ends_with("NCCL_DEBUG=WARN makes NCCL tell more"));
    }
}
