//! Accidents of the files that are derived from the log: after random traffic and deployments, any of them is
//! lost, damaged, or replaced by one of another time or of another host. The next host must be
//! indistinguishable from the one before.
//!
//!     KONTOR_ACCIDENT_ROUNDS=200 cargo nextest run --workspace -E 'test(/^accidents::/)'

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::deploy::{FOR_THANKS, fixture, next_inventory, plugin, rebuilt, site};
use crate::common::nodes::when;
use crate::common::{Host, Site, setting};

/// Constant, so that a failure in CI comes from the change and not from chance.
const SEED: u64 = 13;
/// About half a minute on two cores; two hundred take some minutes.
const ROUNDS: usize = 12;
/// SQLite's page size.
const PAGE: u64 = 4_096;
/// The most requests in a round: more than stand between two snapshots.
const REQUESTS: usize = 150;

const PRODUCTS: [&str; 3] = ["tea", "pot", "cup"];

/// Returns the files that are derived from the log, with those that SQLite keeps beside them.
fn derived(site: &Site) -> Vec<PathBuf> {
    let data = site.data();
    let read = fs::read_dir(data.join("read")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = ["sagas.db", "snapshots.db"].map(|name| data.join(name)).into_iter().collect();
    files.extend(read.filter(|file| file.extension().is_some_and(|suffix| suffix == "db")));
    files.sort();
    files
}

fn parts(file: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    })
}

fn remove(file: &Path) {
    for part in parts(file) {
        // Err: SQLite has removed it itself.
        let _ = fs::remove_file(part);
    }
}

/// Copies a database, or removes it if there is none to copy.
fn replace(file: &Path, by: &Path) {
    remove(file);
    for (to, from) in parts(file).into_iter().zip(parts(by)) {
        if from.exists() {
            fs::copy(from, to).unwrap();
        }
    }
}

/// Copies all derived files to another folder, under their names.
fn keep(site: &Site, folder: &Path) {
    for file in derived(site) {
        replace(&folder.join(file.file_name().unwrap()), &file);
    }
}

/// Damages a file so that SQLite can notice: the header, a whole page, or the length.
fn garble(file: &Path, rng: &mut StdRng) {
    let mut opened = File::options().write(true).open(file).unwrap();
    let length = opened.metadata().unwrap().len();
    if rng.random_bool(0.3) || length < 2 * PAGE {
        return opened.set_len(rng.random_range(0..=length)).unwrap();
    }
    let page = if rng.random_bool(0.5) { 0 } else { rng.random_range(0..length / PAGE) };
    opened.seek(SeekFrom::Start(page * PAGE)).unwrap();
    let mut garbage = [0; PAGE as usize];
    rng.fill_bytes(&mut garbage);
    opened.write_all(&garbage).unwrap();
}

/// Damages some of the derived files. Returns a line for each.
fn damage(site: &Site, earlier: &Path, foreign: &Path, rng: &mut StdRng) -> Vec<String> {
    let mut done = Vec::new();
    for file in derived(site) {
        let name = file.file_name().unwrap();
        let how = match rng.random_range(0..6) {
            0 => {
                remove(&file);
                "lost"
            }
            1 => {
                garble(&file, rng);
                "garbled"
            }
            2 => {
                replace(&file, &earlier.join(name));
                "of an earlier time"
            }
            3 => {
                replace(&file, &foreign.join(name));
                "of another host"
            }
            _ => continue,
        };
        done.push(format!("{} {how}", name.display()));
    }
    done
}

/// Sends random commands and deployments.
fn traffic(host: &Host, rng: &mut StdRng) {
    let quantity = |rng: &mut StdRng| json!({"quantity": rng.random_range(1..3)});
    for _ in 0..rng.random_range(1..REQUESTS) {
        let product = *PRODUCTS.choose(rng).unwrap();
        let act = if rng.random_bool(0.6) { "add-stock" } else { "remove-stock" };
        host.post(&format!("/products/{product}/{act}"), &[], &quantity(rng));
    }
    if rng.random_bool(0.5) {
        host.register(&format!("product-{}", rng.random_range(0..u32::MAX)), 5, 10);
    }
    match rng.random_range(0..6) {
        0 => drop(host.deploy(&fixture("thanks"), FOR_THANKS)),
        1 => drop(host.undeploy("thanks", "")),
        2 => drop(host.deploy(&rebuilt(plugin("inventory")), "?allow-breaking=state:product")),
        3 => drop(host.deploy(&next_inventory("next"), "")),
        4 => drop(host.roll_back("inventory", &json!({}))),
        _ => {}
    }
    host.put(&format!("/thanks/{}", rng.random_range(0..9)), &json!({}));
}

/// Returns everything that can be seen of a host once no saga runs: all events, views, lists and sagas.
fn seen(host: &Host) -> BTreeMap<String, Value> {
    let sagas = || host.get("/admin/sagas?limit=1000").ok()["items"].take();
    let quiet = |sagas: &Value| sagas.as_array().unwrap().iter().all(|saga| saga["state"] != "running");
    let sagas = when(sagas, quiet);
    let events = host.events(0);
    let position = events.last().unwrap()["position"].to_string();
    let mut seen =
        BTreeMap::from([("events".to_owned(), events.clone().into()), ("sagas".to_owned(), sagas)]);
    let list = "/products?limit=200";
    // A damaged read database is found when it is asked, and filled again.
    let listed = when(
        || {
            let reply = host.get_with(list, &[("kontor-position", &position)]);
            if reply.status == 200 { reply.json() } else { Value::Null }
        },
        |listed| !listed.is_null(),
    );
    seen.insert(list.to_owned(), listed);
    let path = |event: &Value| {
        let (kind, id) = event["stream"].as_str()?.split_once('/')?;
        match kind {
            "product" => Some(format!("/products/{id}")),
            "thanks" => Some(format!("/thanks/{id}")),
            "saga" => Some(format!("/admin/sagas/{id}")),
            _ => None,
        }
    };
    for path in events.iter().filter_map(path).collect::<BTreeSet<_>>() {
        let reply = host.get(&path);
        seen.insert(path, json!([reply.status, reply.json()]));
    }
    seen
}

/// Runs a host for a while, and keeps its derived files.
fn foreign() -> TempDir {
    let (site, _plugins) = site(&[("inventory", plugin("inventory"))], "");
    let host = site.start();
    PRODUCTS.iter().for_each(|product| drop(host.register(product, 7, 7)));
    host.deploy(&fixture("thanks"), FOR_THANKS).ok();
    traffic(&host, &mut StdRng::seed_from_u64(0));
    assert!(host.stop().success());
    let folder = tempfile::tempdir().unwrap();
    keep(&site, folder.path());
    folder
}

#[test]
fn no_accident_of_a_derived_file_changes_anything_that_can_be_seen() {
    let mut rng = StdRng::seed_from_u64(setting("KONTOR_ACCIDENT_SEED", SEED));
    let foreign = foreign();
    let (site, _plugins) = site(&[("inventory", plugin("inventory"))], "");
    let mut host = site.start();
    PRODUCTS.iter().for_each(|product| drop(host.register(product, 5, 1_000)));
    let earlier = tempfile::tempdir().unwrap();
    keep(&site, earlier.path());
    for round in 0..setting("KONTOR_ACCIDENT_ROUNDS", ROUNDS) {
        traffic(&host, &mut rng);
        let before = seen(&host);
        host.kill();
        let done = damage(&site, earlier.path(), foreign.path(), &mut rng);
        host = site.start();
        let after = seen(&host);
        for (what, before) in &before {
            assert_eq!(after.get(what), Some(before), "{what} in round {round}, {done:?}");
        }
        assert_eq!(after.len(), before.len(), "round {round}, {done:?}");
        if rng.random_bool(0.2) {
            keep(&site, earlier.path());
        }
    }
}
