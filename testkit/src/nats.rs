//! Real nats-servers with JetStream, on loopback, each in a process of its own.
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

/// Ports that the system gives to nobody else by itself are below this one.
const EPHEMERAL: u16 = 32_768;
const FIRST_PORT: u16 = 10_000;

/// A server that stands alone or in a cluster. Dropped, it is killed.
pub struct NatsServer {
    /// None while it is down.
    process: Option<Child>,
    program: PathBuf,
    name: String,
    folder: TempDir,
    port: u16,
    monitoring: u16,
}

/// Where the servers come from and go to.
pub struct Installed {
    /// The nats-server.
    pub program: PathBuf,
    /// The directory in which each server makes its own.
    pub data: PathBuf,
}

impl Default for Installed {
    /// As `cargo xtask test` has it, with the data where the system has what is temporary.
    fn default() -> Self {
        Self { program: target().join("nats/bin/nats-server"), data: env::temp_dir() }
    }
}

impl NatsServer {
    /// Starts a server that writes every message to disk before it acknowledges it. Returns when it takes connections.
    pub fn start() -> Self {
        Self::start_in(&Installed::default())
    }

    /// The same elsewhere.
    pub fn start_in(installed: &Installed) -> Self {
        Self::new(installed, "alone", "").started()
    }

    /// A server with more in its configuration.
    pub fn start_with(configuration: &str) -> Self {
        Self::new(&Installed::default(), "alone", configuration).started()
    }

    fn started(mut self) -> Self {
        self.restart();
        self
    }

    /// Three servers that make a cluster. Returns when all take connections; they may be looking for a leader still.
    pub fn cluster() -> [Self; 3] {
        Self::cluster_in(&Installed::default())
    }

    /// The same elsewhere.
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
        let folder = tempfile::tempdir_in(&installed.data).expect("a folder for a nats-server");
        let (port, monitoring) = (free_port(), free_port());
        let store = folder.path().join("store");
        let configuration = format!(
            "server_name: {name}\nlisten: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitoring}\"\n\
             jetstream {{ store_dir: \"{}\", sync_interval: always }}\n{more}",
            store.display()
        );
        fs::write(folder.path().join("nats.conf"), configuration).expect("the server's configuration");
        let (program, name) = (installed.program.clone(), name.to_owned());
        Self { process: None, program, name, folder, port, monitoring }
    }

    /// As it is called in the cluster.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `nats://127.0.0.1:…`
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where it tells about itself: `http://127.0.0.1:…`
    pub fn monitoring_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitoring)
    }

    /// The process, for signals.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Ends it at once (SIGKILL); what it has stored stays.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the server can be killed");
            process.wait().expect("the server ends");
        }
    }

    /// Starts it again where it was, on what it has stored. Kills it first if it runs.
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

/// Reads what the server says until it is ready, and from then on so that it is never in its way.
fn await_ready(stderr: ChildStderr) {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let mut said = String::new();
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if line.contains("Server is ready") {
                // Err: nobody waits any more.
                let _ = tell.send(Ok(()));
                said.clear();
            } else if said.len() < 4_096 {
                said.push_str(&line);
                said.push('\n');
            }
        }
        let _ = tell.send(Err(said));
    });
    match told.recv_timeout(START_LIMIT) {
        Ok(Ok(())) => {}
        Ok(Err(said)) => panic!("the nats-server ended: {said}"),
        Err(_) => panic!("the nats-server is not ready after {} s", START_LIMIT.as_secs()),
    }
}

/// A port that stays the same when the server is started again. Every process of the tests begins elsewhere, and none where
/// the system gives ports away.
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
