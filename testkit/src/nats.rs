//! Real nats-servers with JetStream, on loopback, each in its own process.
#![allow(clippy::expect_used, clippy::panic, reason = "a test without its server is a test that fails")]

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{self, Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::components::target;

/// Longer than a slow machine takes to start one.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The first port that the system may assign by itself; the servers' ports are below it.
const EPHEMERAL: u16 = 32_768;
const FIRST_PORT: u16 = 10_000;

/// A server, alone or in a cluster. It is killed when dropped.
pub struct NatsServer {
    /// `None` while it is down.
    process: Option<Child>,
    program: PathBuf,
    name: String,
    folder: TempDir,
    port: u16,
    monitoring: u16,
}

/// The program and the data directory of servers.
pub struct Installed {
    /// The path of `nats-server`.
    pub program: PathBuf,
    /// The directory in which each server creates its own.
    pub data: PathBuf,
}

impl Default for Installed {
    /// The program that `cargo xtask test` fetches, with the data in the system's temporary directory.
    fn default() -> Self {
        Self { program: target().join("nats/bin/nats-server"), data: env::temp_dir() }
    }
}

impl NatsServer {
    /// Starts a server that writes each message to disk before it acknowledges it. Returns once it accepts
    /// connections.
    pub fn start() -> Self {
        Self::start_in(&Installed::default())
    }

    /// Starts such a server with another program or data directory.
    pub fn start_in(installed: &Installed) -> Self {
        Self::new(installed, "alone", "").started()
    }

    /// Starts such a server with an addition to its configuration.
    pub fn start_with(configuration: &str) -> Self {
        Self::new(&Installed::default(), "alone", configuration).started()
    }

    fn started(mut self) -> Self {
        self.restart();
        self
    }

    /// Starts a server, and two without a log that pass everything on to it and back, except messages on this
    /// subject: clients of the two reach the log, and do not hear each other on the subject.
    pub fn parted(subject: &str) -> (Self, [Self; 2]) {
        let port = free_port();
        let server = Self::bare(&Installed::default(), "alone");
        let storage = server.storage(", domain: hub");
        let server =
            server.configured(&format!("{storage}leafnodes {{ listen: \"127.0.0.1:{port}\" }}\n")).started();
        let leaves = ["leaf-1", "leaf-2"].map(|name| {
            let remote = format!(
                "default_js_domain: {{ $G: hub }}\n\
                 leafnodes {{ remotes: [{{ url: \"nats-leaf://127.0.0.1:{port}\", \
                 deny_imports: \"{subject}\", deny_exports: \"{subject}\" }}] }}\n"
            );
            Self::bare(&Installed::default(), name).configured(&remote).started()
        });
        (server, leaves)
    }

    /// Starts three servers as a cluster. Returns once all accept connections; they may still be electing a
    /// leader.
    pub fn cluster() -> [Self; 3] {
        Self::cluster_in(&Installed::default())
    }

    /// Starts such a cluster with another program or data directory.
    pub fn cluster_in(installed: &Installed) -> [Self; 3] {
        let routes = [(); 3].map(|()| free_port());
        let urls = routes.map(|port| format!("nats://127.0.0.1:{port}")).join(", ");
        let mut servers = [1, 2, 3].map(|number| {
            let port = routes[number - 1];
            let cluster =
                format!("cluster {{ name: test, listen: \"127.0.0.1:{port}\", routes: [{urls}] }}\n");
            Self::new(installed, &format!("n{number}"), &cluster)
        });
        for server in &mut servers {
            server.restart();
        }
        servers
    }

    fn new(installed: &Installed, name: &str, more: &str) -> Self {
        let server = Self::bare(installed, name);
        let storage = server.storage("");
        server.configured(&format!("{storage}{more}"))
    }

    /// Returns the configuration of the server's storage.
    fn storage(&self, more: &str) -> String {
        let store = self.folder.path().join("store");
        format!("jetstream {{ store_dir: \"{}\", sync_interval: always{more} }}\n", store.display())
    }

    /// Creates a server without a configuration.
    fn bare(installed: &Installed, name: &str) -> Self {
        let folder = tempfile::tempdir_in(&installed.data).expect("a folder for a nats-server");
        let (port, monitoring) = (free_port(), free_port());
        let (program, name) = (installed.program.clone(), name.to_owned());
        Self { process: None, program, name, folder, port, monitoring }
    }

    /// Writes the configuration: the name, the ports, and `more`.
    fn configured(self, more: &str) -> Self {
        let Self { name, port, monitoring, .. } = &self;
        let configuration = format!(
            "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitoring}\"\n{more}"
        );
        fs::write(self.folder.path().join("nats.conf"), configuration).expect("the server's configuration");
        self
    }

    /// Returns the server's name in the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the server's address, such as `nats://127.0.0.1:4222`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Returns the address of its monitoring, such as `http://127.0.0.1:8222`.
    pub fn monitoring_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitoring)
    }

    /// Returns the id of the process, for signals.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Kills the server (SIGKILL). Its stored data stays.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the server can be killed");
            process.wait().expect("the server ends");
        }
    }

    /// Starts the server again on the same ports and the same data. Kills it first if it runs.
    pub fn restart(&mut self) {
        self.kill();
        let mut server = Command::new(&self.program);
        server.arg("--config").arg(self.folder.path().join("nats.conf"));
        let mut process = server.stderr(Stdio::piped()).spawn().unwrap_or_else(|error| {
            panic!("{} does not start: {error}; `cargo xtask test` fetches it", self.program.display())
        });
        let stderr = process.stderr.take().expect("a pipe");
        self.process = Some(process);
        await_ready(stderr);
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads the server's output until it is ready, and keeps reading so that the server never blocks on it.
fn await_ready(stderr: ChildStderr) {
    let (sender, ready) = mpsc::channel();
    thread::spawn(move || {
        let mut said = String::new();
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if line.contains("Server is ready") {
                // Err: the test has stopped waiting.
                let _ = sender.send(Ok(()));
                said.clear();
            } else if said.len() < 4_096 {
                said.push_str(&line);
                said.push('\n');
            }
        }
        let _ = sender.send(Err(said));
    });
    match ready.recv_timeout(START_LIMIT) {
        Ok(Ok(())) => {}
        Ok(Err(said)) => panic!("the nats-server ended: {said}"),
        Err(_) => panic!("the nats-server is not ready after {} s", START_LIMIT.as_secs()),
    }
}

/// Returns a free port for a server that keeps it across restarts. Each test process starts its search at
/// another port, below those that the system assigns.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let range = EPHEMERAL - FIRST_PORT;
    let start = (process::id() * 31 % u32::from(range)) as u16;
    for _ in 0..range {
        let offset = (u32::from(start) + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % u32::from(range);
        let port = FIRST_PORT + offset as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("this machine has no free port");
}
