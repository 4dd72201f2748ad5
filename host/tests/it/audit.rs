//! The acts of operators and deployers: each is in the log, with its actor, its time and its reason.

use std::path::{Path, PathBuf};

use kontor::clock::Time;
use kontor_testkit::nats::NatsServer;
use serde_json::{Value, json};

use crate::common::deploy::{self, fixture, plugin, rebuilt};
use crate::common::nats::{publish, with_log};
use crate::common::nodes::when;
use crate::common::shop::order;
use crate::common::{Host, Site, built, ended, kontor};

/// One attempt for everything: a failure parks the saga at once.
const ONE_ATTEMPT: &str = "{ attempts = 1, first_wait_ms = 1, longest_wait_ms = 1 }";

/// The permissions of the fixture `parcels`.
const GRANTS: [&str; 4] = [
    "subject:carrier.*.received",
    "subject:carrier.delivered",
    "subject:crm.parcels.*",
    "subject:shop.parcels.*.delivered",
];

/// Returns a site with a shop that cannot deliver, so that every order parks, and its log in NATS: the data
/// directory has only a copy.
fn site(server: &NatsServer) -> (Site, tempfile::TempDir) {
    let services = ["inventory", "order", "payment", "report"].map(|service| (service, plugin(service)));
    let retries = format!("[retries]\nbefore_pivot = {ONE_ATTEMPT}\nundo = {ONE_ATTEMPT}\n");
    deploy::site(&services, &format!("{}{retries}", with_log(server)))
}

/// Runs a command of the program that must succeed. Returns its output.
#[track_caller]
fn run(host: &Host, arguments: &[&str]) -> String {
    let ended = ended(kontor(arguments).args(["--host", host.url()]));
    assert!(ended.status.success(), "{arguments:?}: {}", ended.stderr);
    ended.stdout
}

/// Lists the acts with these arguments.
fn audit(host: &Host, arguments: &[&str]) -> Vec<Value> {
    let printed = run(host, &[&["audit", "--json"], arguments].concat());
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns who did what, and why, of each act, with the reason of each that did not take effect.
fn summary(acts: &[Value]) -> Vec<String> {
    let text = |act: &Value, member: &str| act[member].as_str().unwrap_or("-").to_owned();
    let line = |act: &Value| {
        let line = ["by", "act", "target", "reason"].map(|member| text(act, member)).join(" | ");
        match act["outcome"].as_str() {
            Some("done") => line,
            outcome => format!("{line} | {}: {}", outcome.unwrap(), text(act, "failure")),
        }
    };
    acts.iter().map(line).collect()
}

/// Writes a component to a file of this name.
fn file(site: &Site, name: &str, wasm: &[u8]) -> String {
    let file: PathBuf = site.configuration().with_file_name(name);
    std::fs::write(&file, wasm).unwrap();
    file.display().to_string()
}

/// Places an order whose saga parks. Returns the id of the saga.
fn park(host: &Host) -> String {
    host.place(&order(&[("apple", 1)])).ok()["saga"]["id"].as_str().unwrap().to_owned()
}

/// Sends messages that cannot become commands. Returns the ids of their dead letters.
fn dead_letters(host: &Host, server: &NatsServer) -> [String; 2] {
    let lost = |id| ("carrier.delivered", id, json!("no JSON"));
    publish(&server.url(), &[lost("m1"), lost("m2")]);
    let both = |page: &Value| page["items"].as_array().unwrap().len() == 2;
    let page = when(|| host.get("/admin/dead-letters").ok(), both);
    [0, 1].map(|number| page["items"][number]["id"].to_string())
}

#[test]
fn every_act_is_in_the_log_with_its_actor_its_time_and_its_reason() {
    let server = NatsServer::start();
    let (site, _plugins) = site(&server);
    let mut host = site.start();
    host.register("apple", 300, 10);
    let parcels = Path::new(&built("fixtures")).join("parcels.wasm").display().to_string();
    let newer = file(&site, "inventory.wasm", &rebuilt(plugin("inventory")));
    let thanks = file(&site, "thanks.wasm", &fixture("thanks"));
    let (first, second) = (park(&host), park(&host));
    let by = |actor: &str, arguments: &[&str]| run(&host, &[arguments, &["--actor", actor]].concat());

    let granted = GRANTS.iter().flat_map(|grant| ["--grant", grant]);
    let deploy = ["deploy", &parcels, "--note", "n1"].into_iter().chain(granted);
    by("ada", &deploy.collect::<Vec<_>>());
    by("ada", &["deploy", &newer, "--note", "n2"]);
    by("bob", &["rollback", "inventory", "--note", "n3"]);
    by("ada", &["deploy", &thanks, "--grant", "event:product.product-registered"]);
    by("bob", &["undeploy", "thanks", "--note", "n4"]);
    by("cyd", &["saga", "retry", &first, "--reason", "r1"]);
    by("cyd", &["saga", "skip", &first, "--reason", "r2"]);
    by("cyd", &["saga", "resolve", &second, "--reason", "r3"]);
    by("ada", &["projections", "redrive", "report", "--reason", "r4"]);
    by("ada", &["replay", "report", "--reason", "r5"]);
    let [lost, gone] = dead_letters(&host, &server);
    by("bob", &["dead-letters", "redrive", &lost]);
    by("bob", &["dead-letters", "discard", &gone, "--reason", "r6"]);
    // One that is refused after it was recorded says so.
    let stream = json!({"stream": "order/none"});
    let redriven = host.post("/admin/projections/report/redrive", &[("kontor-actor", "ada")], &stream);
    redriven.problem(409, "stream-not-parked");
    // An act that is refused before it begins leaves nothing.
    host.post("/admin/projections/payment/replay", &[], &json!({})).problem(404, "not-found");
    host.post("/admin/dead-letters/discard", &[], &json!({"service": "parcels"}))
        .problem(422, "invalid-payload");

    let acts = audit(&host, &[]);
    let shop = "inventory 0.1.0, order 0.1.0, payment 0.1.0, report 0.1.0";
    let expected = [
        format!("kontor serve | deploy | {shop} | -"),
        "ada | deploy | parcels 0.1.0 | n1".to_owned(),
        "ada | deploy | inventory 0.1.0 | n2".to_owned(),
        "bob | rollback | inventory | n3".to_owned(),
        "ada | deploy | thanks 0.1.0 | -".to_owned(),
        "bob | undeploy | thanks 0.1.0 | n4".to_owned(),
        format!("cyd | retry-saga | {first} | r1"),
        format!("cyd | skip-step | {first} | r2"),
        format!("cyd | resolve-saga | {second} | r3"),
        "ada | redrive-projection | report | r4".to_owned(),
        "ada | replay-projection | report | r5".to_owned(),
        format!(
            "bob | redrive-dead-letters | carrier.delivered {lost} | - | failed: 1 of 1 dead letters failed \
             again"
        ),
        format!("bob | discard-dead-letters | carrier.delivered {gone} | r6"),
        "ada | redrive-projection | report | - | failed: The stream order/none is not parked in this read \
         model."
            .to_owned(),
    ];
    assert_eq!(summary(&acts), expected);
    assert_eq!(acts[1]["grants"], json!(GRANTS.map(|grant| format!("parcels: {grant}"))));
    let times = acts.iter().map(|act| Time::try_from(act["time"].as_str().unwrap().to_owned()).unwrap());
    assert!(times.is_sorted(), "{acts:?}");

    let since = acts[9]["time"].as_str().unwrap();
    let late = audit(&host, &["--by", "bob", "--since", since]);
    assert_eq!(summary(&late), expected[11..13]);
    host.kill();
    host = site.start();
    assert_eq!(audit(&host, &[]), acts, "after a restart");
    host.kill();
    site.lose_data();
    host = site.start();
    assert_eq!(audit(&host, &[]), acts, "with another copy");
    let printed = run(&host, &["audit"]);
    assert!(printed.lines().last().unwrap().contains("failed: The stream order/none"), "{printed}");
}

#[test]
fn an_act_that_the_log_does_not_take_is_not_done() {
    let mut server = NatsServer::start();
    let (site, _plugins) = site(&server);
    let host = site.start();
    server.kill();
    host.await_warning("the log takes no commands at the moment");
    for act in ["redrive", "replay"] {
        let path = format!("/admin/projections/report/{act}");
        host.post(&path, &[], &json!({})).problem(503, "log-unavailable");
    }
    assert_eq!(host.get("/admin/projections/report").ok().get("building"), None);
}
