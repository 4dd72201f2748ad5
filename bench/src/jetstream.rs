//! The cost of a log on other servers: the same commands on the embedded log, on one nats-server and on
//! three.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kontor_testkit::nats::{Installed, NatsServer};

use crate::add_stock::add_stock;
use crate::load::Work;
use crate::report::{Report, Round, Series};
use crate::sagas::{Orders, place_and_wait};
use crate::server::{Server, cpu_time, new_data};
use crate::shop;
use crate::turns::Turns;

/// The compared logs with the number of nats-servers that keep them. The last one is the baseline.
const LOGS: [(&str, usize); 3] = [("JetStream R1", 1), ("JetStream R3", 3), ("embedded", 0)];

const WARNING: &str = "\
The nats-servers share the processors and the disk of this machine with the host and with each other, and
each of the three of R3 writes everything to that one disk. On machines of their own R3 costs less, and a
round trip over their network more.";

/// Compare commands and orders on the embedded log, on one nats-server and on three, in turns
#[derive(clap::Args)]
pub(crate) struct JetStream {
    /// Products; each order takes one of each of two
    #[arg(long, default_value_t = 1_000)]
    products: usize,
    /// The nats-server, as `cargo xtask test` fetches it
    #[arg(long, default_value = "../target/nats/bin/nats-server")]
    nats_server: PathBuf,
    #[command(flatten)]
    turns: Turns,
}

/// The work that each connection repeats.
type Load = Arc<dyn Fn(usize) -> Work + Send + Sync>;

impl JetStream {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.turns.check(self.products, 2)?;
        fs::create_dir_all(&self.turns.data)?;
        let commands = || -> Load { Arc::new(add_stock(self.products)) };
        let orders = || -> Load {
            let orders = Orders::of(self.products);
            Arc::new(move |_| place_and_wait(&orders.next()))
        };
        let reports = [self.compare("command", &commands)?, self.compare("order", &orders)?];
        for report in &reports {
            report.print();
            println!();
        }
        println!("{WARNING}");
        self.turns.figures.write(&reports.each_ref().map(Report::figures))
    }

    fn compare(&self, unit: &'static str, load: &dyn Fn() -> Load) -> anyhow::Result<Report> {
        let mut all = LOGS.map(|(name, _)| Series::new(name));
        for _ in 0..self.turns.rounds {
            for (series, (name, servers)) in all.iter_mut().zip(LOGS) {
                let round = self.round(servers, load());
                series.rounds.push(round.with_context(|| format!("measuring {unit}s on {name}"))?);
            }
        }
        let [one, three, embedded] = all;
        Ok(Report::new(unit, vec![one, three], embedded))
    }

    /// Measures new servers, so that no round inherits the log or the backlog of the one before.
    fn round(&self, servers: usize, load: Load) -> anyhow::Result<Round> {
        let installed = Installed { program: self.nats_server.clone(), data: self.turns.data.clone() };
        let nats = match servers {
            0 => vec![],
            1 => vec![NatsServer::start_in(&installed)],
            _ => NatsServer::cluster_in(&installed).into(),
        };
        let folder = new_data(&self.turns.data)?;
        let configuration = folder.path().join("kontor.toml");
        fs::write(&configuration, configured(&nats))?;
        let mut command = Command::new(&self.turns.kontor);
        command.arg("serve").arg("--config").arg(&configuration).arg("--plugins").arg(&self.turns.plugins);
        let host = Server::start(command, &self.turns.data)?;
        shop::register(host.address, self.products)?;
        let used = || -> anyhow::Result<Duration> {
            let servers = nats.iter().filter_map(NatsServer::pid).map(cpu_time);
            servers.chain([host.cpu_time()]).sum()
        };
        self.turns.round(host.address, move |connection| load(connection), used)
    }
}

/// Returns the `kontor.toml` of a host whose log these servers keep. Without servers the log is embedded.
fn configured(nats: &[NatsServer]) -> String {
    if nats.is_empty() {
        return String::new();
    }
    let urls: Vec<_> = nats.iter().map(NatsServer::url).collect();
    let monitoring: Vec<_> = nats.iter().map(NatsServer::monitoring_url).collect();
    format!(
        "log = \"jetstream\"\n[nats]\nurl = {:?}\nreplicas = {}\n[jetstream]\nmonitoring = {monitoring:?}\n",
        urls.join(","),
        nats.len()
    )
}
