//! Durable `add-stock` commands over HTTP: Kontor with its component, and the same service by hand.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::http::request;
use crate::load::{self, Work};
use crate::report::{Report, Round, Series};
use crate::server::Server;
use crate::shop;

/// Load that is not counted, before every round: caches fill, connections are made, instances get warm.
const WARM_UP: Duration = Duration::from_secs(2);

/// Compare durable commands over HTTP: Kontor and the same service by hand, in turns
#[derive(clap::Args)]
pub(crate) struct AddStock {
    /// Connections; each sends its next command when the one before is answered
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// How long each round is measured
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Products; 1 makes all commands queue for one aggregate
    #[arg(long, default_value_t = 64)]
    products: usize,
    /// Rounds of each server
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// The program to measure
    #[arg(long, default_value = "../target/release/kontor")]
    kontor: PathBuf,
    /// The directory of its components
    #[arg(long, default_value = "../target/plugins")]
    plugins: PathBuf,
    /// Where the servers' data directories are made: on the disk to be measured
    #[arg(long, default_value = "../target")]
    data: PathBuf,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

impl AddStock {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if self.products == 0 || self.connections == 0 || self.rounds == 0 || self.seconds == 0 {
            bail!("connections, seconds, products and rounds must be at least 1");
        }
        let (mut kontor, mut baseline) = (Series::new("kontor"), Series::new("native"));
        for _ in 0..self.rounds {
            kontor.rounds.push(self.round(self.kontor()).context("measuring Kontor")?);
            baseline.rounds.push(self.round(native()?).context("measuring the native service")?);
        }
        let report = Report::new("request", vec![kontor], baseline);
        if self.json { report.print_json() } else { report.print_table() }
    }

    fn kontor(&self) -> Command {
        let mut command = Command::new(&self.kontor);
        command.arg("serve").arg("--plugins").arg(&self.plugins);
        command
    }

    /// A new server, so that no round inherits the log or the backlog of the one before.
    fn round(&self, command: Command) -> anyhow::Result<Round> {
        fs::create_dir_all(&self.data)?;
        let server = Server::start(command, &self.data)?;
        shop::register(server.address, self.products)?;
        let add = add_stock(self.products);
        load::run(server.address, self.connections, WARM_UP, add.clone())?;
        let duration = Duration::from_secs(self.seconds);
        let cpu_before = server.cpu_time()?;
        let answers = load::run(server.address, self.connections, duration, add)?;
        let cpu = server.cpu_time()? - cpu_before;
        answers.show_first_error();
        Ok(Round::new(answers, duration, cpu))
    }
}

/// Each connection adds to one of so many products.
pub(crate) fn add_stock(products: usize) -> impl Fn(usize) -> Work + Clone + Send + Sync + 'static {
    let add: Arc<[Work]> = (0..products)
        .map(|index| format!("/products/{}/add-stock", shop::product(index)))
        .map(|path| vec![request("POST", &path, r#"{"quantity":1}"#)])
        .collect();
    move |connection: usize| add[connection % add.len()].clone()
}

/// This program again, as the server that Kontor is compared with.
fn native() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("native");
    Ok(command)
}
