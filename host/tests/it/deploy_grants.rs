//! Permissions granted with a deployment: they last as long as the deployment and allow no more than they
//! name.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::deploy::{self, digest_of, fixture, gate, granting, next_inventory, plugin, rebuilt};
use crate::common::http::Client;
use crate::common::{Host, Site};

/// The origin that the fixture `unruly` is configured to call. Nobody listens there, and the name resolves to
/// no public address.
const ORIGIN: &str = "http://localhost:9";
const CONFIGURED: &str = "[services.unruly]\nabroad = 'http://localhost:9'\n";
const INSIDE: [&str; 2] = ["service:oracle", "service:inventory"];
const OVER_HTTP: &str = "http:http://localhost:9";

/// The outcome of a call that the host permits: the name was resolved, and its address is not public.
const LET_THROUGH: &str = "DestinationIpProhibited";

/// A site with only the inventory, to which the tests deploy `unruly`.
fn site(configuration: &str) -> (Site, TempDir) {
    deploy::site(&[("inventory", plugin("inventory"))], configuration)
}

/// Calls the configured origin. Returns the outcome.
fn call(host: &Client) -> String {
    let call = json!({"method": "GET", "url": format!("{ORIGIN}/"), "headers": {}, "bytes": 0});
    host.post("/beasts/bear/call", &[], &call).ok();
    let answered = host.history("beast/bear").pop().unwrap();
    answered["payload"]["answer"]["error"].as_str().unwrap().to_owned()
}

/// Returns the permissions granted to the running `unruly` and the number of its deployments.
fn granted(host: &Client) -> (Value, usize) {
    let mut list = host.get("/admin/plugins").ok();
    let plugins = list["items"].as_array_mut().unwrap();
    let unruly = plugins.iter_mut().find(|plugin| plugin["service"] == "unruly").unwrap();
    let entries = host.deployments();
    (unruly["grants"].take(), entries.iter().filter(|entry| entry["service"] == "unruly").count())
}

/// Deploys a component that the gate `permissions` must reject. Returns the gate's sentence.
#[track_caller]
fn refused(host: &Host, wasm: &[u8], grants: &[&str]) -> String {
    let problem = host.deploy(wasm, &granting(grants)).problem(422, "gate-refused");
    gate(&problem["report"], "permissions")["says"].as_str().unwrap().to_owned()
}

#[test]
fn a_grant_over_http_goes_with_the_deployment_that_runs() {
    let (site, _plugins) = site(CONFIGURED);
    let host = site.start();
    let unruly = fixture("unruly");
    let finding = refused(&host, &unruly, &INSIDE);
    assert!(
        finding.contains(&format!("deploy it with --grant {OVER_HTTP}, or add [[grants.unruly.http]]")),
        "{finding}"
    );
    let all = [&INSIDE[..], &[OVER_HTTP]].concat();
    host.deploy(&unruly, &granting(&all)).ok();
    assert!(call(&host).contains(LET_THROUGH), "{}", call(&host));
    assert!(host.stop().success());

    let host = site.start();
    assert!(call(&host).contains(LET_THROUGH), "a restart takes nothing back");
    host.deploy(&rebuilt(unruly.clone()), "").ok();
    assert!(call(&host).contains(LET_THROUGH), "the next version keeps what it asks for");
    host.roll_back("unruly", &json!({})).ok();
    assert_eq!(host.digest("unruly"), digest_of(&unruly));
    assert!(call(&host).contains(LET_THROUGH), "and so does the one before");

    host.undeploy("unruly", "").ok();
    let finding = refused(&host, &unruly, &INSIDE);
    assert!(
        finding.contains(&format!("--grant {OVER_HTTP}")),
        "what was undeployed has to be granted again: {finding}"
    );
}

#[test]
fn an_address_that_is_not_public_is_granted_in_the_configuration_only() {
    let (site, _plugins) = site("[services.unruly]\nabroad = 'http://127.0.0.1:9'\n");
    let host = site.start();
    let finding = refused(
        &host,
        &fixture("unruly"),
        &["service:oracle", "service:inventory", "http:http://127.0.0.1:9"],
    );
    let entry = "add [[grants.unruly.http]] with origin = \"http://127.0.0.1:9\"";
    assert!(
        finding.contains(entry) && finding.contains("private = true") && !finding.contains("--grant"),
        "{finding}"
    );
    host.deploy(&fixture("unruly"), "?grant=http:127.0.0.1:9").problem(422, "invalid-grant");
}

#[test]
fn a_refusal_tells_grants_of_the_configuration_alone_from_those_of_a_deployment() {
    let (site, _plugins) =
        site("[services.unruly]\nabroad = 'http://127.0.0.1:9'\nfarther-abroad = 'http://10.0.0.1'\n");
    let host = site.start();
    let says = |grants: &[&str]| {
        let finding = refused(&host, &fixture("unruly"), grants);
        finding.split_once(": ").unwrap().1.to_owned()
    };
    assert_eq!(
        says(&[]),
        "deploy it with --grant service:oracle --grant service:inventory and add the others to \
         [grants.unruly] in kontor.toml, or add all of them there"
    );
    assert_eq!(says(&INSIDE), "add them to [grants.unruly] in kontor.toml");
}

#[test]
fn a_host_that_does_not_start_names_everything_that_is_not_granted() {
    let (site, plugins) = deploy::site(
        &[("inventory", next_inventory("outgoing")), ("unruly", fixture("unruly"))],
        "[services.unruly]\nabroad = 'http://127.0.0.1:9'\nfarther-abroad = 'http://10.0.0.1'\n",
    );
    let refused = site.fail_to_start(plugins.path());
    for expected in [
        "inventory.wasm cannot be deployed: the gate permissions refuses it: the component requests",
        "unruly.wasm cannot be deployed: the gate permissions refuses it: the component requests 2",
        "origin = \"http://127.0.0.1:9\"",
        "origin = \"http://10.0.0.1\"",
    ] {
        assert!(refused.stderr.contains(expected), "{expected} is missing in {}", refused.stderr);
    }
}

#[test]
fn the_same_component_with_other_grants_is_another_deployment() {
    let granting_all = format!(
        "{CONFIGURED}[grants.unruly]\nservices = ['oracle', 'inventory']\n\
         [[grants.unruly.http]]\norigin = '{ORIGIN}'\nmethods = ['GET']\nprivate = true\n"
    );
    let (site, _plugins) = site(&granting_all);
    let host = site.start();
    let unruly = fixture("unruly");
    host.deploy(&unruly, "").ok();
    assert_eq!(granted(&host), (Value::Null, 1), "what the configuration grants is not kept");
    assert!(!call(&host).contains(LET_THROUGH), "there it is granted with private addresses");

    for (grants, kept, deployments) in [
        (vec![], Value::Null, 1),
        (vec![OVER_HTTP], json!([OVER_HTTP]), 2),
        (vec![OVER_HTTP], json!([OVER_HTTP]), 2),
        // The component does not ask for this permission.
        (vec!["service:report"], json!([OVER_HTTP]), 2),
        (vec!["service:oracle"], json!(["service:oracle", OVER_HTTP]), 3),
    ] {
        assert_eq!(host.deploy(&unruly, &granting(&grants)).ok()["live"], true);
        assert_eq!(granted(&host), (kept, deployments), "{grants:?}");
    }
    assert!(host.stop().success());

    site.configure(CONFIGURED);
    let host = site.start();
    assert!(call(&host).contains(LET_THROUGH), "{}", call(&host));
    let finding = refused(&host, &rebuilt(unruly), &[]);
    assert!(finding.contains("service:inventory, which is not granted"), "{finding}");
}
