//! The cost of a saga: orders of two lines placed by `place-order`, and by a client that sends the same
//! commands itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kontor::model::CommandId;
use serde_json::json;
use tempfile::TempDir;

use crate::http::{Connection, request, request_with};
use crate::load::{self, Work};
use crate::report::{Report, Round, Series};
use crate::server::Server;
use crate::shop;
use crate::turns::Turns;

/// The interval of the checks for the end of a flood: well below the time of a round.
const POLL: Duration = Duration::from_millis(20);

/// Compare orders placed by a saga with the same commands sent one by one by a client, in turns
#[derive(clap::Args)]
pub(crate) struct Sagas {
    /// Products; each order takes one of each of two. A product's state lists the orders that hold some of
    /// it, so few products get slow
    #[arg(long, default_value_t = 1_000)]
    products: usize,
    /// The component of the shop without sagas
    #[arg(long, default_value = "../target/wasm32-wasip2/plugin/by_hand.wasm")]
    by_hand: PathBuf,
    #[command(flatten)]
    turns: Turns,
}

impl Sagas {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        self.turns.check(self.products, 2)?;
        let by_hand = self.plugins_by_hand()?;
        let mut waiting = Series::new("saga, awaited");
        let mut flood = Series::new("saga, flood");
        let mut commands = Series::new("commands");
        for _ in 0..self.turns.rounds {
            waiting.rounds.push(self.round(&self.turns.plugins, place_and_wait).context("measuring sagas")?);
            flood.rounds.push(self.flood().context("measuring a flood of sagas")?);
            commands.rounds.push(self.round(by_hand.path(), send_commands).context("measuring commands")?);
        }
        let report = Report::new("order", vec![waiting, flood], commands);
        self.turns.print(&report)
    }

    /// Makes a directory with the shop without sagas and the same read models.
    fn plugins_by_hand(&self) -> anyhow::Result<TempDir> {
        let folder = tempfile::tempdir_in(&self.turns.data)?;
        for file in [&self.by_hand, &self.turns.plugins.join("report.wasm")] {
            let name = file.file_name().context("a component has a name")?;
            fs::copy(file, folder.path().join(name))
                .with_context(|| format!("{} is missing", file.display()))?;
        }
        Ok(folder)
    }

    /// Starts a new server, so that no round inherits the log or the backlog of the one before.
    fn server(&self, plugins: &Path) -> anyhow::Result<Server> {
        let mut command = Command::new(&self.turns.kontor);
        command.arg("serve").arg("--plugins").arg(plugins);
        let server = Server::start(command, &self.turns.data)?;
        shop::register(server.address, self.products)?;
        Ok(server)
    }

    fn round(&self, plugins: &Path, work: fn(&Order) -> Work) -> anyhow::Result<Round> {
        let server = self.server(plugins)?;
        let orders = Orders::of(self.products);
        self.turns.round(server.address, move |_| work(&orders.next()), || server.cpu_time())
    }

    /// Measures a flood, whose sagas are not waited for: the time from its first order to the end of the last
    /// saga counts.
    fn flood(&self) -> anyhow::Result<Round> {
        let server = self.server(&self.turns.plugins)?;
        let orders = Orders::of(self.products);
        let work = orders.clone();
        self.turns.warm_up(server.address, move |_| place_and_wait(&work.next()))?;
        let settled_before = settled(&server)?;
        let (start, cpu_before) = (Instant::now(), server.cpu_time()?);
        let duration = self.turns.duration() / 2;
        let answers =
            load::run(server.address, self.turns.connections, duration, move |_| place(&orders.next()))?;
        answers.show_first_error();
        let orders = answers.latencies.count();
        while settled(&server)? < settled_before + orders {
            std::thread::sleep(POLL);
        }
        Ok(Round::of_flood(orders, answers.errors, start.elapsed(), server.cpu_time()? - cpu_before))
    }
}

/// Returns the number of sagas that have ended on a server.
pub(crate) fn settled(server: &Server) -> anyhow::Result<u64> {
    sum_of(server, "kontor_sagas_settled_total{")
}

/// Returns the sum of the metrics of a server whose names and labels begin so.
pub(crate) fn sum_of(server: &Server, metric: &str) -> anyhow::Result<u64> {
    let metrics = tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut connection = Connection::open(server.address).await?;
        connection.exchange(&request("GET", "/metrics", "")).await?;
        anyhow::Ok(connection.last_reply())
    })?;
    let counters = metrics.lines().filter(|line| line.starts_with(metric));
    let counts = counters.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    Ok(counts.sum())
}

/// The source of the next order.
#[derive(Clone)]
pub(crate) struct Orders {
    placed: Arc<AtomicUsize>,
    products: usize,
}

/// An order of one piece of each of two products.
pub(crate) struct Order {
    id: CommandId,
    products: [String; 2],
}

impl Orders {
    pub(crate) fn of(products: usize) -> Self {
        Self { placed: Arc::default(), products }
    }

    pub(crate) fn next(&self) -> Order {
        let first = 2 * self.placed.fetch_add(1, Ordering::Relaxed);
        let products = [first, first + 1].map(|index| shop::product(index % self.products));
        Order { id: CommandId::new(), products }
    }
}

impl Order {
    fn body(&self) -> String {
        let lines = self.products.each_ref().map(|id| json!({"product_id": id, "quantity": 1}));
        json!({
            "user_id": "ada",
            "lines": lines,
            "payment": [{"method": "card", "share": "1"}],
            "address": address(),
        })
        .to_string()
    }

    /// Returns the request that creates the order under its id.
    fn create(&self, headers: &str) -> Arc<[u8]> {
        let headers = format!("idempotency-key: {}\r\n{headers}", self.id);
        request_with("POST", "/orders", &headers, &self.body())
    }
}

fn address() -> serde_json::Value {
    json!({"region": "north", "line": "1 Quay Street"})
}

pub(crate) fn place(order: &Order) -> Work {
    vec![order.create("")]
}

pub(crate) fn place_and_wait(order: &Order) -> Work {
    vec![order.create("prefer: wait=30\r\n")]
}

/// Returns the command that starts place-order, and the commands of its steps.
fn send_commands(order: &Order) -> Work {
    let Order { id, products: [one, other] } = order;
    let post = |path: String, body: serde_json::Value| request("POST", &path, &body.to_string());
    let reserve = |product: &str| {
        post(format!("/products/{product}/reserve"), json!({"order_id": id.as_str(), "quantity": 1}))
    };
    let charge = json!({"amount": 2580, "methods": [{"method": "card", "amount": 2580}]});
    vec![
        order.create(""),
        reserve(one),
        reserve(other),
        post(format!("/payments/{id}/authorize"), charge),
        post(format!("/deliveries/{id}/schedule"), json!({"address": address()})),
        post(format!("/orders/{id}/confirm"), json!({})),
    ]
}
