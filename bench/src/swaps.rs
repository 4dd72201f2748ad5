//! Orders at a fixed rate, without and with another version of their service every few seconds: the effect on
//! callers, and a check that every order came out right.

use std::collections::HashMap;
use std::fs;
use std::iter;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail, ensure};
use kontor::model::Digest;
use kontor_testkit::shop::laws::{self, Shop};
use kontor_testkit::shop::step_order::{self, PAYS_FIRST, Placed, RESERVES_FIRST, StepOrder};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::Api;
use crate::figures::Figures;
use crate::latencies::Latencies;
use crate::load::{self, Pace};
use crate::sagas::{Orders, place};
use crate::server::Server;
use crate::shop;

/// Load that is not counted, before every round: caches fill, connections are made, instances get warm.
const WARM_UP_SECONDS: u32 = 2;
/// The interval of the checks of the log for the end of the last sagas.
const POLL: Duration = Duration::from_millis(100);

/// Place orders at a fixed rate while the order service is swapped between two versions, and while it is not
#[derive(clap::Args)]
pub(crate) struct Swaps {
    /// Orders that are due in a second, whether or not earlier ones are answered
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Measured seconds of each round
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Milliseconds from the beginning of one deployment to that of the next
    #[arg(long, default_value_t = 2_000)]
    every_ms: u64,
    /// Orders that the history gate folds. Default: all
    #[arg(long)]
    sample: Option<u64>,
    /// Connections. The latency of an order includes the wait for a free one
    #[arg(long, default_value_t = 128)]
    connections: usize,
    /// Products; each order takes one of each of two
    #[arg(long, default_value_t = 1_000)]
    products: usize,
    /// The program to measure
    #[arg(long, default_value = "../target/release/kontor")]
    kontor: PathBuf,
    /// The directory of its components
    #[arg(long, default_value = "../target/plugins")]
    plugins: PathBuf,
    /// The other version of the order service
    #[arg(long, default_value = "../target/fixtures/next-order.wasm")]
    next: PathBuf,
    /// Directory for the servers' data directories: on the disk to be measured
    #[arg(long, default_value = "../target")]
    data: PathBuf,
    #[command(flatten)]
    figures: Figures,
}

/// A version of the order service.
struct Version {
    wasm: Vec<u8>,
    digest: String,
    step_order: StepOrder,
}

/// The effect on callers.
#[derive(Serialize)]
struct Felt {
    orders: u64,
    /// The number of orders that were not answered with 2xx, or not at all.
    failed: u64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    /// Processor time of the host.
    cpu_ms: u64,
    /// The time of each deployment, in order: from sending the component to the end of its report.
    swaps_ms: Vec<u64>,
    /// The number of orders that each version has placed, by its digest.
    placed: HashMap<String, usize>,
    moved: usize,
}

impl Swaps {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if self.rate == 0 || self.seconds == 0 || self.connections == 0 || self.products < 2 {
            bail!("rate, seconds and connections must be at least 1, products at least 2");
        }
        let versions = [
            Version::read(&self.plugins.join("order.wasm"), RESERVES_FIRST)?,
            Version::read(&self.next, PAYS_FIRST)?,
        ];
        let without = self.round(&versions, false).context("measuring without swaps")?;
        let with = self.round(&versions, true).context("measuring with swaps")?;
        let ratio = with.p99_us as f64 / without.p99_us.max(1) as f64;
        println!("         orders  failed  p50 ms  p99 ms  max ms  CPU ms");
        for (name, felt) in [("without", &without), ("with", &with)] {
            felt.print(name);
        }
        println!("p99 with swaps to without: {ratio:.2} times");
        with.print_swaps();
        println!("the laws hold, all sagas have ended, each in the steps of its version:");
        for (digest, orders) in &with.placed {
            println!("  {} placed {orders} orders", &digest[..12]);
        }
        println!("  {} of them began on another version and were moved", with.moved);
        self.figures.write(&json!({"without": without, "with": with, "p99_ratio": ratio}))
    }

    /// Measures a new server, so that no round inherits the log of the one before.
    fn round(&self, versions: &[Version; 2], swapped: bool) -> anyhow::Result<Felt> {
        let mut command = Command::new(&self.kontor);
        command.arg("serve").arg("--plugins").arg(&self.plugins);
        let server = Server::start(command, &self.data)?;
        let address = server.address;
        shop::register(address, self.products)?;
        let orders = Orders::of(self.products);
        let work = move || place(&orders.next());
        let pace = Pace { per_second: self.rate, seconds: WARM_UP_SECONDS };
        let before = load::run_at(address, self.connections, pace, work.clone())?;
        let cpu_before = server.cpu_time()?;
        let pace = Pace { seconds: self.seconds, ..pace };
        let (answers, swaps_ms) = thread::scope(|scope| {
            let placing = scope.spawn(move || load::run_at(address, self.connections, pace, work));
            let mut swaps_ms = Vec::new();
            // The first version runs already, so the second one is deployed first.
            for version in versions.iter().cycle().skip(1) {
                if !swapped || placing.is_finished() {
                    break;
                }
                swaps_ms.push(self.swap(address, version)?);
            }
            let answers = placing.join().map_err(|_| anyhow!("the load generator has panicked"))?;
            anyhow::Ok((answers?, swaps_ms))
        })?;
        answers.show_first_error();
        let cpu_ms = u64::try_from((server.cpu_time()? - cpu_before).as_millis())?;
        let Placed { by, moved } = check(address, versions)?;
        let accepted = before.latencies.count() + answers.latencies.count();
        ensure!(
            by.values().sum::<usize>() as u64 >= accepted,
            "of {accepted} accepted orders there are {by:?}"
        );
        Ok(Felt {
            orders: answers.latencies.count(),
            failed: answers.errors,
            p50_us: answers.latencies.quantile_us(0.5),
            p99_us: answers.latencies.quantile_us(0.99),
            max_us: answers.latencies.quantile_us(1.0),
            cpu_ms,
            swaps_ms,
            placed: by.into_iter().collect(),
            moved,
        })
    }

    /// Deploys a version and waits until the next one is due. Returns the time of the deployment in
    /// milliseconds.
    fn swap(&self, address: SocketAddr, version: &Version) -> anyhow::Result<u64> {
        let begun = Instant::now();
        let sample = self.sample.map_or_else(String::new, |orders| format!("sample={orders}&"));
        Api::open(address)?.deploy(&version.wasm, &sample)?;
        let took = begun.elapsed();
        thread::sleep(Duration::from_millis(self.every_ms).saturating_sub(took));
        Ok(u64::try_from(took.as_millis())?)
    }
}

impl Version {
    fn read(file: &PathBuf, step_order: StepOrder) -> anyhow::Result<Self> {
        let missing = || format!("{} is missing: run `cargo xtask build`", file.display());
        let wasm = fs::read(file).with_context(missing)?;
        Ok(Self { digest: Digest::of(&wasm).to_string(), wasm, step_order })
    }
}

impl Felt {
    fn print(&self, name: &str) {
        let [p50, p99, max] = [self.p50_us, self.p99_us, self.max_us].map(|us| us as f64 / 1e3);
        println!(
            "{name:7}  {:6}  {:6}  {p50:6.2}  {p99:6.2}  {max:6.2}  {:6}",
            self.orders, self.failed, self.cpu_ms
        );
    }

    fn print_swaps(&self) {
        let mut took = Latencies::default();
        self.swaps_ms.iter().for_each(|ms| took.add(Duration::from_millis(*ms)));
        let [p50, max] = [0.5, 1.0].map(|share| took.quantile_us(share) / 1_000);
        println!("{} swaps; a deployment took {p50} ms (p50), {max} ms at most", took.count());
    }
}

/// Waits until no saga runs, then checks the laws of the shop. Panics if one is violated.
pub(crate) fn check_laws(address: SocketAddr) -> anyhow::Result<Api> {
    let api = Api::open(address)?;
    laws::check(&api);
    Ok(api)
}

/// Waits until no saga runs, then checks the laws of the shop and the step order of every saga. Panics if one
/// is violated.
fn check(address: SocketAddr, versions: &[Version; 2]) -> anyhow::Result<Placed> {
    let api = check_laws(address)?;
    let orders = versions.iter().map(|version| (version.digest.clone(), version.step_order)).collect();
    Ok(step_order::check(api.events(0), &orders))
}

#[allow(clippy::expect_used, reason = "the laws are checked by panics")]
impl Shop for Api {
    fn events(&self, after: u64) -> impl Iterator<Item = Value> {
        let mut next = Some(after);
        let pages = iter::from_fn(move || {
            let (events, more) = self.page(next?).expect("the log is read");
            next = more;
            Some(events)
        });
        pages.flatten()
    }

    fn follow(&self, mut after: u64) -> impl Iterator<Item = Value> {
        let pages = iter::from_fn(move || {
            thread::sleep(POLL);
            let (events, _) = self.page(after).expect("the log is read");
            after = events.last().and_then(|event| event["position"].as_u64()).unwrap_or(after);
            Some(events)
        });
        pages.flatten()
    }

    fn view(&self, aggregate: &str, id: &str) -> Value {
        let folder = match aggregate {
            "delivery" => "deliveries".to_owned(),
            other => format!("{other}s"),
        };
        match self.get(&format!("/{folder}/{id}")).expect("the host answers") {
            (404, _) => Value::Null,
            (_, view) => view,
        }
    }
}
