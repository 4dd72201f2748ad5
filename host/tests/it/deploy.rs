//! Deployments on a running host: deploy, roll back, undeploy, and what each of them leaves behind.

use std::{fs, thread};

use kontor::model::Digest;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::common::deploy::{
    FOR_UNRULY, allowing, digest_of, fixture, gate, granting, inventory, next_inventory, plugin, rebuilt,
    site,
};
use crate::common::http::Client;
use crate::common::shop::{SAGA_END, configuration, order};
use crate::common::{Host, Site, ended, kontor};

fn act(entry: &Value) -> Value {
    json!([entry["act"], entry["service"]])
}

#[test]
fn a_restart_undoes_no_rollback_and_says_which_file_does_not_run() {
    let ((site, plugins), newer) = (inventory(), next_inventory("next"));
    let host = site.start();
    host.register("desk", 5, 10);
    let file = plugins.path().join("inventory.wasm");
    host.deploy(&newer, "").ok();
    fs::write(&file, &newer).unwrap();
    assert!(host.stop().success());

    let host = site.start();
    assert_eq!(host.digest("inventory"), digest_of(&newer));
    let report = host.roll_back("inventory", &json!({"note": "too new"})).ok();
    assert_eq!((&report["live"], &gate(&report, "compatible")["outcome"]), (&json!(true), &json!("skipped")));
    let older = host.digest("inventory");
    assert_eq!(older, digest_of(&plugin("inventory")));
    let entry = host.deployments().pop().unwrap();
    assert_eq!((act(&entry), &entry["note"]), (json!(["rolled-back", "inventory"]), &json!("too new")));
    host.roll_back("inventory", &json!({})).problem(409, "nothing-to-roll-back");
    assert!(host.stop().success());

    let host = site.start();
    assert_eq!(host.digest("inventory"), older);
    assert_eq!(host.stock("desk"), (10, 0));
    let sentence = format!("`kontor deploy {}` deploys it", file.display());
    assert!(host.log().contains(&sentence), "{}", host.log());
}

#[test]
fn a_restart_undoes_no_undeployment() {
    let (site, plugins) = inventory();
    let host = site.start();
    host.undeploy("inventory", "").ok();
    assert!(host.stop().success());
    let host = site.start();
    assert_eq!(host.digest("inventory"), None);
    let sentence = format!(
        "is inventory, which was undeployed, so it does not run: `kontor deploy {}",
        plugins.path().display()
    );
    assert!(host.log().contains(&sentence), "{}", host.log());
}

#[test]
fn a_view_that_a_client_has_kept_is_not_right_any_more_when_another_version_shows_it() {
    let (site, _plugins) = inventory();
    let host = site.start();
    host.register("desk", 5, 10);
    let kept = host.get("/products/desk").header("etag").unwrap().to_owned();
    let look = || host.get_with("/products/desk", &[("if-none-match", &kept)]);
    assert_eq!(look().status, 304);
    host.force(&next_inventory("forgetful"));
    assert_eq!(look().ok(), json!({"id": "desk", "available": 10}));
    let more = json!({"quantity": 1});
    host.post("/products/desk/add-stock", &[("if-match", &kept)], &more).ok();
}

/// Returns the number of events in the read model of the fixture `unruly`.
fn remembered(site: &Site) -> u64 {
    let database = Connection::open(site.data().join("read/unruly-v1.db")).unwrap();
    database.query_row("SELECT count(*) FROM waits", [], |row| row.get(0)).unwrap()
}

/// Sends `wait` to a beast. Returns the number of its waits.
fn wait(host: &Host) -> Value {
    let waited = host.post("/beasts/bear/wait", &[], &json!({}));
    let position = waited.header("kontor-position").unwrap();
    host.get_with("/beasts/last", &[("kontor-position", position)]).ok();
    waited.ok()["state"]["waits"].take()
}

#[test]
fn a_sixth_service_comes_into_a_running_host_leaves_it_and_comes_back_as_it_was() {
    let site = Site::new(&configuration());
    let host = site.start();
    let unruly = fixture("unruly");
    let has_route = || host.get("/openapi.json").ok()["paths"].get("/beasts/{id}/wait").is_some();
    let is_there = |there: bool| {
        assert_eq!((host.digest("unruly").is_some(), has_route()), (there, there));
    };
    is_there(false);
    host.post("/beasts/bear/wait", &[], &json!({})).problem(404, "unknown-route");

    host.deploy(&unruly, FOR_UNRULY).ok();
    is_there(true);
    assert_eq!((wait(&host), remembered(&site)), (json!(1), 1));
    host.undeploy("inventory", "").problem(409, "service-in-use");
    host.undeploy("unruly", "?note=enough").ok();
    is_there(false);
    host.post("/beasts/bear/wait", &[], &json!({})).problem(404, "unknown-route");
    host.undeploy("unruly", "").problem(404, "not-found");
    host.roll_back("unruly", &json!({})).problem(404, "not-found");

    host.deploy(&unruly, FOR_UNRULY).ok();
    is_there(true);
    assert_eq!((wait(&host), remembered(&site)), (json!(2), 2));
    let acts: Vec<_> =
        host.deployments().iter().filter(|entry| entry["service"] == "unruly").map(act).collect();
    let expected = ["deployed", "undeployed", "deployed"].map(|name| json!([name, "unruly"]));
    assert_eq!(acts, expected);
}

#[test]
fn a_service_is_not_undeployed_while_others_live_by_its_commands_and_events() {
    let services =
        [("inventory", plugin("inventory")), ("delivery", plugin("delivery")), ("thanks", fixture("thanks"))];
    let (site, _plugins) = site(&services, "");
    let host = site.start();
    let problem = host.undeploy("inventory", "").problem(409, "service-in-use");
    assert_eq!(
        problem["detail"],
        "Other services need inventory: delivery (sends product.ship), thanks (starts thank on \
         product.product-registered). Undeploy them first, or name service:inventory with \
         --allow-breaking."
    );
    host.undeploy("thanks", "").ok();
    let problem = host.undeploy("inventory", "").problem(409, "service-in-use");
    assert!(problem["detail"].as_str().unwrap().contains(": delivery (sends product.ship). "), "{problem}");
    host.undeploy("inventory", &allowing(["service:inventory"])).ok();
    host.undeploy("delivery", "").ok();
}

#[test]
fn a_version_that_goes_bad_is_taken_back_by_itself() {
    /// For this quantity the next inventory traps in `decide`.
    const UNDECIDABLE: u64 = 13;
    /// Far more calls than the watch needs to roll back.
    const LIMIT: usize = 20_000;
    let (site, _plugins) = inventory();
    let host = site.start();
    host.register("desk", 5, 0);
    let (older, newer) = (host.digest("inventory"), next_inventory("next"));
    host.deploy(&newer, "").ok();
    let add = |quantity: u64| host.post("/products/desk/add-stock", &[], &json!({"quantity": quantity}));
    let (mut added, mut felt, mut good) = (0, 0, 0);
    loop {
        add(1).ok();
        (added, good) = (added + 1, good + 1);
        let unlucky = add(UNDECIDABLE);
        if unlucky.status == 200 {
            added += UNDECIDABLE;
            break;
        }
        unlucky.problem(500, "component-trapped");
        felt += 1;
        assert!(felt < LIMIT, "it is not taken back");
    }
    println!("{felt} calls felt it and {good} did not before it was taken back");
    assert_eq!((host.digest("inventory"), host.stock("desk").0), (older, added), "nothing accepted is lost");
    let entry = host.deployments().pop().unwrap();
    assert_eq!((act(&entry), &entry["actor"]), (json!(["rolled-back", "inventory"]), &json!("kontor")));
    assert_eq!(entry["replaced"], json!(digest_of(&newer)));
    let reason = entry["reason"].as_str().unwrap();
    assert!(
        reason.contains(" of its first ") && reason.contains(" calls of decide add-stock faulted"),
        "{reason}"
    );
    assert!(host.get("/metrics").text.contains("kontor_rollbacks_total{service=\"inventory\"} 1"));
}

/// Starts a saga of the fixture `unruly`. Returns its id once it is in this state.
fn begun(host: &Client, saga: &str, payload: &Value, state: &str) -> String {
    let started = host.post(&format!("/beasts/{saga}/{saga}"), &[], payload).ok();
    let id = started["saga"]["id"].as_str().unwrap().to_owned();
    while timeline(host, &id)["state"] != state {}
    id
}

fn timeline(host: &Client, saga: &str) -> Value {
    host.get(&format!("/admin/sagas/{saga}")).ok()
}

#[test]
fn open_sagas_move_over_if_they_go_the_same_way_and_stay_where_they_are_if_not() {
    let once = "[retries]\nafter_pivot = { attempts = 1, first_wait_ms = 1, longest_wait_ms = 1 }\n";
    // The configuration decides which way the wanderer goes and whether a step of the leaper fails.
    let configuration =
        |path: &str, tame: bool| format!("{once}[services.unruly]\npath = '{path}'\ntame = {tame}\n");
    let older = fixture("unruly");
    let newer = rebuilt(older.clone());
    let (site, _plugins) = site(&[("unruly", older.clone())], &configuration("east", false));
    let host = site.start();
    let sleeper = begun(&host, "hibernate", &json!({"days": 30}), "waiting");
    let wanderer = begun(&host, "wander", &json!({}), "waiting");
    let leaper = begun(&host, "leap", &json!({}), "parked");
    assert!(host.stop().success());

    site.configure(&configuration("west", true));
    let host = site.start();
    let report = host.deploy(&newer, "").ok();
    let sagas = gate(&report, "sagas");
    let says = "of 3 open sagas 2 move to this version; 1 would diverge and 0 are running";
    assert!(sagas["says"].as_str().unwrap().starts_with(says), "{sagas}");
    let stays = format!(
        "wander {wanderer} stays: the run diverged: at first it asks for something other than its journal has"
    );
    let moves =
        [("hibernate", &sleeper), ("leap", &leaper)].map(|(name, saga)| format!("{name} {saga} moves"));
    let mut findings: Vec<String> = serde_json::from_value(sagas["findings"].clone()).unwrap();
    assert_eq!(findings.remove(0), stays);
    findings.sort_unstable();
    assert_eq!(findings, moves);
    for (saga, digest) in [(&sleeper, &newer), (&leaper, &newer), (&wanderer, &older)] {
        let digest = digest_of(digest).unwrap();
        assert_eq!(timeline(&host, saga)["digest"], digest);
        let shown = ended(&mut kontor(&["saga", "show", saga, "--host", host.url()])).stdout;
        assert!(shown.contains(&format!("component {}", &digest[..12])), "{shown}");
    }
    host.post(&format!("/admin/sagas/{leaper}/retry"), &[SAGA_END], &json!({})).ok();
    assert_eq!(timeline(&host, &leaper)["state"], "completed");
}

#[test]
fn a_saga_whose_code_is_at_fault_says_why_and_continues_after_a_deployment_that_mends_it() {
    let configuration = |tame: bool| format!("[services.unruly]\ntame = {tame}\n");
    let older = fixture("unruly");
    let newer = rebuilt(older.clone());
    let (site, _plugins) = site(&[("unruly", older)], &configuration(false));
    let host = site.start();
    let stumbler = begun(&host, "stumble", &json!({"over": "panic"}), "parked");
    let why = "unruly trapped in run stumble: a stone lies in the way";
    let shown = |host: &Host, arguments: &[&str]| {
        ended(&mut kontor(&[arguments, &["--host", host.url()]].concat())).stdout
    };
    let text = shown(&host, &["saga", "show", &stumbler]);
    assert!(text.contains(&format!("parked   {why}\n")), "{text}");
    assert!(text.contains("It continues once a version that mends it is deployed."), "{text}");
    let text = shown(&host, &["sagas", "--state", "parked"]);
    assert!(text.contains(why), "{text}");
    assert!(host.stop().success());

    // The same component stumbles no more, but nobody knows that.
    site.configure(&configuration(true));
    let host = site.start();
    assert_eq!(timeline(&host, &stumbler)["state"], "parked");
    let report = host.deploy(&newer, "").ok();
    assert_eq!(gate(&report, "sagas")["findings"], json!([format!("stumble {stumbler} moves")]));
    let status = host.get_with(&format!("/sagas/{stumbler}"), &[SAGA_END]).ok();
    assert_eq!(status["state"], "completed", "{status}");
    let timeline = timeline(&host, &stumbler);
    assert_eq!(timeline["digest"], json!(digest_of(&newer)));
    let act = json!([timeline["acts"][0]["act"], timeline["acts"][0]["actor"]]);
    assert_eq!(act, json!(["retry", format!("saga:{stumbler}")]));
}

#[test]
fn open_sagas_come_back_from_a_version_that_is_taken_back() {
    let older = fixture("unruly");
    let (site, _plugins) = site(&[("unruly", older.clone())], "");
    let host = site.start();
    let sleeper = begun(&host, "hibernate", &json!({"days": 30}), "waiting");
    let newer = rebuilt(older.clone());
    host.deploy(&newer, "").ok();
    assert_eq!(json!(digest_of(&newer)), timeline(&host, &sleeper)["digest"]);
    while host.digest("unruly") != digest_of(&older) {
        host.post("/beasts/wolf/trap", &[], &json!({"message": "on purpose"}))
            .problem(500, "component-trapped");
    }
    while timeline(&host, &sleeper)["digest"] != json!(digest_of(&older)) {}
}

#[test]
fn a_saga_goes_on_when_its_service_is_deployed_again() {
    // A step whose service is missing is retried for as long as it takes.
    let patient =
        "[retries]\nbefore_pivot = { attempts = 1_000_000, first_wait_ms = 10, longest_wait_ms = 50 }\n";
    let site = Site::new(&format!("{patient}{}", configuration()));
    let host = site.start();
    host.register("apple", 300, 10);
    host.undeploy("payment", &allowing(["service:payment"])).ok();
    let placed = host.post("/orders", &[], &order(&[("apple", 2)]).json());
    assert_eq!(placed.status, 202, "{}", placed.text);
    let placed = placed.ok();
    let [saga, order] = [&placed["saga"]["id"], &placed["id"]].map(|id| id.as_str().unwrap());
    host.undeploy("order", &allowing(["service:order"])).ok();
    host.get(&format!("/orders/{order}")).problem(404, "unknown-route");
    assert!(host.stop().success());

    let host = site.start();
    assert_eq!((host.digest("order"), host.digest("payment")), (None, None));
    let commands = [
        ("delivery", ["cancel", "hold", "resume", "schedule"].as_slice()),
        ("payment", &["authorize", "cancel", "change"]),
        ("product", &["change-reservation", "release", "reserve"]),
    ];
    let commands = commands
        .iter()
        .flat_map(|(aggregate, names)| names.iter().map(move |name| format!("command:{aggregate}.{name}")));
    let services = ["inventory", "payment", "delivery"].map(|service| format!("service:{service}"));
    let grants: Vec<_> = commands.chain(services).collect();
    let grants = granting(&grants.iter().map(String::as_str).collect::<Vec<_>>());
    host.deploy_all(&[plugin("payment"), rebuilt(plugin("order"))], &grants).ok();
    let status = host.get_with(&format!("/sagas/{saga}"), &[SAGA_END]).ok();
    assert_eq!(status["state"], "completed", "{status}");
    assert_eq!(host.get(&format!("/orders/{order}")).ok()["status"], "confirmed");
    assert_eq!(host.stock("apple"), (8, 2));
}

#[test]
fn several_services_go_live_together_or_not_at_all() {
    let site = Site::new(&configuration());
    let host = site.start();
    let digests = || ["payment", "delivery", "inventory"].map(|service| host.digest(service));
    let (before, history) = (digests(), host.deployments());
    let [payment, delivery] = ["payment", "delivery"].map(|service| rebuilt(plugin(service)));
    let refused = host.deploy_all(&[payment.clone(), delivery.clone(), next_inventory("unsound")], "");
    let problem = refused.problem(422, "gate-refused");
    assert!(problem["detail"].as_str().unwrap().contains("its manifest is not sound"), "{problem}");
    assert_eq!((digests(), host.deployments()), (before.clone(), history.clone()));

    host.deploy_all(&[payment.clone(), delivery.clone()], "").ok();
    let [_, _, inventory] = before;
    assert_eq!(digests(), [digest_of(&payment), digest_of(&delivery), inventory]);
    let entries = host.deployments().split_off(history.len());
    let services: Vec<_> = entries.iter().map(act).collect();
    assert_eq!(services, [json!(["deployed", "payment"]), json!(["deployed", "delivery"])]);
    assert_eq!(entries[0]["version"], entries[1]["version"], "they are one event");
}

#[test]
fn what_was_answered_as_deployed_runs_after_a_kill() {
    let (site, _plugins) = inventory();
    let mut host = site.start();
    host.register("desk", 5, 10);
    for wasm in [next_inventory("next"), rebuilt(next_inventory("next"))] {
        host.deploy(&wasm, "").ok();
        host.kill();
        host = site.start();
        assert_eq!(host.digest("inventory"), digest_of(&wasm));
        assert_eq!(host.stock("desk"), (10, 0));
    }
    host.roll_back("inventory", &json!({"to": digest_of(&plugin("inventory"))})).ok();
    host.kill();
    host = site.start();
    assert_eq!(host.digest("inventory"), digest_of(&plugin("inventory")));
}

#[test]
fn the_progress_of_a_deployment_is_shown_until_it_ends() {
    let site = Site::new(&configuration());
    let host = site.start();
    host.register("desk", 5, 10);
    let step = || host.get("/admin/plugins/progress").ok()["step"].take();
    assert_eq!(step(), Value::Null);
    let next = next_inventory("next");
    let seen = thread::scope(|scope| {
        let deploying = scope.spawn(|| host.deploy(&next, "").ok());
        let mut seen = Vec::new();
        while !deploying.is_finished() {
            seen.push(step());
        }
        seen
    });
    let seen: Vec<_> = seen.into_iter().filter(|step| !step.is_null()).collect();
    let first = seen.first().expect("the gates take longer than a request");
    assert_eq!(first["digest"], Digest::of(&next).to_string());
    assert!(seen.iter().all(|step| step["gate"].is_string() && step["done"].is_u64()), "{seen:?}");
    assert_eq!(step(), Value::Null);
}
