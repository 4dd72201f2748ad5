//! Files that are derived from the log: deleted, damaged or taken from another time, they change nothing that
//! anybody can see but time.

use std::fs;

use kontor_testkit::nats::NatsServer;
use serde_json::{Value, json};

use crate::common::deploy::{FOR_THANKS, fixture, plugin, site};
use crate::common::nodes::{both_up, sites, when};
use crate::common::{Host, Site, ended, kontor};

/// Returns each saga as its name, its state and the stream of its trigger, in the order of these.
fn sagas(host: &Host) -> Vec<Value> {
    let list = host.get("/admin/sagas?limit=1000").ok();
    let sagas = list["items"].as_array().unwrap().iter();
    let mut sagas: Vec<_> = sagas.map(|saga| json!([saga["name"], saga["state"], saga["stream"]])).collect();
    sagas.sort_by_key(Value::to_string);
    sagas
}

/// Returns the sagas of one thanks.
fn thanked(product: &str) -> [Value; 2] {
    [
        json!(["nap", "waiting", format!("thanks/{product}")]),
        json!(["thank", "completed", format!("product/{product}")]),
    ]
}

/// Returns all sagas once these are among them.
fn sagas_when(host: &Host, wanted: &[Value]) -> Vec<Value> {
    let all = |sagas: &Value| wanted.iter().all(|saga| sagas.as_array().unwrap().contains(saga));
    let Value::Array(sagas) = when(|| sagas(host).into(), all) else { panic!("a list of sagas") };
    sagas
}

type Accident = fn(&Site);

/// Deletes the index of sagas.
fn lose_index(site: &Site) {
    for file in ["sagas.db", "sagas.db-wal", "sagas.db-shm"] {
        // Err: SQLite has removed it itself.
        let _ = fs::remove_file(site.data().join(file));
    }
}

/// Exports the log, and imports it into an empty data directory.
fn restore(site: &Site) {
    let file = site.configuration().with_file_name("backup.jsonl").display().to_string();
    let on_site = |command: &str| {
        let mut command = kontor(&[command, &file]);
        command.arg("--config").arg(site.configuration()).arg("--data").arg(site.data());
        command
    };
    let exported = ended(&mut on_site("export"));
    assert!(exported.status.success(), "{}", exported.stderr);
    site.lose_data();
    let imported = ended(&mut on_site("import"));
    assert!(imported.status.success(), "{}", imported.stderr);
    fs::remove_file(&file).unwrap();
}

#[test]
fn a_saga_starts_for_no_event_before_its_deployment_whatever_happens_to_its_index() {
    let (site, _plugins) = site(&[("inventory", plugin("inventory"))], "");
    let mut host = site.start();
    for product in ["old-1", "old-2"] {
        host.register(product, 5, 10);
    }
    host.deploy(&fixture("thanks"), FOR_THANKS).ok();
    // No event has started a saga yet, so the index is still empty.
    host.kill();

    let accidents: [(&str, Accident); 3] =
        [("nothing", |_| {}), ("a lost index", lose_index), ("a restored backup", restore)];
    let mut expected = Vec::new();
    for (number, (name, accident)) in accidents.into_iter().enumerate() {
        accident(&site);
        host = site.start();
        let product = format!("new-{number}");
        host.register(&product, 5, 10);
        expected.extend(thanked(&product));
        expected.sort_by_key(Value::to_string);
        assert_eq!(sagas_when(&host, &thanked(&product)), expected, "after {name}");
        host.kill();
    }
}

#[test]
fn an_open_saga_whose_service_is_gone_outlives_the_loss_of_its_index() {
    let (site, _plugins) = site(&[("inventory", plugin("inventory"))], "");
    let mut host = site.start();
    host.deploy(&fixture("thanks"), FOR_THANKS).ok();
    host.put("/thanks/ada", &json!({})).ok();
    let expected = [json!(["nap", "waiting", "thanks/ada"])];
    assert_eq!(sagas_when(&host, &expected), expected);
    host.undeploy("thanks", "").ok();
    host.kill();

    let accidents: [(&str, Accident); 2] = [("a lost index", lose_index), ("a restored backup", restore)];
    for (name, accident) in accidents {
        accident(&site);
        host = site.start();
        assert_eq!(sagas(&host), expected, "after {name}");
        host.kill();
    }
}

#[test]
fn the_sagas_of_a_new_service_run_though_a_host_follows_its_deployment_late() {
    let server = NatsServer::start();
    let [left_site, right_site] = sites(&server);
    let (left, mut right) = (left_site.start(), right_site.start());
    both_up(&left);
    // The host cannot keep the component, and stays a member that owns sagas.
    let (components, aside) = (right_site.data().join("components"), right_site.data().join("aside"));
    fs::rename(&components, &aside).unwrap();
    fs::write(&components, "in the way").unwrap();
    left.deploy(&fixture("thanks"), FOR_THANKS).ok();
    let mut expected: Vec<_> = (0..12).flat_map(|number| thanked(&format!("product-{number}"))).collect();
    expected.sort_by_key(Value::to_string);
    (0..12).for_each(|number| drop(left.register(&format!("product-{number}"), 5, 10)));
    right.await_warning("this host does not run the last deployment");
    fs::remove_file(&components).unwrap();
    fs::rename(&aside, &components).unwrap();
    assert_eq!(sagas_when(&left, &expected), expected);
    assert_eq!(sagas_when(&right, &expected), expected);

    // A new host with an empty directory sees the same, and starts nothing.
    right.kill();
    right_site.lose_data();
    right = right_site.start();
    assert_eq!(sagas_when(&right, &expected), expected);
    // The hosts still take sagas over from each other.
    let seen = left.events(0);
    let same = |events: &Value| events.as_array().unwrap().len() >= seen.len();
    let events = when(|| right.events(0).into(), same);
    assert_eq!(events.as_array().unwrap()[..seen.len()], seen[..]);
}

#[test]
fn an_older_log_that_is_put_back_continues_as_if_nothing_had_followed() {
    let (site, _plugins) = site(&[("inventory", plugin("inventory"))], "");
    let mut host = site.start();
    host.deploy(&fixture("thanks"), FOR_THANKS).ok();
    host.register("tea", 5, 1_000);
    sagas_when(&host, &thanked("tea"));
    // More events than stand between two snapshots.
    let remove = |host: &Host| host.post("/products/tea/remove-stock", &[], &json!({"quantity": 1})).ok();
    (0..110).for_each(|_| drop(remove(&host)));
    assert!(host.stop().success());
    let (log, backup) = (site.data().join("events.db"), site.data().join("events.backup"));
    fs::copy(&log, &backup).unwrap();
    host = site.start();
    (0..110).for_each(|_| drop(remove(&host)));
    host.register("pot", 5, 10);
    sagas_when(&host, &thanked("pot"));
    assert!(host.stop().success());
    fs::copy(&backup, &log).unwrap();

    host = site.start();
    assert_eq!(host.stock("tea").0, 890);
    assert_eq!(sagas(&host), thanked("tea"));
    assert_eq!(remove(&host)["state"]["available"], 889);
    host.get("/products/pot").problem(404, "not-found");
    host.register("cup", 5, 10);
    let expected = [thanked("cup"), thanked("tea")].concat();
    let listed = sagas_when(&host, &expected);
    assert_eq!(listed.len(), expected.len(), "{listed:?}");
    let list = host.get_with("/products", &[("kontor-position", &host.head().to_string())]).ok();
    let available = list["items"].as_array().unwrap().iter().map(|item| item["available"].clone());
    assert_eq!(available.collect::<Vec<_>>(), [10, 889]);
}
