//! The automatic rollback: the faults that count, and the streams that only the newer version can read.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::common::Host;
use crate::common::deploy::{digest_of, gate, inventory, next_inventory, plugin, rebuilt, site};
use crate::common::http::Reply;
use crate::common::shop::{SAGA_END, configuration, order};
use crate::common::{Site, ended, kontor};

/// For this quantity the variant `counting` writes an event that the version before cannot fold.
const COUNTED: u64 = 21;
/// For this quantity the variant `counting` traps in `decide`.
const UNDECIDABLE: u64 = 13;
/// For this quantity the decision of the variant `counting` breaks the contract.
const EXCESSIVE: u64 = 14;
/// Far more calls than the watch needs to roll back.
const LIMIT: usize = 1_000;

fn add(host: &Host, product: &str, quantity: u64) -> Reply {
    host.post(&format!("/products/{product}/add-stock"), &[], &json!({"quantity": quantity}))
}

/// Repeats calls until the version before runs.
fn until_taken_back(host: &Host, mut call: impl FnMut(usize)) {
    let older = digest_of(&plugin("inventory"));
    for number in 0..LIMIT {
        call(number);
        if host.digest("inventory") == older {
            return;
        }
    }
    panic!("it is not taken back");
}

fn last_reason(host: &Host) -> String {
    host.deployments().pop().unwrap()["reason"].as_str().unwrap().to_owned()
}

#[test]
fn a_version_that_breaks_its_contract_is_taken_back() {
    let (site, _plugins) = inventory();
    let host = site.start();
    host.register("desk", 5, 0);
    host.deploy(&next_inventory("counting"), "").ok();
    add(&host, "desk", EXCESSIVE).problem(502, "component-broke-contract");
    until_taken_back(&host, |_| drop(add(&host, "desk", EXCESSIVE)));
    let reason = last_reason(&host);
    assert!(reason.contains("calls of decide add-stock faulted"), "{reason}");
}

#[test]
fn a_rare_command_that_faults_each_time_is_seen_among_many_other_calls() {
    /// So many that the faults are less than five percent of all calls.
    const OTHERS: usize = 40;
    let (site, _plugins) = inventory();
    let host = site.start();
    host.register("desk", 5, 1_000_000);
    host.deploy(&next_inventory("counting"), "").ok();
    let remove = |_| host.post("/products/desk/remove-stock", &[], &json!({"quantity": 1})).ok();
    (0..OTHERS).map(remove).for_each(drop);
    for round in 0.. {
        assert!(round < OTHERS, "it is not taken back");
        (0..OTHERS).map(remove).for_each(drop);
        if add(&host, "desk", UNDECIDABLE).status == 200 {
            break;
        }
    }
    assert_eq!(host.digest("inventory"), digest_of(&plugin("inventory")));
}

#[test]
fn a_version_whose_read_model_takes_no_events_is_taken_back() {
    let (site, _plugins) = inventory();
    let host = site.start();
    host.deploy(&next_inventory("unlisted"), "").ok();
    until_taken_back(&host, |number| drop(host.register(&format!("desk-{number}"), 5, 0)));
    let reason = last_reason(&host);
    assert!(reason.contains("calls of project"), "{reason}");
}

#[test]
fn a_host_that_restarts_goes_on_watching() {
    let (site, _plugins) = inventory();
    let host = site.start();
    host.register("desk", 5, 0);
    host.deploy(&next_inventory("counting"), "").ok();
    assert!(host.stop().success());
    let host = site.start();
    until_taken_back(&host, |_| drop(add(&host, "desk", UNDECIDABLE)));
}

/// Repeats a command that traps until the host says that the version stays. Returns the sentence.
fn until_it_stays(host: &Host) -> String {
    for _ in 0..LIMIT {
        add(host, "desk", UNDECIDABLE).problem(500, "component-trapped");
        if let Some(warning) = host.get("/readyz").ok()["warnings"][0].as_str() {
            return warning.to_owned();
        }
    }
    panic!("nothing is said")
}

#[test]
fn a_version_whose_predecessor_is_gone_stays_and_the_host_says_so() {
    let (site, _plugins) = inventory();
    let host = site.start();
    host.register("desk", 5, 0);
    let older = host.digest("inventory").unwrap();
    let newer = next_inventory("counting");
    host.deploy(&newer, "").ok();
    assert!(host.stop().success());
    fs::remove_file(site.data().join(format!("components/{older}.wasm"))).unwrap();

    let host = site.start();
    let warning = until_it_stays(&host);
    assert!(warning.contains("faults and is not rolled back") && warning.contains(&older[..12]), "{warning}");
    assert_eq!(host.digest("inventory"), digest_of(&newer));
    let failed = "kontor_rollbacks_failed_total{service=\"inventory\"} 1";
    assert!(host.get("/metrics").text.contains(failed));
    // The next deployment takes the warning away.
    host.deploy(&rebuilt(newer), "").ok();
    assert_eq!(host.get("/readyz").ok()["warnings"], Value::Null);
}

#[test]
fn a_version_stays_if_too_many_streams_would_stay_with_it() {
    const TOO_MANY: usize = 1_001;
    const THREADS: usize = 4;
    let plugins = [("inventory", plugin("inventory"))];
    let (site, _plugins) = site(&plugins, "[deploy]\nrollback.window_ms = 600_000\n");
    let host = site.start();
    host.register("desk", 5, 0);
    let newer = next_inventory("counting");
    host.deploy(&newer, "").ok();
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let host = &host;
            scope.spawn(move || {
                for number in (thread..TOO_MANY).step_by(THREADS) {
                    let product = format!("cup-{number}");
                    host.register(&product, 5, 10);
                    add(host, &product, COUNTED).ok();
                }
            });
        }
    });
    let warning = until_it_stays(&host);
    assert!(warning.contains("cannot fold more than 1000 of the streams"), "{warning}");
    assert_eq!(host.digest("inventory"), digest_of(&newer));
}

/// An address at which nobody listens.
const NOBODY: &str = "http://127.0.0.1:9";

#[test]
fn an_outage_that_the_version_before_suffers_too_takes_nobody_back() {
    let services = configuration().replacen(
        "[services.payment]",
        &format!("[services.payment]\ngateway-url = '{NOBODY}'"),
        1,
    );
    let few = "{ attempts = 8, first_wait_ms = 1, longest_wait_ms = 1 }";
    let site = Site::new(&format!(
        "{services}\n[[grants.payment.http]]\norigin = '{NOBODY}'\nmethods = ['POST', 'PUT', 'DELETE']\n\
         private = true\n[retries]\nbefore_pivot = {few}\nundo = {few}\n"
    ));
    let host = site.start();
    host.register("apple", 300, 10);
    let fails = || {
        let placed = host.post("/orders", &[SAGA_END], &order(&[("apple", 1)]).json());
        assert_eq!(placed.ok()["saga"]["state"], "parked");
    };
    let mut newer = plugin("payment");
    // Nobody knows yet how the version before does; then it is known.
    for known in [false, true] {
        if known {
            fails();
        }
        newer = rebuilt(newer);
        host.deploy(&newer, "").ok();
        (0..3).for_each(|_| fails());
        assert_eq!(host.digest("payment"), digest_of(&newer), "known: {known}");
        let acts: Vec<_> = host.deployments().into_iter().map(|entry| entry["act"].clone()).collect();
        assert!(!acts.contains(&json!("rolled-back")), "known: {known}");
    }
}

/// Returns the streams that stay with a newer component of the inventory, as the host lists them.
fn kept(host: &Host) -> Value {
    let list = host.get("/admin/plugins").ok();
    let mut plugin = list["items"].as_array().unwrap()[0].clone();
    plugin["kept"].take()
}

#[test]
fn a_stream_that_the_version_before_cannot_fold_stays_with_the_newer_one() {
    let (site, _plugins) = inventory();
    let mut host = site.start();
    for product in ["tea", "pot"] {
        host.register(product, 5, 10);
    }
    let newer = next_inventory("counting");
    host.deploy(&newer, "").ok();
    add(&host, "tea", COUNTED).ok();
    add(&host, "pot", 1).ok();
    until_taken_back(&host, |_| drop(add(&host, "pot", UNDECIDABLE)));
    let pot = host.stock("pot").0;

    let stays = json!({"digest": digest_of(&newer), "streams": ["product/tea"]});
    let entry = host.deployments().pop().unwrap();
    assert_eq!((&entry["kept"], &kept(&host)), (&json!(["product/tea"]), &stays));
    let shown = ended(&mut kontor(&["plugins", "--host", host.url()])).stdout;
    assert!(shown.contains("1 stream stays on "), "{shown}");
    host.kill();

    host = site.start();
    assert_eq!((host.stock("tea").0, host.stock("pot").0), (10 + COUNTED, pot));
    add(&host, "tea", 1).ok();
    add(&host, "pot", UNDECIDABLE).ok();
    assert_eq!(kept(&host), stays);
    assert_eq!(host.history("product/tea").last().unwrap()["digest"], json!(digest_of(&newer)));

    // The next deployment has to fold the stream, and takes it over.
    let refused = host.deploy(&next_inventory("next"), "").problem(422, "gate-refused");
    let findings = gate(&refused["report"], "history")["findings"].to_string();
    assert!(findings.contains("product/tea, version 3, stock-counted"), "{findings}");
    host.deploy(&rebuilt(newer), "").ok();
    assert_eq!((kept(&host), host.stock("tea").0), (Value::Null, 11 + COUNTED));
}

#[test]
fn no_stream_is_lost_that_is_written_to_during_the_rollback() {
    /// Each is written to by one of the threads, so that commands of each are under way at the swap.
    const PRODUCTS: [&str; 4] = ["tea", "pot", "cup", "lid"];
    /// The products of each thread: more than it reaches before the rollback.
    const EACH: usize = 200;
    let (site, _plugins) = inventory();
    let mut host = site.start();
    let name = |kind: &str, number: usize| format!("{kind}-{number}");
    host.register("desk", 5, 10);
    host.deploy(&next_inventory("counting"), "").ok();
    let over = AtomicBool::new(false);
    let written: Vec<String> = thread::scope(|scope| {
        let (host, over) = (&host, &over);
        let writers = PRODUCTS.map(|kind| {
            scope.spawn(move || {
                let going = (0..EACH).take_while(|_| !over.load(Ordering::Relaxed));
                let write = |number| {
                    host.register(&name(kind, number), 5, 10);
                    add(host, &name(kind, number), COUNTED).ok();
                    format!("product/{}", name(kind, number))
                };
                going.map(write).collect::<Vec<_>>()
            })
        });
        until_taken_back(host, |_| drop(add(host, "desk", UNDECIDABLE)));
        over.store(true, Ordering::Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect()
    });
    host.kill();

    host = site.start();
    let counted =
        |stream: &&String| host.history(stream).iter().any(|event| event["name"] == "stock-counted");
    let mut only_newer: Vec<_> = written.iter().filter(counted).collect();
    only_newer.sort_unstable();
    assert!(!only_newer.is_empty() && only_newer.len() < written.len(), "{}", written.len());
    let stay = || {
        let mut streams = kept(&host)["streams"].take();
        streams.as_array_mut().unwrap().sort_unstable_by_key(ToString::to_string);
        streams
    };
    while stay() != json!(only_newer) {}
    let rollbacks = host.deployments().iter().filter(|entry| entry["act"] == "rolled-back").count();
    println!("{} of {} streams stay, after {rollbacks} events", only_newer.len(), written.len());
    for stream in &written {
        add(&host, stream.strip_prefix("product/").unwrap(), 1).ok();
    }
}
