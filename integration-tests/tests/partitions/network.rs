//! A network of our own: coordinator, workers and store each in a network namespace, and a router between them that drops
//! what it is told to. Packets vanish on the way, as behind a broken switch: nobody gets an error.

use std::path::Path;
use std::process::Command;

use mllm4rec_integration_tests::namespaces::{ip, laid};

/// Who is where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Coordinator = 1,
    Workers = 2,
    Store = 3,
    /// The test itself, in the namespace that it was started in.
    Test = 4,
}

/// The namespaces; gone at the end of the test, with everything in them.
pub(crate) struct Network {
    /// Between one test program and another.
    number: u32,
}

impl Network {
    /// Lays the network, where the system lets us.
    pub(crate) fn lay() -> Option<Self> {
        let network = Self { number: std::process::id() % 200 + 20 };
        laid(network.routers().iter().chain(&network.lines()).try_for_each(|args| ip(args)))?;
        Some(network)
    }

    /// The address of a host.
    pub(crate) fn address(&self, host: Host) -> String {
        format!("10.{}.{}.2", self.number, host as u8)
    }

    /// A command that runs where a host is.
    pub(crate) fn inside(&self, host: Host, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(host)]).arg(program);
        command
    }

    /// From now on nothing comes through from one host to another.
    pub(crate) fn cut(&self, from: Host, to: Host) {
        ip(&self.rule("add", from, to)).unwrap();
    }

    /// From now on it does again.
    pub(crate) fn heal(&self, from: Host, to: Host) {
        ip(&self.rule("del", from, to)).unwrap();
    }

    fn rule(&self, what: &str, from: Host, to: Host) -> String {
        let (from, to) = (self.address(from), self.address(to));
        format!("-n {} rule {what} from {from} to {to} blackhole", self.router())
    }

    fn router(&self) -> String {
        format!("mllm4rec{}r", self.number)
    }

    fn space(&self, host: Host) -> String {
        format!("mllm4rec{}n{}", self.number, host as u8)
    }

    fn routers(&self) -> Vec<String> {
        let router = self.router();
        vec![
            format!("netns add {router}"),
            format!("-n {router} link set lo up"),
            format!("netns exec {router} sysctl -qw net.ipv4.ip_forward=1"),
        ]
    }

    /// A line from every host to the router.
    fn lines(&self) -> Vec<String> {
        let router = self.router();
        let mut commands = Vec::new();
        for host in [Host::Coordinator, Host::Workers, Host::Store, Host::Test] {
            let (net, near, far) = (format!("10.{}.{}", self.number, host as u8), self.near(host), self.far(host));
            let at = if host == Host::Test { String::new() } else { format!("-n {} ", self.space(host)) };
            if host != Host::Test {
                commands.push(format!("netns add {}", self.space(host)));
                commands.push(format!("{at}link set lo up"));
            }
            commands.push(format!("{at}link add {near} type veth peer name {far} netns {router}"));
            commands.push(format!("{at}addr add {net}.2/24 dev {near}"));
            commands.push(format!("{at}link set {near} up"));
            commands.push(format!("-n {router} addr add {net}.1/24 dev {far}"));
            commands.push(format!("-n {router} link set {far} up"));
            commands.push(format!("{at}route add 10.{}.0.0/16 via {net}.1", self.number));
        }
        commands
    }

    fn near(&self, host: Host) -> String {
        format!("ml{}n{}", self.number, host as u8)
    }

    fn far(&self, host: Host) -> String {
        format!("ml{}r{}", self.number, host as u8)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let spaces = [Host::Coordinator, Host::Workers, Host::Store].map(|host| self.space(host));
        // A line goes with either of its ends.
        for space in spaces.into_iter().chain([self.router()]) {
            let _ = ip(&format!("netns del {space}"));
        }
    }
}
