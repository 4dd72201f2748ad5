//! Starts of a host: the time to the first command, the memory while nothing happens, and the time in which
//! the sagas end that were open when the host was killed.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde::Serialize;
use tempfile::TempDir;

use crate::http::{Connection, request};
use crate::load::{self, Pace};
use crate::overload::open;
use crate::report::median;
use crate::sagas::{Orders, place, place_and_wait};
use crate::server::Server;
use crate::shop;
use crate::swaps::check_laws;
use crate::turns::Turns;

/// The time from the start of a host to the look at its memory.
const IDLE: Duration = Duration::from_secs(5);
/// The orders that open the sagas: more than a host can process, and for the longest time that they take.
const FLOOD: Pace = Pace { per_second: 20_000, seconds: 120 };
/// The connections of these orders.
const CONNECTIONS: usize = 512;
/// The interval between two looks at the sagas.
const POLL: Duration = Duration::from_millis(10);

/// Start a host again and again, and once after it was killed with open sagas
#[derive(clap::Args)]
pub(crate) struct Starts {
    /// Starts with nothing to do
    #[arg(long, default_value_t = 20)]
    starts: usize,
    /// Sagas that are open when the host is killed; a host refuses orders beyond about 11,000
    #[arg(long, default_value_t = 10_000)]
    sagas: u64,
    /// Products; each order takes one of each of two
    #[arg(long, default_value_t = 1_000)]
    products: usize,
    #[command(flatten)]
    turns: Turns,
}

#[derive(Serialize)]
struct Measured {
    /// From the start of the process to the answer to a command.
    first_command_ms: Vec<f64>,
    /// The memory of an idle host in bytes: all of it, and the part that is its own.
    idle_bytes: [u64; 2],
    /// Sagas that were open when the host was killed.
    open: u64,
    /// From the next start of the process to the end of the last of them.
    ended_ms: u64,
}

impl Starts {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.turns.check(self.products, 2)?;
        let server = Server::start(self.turns.serve(), &self.turns.data)?;
        shop::register(server.address, self.products)?;
        let orders = Orders::of(self.products);
        let work = orders.clone();
        self.turns.warm_up(server.address, move |_| place_and_wait(&work.next()))?;

        let mut data = server.kill();
        let mut first_command_ms = Vec::new();
        for _ in 0..self.starts {
            let (server, ms) = self.start(data)?;
            first_command_ms.push(ms);
            data = server.kill();
        }
        let (server, _) = self.start(data)?;
        thread::sleep(IDLE);
        let idle_bytes = server.memory()?;

        let open_when_killed = self.flood(&server, &orders)?;
        let data = server.kill();
        let begun = Instant::now();
        let (server, _) = self.start(data)?;
        while open(&server)? > 0 {
            thread::sleep(POLL);
        }
        let ended_ms = u64::try_from(begun.elapsed().as_millis())?;
        check_laws(server.address)?;
        let measured = Measured { first_command_ms, idle_bytes, open: open_when_killed, ended_ms };
        measured.print();
        self.turns.figures.write(&measured)
    }

    /// Starts a host, and returns it with the time to the answer to a command.
    fn start(&self, data: TempDir) -> anyhow::Result<(Server, f64)> {
        let path = format!("/products/{}/add-stock", shop::product(0));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let begun = Instant::now();
        let server = Server::start_on(self.turns.serve(), data)?;
        let status = runtime.block_on(async {
            let mut connection = Connection::open(server.address).await?;
            connection.exchange(&request("POST", &path, r#"{"quantity":1}"#)).await
        });
        let status = status.context("the first command was not answered")?;
        ensure!(status == 200, "the first command was answered with {status}");
        Ok((server, begun.elapsed().as_secs_f64() * 1e3))
    }

    /// Places orders until enough sagas are open. Returns their number.
    fn flood(&self, server: &Server, orders: &Orders) -> anyhow::Result<u64> {
        let (address, work) = (server.address, orders.clone());
        let begun = Instant::now();
        // It ends with the host: no connection can be made.
        thread::spawn(move || {
            load::run_at(address, CONNECTIONS, FLOOD, move || place(&work.next())).map(drop)
        });
        loop {
            let open = open(server)?;
            if open >= self.sagas {
                return Ok(open);
            }
            ensure!(begun.elapsed().as_secs() < FLOOD.seconds.into(), "only {open} sagas are open");
            thread::sleep(POLL);
        }
    }
}

impl Measured {
    fn print(&self) {
        let starts = &self.first_command_ms;
        let longest = starts.iter().copied().fold(0.0, f64::max);
        let [all, own] = self.idle_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20));
        println!(
            "{} starts to the first command: median {:.1} ms, longest {longest:.1} ms",
            starts.len(),
            median(starts.iter().copied())
        );
        println!("idle memory: {all:.1} MiB, {own:.1} of them its own");
        println!("{} sagas open when killed: all ended after {} ms", self.open, self.ended_ms);
        println!("the laws hold");
    }
}
