//! A node: a bridge with an address for every pod and service, and what lies on its disks.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use mllm4rec_integration_tests::namespaces::{ip, laid};

/// The network and the folder of a node; gone at the end of the test, with everything in them.
pub(crate) struct Node {
    /// Between one test and another.
    number: u32,
    pods: AtomicU32,
    folder: tempfile::TempDir,
}

/// Nodes so far, in this program.
static NODES: AtomicU32 = AtomicU32::new(0);

impl Node {
    /// Lays the network, where the system lets us.
    pub(crate) fn lay() -> Option<Self> {
        let number = (std::process::id() + NODES.fetch_add(1, Ordering::Relaxed)) % 100 + 100;
        let node = Self { number, pods: AtomicU32::new(0), folder: tempfile::tempdir().unwrap() };
        let bridge = node.bridge();
        laid(
            // With an address of its own. A bridge without has the lowest of its pods', and whoever knew that of before is
            // cut off from it for half a minute.
            ip(&format!("link add {bridge} address 02:00:00:00:00:01 type bridge"))
                .and_then(|()| ip(&format!("addr add {} dev {bridge}", node.address(0, 1) + "/16")))
                .and_then(|()| ip(&format!("link set {bridge} up"))),
        )?;
        Some(node)
    }

    /// A folder on its disk that is not there yet; whoever may enter it may read it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An address of its own, for a service.
    pub(crate) fn service_address(&self, number: u32) -> String {
        let address = self.address(1, number);
        ip(&format!("addr add {address}/32 dev {}", self.bridge())).unwrap();
        address
    }

    /// A network namespace for a pod: its name and address.
    pub(crate) fn pod_network(&self) -> (String, String) {
        let pod = self.pods.fetch_add(1, Ordering::Relaxed) + 1;
        let (space, address) = (format!("mllm4rec{}p{pod}", self.number), self.address(2 + pod / 250, pod % 250 + 2));
        let (near, bridge) = (format!("mk{}p{pod}", self.number), self.bridge());
        for args in [
            format!("netns add {space}"),
            format!("-n {space} link set lo up"),
            format!("link add {near} type veth peer name eth0 netns {space}"),
            format!("link set {near} master {bridge} up"),
            format!("-n {space} addr add {address}/16 dev eth0"),
            format!("-n {space} link set eth0 up"),
            format!("-n {space} route add default via {}", self.address(0, 1)),
        ] {
            ip(&args).unwrap();
        }
        (space, address)
    }

    fn address(&self, third: u32, fourth: u32) -> String {
        format!("10.{}.{third}.{fourth}", self.number)
    }

    fn bridge(&self) -> String {
        format!("mk{}b", self.number)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for pod in 1..=self.pods.load(Ordering::Relaxed) {
            let _ = ip(&format!("netns del mllm4rec{}p{pod}", self.number));
        }
        let _ = ip(&format!("link del {}", self.bridge()));
    }
}

/// Writes a file that everybody may read.
pub(crate) fn write(path: &Path, text: &[u8]) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}
