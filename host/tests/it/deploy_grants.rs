//! What operators grant with a deployment: it lasts as long as the deployment, and grants no more than it says.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::deploy::{self, digest_of, fixture, gate, plugin, rebuilt};
use crate::common::http::Client;
use crate::common::{Host, Site};

/// Where the fixture `unruly` is to call. Nobody listens there, and the name stands for no public address.
const ORIGIN: &str = "http://localhost:9";
const CONFIGURED: &str = "[services.unruly]\nabroad = 'http://localhost:9'\n";
const INSIDE: [&str; 2] = ["service:oracle", "service:inventory"];
const OVER_HTTP: &str = "http:http://localhost:9";

/// What a call comes to that the host has let through: the name was looked up.
const LET_THROUGH: &str = "DestinationIpProhibited";

/// Hosts with the inventory alone, to which `unruly` is deployed.
fn site(configuration: &str) -> (Site, TempDir) {
    deploy::site(&[("inventory", plugin("inventory"))], configuration)
}

fn granting(grants: &[&str]) -> String {
    format!("?{}", grants.iter().map(|grant| format!("grant={grant}")).collect::<Vec<_>>().join("&"))
}

/// What comes of a call to the origin.
fn call(host: &Client) -> String {
    let call = json!({"method": "GET", "url": format!("{ORIGIN}/"), "headers": {}, "bytes": 0});
    host.post("/beasts/bear/call", &[], &call).ok();
    let answered = host.history("beast/bear").pop().unwrap();
    answered["payload"]["answer"]["error"].as_str().unwrap().to_owned()
}

/// What the running `unruly` was granted, and the deployments of it so far.
fn granted(host: &Client) -> (Value, usize) {
    let mut list = host.get("/admin/plugins").ok();
    let plugins = list["items"].as_array_mut().unwrap();
    let unruly = plugins.iter_mut().find(|plugin| plugin["service"] == "unruly").unwrap();
    let entries = host.deployments();
    (unruly["grants"].take(), entries.iter().filter(|entry| entry["service"] == "unruly").count())
}

/// The sentence by which the permissions are refused.
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
    let told = refused(&host, &unruly, &INSIDE);
    assert!(
        told.contains(&format!("deploy it with --grant {OVER_HTTP}, or add [[grants.unruly.http]]")),
        "{told}"
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
    let told = refused(&host, &unruly, &INSIDE);
    assert!(
        told.contains(&format!("--grant {OVER_HTTP}")),
        "what was undeployed has to be granted again: {told}"
    );
}

#[test]
fn an_address_that_is_not_public_is_granted_in_the_configuration_only() {
    let (site, _plugins) = site("[services.unruly]\nabroad = 'http://127.0.0.1:9'\n");
    let host = site.start();
    let told = refused(
        &host,
        &fixture("unruly"),
        &["service:oracle", "service:inventory", "http:http://127.0.0.1:9"],
    );
    let entry = "add [[grants.unruly.http]] with origin = \"http://127.0.0.1:9\"";
    assert!(told.contains(entry) && told.contains("private = true") && !told.contains("--grant"), "{told}");
    host.deploy(&fixture("unruly"), "?grant=http:127.0.0.1:9").problem(422, "invalid-grant");
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
        // It does not ask for it.
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
    let told = refused(&host, &rebuilt(unruly), &[]);
    assert!(told.contains("service:inventory, which is not granted"), "{told}");
}
