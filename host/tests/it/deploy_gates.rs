//! The gates of a deployment: each meets a component that was built to fail it.

use std::fs;

use kontor::log::{EmbeddedLog, EventLog as _};
use kontor::model::{StreamId, Version};
use kontor_testkit::log::happened;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::deploy::{
    self, allowing, digest_of, fixture, folder, gate, next_inventory, plugin, renamed,
};
use crate::common::{Ended, Host, Site, ended, kontor};

/// A component that only imports an interface unknown to this host: an empty instance type and an import of
/// it.
const FOREIGN: &[u8] = b"\0asm\x0d\0\x01\0\x07\x03\x01\x42\0\x0a\x1a\x01\0\x15acme:gpu/render@1.0.0\x05\0";

/// A host with only the inventory.
struct Inventory {
    site: Site,
    plugins: TempDir,
}

impl Inventory {
    fn new(configuration: &str) -> Self {
        let (site, plugins) = deploy::site(&[("inventory", plugin("inventory"))], configuration);
        Self { site, plugins }
    }

    /// Starts a host with a product from which stock was removed.
    fn start(&self) -> Host {
        let host = self.site.start();
        host.register("desk", 5, 10);
        host.post("/products/desk/remove-stock", &[], &json!({"quantity": 1})).ok();
        host
    }
}

/// Deploys a component that the gate `by` must reject with a sentence that begins with `says`. Returns the
/// gate's further findings.
#[track_caller]
fn refused(host: &Host, wasm: &[u8], by: &str, says: &str) -> Vec<String> {
    let problem = host.deploy(wasm, "").problem(422, "gate-refused");
    let gate = gate(&problem["report"], by);
    assert_eq!(gate["outcome"], "refused", "{gate}");
    assert!(gate["says"].as_str().unwrap().starts_with(says), "{gate}");
    serde_json::from_value(gate["findings"].clone()).unwrap_or_default()
}

/// The sentence about a component that does not know the events in the log.
const CANNOT_FOLD: &str =
    "the component cannot fold the events in the log: make it accept the old events, or name";

#[test]
fn each_gate_refuses_a_component_that_was_built_to_fail_it_and_says_why() {
    let inventory = Inventory::new("");
    let host = inventory.start();
    let compiled = fs::read_dir(inventory.site.data().join("compiled")).unwrap().next().unwrap().unwrap();
    let native = fs::read(compiled.path()).unwrap();
    let before = (host.digest("inventory"), host.deployments());
    let (variant, core) = (next_inventory, b"\0asm\x01\0\0\0");
    for (wasm, by, says) in [
        (b"#!/bin/sh\n".to_vec(), "component", "this is no WebAssembly file"),
        (native, "component", "this is precompiled native code, which a host never takes"),
        (core.to_vec(), "component", "this is a core module, not a component: build it for the"),
        (FOREIGN.to_vec(), "component", "it imports acme:gpu/render@1.0.0, which this host does not offer"),
        (
            b"\0asm\x0d\0\x01\0".to_vec(),
            "component",
            "it does not implement the world kontor:service/service",
        ),
        (variant("unsound"), "manifest", "its manifest is not sound: the route GET /lost"),
        (
            variant("rival"),
            "side-by-side",
            "these services cannot run side by side: the aggregate product belongs to two services, \
             inventory and rival",
        ),
        (
            variant("squatter"),
            "side-by-side",
            "these services cannot run side by side: squatter cannot have the route \
             GET /products: inventory already has it",
        ),
        (
            variant("usurper"),
            "side-by-side",
            "these services cannot run side by side: usurper cannot have the route \
             GET /admin/plugins: paths under /admin are the host's own",
        ),
        (
            variant("curious"),
            "permissions",
            "the component requests service:payment, which is not granted: deploy it with \
             --grant service:payment, or add that to \
             [grants.inventory] in kontor.toml",
        ),
        (variant("outgoing"), "permissions", "the component requests "),
        (
            variant("misspelt"),
            "read-model",
            "SQLite does not accept the schema of the read model: near \"TABEL\"",
        ),
        (
            variant("reshaped"),
            "history",
            "the state of product is another than on the running version, under the same version",
        ),
        (
            variant("forgetful"),
            "compatible",
            "the component breaks what the running version promises: restore it, or name it",
        ),
        (variant("forgetful"), "history", CANNOT_FOLD),
        (
            fixture("unready"),
            "warm-up",
            "the component fails for an aggregate without events, which has no state: \
             unready trapped in evolve sleeper: everybody sleeps",
        ),
    ] {
        refused(&host, &wasm, by, says);
    }
    assert_eq!((host.digest("inventory"), host.deployments()), before, "nothing of that was deployed");
}

#[test]
fn a_component_takes_no_route_of_the_host_and_has_the_settings_that_it_needs() {
    let inventory = Inventory::new("");
    let host = inventory.start();
    let squatter = renamed(next_inventory("squatter"), "/products", "/problems");
    let says = "these services cannot run side by side: squatter cannot have the route GET /problems: paths \
                under /problems are the host's own";
    refused(&host, &squatter, "side-by-side", says);
    // Nothing at all is configured for the service.
    let says = "the configuration of the host does not fit the component: correct it";
    let found = refused(&host, &fixture("unready"), "configuration", says);
    assert_eq!(found, ["services.unready.bed is missing"]);
}

#[test]
fn everything_that_a_version_takes_away_or_opens_has_a_name_by_which_it_can_be_allowed() {
    let inventory = Inventory::new("");
    let host = inventory.start();
    let forgetful = next_inventory("forgetful");
    let found = refused(&host, &forgetful, "compatible", "the component breaks");
    let names: Vec<_> = found.iter().map(|found| found.split_once(": ").unwrap().0).collect();
    for name in [
        "command:product/remove-stock",
        "event:product/stock-removed",
        "query:products",
        "route:GET /products",
        "access:POST /products/{id}/add-stock",
        "read-model",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
    let lost = refused(&host, &forgetful, "history", "the component cannot fold");
    assert!(lost[0].starts_with("product/desk, version 2, stock-removed: "), "{lost:?}");
    assert!(lost[0].contains("the stored event stock-removed of product desk cannot be read"), "{lost:?}");

    let but_one = host.deploy(&forgetful, &allowing(names.iter().copied())).problem(422, "gate-refused");
    assert_eq!(gate(&but_one["report"], "compatible")["outcome"], "passed", "{but_one}");
    let report = host.deploy(&forgetful, &allowing(names.into_iter().chain(["history"]))).ok();
    assert_eq!((&report["live"], &gate(&report, "history")["outcome"]), (&json!(true), &json!("skipped")));
    host.get("/products").problem(404, "unknown-route");
    host.get("/products/desk").problem(500, "component-trapped");
    host.register("chair", 5, 1);
}

#[test]
fn of_many_streams_that_cannot_be_folded_the_first_are_named() {
    let inventory = Inventory::new("");
    let host = inventory.site.start();
    let products: Vec<_> = (10..30).map(|number| format!("product-{number}")).collect();
    for product in &products {
        host.register(product, 5, 1);
        host.post(&format!("/products/{product}/remove-stock"), &[], &json!({"quantity": 1})).ok();
    }
    let found = refused(&host, &next_inventory("forgetful"), "history", "the component cannot fold");
    let named: Vec<_> = found.iter().map(|found| found.split_once(", version 2").unwrap().0).collect();
    let first: Vec<_> = products.iter().take(10).map(|product| format!("product/{product}")).collect();
    assert_eq!(named, first);
}

#[test]
fn a_state_of_another_shape_takes_another_version_or_leave() {
    let inventory = Inventory::new("");
    let host = inventory.start();
    let reshaped = next_inventory("reshaped");
    let found =
        refused(&host, &reshaped, "history", "the state of product is another than on the running version");
    assert_eq!(found, ["product/desk: the events fold to another state than on the running version"]);
    let allowed = host.deploy(&reshaped, "?allow-breaking=state:product&dry-run=true").ok();
    assert_eq!(gate(&allowed, "history")["outcome"], "passed");

    let report = host.deploy(&next_inventory("next"), "").ok();
    assert_eq!(gate(&report, "history")["says"], "the component folds 1 stream with 2 events");
    assert_eq!(host.stock("desk"), (9, 0));
}

#[test]
fn a_deployment_folds_what_is_new_and_remembers_the_rest() {
    let inventory = Inventory::new("");
    let host = inventory.start();
    let (first, next) = (plugin("inventory"), deploy::rebuilt(plugin("inventory")));
    let folds = |host: &Host, wasm: &[u8]| {
        let report = host.deploy(wasm, "").ok();
        gate(&report, "history")["says"].as_str().unwrap().to_owned()
    };
    assert_eq!(folds(&host, &next), "the component folds 1 stream with 2 events");
    assert_eq!(folds(&host, &first), "the component folds 1 stream with 2 events, 1 as remembered");
    host.register("tea", 450, 10);
    assert_eq!(folds(&host, &next), "the component folds 2 streams with 3 events, 1 as remembered");
    assert_eq!(refused(&host, &next_inventory("reshaped"), "history", "the state of product").len(), 2);
    // The same is found again.
    assert_eq!(refused(&host, &next_inventory("reshaped"), "history", "the state of product").len(), 2);
    assert!(host.stop().success());

    let host = inventory.site.start();
    assert_eq!(folds(&host, &first), "the component folds 2 streams with 3 events, 2 as remembered");
    assert!(host.stop().success());
    fs::remove_file(inventory.site.data().join("folds.db")).unwrap();
    let host = inventory.site.start();
    assert_eq!(folds(&host, &next), "the component folds 2 streams with 3 events");
    assert_eq!(host.stock("tea"), (10, 0));
}

#[test]
fn a_dry_run_goes_through_the_gates_and_changes_nothing() {
    let inventory = Inventory::new("");
    let host = inventory.start();
    let before = (host.digest("inventory"), host.deployments());
    let next = next_inventory("next");
    let report = host.deploy(&next, "?dry-run=true").ok();
    assert_eq!((&report["dry_run"], &report["live"]), (&json!(true), &json!(false)));
    let named =
        |gates: &Value| gates.as_array().unwrap().iter().map(|gate| gate["gate"].clone()).collect::<Vec<_>>();
    let (of_service, of_all) = (named(&report["services"][0]["gates"]), named(&report["gates"]));
    let passed = [
        "component",
        "manifest",
        "signature",
        "compatible",
        "permissions",
        "configuration",
        "read-model",
        "history",
        "sagas",
        "warm-up",
    ];
    assert_eq!((json!(of_service), json!(of_all)), (json!(passed), json!(["side-by-side"])));
    assert_eq!((host.digest("inventory"), host.deployments()), before);
    assert_eq!(host.deploy(&next, "").ok()["live"], true);
    assert_eq!(host.digest("inventory"), digest_of(&next));
}

#[test]
fn what_a_component_asks_for_can_be_granted_with_its_deployment_and_stays_granted() {
    let inventory = Inventory::new("[services.unruly]\nabroad = 'http://127.0.0.1:9'\n");
    let host = inventory.start();
    let unruly = fixture("unruly");
    let grants = "?grant=service:oracle&grant=service:inventory";
    let refused = host.deploy(&unruly, grants).problem(422, "gate-refused");
    let permissions = gate(&refused["report"], "permissions")["says"].as_str().unwrap();
    assert!(
        permissions.contains("http://127.0.0.1:9") && permissions.contains("[[grants.unruly.http]]"),
        "{permissions}"
    );
    host.deploy(&unruly, "?grant=inventory").problem(422, "invalid-grant");
    assert!(host.stop().success());

    inventory.site.configure("");
    let host = inventory.site.start();
    let refused = host.deploy(&unruly, "?grant=service:oracle").problem(422, "gate-refused");
    assert!(refused["detail"].as_str().unwrap().contains("--grant service:inventory"), "{refused}");
    host.deploy(&unruly, grants).ok();
    let next = deploy::rebuilt(unruly);
    host.deploy(&next, "").ok();
    assert_eq!(host.digest("unruly"), digest_of(&next));
}

#[test]
fn with_keys_configured_only_what_is_signed_by_one_of_them_is_deployed() {
    let inventory = Inventory::new("");
    let files = folder(&[("next", next_inventory("next"))]);
    let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
    let run = |arguments: &[&str]| ended(&mut kontor(arguments));
    let [ours, theirs] = ["ours.key", "theirs.key"].map(|key| {
        let made = run(&["sign", "--new-key", &path(key)]).stdout;
        made.split_once("\n\n").unwrap().1.to_owned()
    });
    let sign =
        |component: &str, key: &str| assert!(run(&["sign", component, "--key", &path(key)]).status.success());
    assert_ne!(ours, theirs);
    inventory.site.configure(&ours);
    let in_directory = inventory.plugins.path().join("inventory.wasm");
    let Ended { status, stderr, .. } = inventory.site.fail_to_start(inventory.plugins.path());
    assert_eq!(status.code(), Some(1));
    assert!(
        stderr
            .contains("the gate signature refuses it: the component is not signed, and keys are configured"),
        "{stderr}"
    );

    sign(in_directory.to_str().unwrap(), "ours.key");
    let host = inventory.start();
    let (component, signature) = (path("next.wasm"), path("next.wasm.sig"));
    refused(
        &host,
        &next_inventory("next"),
        "signature",
        "the component is not signed, and keys are configured: sign it with",
    );
    let deploy = || run(&["deploy", &component, "--signature", &signature, "--host", host.url()]);
    sign(&component, "theirs.key");
    let Ended { status, stderr, .. } = deploy();
    assert_eq!(status.code(), Some(3));
    assert!(
        stderr.contains("the gate signature refuses inventory: no trusted key has made this"),
        "{stderr}"
    );
    sign(&component, "ours.key");
    assert_eq!(deploy().status.code(), Some(0));
    host.roll_back("inventory", &json!({})).ok();
}

#[test]
fn the_command_line_shows_the_report_and_says_what_to_do() {
    let inventory = Inventory::new("");
    let host = inventory.start();
    let components = folder(&[("forgetful", next_inventory("forgetful")), ("next", next_inventory("next"))]);
    let deploy = |name: &str, more: &[&str]| {
        let file = components.path().join(name).with_extension("wasm");
        let line = [&["deploy", file.to_str().unwrap(), "--host", host.url()], more].concat();
        ended(&mut kontor(&line))
    };
    let Ended { status, stdout, stderr } = deploy("forgetful", &[]);
    assert_eq!(status.code(), Some(3), "{stderr}");
    assert!(stdout.contains("compatible     refused") && stdout.contains("    query:products: "), "{stdout}");
    assert!(stderr.contains("the gate compatible refuses inventory: the component breaks"), "{stderr}");

    let Ended { status, stdout, stderr } = deploy("next", &["--note", "spring", "--actor", "ada"]);
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    assert!(
        stdout.contains("Live: inventory 0.2.0 (") && stdout.contains("kontor rollback inventory"),
        "{stdout}"
    );
    let shown = ended(&mut kontor(&["plugins", "--history", "--host", host.url()])).stdout;
    assert!(shown.contains("ada") && shown.contains("spring"), "{shown}");
}

/// Writes a product and some additions to its stock into a log that no host has open.
async fn record(log: &EmbeddedLog, product: &str, additions: &[u64]) {
    let mut events = vec![("product-registered", json!({"name": product, "unit_price": 5, "quantity": 1}))];
    events.extend(additions.iter().map(|quantity| ("stock-added", json!({"quantity": quantity}))));
    let stream = StreamId::new("product", product).unwrap();
    log.append(vec![happened(stream, Version::START, &events)]).await.unwrap();
}

#[test]
fn one_event_in_a_hundred_thousand_that_cannot_be_folded_is_found_before_it_is_felt() {
    const STREAMS: usize = 1_000;
    const ADDITIONS: usize = 99;
    /// For this quantity the next inventory traps in `evolve`.
    const UNFOLDABLE: u64 = 77_777;
    let inventory = Inventory::new("");
    assert!(inventory.site.start().stop().success());
    let log = EmbeddedLog::open(&inventory.site.data()).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        for number in 0..STREAMS {
            let mut additions = [1; ADDITIONS];
            if number == STREAMS / 2 {
                additions[50] = UNFOLDABLE;
            }
            record(&log, &format!("product-{number:04}"), &additions).await;
        }
    });
    drop(log);
    let host = inventory.site.start();
    let next = next_inventory("next");
    let found = refused(&host, &next, "history", "the component cannot fold the events in the log");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("product/product-0500, version 52, stock-added: "), "{found:?}");
    assert!(found[0].contains("the event has too many sevens"), "{found:?}");

    let sampled = host.deploy(&next, "?sample=10&dry-run=true").ok();
    assert_eq!(
        gate(&sampled, "history")["says"],
        "the component folds 10 streams (a sample) with 1000 events, 10 as remembered"
    );
    let current = host.deploy(&deploy::rebuilt(plugin("inventory")), "").ok();
    let history = gate(&current, "history");
    assert_eq!(history["says"], "the component folds 1000 streams with 100000 events");
    println!("100,000 events of 1,000 streams are folded on both versions in {} ms", history["took_ms"]);
    assert!(host.stop().success());

    inventory.site.configure("[deploy]\nhistory_time_ms = 1\n");
    let host = inventory.site.start();
    let refused = host.deploy(&plugin("inventory"), "").problem(422, "gate-refused");
    let says = gate(&refused["report"], "history")["says"].as_str().unwrap();
    let end = "within 1 ms: fold fewer with --sample, \
                or raise history_time_ms under [deploy] in kontor.toml";
    assert!(says.ends_with(end), "{says}");
}
