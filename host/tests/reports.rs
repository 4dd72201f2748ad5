//! What the reports say is what a test computes from the raw log, row by row, after many random orders; and it stays so
//! whatever happens to the read model.
//!
//!     KONTOR_REPORT_ORDERS=10000 cargo nextest run --workspace -E 'binary(reports)'

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic, wherever that is")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use kontor::log::{EmbeddedLog, EventLog as _};
use rusqlite::{Connection, OpenFlags};

use common::http::Client;
use common::report::Books;
use common::shop::configuration;
use common::traffic::Traffic;
use common::watch::Watch;
use common::{Host, Site, ended, kontor};

/// Always the same, so that a run in CI tells of the change and not of its luck.
const SEED: u64 = 1;
/// Some ... seconds on two cores.
const ORDERS: usize = 1_000;
/// How often the host is killed.
const KILLS: usize = 2;
/// Events that the read model is behind at a kill: some of its batches.
const BEHIND: usize = 3_000;
/// Who asks for reports while the read model is built anew.
const WATCHES: usize = 2;

/// The files of the report's read model, of which there is one when nothing is being built.
fn read_databases(site: &Site) -> BTreeSet<PathBuf> {
    let files = fs::read_dir(site.data().join("read")).unwrap().map(|entry| entry.unwrap().path());
    let is_report = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().starts_with("report-");
    files.filter(|file| is_report(file) && file.extension().is_some_and(|extension| extension == "db")).collect()
}

fn read_database(site: &Site) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(read_databases(site).first().unwrap(), flags).unwrap()
}

/// How far the read model is on disk.
fn projected(database: &Connection) -> u64 {
    database.query_row("SELECT position FROM kontor_position", [], |row| row.get(0)).unwrap()
}

/// Kills a host while it takes orders, when it has applied some of many events that its read model was behind.
fn kill_while_it_projects(site: &Site, host: &mut Host, traffic: &Traffic) {
    let client = Client::clone(host);
    let database = read_database(site);
    let before = thread::scope(|scope| {
        scope.spawn(|| traffic.send(&client, 0));
        let held = read_database(site);
        held.execute_batch("BEGIN IMMEDIATE").unwrap();
        let before = projected(&database);
        assert_eq!(client.follow(before).take(BEHIND).count(), BEHIND);
        drop(held);
        while projected(&database) == before {
            thread::yield_now();
        }
        host.kill();
        before
    });
    let head = *EmbeddedLog::open(&site.data()).unwrap().head().borrow();
    let reached = projected(&database);
    println!("killed {before} {reached} {head}");
    assert!(before < reached && reached < head, "of {head} events {reached} were projected, {before} before");
}

/// Replays the read model while the host takes the rest of the orders and answers queries.
fn replay(site: &Site, host: &Host, traffic: &Traffic, watches: &mut [Watch]) {
    let replaced = read_databases(site);
    thread::scope(|scope| {
        scope.spawn(|| traffic.send(host, 0));
        let told = ended(kontor(&["replay", "report"]).args(["--host", host.url()]));
        assert!(told.status.success(), "{}", told.stderr);
        for watch in watches {
            scope.spawn(move || {
                let mut looks = 0;
                while host.get("/admin/projections/report").ok()["building"].is_object() {
                    watch.look();
                    looks += 1;
                }
                println!("looks {looks}");
                watch.look();
                assert!(looks > 0);
            });
        }
    });
    assert!(replaced.is_disjoint(&read_databases(site)));
}

#[test]
fn reports_say_what_the_log_says_whatever_happens_to_their_read_model() {
    let orders = std::env::var("KONTOR_REPORT_ORDERS").map_or(ORDERS, |orders| orders.parse().unwrap());
    let site = Site::new(&configuration());
    let traffic = Traffic::open(&site, SEED, orders);
    let mut books = Books::default();
    let start = Instant::now();
    let mut host = site.start();
    let mut watches: Vec<_> = (0..WATCHES).map(|_| Watch::new(host.url())).collect();
    for _ in 0..KILLS {
        watches.iter_mut().for_each(Watch::look);
        kill_while_it_projects(&site, &mut host, &traffic);
        host = site.start();
        watches.iter_mut().for_each(|watch| watch.move_to(host.url()));
    }
    println!("killed after {:?}", start.elapsed());
    traffic.send(&host, orders / 2);
    println!("sent after {:?}", start.elapsed());
    books.catch_up(&host);
    println!("caught up after {:?}", start.elapsed());
    books.check(&host);
    println!("checked after {:?}", start.elapsed());

    replay(&site, &host, &traffic, &mut watches);
    println!("replayed after {:?}", start.elapsed());
    books.catch_up(&host);
    println!("caught up after {:?}", start.elapsed());
    books.check(&host);
    println!("checked after {:?}", start.elapsed());

    assert!(host.stop().success());
    read_databases(&site).into_iter().for_each(|file| fs::remove_file(file).unwrap());
    host = site.start();
    books.check(&host);
    println!("deleted and checked after {:?}", start.elapsed());
    println!("{:?}", traffic.refused());
}
