//! Orders at several times the rate that the host can process: what is taken is answered in time, the rest is
//! refused with the time to wait, the backlog of sagas is bounded, and as many sagas end as without the
//! excess.

use std::process;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use serde::Serialize;

use crate::load::{self, Pace};
use crate::sagas::{Orders, place, place_and_wait, settled, sum_of};
use crate::server::{Server, cpu_time};
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
    /// Orders that the host processes when nothing more comes: before the overload, and on the same log after
    /// it.
    capacity: [Measured; 2],
    due_per_second: u32,
    taken: u64,
    /// Refused with 429 or 503 and the time to wait.
    refused: u64,
    /// Any other answer, or none.
    failed: u64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    /// Sagas that have ended during the overload.
    ended: Measured,
    largest_backlog: u64,
    /// From the last order to the end of the last saga.
    drained_ms: u64,
}

/// Sagas that have ended in some time, and who used the processors meanwhile.
#[derive(Clone, Copy, Serialize)]
struct Measured {
    per_second: f64,
    /// Processors that the host has used.
    host: f64,
    /// Processors that the load generator has used.
    generator: f64,
}

/// The beginning of a measured time.
struct Since {
    begun: Instant,
    ended: u64,
    host: Duration,
    generator: Duration,
}

impl Since {
    fn now(server: &Server) -> anyhow::Result<Self> {
        let (host, generator) = (server.cpu_time()?, cpu_time(process::id())?);
        Ok(Self { begun: Instant::now(), ended: settled(server)?, host, generator })
    }

    fn until(self, end: &Self) -> Measured {
        let seconds = (end.begun - self.begun).as_secs_f64();
        Measured {
            per_second: (end.ended - self.ended) as f64 / seconds,
            host: (end.host - self.host).as_secs_f64() / seconds,
            generator: (end.generator - self.generator).as_secs_f64() / seconds,
        }
    }
}

impl Overload {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.turns.check(self.products, 2)?;
        let server = Server::start(self.turns.serve(), &self.turns.data)?;
        let address = server.address;
        shop::register(address, self.products)?;
        let orders = Orders::of(self.products);
        let before = self.capacity(&server, &orders)?;
        ensure!(before.per_second >= 1.0, "the host processes no orders");
        let pace = Pace { per_second: before.per_second as u32 * self.times, seconds: self.overload_seconds };
        let (begun, mut largest_backlog) = (Since::now(&server)?, 0);
        let work = orders.clone();
        let (answers, end) = thread::scope(|scope| {
            let connections = self.overload_connections;
            let placing =
                scope.spawn(move || load::run_at(address, connections, pace, move || place(&work.next())));
            while !placing.is_finished() {
                largest_backlog = largest_backlog.max(open(&server)?);
                thread::sleep(LOOK);
            }
            let answers = placing.join().map_err(|_| anyhow!("the load generator has panicked"))??;
            anyhow::Ok((answers, Since::now(&server)?))
        })?;
        let ended = begun.until(&end);
        while open(&server)? > 0 {
            thread::sleep(LOOK / 10);
        }
        let drained_ms = u64::try_from(end.begun.elapsed().as_millis())?;
        let after = self.capacity(&server, &orders)?;
        answers.show_first_error();
        check_laws(address)?;
        let latencies = &answers.latencies;
        let seen = Seen {
            capacity: [before, after],
            due_per_second: pace.per_second,
            taken: latencies.count(),
            refused: answers.refused,
            failed: answers.errors - answers.refused,
            p50_us: latencies.quantile_us(0.5),
            p99_us: latencies.quantile_us(0.99),
            max_us: latencies.quantile_us(1.0),
            ended,
            largest_backlog,
            drained_ms,
        };
        seen.print();
        self.turns.figures.write(&seen)
    }

    /// Measures orders whose sagas are awaited.
    fn capacity(&self, server: &Server, orders: &Orders) -> anyhow::Result<Measured> {
        let work = orders.clone();
        let work = move |_| place_and_wait(&work.next());
        self.turns.warm_up(server.address, work.clone())?;
        let begun = Since::now(server)?;
        load::run(server.address, self.turns.connections, self.turns.duration(), work)?.show_first_error();
        Ok(begun.until(&Since::now(server)?))
    }
}

/// Returns the number of sagas that have not ended.
pub(crate) fn open(server: &Server) -> anyhow::Result<u64> {
    sum_of(server, "kontor_sagas{")
}

impl Seen {
    fn print(&self) {
        let [p50, p99, max] = [self.p50_us, self.p99_us, self.max_us].map(|us| us as f64 / 1e3);
        let [before, after] = &self.capacity;
        println!("due: {} orders/s", self.due_per_second);
        println!("taken {}, refused for now {}, failed {}", self.taken, self.refused, self.failed);
        println!("taken ones: p50 {p50:.2} ms, p99 {p99:.2} ms, max {max:.2} ms");
        println!("                  sagas/s  processors of the host  of the generator");
        for (name, measured) in
            [("awaited, before", before), ("overload", &self.ended), ("awaited, after", after)]
        {
            let Measured { per_second, host, generator } = measured;
            println!("{name:16}  {per_second:7.0}  {host:22.2}  {generator:16.2}");
        }
        let capacity = (before.per_second + after.per_second) / 2.0;
        println!("overload to awaited: {:.0} %", 100.0 * self.ended.per_second / capacity);
        println!(
            "largest backlog: {} sagas, processed {} ms after the last order",
            self.largest_backlog, self.drained_ms
        );
        println!("the laws hold, and all sagas have ended");
    }
}
