//! The read side at size: the speed of the report component in applying events and in answering queries about
//! a million orders.

mod native;
mod questions;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use kontor::log::MAX_BATCH;
use kontor::projection::Standalone;
use kontor::runtime::Component;
use serde_json::json;
use tokio::runtime::Handle;

use native::Native;

use crate::figures::Figures;
use crate::in_process::{InProcess, Loaded};
use crate::orders::Shop;

/// Fill a read database with orders by the report component and by hand, then ask about them
#[derive(clap::Args)]
pub(crate) struct Reports {
    /// Orders of 2 or 3 lines, spread over a year
    #[arg(long, default_value_t = 100_000)]
    orders: u64,
    /// Number of times that each kind of question is asked
    #[arg(long, default_value_t = 1_000)]
    questions: usize,
    #[command(flatten)]
    in_process: InProcess,
    #[command(flatten)]
    figures: Figures,
}

/// The cost of applying all events.
#[derive(Default)]
struct Replay {
    events: u64,
    kontor: Cost,
    native: Cost,
}

#[derive(Default)]
struct Cost {
    wall: Duration,
    /// Processor time, the better measure on a machine that also does other things.
    cpu: Duration,
}

impl Reports {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if self.orders == 0 || self.questions == 0 {
            bail!("orders and questions must be at least 1");
        }
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(self.measure())
    }

    async fn measure(&self) -> anyhow::Result<()> {
        let Loaded { data, runtime, component } = self.in_process.load("report").await?;
        let shop = Shop::new(self.orders);
        let replay = replay(data.path(), &component, &shop)?;
        let answers = questions::ask_all(data.path(), (runtime, component), &shop, self.questions).await?;
        println!("{} orders, {} events", self.orders, replay.events);
        println!("replay    events/s  CPU us/event");
        for (name, cost) in [("kontor", &replay.kontor), ("native", &replay.native)] {
            println!("{name:8}  {:8.0}  {:12.1}", replay.per_second(cost), replay.cpu_us(cost));
        }
        println!("kontor to native {:.0} %\n", replay.ratio() * 100.0);
        println!("question                                    p50 ms  p99 ms  rows");
        answers.iter().for_each(|answer| println!("{answer}"));
        self.figures.write(&json!({
            "orders": self.orders,
            "events": replay.events,
            "kontor_events_per_second": replay.per_second(&replay.kontor),
            "native_events_per_second": replay.per_second(&replay.native),
            "replay_ratio": replay.ratio(),
            "kontor_cpu_us_per_event": replay.cpu_us(&replay.kontor),
            "native_cpu_us_per_event": replay.cpu_us(&replay.native),
            "questions": answers,
        }))
    }
}

impl Replay {
    fn per_second(&self, cost: &Cost) -> f64 {
        self.events as f64 / cost.wall.as_secs_f64()
    }

    fn cpu_us(&self, cost: &Cost) -> f64 {
        cost.cpu.as_secs_f64() * 1e6 / self.events as f64
    }

    fn ratio(&self) -> f64 {
        self.native.wall.as_secs_f64() / self.kontor.wall.as_secs_f64()
    }
}

impl Cost {
    /// Adds the cost of some work of this thread.
    fn measure<T>(&mut self, work: impl FnOnce() -> T) -> anyhow::Result<T> {
        let (started, cpu) = (Instant::now(), thread_cpu()?);
        let result = work();
        self.wall += started.elapsed();
        self.cpu += thread_cpu()?.saturating_sub(cpu);
        Ok(result)
    }
}

fn thread_cpu() -> anyhow::Result<Duration> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = stat.split(' ').next().context("the kernel counts a thread's time")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

/// Applies the same events in batches of the host's size, each batch by both in turns, so that both run in
/// the same conditions. The time to make the events is not counted.
fn replay(data: &Path, component: &Component, shop: &Shop) -> anyhow::Result<Replay> {
    let native_file = data.join("native.db");
    let mut native = Native::open(&native_file)?;
    let mut kontor = Standalone::open(data, component.clone())?;
    let mut replay = Replay::default();
    let mut events = shop.events();
    loop {
        let batch: Vec<_> = events.by_ref().take(MAX_BATCH).collect();
        if batch.is_empty() {
            break;
        }
        replay.events += batch.len() as u64;
        let project = || tokio::task::block_in_place(|| Handle::current().block_on(kontor.project(&batch)));
        replay.kontor.measure(project)?.map_err(|error| anyhow!(error))?;
        replay.native.measure(|| native.project(&batch))??;
    }
    let model = component.manifest().read_model.as_ref().context("the report component has a read model")?;
    let kontor_file = data.join(format!("read/report-v{}.db", model.version));
    ensure!(
        native::fingerprint(&kontor_file)? == native::fingerprint(&native_file)?,
        "the component and the native code have made different tables: they do not do the same work"
    );
    Ok(replay)
}
