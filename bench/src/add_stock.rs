//! Durable `add-stock` commands over HTTP: Kontor with its component, and the same service by hand.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::json;

use crate::http::request_with;
use crate::load::{Pace, Work};
use crate::report::{Report, Round, Series};
use crate::server::Server;
use crate::shop;
use crate::turns::Turns;

/// Compare durable commands over HTTP: Kontor and the same service by hand, in turns
#[derive(clap::Args)]
pub(crate) struct AddStock {
    /// Products; 1 makes all commands queue for one aggregate
    #[arg(long, default_value_t = 64)]
    products: usize,
    #[command(flatten)]
    turns: Turns,
}

impl AddStock {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.turns.check(self.products, 1)?;
        let closed = self.rounds(None)?;
        closed.print();
        let pace = Pace { per_second: closed.lowest_throughput() as u32 / 2, ..self.turns.pace() };
        println!("\nat {} requests a second, each due at its time:", pace.per_second);
        let open = self.rounds(Some(pace))?;
        open.print();
        self.turns.figures.write(&json!({"closed": closed.figures(), "open": open.figures()}))
    }

    /// Measures both servers in turns. `pace`: that of an open loop.
    fn rounds(&self, pace: Option<Pace>) -> anyhow::Result<Report> {
        let (mut kontor, mut baseline) = (Series::new("kontor"), Series::new("native"));
        for _ in 0..self.turns.rounds {
            kontor.rounds.push(self.round(self.turns.serve(), pace).context("measuring Kontor")?);
            baseline.rounds.push(self.round(native()?, pace).context("measuring the native service")?);
        }
        Ok(Report::new("request", vec![kontor], baseline))
    }

    /// Measures a new server, so that no round inherits the log or the backlog of the one before.
    fn round(&self, command: Command, pace: Option<Pace>) -> anyhow::Result<Round> {
        fs::create_dir_all(&self.turns.data)?;
        let server = Server::start(command, &self.turns.data)?;
        shop::register(server.address, self.products)?;
        let (work, used) = (add_stock(self.products), || server.cpu_time());
        match pace {
            None => self.turns.round(server.address, work, used),
            Some(pace) => self.turns.round_at(server.address, pace, work, used),
        }
    }
}

/// Returns the work of a connection: it adds stock to one of `products` products.
pub(crate) fn add_stock(products: usize) -> impl Fn(usize) -> Work + Clone + Send + Sync + 'static {
    add_stock_with(products, "")
}

/// Returns the same work with further headers of each request, each with its line's end.
pub(crate) fn add_stock_with(
    products: usize,
    headers: &str,
) -> impl Fn(usize) -> Work + Clone + Send + Sync + 'static {
    let add: Arc<[Work]> = (0..products)
        .map(|index| format!("/products/{}/add-stock", shop::product(index)))
        .map(|path| vec![request_with("POST", &path, headers, r#"{"quantity":1}"#)])
        .collect();
    move |connection: usize| add[connection % add.len()].clone()
}

/// Returns the command that runs this program as the server that Kontor is compared with.
fn native() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("native");
    Ok(command)
}
