//! The read side at size: how fast the report component takes events in, and how fast a million orders are asked about.

mod native;
mod orders;
mod questions;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use kontor::log::MAX_PAGE;
use kontor::projection::Standalone;
use kontor::runtime::{Component, Runtime, RuntimeLimits};
use serde_json::json;
use tokio::runtime::Handle;

use native::Native;
use orders::Shop;

/// Fill a read database with orders by the report component and by hand, then ask about them
#[derive(clap::Args)]
pub(crate) struct Reports {
    /// Orders of 2 or 3 lines, spread over a year
    #[arg(long, default_value_t = 100_000)]
    orders: u64,
    /// How often each kind of question is asked
    #[arg(long, default_value_t = 1_000)]
    questions: usize,
    /// The directory of the components
    #[arg(long, default_value = "../target/plugins")]
    plugins: PathBuf,
    /// Where the databases are made: on the disk to be measured
    #[arg(long, default_value = "../target")]
    data: PathBuf,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// How long it took to apply all events.
#[derive(Default)]
struct Replay {
    events: u64,
    kontor: Duration,
    native: Duration,
    kontor_cpu: Duration,
    native_cpu: Duration,
}

impl Reports {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if self.orders == 0 || self.questions == 0 {
            bail!("orders and questions must be at least 1");
        }
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(self.measure())
    }

    async fn measure(&self) -> anyhow::Result<()> {
        fs::create_dir_all(&self.data)?;
        let data = tempfile::tempdir_in(&self.data)?;
        let component = self.component(data.path()).await?;
        let shop = Shop::new(self.orders);
        let replay = replay(data.path(), &component, &shop)?;
        let answers = questions::ask_all(data.path(), component, &shop, self.questions).await?;
        if self.json {
            let figures = json!({
                "orders": self.orders,
                "events": replay.events,
                "kontor_events_per_second": replay.per_second(replay.kontor),
                "native_events_per_second": replay.per_second(replay.native),
                "replay_ratio": replay.ratio(),
                "questions": answers,
            });
            println!("{figures:#}");
            return Ok(());
        }
        println!("{} orders, {} events", self.orders, replay.events);
        println!("cpu us/event {:.1} {:.1}", replay.kontor_cpu.as_secs_f64()*1e6/replay.events as f64, replay.native_cpu.as_secs_f64()*1e6/replay.events as f64);
        println!("replay, events/s: kontor {:.0}", replay.per_second(replay.kontor));
        println!("                  native {:.0}", replay.per_second(replay.native));
        println!("                  kontor to native {:.0} %\n", replay.ratio() * 100.0);
        println!("question                                    p50 ms  p99 ms  rows");
        for answer in answers {
            println!("{answer}");
        }
        Ok(())
    }

    async fn component(&self, data: &Path) -> anyhow::Result<Component> {
        let file = self.plugins.join("report.wasm");
        let wasm = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
        let runtime = Runtime::new(data, RuntimeLimits::default(), HashMap::new())?;
        Ok(runtime.load(wasm).await?)
    }
}

impl Replay {
    fn per_second(&self, took: Duration) -> f64 {
        self.events as f64 / took.as_secs_f64()
    }

    fn ratio(&self) -> f64 {
        self.native.as_secs_f64() / self.kontor.as_secs_f64()
    }
}

/// Applies the same events in pages of the host's size, each page by both in turns, so that both meet the same machine.
/// Making the events is not measured.
fn replay(data: &Path, component: &Component, shop: &Shop) -> anyhow::Result<Replay> {
    let native_file = data.join("native.db");
    let mut native = Native::open(&native_file)?;
    let mut kontor = Standalone::open(data, component.clone())?;
    let mut replay = Replay::default();
    let mut events = shop.events();
    loop {
        let page: Vec<_> = events.by_ref().take(std::env::var("KPAGE").ok().and_then(|v| v.parse().ok()).unwrap_or(MAX_PAGE)).collect();
        if page.is_empty() {
            break;
        }
        replay.events += page.len() as u64;
        let (started, before) = (Instant::now(), cpu());
        tokio::task::block_in_place(|| Handle::current().block_on(kontor.project(&page)))
            .map_err(|error| anyhow!(error))?;
        replay.kontor += started.elapsed();
        replay.kontor_cpu += cpu() - before;
        let (started, before) = (Instant::now(), cpu());
        native.project(&page)?;
        replay.native += started.elapsed();
        replay.native_cpu += cpu() - before;
    }
    let model = component.manifest().read_model.as_ref().context("the report component has a read model")?;
    let kontor_file = data.join(format!("read/report-v{}.db", model.version));
    ensure!(
        native::fingerprint(&kontor_file)? == native::fingerprint(&native_file)?,
        "the component and the native code have made different tables: they do not do the same work"
    );
    Ok(replay)
}

fn cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|v| v.parse().ok()).unwrap_or(0))
}
