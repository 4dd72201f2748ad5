//! Orders at several times the rate that the host can process: what is taken is answered in time, the rest is
//! refused with the time to wait, the backlog of sagas is bounded, and as many sagas end as without the
//! excess.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use serde::Serialize;

use crate::load::{self, Pace};
use crate::report::quantile;
use crate::sagas::{Orders, place, place_and_wait, sum_of};
use crate::server::Server;
use crate::shop;
use crate::swaps::check_laws;
use crate::turns::Turns;

/// The interval between two looks at the backlog.
const LOOK: Duration = Duration::from_secs(1);

/// Place orders at several times the capacity of the host, which is measured first
#[derive(clap::Args)]
pub(crate) struct Overload {
    /// Products; each order takes one of each of two
    #[arg(long, default_value_t = 1_000)]
    products: usize,
    /// Orders that are due in the time of one that the host can process
    #[arg(long, default_value_t = 3)]
    times: u32,
    /// Seconds of the overload
    #[arg(long, default_value_t = 60)]
    overload_seconds: u32,
    /// Connections of the overload. The latency of an order includes the wait for a free one
    #[arg(long, default_value_t = 512)]
    overload_connections: usize,
    #[command(flatten)]
    turns: Turns,
}

/// The overload as callers and the host have seen it.
#[derive(Serialize)]
struct Seen {
    /// Orders in a second that the host processes when nothing more comes.
    capacity: f64,
    due_per_second: u32,
    taken: usize,
    /// Refused with 429 or 503 and the time to wait.
    refused: u64,
    /// Any other answer, or none.
    failed: u64,
    p50_us: u32,
    p99_us: u32,
    max_us: u32,
    /// Sagas in a second that have ended during the overload.
    ended_per_second: f64,
    largest_backlog: u64,
    /// From the last order to the end of the last saga.
    drained_ms: u64,
}

impl Overload {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.turns.check(self.products, 2)?;
        let server = Server::start(self.turns.serve(), &self.turns.data)?;
        let address = server.address;
        shop::register(address, self.products)?;
        let orders = Orders::of(self.products);
        let work = orders.clone();
        let capacity =
            self.turns.round(address, move |_| place_and_wait(&work.next()), || server.cpu_time())?;
        let capacity = capacity.requests_per_second();
        ensure!(capacity >= 1.0, "the host processes no orders");
        let pace = Pace { per_second: capacity as u32 * self.times, seconds: self.overload_seconds };
        let (begun, ended_before) = (Instant::now(), ended(&server)?);
        let (mut largest_backlog, mut ended_at_end) = (0, 0);
        let answers = thread::scope(|scope| {
            let connections = self.overload_connections;
            let placing =
                scope.spawn(move || load::run_at(address, connections, pace, move || place(&orders.next())));
            while !placing.is_finished() {
                largest_backlog = largest_backlog.max(open(&server)?);
                ended_at_end = ended(&server)?;
                thread::sleep(LOOK);
            }
            anyhow::Ok(placing.join().map_err(|_| anyhow!("the load generator has panicked"))??)
        })?;
        let took = begun.elapsed().as_secs_f64();
        let done = Instant::now();
        while open(&server)? > 0 {
            thread::sleep(LOOK / 10);
        }
        let drained_ms = u64::try_from(done.elapsed().as_millis())?;
        answers.show_first_error();
        check_laws(address)?;
        let mut latencies_us = answers.latencies_us;
        latencies_us.sort_unstable();
        let seen = Seen {
            capacity,
            due_per_second: pace.per_second,
            taken: latencies_us.len(),
            refused: answers.refused,
            failed: answers.errors - answers.refused,
            p50_us: quantile(&latencies_us, 0.5),
            p99_us: quantile(&latencies_us, 0.99),
            max_us: quantile(&latencies_us, 1.0),
            ended_per_second: (ended_at_end - ended_before) as f64 / took,
            largest_backlog,
            drained_ms,
        };
        seen.print(self.turns.json)
    }
}

/// Returns the number of sagas that have not ended.
fn open(server: &Server) -> anyhow::Result<u64> {
    sum_of(server, "kontor_sagas{")
}

/// Returns the number of sagas that have ended.
fn ended(server: &Server) -> anyhow::Result<u64> {
    sum_of(server, "kontor_sagas_settled_total{")
}

impl Seen {
    fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{:#}", serde_json::to_value(self)?);
            return Ok(());
        }
        let [p50, p99, max] = [self.p50_us, self.p99_us, self.max_us].map(|us| f64::from(us) / 1e3);
        println!("capacity: {:.0} orders/s; due: {} orders/s", self.capacity, self.due_per_second);
        println!("taken {}, refused for now {}, failed {}", self.taken, self.refused, self.failed);
        println!("taken ones: p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms");
        let share = 100.0 * self.ended_per_second / self.capacity;
        println!("sagas ended: {:.0}/s, {share:.0} % of the capacity", self.ended_per_second);
        println!(
            "largest backlog: {} sagas, processed {} ms after the last order",
            self.largest_backlog, self.drained_ms
        );
        println!("the laws hold, and all sagas have ended");
        Ok(())
    }
}
