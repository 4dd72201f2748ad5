//! Durable `add-stock` commands over HTTP: Kontor with its component, and the same service by hand.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::http::{Connection, request};
use crate::load;
use crate::report::{Report, Round};
use crate::server::Server;

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
        let mut report = Report::default();
        for _ in 0..self.rounds {
            report.kontor.push(self.round(self.kontor()).context("measuring Kontor")?);
            report.native.push(self.round(native()?).context("measuring the native service")?);
        }
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
        self.register(&server)?;
        let add: Vec<Arc<[u8]>> = (0..self.connections)
            .map(|connection| format!("/products/{}/add-stock", product(connection % self.products)))
            .map(|path| request("POST", &path, r#"{"quantity":1}"#).into())
            .collect();
        load::run(server.address, &add, WARM_UP)?;
        let duration = Duration::from_secs(self.seconds);
        let cpu_before = server.cpu_time()?;
        let answers = load::run(server.address, &add, duration)?;
        let cpu = server.cpu_time()? - cpu_before;
        if let Some(reply) = &answers.first_error {
            eprintln!("the first of {} errors: {reply}", answers.errors);
        }
        Ok(Round::new(answers, duration, cpu))
    }

    fn register(&self, server: &Server) -> anyhow::Result<()> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
            let mut connection = Connection::open(server.address).await?;
            for index in 0..self.products {
                let path = format!("/products/{}", product(index));
                let body = r#"{"name":"Blue mug","unit_price":1290,"quantity":100}"#;
                let status = connection.exchange(&request("PUT", &path, body)).await?;
                if status != 201 {
                    bail!("registering a product was answered with {}", connection.last_reply());
                }
            }
            Ok(())
        })
    }
}

fn product(index: usize) -> String {
    format!("product-{index:04}")
}

/// This program again, as the server that Kontor is compared with.
fn native() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("native");
    Ok(command)
}
