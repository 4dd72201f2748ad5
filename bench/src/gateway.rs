//! Durable `add-stock` commands beside orders whose payments wait for a gateway: one that answers at once,
//! and one that takes seconds. The service of the payments waits for it, and no other one should feel that.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use axum::Router;
use axum::routing::any;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::add_stock::add_stock;
use crate::load::{self, Pace};
use crate::report::{Report, Round, Series};
use crate::sagas::{Orders, place};
use crate::server::{Server, new_data};
use crate::shop;
use crate::turns::Turns;

/// The longest time that a component waits for a gateway: longer than the slow one takes.
const HTTP_TIME_MS: u64 = 8_000;

/// Compare commands of one service while the gateway of another answers at once and while it is slow, in
/// turns
#[derive(clap::Args)]
pub(crate) struct Gateway {
    /// Products
    #[arg(long, default_value_t = 64)]
    products: usize,
    /// Orders in a second beside the commands
    #[arg(long, default_value_t = 50)]
    orders: u32,
    /// Milliseconds that the slow gateway takes to answer
    #[arg(long, default_value_t = 5_000)]
    slow_ms: u64,
    #[command(flatten)]
    turns: Turns,
}

impl Gateway {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.turns.check(self.products, 2)?;
        let (mut slow, mut quick) = (Series::new("slow"), Series::new("quick"));
        for _ in 0..self.turns.rounds {
            quick.rounds.push(self.round(Duration::ZERO)?);
            slow.rounds.push(self.round(Duration::from_millis(self.slow_ms))?);
        }
        self.turns.print(&Report::new("request", vec![slow], quick))
    }

    /// Measures a new server with a gateway that takes this long to answer.
    fn round(&self, takes: Duration) -> anyhow::Result<Round> {
        let runtime = Runtime::new()?;
        let gateway = runtime.block_on(serve(takes))?;
        let configuration = configuration(gateway)?;
        let mut command = self.turns.serve();
        command.arg("--config").arg(configuration.path().join("kontor.toml"));
        let server = Server::start(command, &self.turns.data)?;
        let address = server.address;
        shop::register(address, self.products)?;
        let orders = Orders::of(self.products);
        // As many orders wait for the gateway as ever will, once it has taken its time for the first one.
        let gathering = Duration::from_millis(self.slow_ms) + Duration::from_secs(1);
        let placing = (gathering + self.turns.whole()).as_secs();
        let pace = Pace { per_second: self.orders, seconds: u32::try_from(placing)? };
        thread::scope(|scope| {
            let placing = scope.spawn(move || load::run_at(address, 16, pace, move || place(&orders.next())));
            thread::sleep(gathering);
            let round = self.turns.round(address, add_stock(self.products), || server.cpu_time());
            let placed = placing.join().map_err(|_| anyhow!("the load generator has panicked"))??;
            placed.show_first_error();
            round
        })
    }
}

/// Serves a gateway that accepts everything.
async fn serve(takes: Duration) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let accept = any(move || async move {
        tokio::time::sleep(takes).await;
        ([("content-type", "application/json")], "{}")
    });
    tokio::spawn(axum::serve(listener, Router::new().fallback_service(accept)).into_future());
    Ok(address)
}

/// Returns a folder with the configuration of a host whose payments go through the gateway.
fn configuration(gateway: SocketAddr) -> anyhow::Result<TempDir> {
    let folder = new_data(&std::env::temp_dir())?;
    let url = format!("http://{gateway}");
    let text = format!(
        "[limits]\nhttp_time_ms = {HTTP_TIME_MS}\n\n[services.payment]\ngateway-url = '{url}'\n\n\
         [[grants.payment.http]]\norigin = '{url}'\nmethods = ['POST', 'PUT', 'DELETE']\nprivate = true\n"
    );
    fs::write(folder.path().join("kontor.toml"), text)?;
    Ok(folder)
}
