//! A second machine, as far as the network goes.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A second machine: a network namespace with a link to this one.
pub(crate) struct Machine {
    pub(crate) name: String,
    /// The address of this machine on the link.
    pub(crate) here: String,
    /// The address of the other one.
    pub(crate) there: String,
}

impl Machine {
    /// Connects it. `None`: this needs the rights of root.
    pub(crate) fn connect() -> Option<Self> {
        static MACHINES: AtomicU32 = AtomicU32::new(0);
        // Processes that run at the same time have numbers that are not far apart.
        let id = (std::process::id() * 8 + MACHINES.fetch_add(1, Ordering::Relaxed)) % (1 << 14);
        // A network of four addresses for each machine, of those for benchmarks (RFC 2544).
        let address = |last: u32| format!("198.18.{}.{}", id / 64, id % 64 * 4 + last);
        let machine = Self { name: format!("kontor-{id}"), here: address(1), there: address(2) };
        if !ip(&format!("netns add {}", machine.name)) {
            return None;
        }
        let Self { name, here, there } = &machine;
        let (near, far) = (format!("k{id}a"), format!("k{id}b"));
        for command in [
            format!("link add {near} type veth peer name {far} netns {name}"),
            format!("addr add {here}/30 dev {near}"),
            format!("link set {near} up"),
            format!("-n {name} addr add {there}/30 dev {far}"),
            format!("-n {name} link set {far} up"),
        ] {
            assert!(ip(&command), "ip {command}");
        }
        Some(machine)
    }
}

/// Runs the program `ip`. Returns if it has succeeded.
fn ip(arguments: &str) -> bool {
    let run = Command::new("ip").args(arguments.split(' ')).output();
    run.is_ok_and(|run| run.status.success())
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Err: it stays until the machine starts again. The link goes with it.
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}
