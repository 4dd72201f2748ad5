//! The time of a deployment, gate by gate: versions of the order service on a log of many orders.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use kontor::log::{Append, EmbeddedLog, EventLog as _};
use kontor::model::{CommandId, Json, Meta, NewEvent, StreamId, Version};
use serde::Serialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::api::Api;
use crate::figures::Figures;
use crate::orders::{Shop, changed_twice};
use crate::server::{Server, new_data};

/// The number of orders whose events are interleaved in the log, like those of orders placed at the same
/// time.
const TOGETHER: u64 = 500;
/// The interval of the checks whether the host has read the log.
const POLL: Duration = Duration::from_millis(100);

/// Deploy the order service and its next version on a log of many orders
#[derive(clap::Args)]
pub(crate) struct Deploy {
    /// Orders of six events each
    #[arg(long, default_value_t = 100_000)]
    streams: u64,
    /// The program to measure
    #[arg(long, default_value = "../target/release/kontor")]
    kontor: PathBuf,
    /// The directory of its components
    #[arg(long, default_value = "../target/plugins")]
    plugins: PathBuf,
    /// The next version of the order service
    #[arg(long, default_value = "../target/fixtures/next-order.wasm")]
    next: PathBuf,
    /// Directory for the host's data directory: on the disk to be measured
    #[arg(long, default_value = "../target")]
    data: PathBuf,
    #[command(flatten)]
    figures: Figures,
}

/// One deployment.
#[derive(Serialize)]
struct Deployed {
    what: String,
    /// The time from the first byte of the component sent to the last byte of the report.
    took_ms: u64,
    /// The host's report.
    report: Value,
}

impl Deploy {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        ensure!(self.streams > 0, "streams must be at least 1");
        let data = new_data(&self.data)?;
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(self.fill(data.path()))?;
        let plugins = self.others()?;
        let mut command = Command::new(&self.kontor);
        command.arg("serve").arg("--plugins").arg(plugins.path());
        let server = Server::start_on(command, data)?;
        let api = Api::open(server.address)?;
        wait_until_read(&api)?;

        let [first, next] = [&self.plugins.join("order.wasm"), &self.next].map(|file| read(file));
        let (first, next) = (first?, next?);
        let deployed = [
            Deployed::now(&api, "the first order service, which nothing is compared with", &first)?,
            Deployed::now(&api, "the next version in its place", &next)?,
            Deployed::now(&api, "the first one again, which all folds are remembered of", &first)?,
        ];
        deployed.iter().for_each(Deployed::print);
        self.figures.write(&json!({"streams": self.streams, "deployments": deployed}))
    }

    /// Appends the orders' events to a log on which no host runs.
    async fn fill(&self, data: &Path) -> anyhow::Result<()> {
        let (log, shop) = (EmbeddedLog::open(data)?, Shop::new(self.streams));
        for first in (0..self.streams).step_by(TOGETHER as usize) {
            let orders = first..self.streams.min(first + TOGETHER);
            let histories: Vec<_> = orders.map(|order| (order, changed_twice(order))).collect();
            let mut batch = Vec::new();
            for version in 0..histories[0].1.len() {
                for (order, events) in &histories {
                    let (name, payload) = &events[version];
                    let stream = StreamId::new("order", &shop.id(*order))?;
                    let events = vec![NewEvent { name: (*name).into(), payload: Json::of(payload)? }];
                    let meta = meta(shop.time_ms(*order));
                    let expected = Version::START.after(version);
                    batch.push(Append { events, meta, ..Append::nothing(stream, expected) });
                }
            }
            log.append(batch).await?;
        }
        Ok(())
    }

    /// Makes a directory with the components that the order service asks. It lacks the order service, which
    /// would resume the sagas of all orders, and the report service, whose read model would still be built
    /// while the gates are measured.
    fn others(&self) -> anyhow::Result<TempDir> {
        let folder = tempfile::tempdir_in(&self.data)?;
        for service in ["inventory.wasm", "payment.wasm", "delivery.wasm"] {
            fs::write(folder.path().join(service), read(&self.plugins.join(service))?)?;
        }
        Ok(folder)
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("{} is missing: run `cargo xtask build`", file.display()))
}

/// Returns the metadata of events that no host has decided.
pub(crate) fn meta(time_ms: u64) -> Arc<Meta> {
    Arc::new(Meta {
        command_id: CommandId::new(),
        command: "bench".into(),
        correlation_id: "bench".into(),
        time_ms,
        actor: "bench".into(),
        ..Meta::default()
    })
}

/// Waits until a host has read the whole log: only then it answers that a saga does not exist.
fn wait_until_read(api: &Api) -> anyhow::Result<()> {
    loop {
        match api.get("/sagas/none")? {
            (404, _) => return Ok(()),
            (503 | 504, _) => thread::sleep(POLL),
            (status, problem) => bail!("a saga that is not there was answered with {status} {problem}"),
        }
    }
}

impl Deployed {
    fn now(api: &Api, what: &str, wasm: &[u8]) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let report = api.deploy(wasm, "").context(what.to_owned())?;
        let took_ms = u64::try_from(begun.elapsed().as_millis())?;
        Ok(Self { what: what.to_owned(), took_ms, report })
    }

    fn print(&self) {
        println!("{}: {} ms", self.what, self.took_ms);
        let gates = [&self.report["services"][0]["gates"], &self.report["gates"]];
        for gate in gates.into_iter().filter_map(Value::as_array).flatten() {
            let text = |field: &str| gate[field].as_str().unwrap_or_default().to_owned();
            println!(
                "  {:12}  {:8}  {:>7} ms  {}",
                text("gate"),
                text("outcome"),
                gate["took_ms"],
                text("says")
            );
        }
        println!();
    }
}
