//! Commands on a log of many events, against the same commands on an empty one.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kontor::log::{Append, EmbeddedLog, EventLog as _};
use kontor::model::{Json, NewEvent, StreamId, Version};
use serde_json::json;
use tempfile::TempDir;

use crate::add_stock::add_stock;
use crate::deploy::meta;
use crate::report::{Report, Round, Series};
use crate::sagas::sum_of;
use crate::server::Server;
use crate::shop;
use crate::turns::Turns;

/// The events of each product.
const EVENTS: u64 = 100;
/// The products whose events are appended together.
const TOGETHER: u64 = 1_000;
/// The interval between two looks at the read models.
const POLL: Duration = Duration::from_millis(500);

/// Compare durable commands on a log of many events with those on an empty one, in turns
#[derive(clap::Args)]
pub(crate) struct Growth {
    /// Events in the log, 100 of each product
    #[arg(long, default_value_t = 10_000_000)]
    events: u64,
    /// Products that the commands are sent to
    #[arg(long, default_value_t = 64)]
    products: usize,
    #[command(flatten)]
    turns: Turns,
}

impl Growth {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.turns.check(self.products, 1)?;
        ensure!(self.events >= EVENTS * TOGETHER, "events must be at least {}", EVENTS * TOGETHER);
        let (mut grown, mut empty) = (Series::new("grown"), Series::new("empty"));
        let mut data = self.filled()?;
        for _ in 0..self.turns.rounds {
            let server = Server::start_on(self.turns.serve(), data)?;
            wait_until_read(&server)?;
            grown.rounds.push(self.round(&server).context("measuring on the grown log")?);
            data = server.kill();
            let server = Server::start(self.turns.serve(), &self.turns.data)?;
            shop::register(server.address, self.products)?;
            empty.rounds.push(self.round(&server).context("measuring on an empty log")?);
        }
        let report = Report::new("request", vec![grown], empty);
        self.turns.print(&report)
    }

    fn round(&self, server: &Server) -> anyhow::Result<Round> {
        self.turns.round(server.address, add_stock(self.products), || server.cpu_time())
    }

    /// Makes a log whose events a host has read.
    fn filled(&self) -> anyhow::Result<TempDir> {
        // First the shop and the products of the commands, so that nothing is deployed on the grown log.
        let server = Server::start(self.turns.serve(), &self.turns.data)?;
        shop::register(server.address, self.products)?;
        let data = server.kill();
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(self.fill(data.path()))?;
        let server = Server::start_on(self.turns.serve(), data)?;
        wait_until_read(&server)?;
        Ok(server.kill())
    }

    async fn fill(&self, data: &Path) -> anyhow::Result<()> {
        let log = EmbeddedLog::open(data)?;
        let registered = Json::of(&json!({"name": "Blue mug", "unit_price": 1290, "quantity": 1}))?;
        let added = Json::of(&json!({"quantity": 1}))?;
        let first = NewEvent { name: "product-registered".into(), payload: registered };
        let next = NewEvent { name: "stock-added".into(), payload: added };
        for group in 0..self.events / EVENTS / TOGETHER {
            for version in 0..EVENTS {
                let append = |product| {
                    let event = if version == 0 { &first } else { &next };
                    let stream = StreamId::new("product", &format!("old-{product}"))?;
                    let expected = Version::new(version);
                    let events = vec![event.clone()];
                    anyhow::Ok(Append { events, meta: meta(0), ..Append::nothing(stream, expected) })
                };
                let products = group * TOGETHER..(group + 1) * TOGETHER;
                log.append(products.map(append).collect::<anyhow::Result<_>>()?).await?;
            }
        }
        Ok(())
    }
}

/// Waits until all read models have reached the end of the log.
fn wait_until_read(server: &Server) -> anyhow::Result<()> {
    while sum_of(server, "kontor_projection_lag_events{")? > 0 {
        thread::sleep(POLL);
    }
    Ok(())
}
