//! The reports, compared row by row with values computed from the raw log after many random orders; and
//! compared again after each accident of the read model.
//!
//!     KONTOR_REPORT_ORDERS=10000 cargo nextest run --workspace -E 'test(/^reports::/)'

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::common::http::Client;
use crate::common::report::Books;
use crate::common::shop::configuration;
use crate::common::traffic::Traffic;
use crate::common::watch::Watch;
use crate::common::{Host, Site, built, ended, kontor, setting};

/// Constant, so that a failure in CI comes from the change and not from chance.
const SEED: u64 = 1;
/// About twenty seconds on two cores; ten thousand take four minutes.
const ORDERS: usize = 1_000;
/// The number of times the host is killed.
const KILLS: usize = 2;
/// The number of events by which the read model lags before a kill and at it.
const BEHIND: usize = 500;
/// The clients that query reports while the read model is built.
const WATCHES: usize = 2;

/// The rejections and statuses that a run must contain; without them it proves little.
const SEEN: [&str; 19] = [
    // Codes of immediate rejections.
    "delivery-not-in-transit",
    "delivery-under-way",
    "invalid-payment-shares",
    "no-lines",
    "not-found",
    "order-not-confirmed",
    "product-not-in-order",
    "unknown-product",
    // Codes of rejected saga steps, some of which are also immediate rejections.
    "card-declined",
    "insufficient-points",
    "insufficient-stock",
    "undeliverable",
    // Statuses of orders, payments and deliveries.
    "authorized",
    "cancelled",
    "confirmed",
    "deleted",
    "delivered",
    "in-transit",
    "preparing",
];

/// Returns the read database of the reports while no build runs; of several versions the newest.
fn read_database(site: &Site) -> PathBuf {
    let files = fs::read_dir(site.data().join("read")).unwrap().map(|entry| entry.unwrap().path());
    let is_report = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_str().unwrap();
        name.starts_with("report-") && name.ends_with(".db")
    };
    files.filter(is_report).max().unwrap()
}

fn open(file: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(file, flags).unwrap()
}

/// Returns the position of the read model on disk.
fn projected(database: &Connection) -> u64 {
    database.query_row("SELECT position FROM kontor_position", [], |row| row.get(0)).unwrap()
}

/// Locks a read model: its host applies no more events to it. Dropping the connection unlocks it, and leaves
/// the files as they are.
fn lock(file: &Path) -> Connection {
    let held = open(file);
    held.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    held
}

/// Kills a host that takes orders when its read model has applied some of the events that it lagged by, and
/// lags still.
fn kill_while_it_projects(site: &Site, host: &mut Host, traffic: &Traffic) {
    let (client, file) = (Client::clone(host), read_database(site));
    thread::scope(|scope| {
        scope.spawn(|| traffic.send(&client, 0));
        let lag = |held: &Connection| {
            let reached = projected(held);
            client.follow(reached).nth(BEHIND).expect("the host takes orders");
            reached
        };
        let held = lock(&file);
        let before = lag(&held);
        drop(held);
        let database = open(&file);
        while projected(&database) == before {
            thread::yield_now();
        }
        drop(database);
        let held = lock(&file);
        lag(&held);
        host.kill();
    });
}

/// Rebuilds a read model by a command of `kontor`, while the host takes orders, all but `leave`. Clients
/// query reports without a break from before the command until after the build.
fn rebuild(
    site: &Site,
    host: &Host,
    (traffic, leave): (&Traffic, usize),
    watches: &mut [Watch],
    command: &[&str],
) {
    let replaced = read_database(site);
    thread::scope(|scope| {
        scope.spawn(|| traffic.send(host, leave));
        let rebuilt = scope.spawn(|| {
            let output = ended(kontor(command).args(["--host", host.url()]));
            assert!(output.status.success(), "{}", output.stderr);
            while host.get("/admin/projections/report").ok()["building"].is_object() {
                thread::yield_now();
            }
        });
        while !rebuilt.is_finished() {
            watches.iter_mut().for_each(Watch::look);
        }
    });
    watches.iter_mut().for_each(Watch::look);
    assert_ne!(read_database(site), replaced);
}

#[test]
fn reports_say_what_the_log_says_whatever_happens_to_their_read_model() {
    let orders = setting("KONTOR_REPORT_ORDERS", ORDERS);
    let site = Site::new(&configuration());
    let traffic = Traffic::open(&site, SEED, orders);
    let mut host = site.start();
    let mut watches = [(); WATCHES].map(|()| Watch::new(host.url()));
    let mut books = Books::default();

    for _ in 0..KILLS {
        watches.iter_mut().for_each(Watch::look);
        kill_while_it_projects(&site, &mut host, &traffic);
        host = site.start();
        watches.iter_mut().for_each(|watch| watch.move_to(host.url()));
    }
    traffic.send(&host, orders / 2);
    books.check(&host);

    rebuild(&site, &host, (&traffic, orders / 4), &mut watches, &["replay", "report"]);
    books.check(&host);

    let next = built("fixtures").join("next-report.wasm");
    rebuild(&site, &host, (&traffic, 0), &mut watches, &["deploy", next.to_str().unwrap()]);
    books.check(&host);

    assert!(host.stop().success());
    fs::remove_file(read_database(&site)).unwrap();
    host = site.start();
    books.check(&host);

    let (rejected, words) = (traffic.rejected(), books.words());
    let missing: Vec<_> =
        SEEN.iter().filter(|word| !rejected.contains(**word) && !words.contains(**word)).collect();
    assert!(missing.is_empty(), "{missing:?} never came");
}
