//! A host whose file system is full: commands fail clearly, nothing acknowledged is lost, queries are
//! answered, and the host recovers by itself once there is space again.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use kontor_testkit::nats::{Installed, NatsServer};
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::common::http::{Client, Reply};
use crate::common::nats::with_log;
use crate::common::nodes::{self, both_up, when};
use crate::common::shop::{UNDELIVERABLE, configuration, new_key, order};
use crate::common::{Site, audit};
use crate::log_away::add_tea_at_last;

const ORDERS: u64 = 12;

/// A small file system of its own.
struct Mount(PathBuf);

impl Mount {
    /// Mounts it at a folder. `None`: this needs the rights of root.
    fn over(folder: &Path) -> Option<Self> {
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]).arg(folder).output();
        if !mount.is_ok_and(|mount| mount.status.success()) {
            eprintln!("skipped: a file system of a limited size can be mounted only by root");
            return None;
        }
        Some(Self(folder.to_owned()))
    }
}

/// Puts the data directory of a site on a small file system.
fn small(site: &Site) -> Option<Mount> {
    let compiled = fs::read_link(site.data().join("compiled")).unwrap();
    let mount = Mount::over(&site.data())?;
    symlink(compiled, site.data().join("compiled")).unwrap();
    Some(mount)
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Err: the folder stays until the machine starts again.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Writes to a file until there is no space left.
fn fill(file: &Path) {
    let mut filler = File::create(file).unwrap();
    for size in [1 << 20, 4 << 10, 1] {
        loop {
            match filler.write_all(&vec![7; size]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Places orders until one is refused: the last ones may find space in a file that is not full yet. Returns
/// the refusal.
fn until_refused(place: impl Fn() -> Reply, placed: &mut Vec<String>) -> Reply {
    loop {
        let reply = place();
        if reply.status >= 500 {
            return reply;
        }
        placed.push(reply.ok()["id"].as_str().unwrap().to_owned());
    }
}

#[test]
fn no_undo_is_on_disk_without_its_reason_when_the_commit_of_the_journal_fails() {
    let site = Site::new(&configuration());
    let host = site.start();
    host.register("tea", 450, 1_000);
    let database = Connection::open(site.data().join("events.db")).unwrap();
    let trigger = "CREATE TRIGGER disk_error BEFORE INSERT ON events WHEN new.name = 'unwinding'
        BEGIN SELECT raise(ROLLBACK, 'the disk is gone'); END";
    database.execute_batch(trigger).unwrap();
    let hopeless = order(&[("tea", 1)]).sent_to(UNDELIVERABLE).json();
    let placed = host.post("/orders", &[("prefer", "wait=0")], &hopeless).ok();

    // The saga begins again and again, each time without its reason in the journal.
    let failures = || host.log().matches("cannot write the event log").count();
    when(|| failures().into(), |failures| failures.as_u64() >= Some(3));
    let undone = "SELECT count(*) FROM events WHERE command_id LIKE '%/undo'";
    let undone: u64 = database.query_row(undone, [], |row| row.get(0)).unwrap();
    assert_eq!(undone, 0);

    database.execute_batch("DROP TRIGGER disk_error").unwrap();
    let statuses = audit::check(&host);
    assert_eq!(statuses[placed["id"].as_str().unwrap()], "cancelled");
    assert_eq!(host.stock("tea"), (1_000, 0));
}

#[test]
fn a_host_on_a_full_disk_takes_no_commands_and_goes_on_by_itself() {
    let site = Site::new(&configuration());
    let Some(_mount) = small(&site) else { return };
    let host = site.start();
    host.register("tea", 450, 1_000);
    let place = || host.post("/orders", &[("idempotency-key", &new_key())], &order(&[("tea", 1)]).json());
    let mut placed: Vec<String> =
        (0..ORDERS).map(|_| place().ok()["id"].as_str().unwrap().to_owned()).collect();

    let filler = site.data().join("filler");
    fill(&filler);
    until_refused(place, &mut placed).problem(503, "log-unavailable");
    // A flood of them does not fill the disk further.
    const FLOOD: usize = 500;
    (0..FLOOD).for_each(|_| drop(place()));
    let lines = host.log().matches("request failed").count();
    assert!((1..FLOOD / 2).contains(&lines), "{lines} lines");
    host.await_warning("the log takes no commands at the moment");
    assert_eq!(host.metric("kontor_log_available"), 0.0);
    for path in ["/products/tea", &format!("/orders/{}", placed[0])] {
        host.get(path).ok();
    }
    let add = json!({"quantity": 7});
    host.post("/products/tea/add-stock", &[], &add).problem(503, "log-unavailable");

    fs::remove_file(filler).unwrap();
    add_tea_at_last(&host, 3);
    let statuses = audit::check(&host);
    assert!(placed.iter().all(|id| statuses[id] == "confirmed"), "{statuses:?}");
    let orders = statuses.len() as u64;
    assert_eq!(host.stock("tea"), (1_000 - orders + 3, orders), "nothing is lost or doubled");
    assert_eq!(host.metric("kontor_log_available"), 1.0);
}

#[test]
fn a_host_whose_copy_of_the_log_is_on_a_full_disk_is_behind_alone_and_catches_up() {
    let server = NatsServer::start();
    let [left_site, right_site] = nodes::sites(&server);
    let Some(_mount) = small(&left_site) else { return };
    let (left, right) = (left_site.start(), right_site.start());
    both_up(&left);
    left.register("tea", 450, 1_000);
    let filler = left_site.data().join("filler");
    fill(&filler);
    // The file of the copy may have room for some commands more.
    let add = |host: &Client| host.post("/products/tea/add-stock", &[], &json!({"quantity": 1}));
    let taken = (0..).find(|_| add(&left).status == 503).unwrap();
    left.await_warning("the log takes no commands at the moment");
    assert!(taken < 10_000, "{taken}");
    // The other host takes them, and the full one answers queries.
    (0..5).for_each(|_| drop(add(&right).ok()));
    left.get("/products/tea").ok();

    fs::remove_file(filler).unwrap();
    let at_last = |host: &Client| add_tea_at_last(host, 1);
    at_last(&left);
    let reached = right.head();
    when(|| left.head().into(), |head| head.as_u64() >= Some(reached));
    assert_eq!(left.events(0), right.events(0));
    assert_eq!(left.stock("tea"), right.stock("tea"));
}

#[test]
fn a_nats_server_on_a_full_disk_refuses_commands_and_loses_none() {
    let data = tempfile::tempdir().unwrap();
    let Some(_mount) = Mount::over(data.path()) else { return };
    let installed = Installed { data: data.path().to_owned(), ..Installed::default() };
    let mut server = NatsServer::start_in(&installed);
    let site = Site::new(&with_log(&server));
    let host = site.start();
    host.register("tea", 450, 1_000);
    let place = || host.post("/orders", &[("idempotency-key", &new_key())], &order(&[("tea", 1)]).json());
    let mut placed: Vec<String> =
        (0..ORDERS).map(|_| place().ok()["id"].as_str().unwrap().to_owned()).collect();
    let filler = data.path().join("filler");
    fill(&filler);
    let refused = until_refused(place, &mut placed);
    assert_eq!(refused.status, 503, "{}", refused.text);
    host.get("/products/tea").ok();

    fs::remove_file(filler).unwrap();
    // A server that could not write has ended its JetStream, until it starts again.
    server.kill();
    server.restart();
    add_tea_at_last(&host, 3);
    let statuses = audit::check(&host);
    assert!(placed.iter().all(|id| statuses[id] == "confirmed"), "{statuses:?}");
    let confirmed = statuses.values().filter(|status| *status == "confirmed").count() as u64;
    assert_eq!(host.stock("tea"), (1_000 - confirmed + 3, confirmed), "nothing is lost or doubled");
}

#[test]
fn a_disk_that_is_slow_is_said_and_its_commands_wait_or_are_refused() {
    let site = Site::new(&configuration());
    let host = site.start();
    host.register("tea", 450, 10);
    // The writer waits for this transaction, as it would for a disk.
    let held = Connection::open(site.data().join("events.db")).unwrap();
    held.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waiting = {
        let client = Client::clone(&host);
        thread::spawn(move || client.post("/products/tea/add-stock", &[], &json!({"quantity": 1})))
    };
    let warnings = || host.get("/readyz").ok()["warnings"].clone();
    let slow = |warnings: &Value| warnings.to_string().contains("the disk of the log has taken");
    when(warnings, slow);
    held.execute_batch("COMMIT").unwrap();
    waiting.join().unwrap().ok();
    when(warnings, |warnings| !slow(warnings));
    assert_eq!(host.stock("tea").0, 11);
    assert!(host.get("/metrics").text.contains("kontor_log_commit_seconds_count"));
}

#[test]
fn a_derived_file_that_cannot_be_written_stops_only_what_needs_it() {
    let site = Site::new(&configuration());
    let host = site.start();
    host.register("tea", 450, 1_000);
    let broken = |file: &str, table: &str| {
        let database = Connection::open(site.data().join(file)).unwrap();
        let trigger = format!(
            "CREATE TRIGGER disk_error BEFORE INSERT ON {table}
             BEGIN SELECT raise(ROLLBACK, 'the disk is gone'); END"
        );
        database.execute_batch(&trigger).unwrap();
        database
    };
    let files = [broken("sagas.db", "sagas"), broken("snapshots.db", "snapshots")];
    let add = || host.post("/products/tea/add-stock", &[], &json!({"quantity": 1})).ok();
    // More events than stand between two snapshots.
    (0..110).for_each(|_| drop(add()));
    let place = || host.post("/orders", &[("prefer", "wait=0")], &order(&[("tea", 1)]).json()).ok();
    // The first saga has begun when its row cannot be written; the next ones do not.
    let first = place();
    host.await_warning("sagas do not start, because their index cannot be written");
    let second = place();
    assert_eq!(host.get(&format!("/orders/{}", second["id"].as_str().unwrap())).ok()["status"], "pending");
    when(
        || host.log().into(),
        |log| log.as_str().unwrap().contains("cannot write snapshots; the older ones stay"),
    );

    files.iter().for_each(|database| database.execute_batch("DROP TRIGGER disk_error").unwrap());
    let statuses = audit::check(&host);
    for placed in [first, second] {
        assert_eq!(statuses[placed["id"].as_str().unwrap()], "confirmed");
    }
    assert_eq!(host.stock("tea"), (1_108, 2));
    when(|| host.get("/readyz").ok()["warnings"].clone(), Value::is_null);
}

#[test]
fn a_read_database_that_cannot_grow_is_said_and_stops_nothing_else() {
    let site = Site::new(&format!("{}\n[limits]\nread_model_bytes = 65536\n", configuration()));
    let host = site.start();
    // Long names fill the read database of the inventory.
    let name = "x".repeat(100);
    let body = json!({"name": name, "unit_price": 1, "quantity": 1});
    (0..300).for_each(|number| drop(host.put(&format!("/products/product-{number}"), &body).ok()));
    let warnings = || host.get("/readyz").ok()["warnings"].clone();
    when(warnings, |warnings| warnings.to_string().contains("the read model of inventory gets no events"));
    assert_eq!(host.stock("product-7"), (1, 0));
    assert!(host.stop().success());

    site.configure(&configuration());
    let host = site.start();
    let at = [("kontor-position", &*host.head().to_string())];
    assert_eq!(host.get_with("/products?limit=200", &at).ok()["items"].as_array().unwrap().len(), 200);
    assert_eq!(host.get("/readyz").ok()["warnings"], Value::Null);
}
