//! The OpenAPI document, as the tools of others take it: the official schema, schemathesis, which asks every
//! route in many ways and compares the answers with the document, and a generator of clients.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::common::deploy::{self, fixture};
use crate::common::shop::{configuration, order};
use crate::common::{Ended, Site, built, ended, python, setting};

#[path = "../openapi/check.rs"]
mod check;

/// The configuration of schemathesis, and the program of a client.
const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi");
/// The requests of each kind to each operation. More are for a long run.
const EXAMPLES: u32 = 4;
const SEED: u64 = 1;
/// The id of an order, as `schemathesis.toml` has it.
const ORDER: &str = "00000000-0000-7000-8000-000000000001";
/// CPython 3.11 parses no two programs at once in safety, which hypothesis has it do.
const WORKERS: &str = "1";

#[test]
fn the_document_of_the_shop_follows_the_official_schema() {
    let site = Site::new(&configuration());
    let document = site.start().get("/openapi.json").ok();
    assert_eq!(check::faults_of(&document), Vec::<String>::new());
    assert!(document["paths"]["/orders/{id}"]["put"].is_object());
}

#[test]
fn a_list_is_asked_for_by_repeating_its_parameter() {
    let (site, _plugins) = deploy::site(&[("unruly", fixture("unruly"))], "");
    let host = site.start();
    let document = host.get("/openapi.json").ok();
    assert_eq!(check::faults_of(&document), Vec::<String>::new());
    let parameters = document["paths"]["/beasts/echo"]["get"]["parameters"].as_array().unwrap();
    let words = parameters.iter().find(|parameter| parameter["name"] == "words").unwrap();
    assert_eq!(words["schema"], json!({"type": "array", "items": {"type": "string"}}));
    for (query, words, numbers, paw) in [
        ("", json!([]), json!(null), json!(null)),
        ("?words=a", json!(["a"]), json!(null), json!(null)),
        ("?words=a,b&numbers=-7&words=c&numbers=8", json!(["a,b", "c"]), json!([-7, 8]), json!(null)),
        ("?paw=%7B%22toes%22:4%7D", json!([]), json!(null), json!({"toes": 4})),
    ] {
        let answer = host.get(&format!("/beasts/echo{query}")).ok();
        assert_eq!(answer, json!({"words": words, "numbers": numbers, "paw": paw}), "{query}");
    }
    host.get("/beasts/echo?numbers=1&numbers=x").problem(422, "invalid-arguments");
    host.get("/beasts/echo?paw=4").problem(422, "invalid-arguments");
    host.get("/beasts/echo?paw=1&paw=2").problem(400, "invalid-parameter");
}

#[test]
fn every_route_answers_as_the_document_says() {
    if no_python() {
        return;
    }
    let site = Site::new(&configuration());
    let host = site.start();
    host.register("tea", 300, 10);
    host.post("/orders", &[("idempotency-key", ORDER)], &order(&[("tea", 2)]).json()).ok();
    // It writes a cache into its folder.
    let folder = tempfile::tempdir().unwrap();
    let mut schemathesis = python(&built("schemathesis"));
    schemathesis.current_dir(folder.path());
    schemathesis.env("SCHEMATHESIS_HOOKS", file("hooks.py"));
    schemathesis.args(["-m", "schemathesis.cli", "--config-file"]).arg(file("schemathesis.toml"));
    schemathesis.args(["run", "--no-color", "--generation-deterministic", "--workers", WORKERS]);
    schemathesis.args(["--seed", &setting("KONTOR_API_SEED", SEED).to_string()]);
    schemathesis.args(["--max-examples", &setting("KONTOR_API_EXAMPLES", EXAMPLES).to_string()]);
    let Ended { status, stdout, stderr } = ended(schemathesis.arg(format!("{}/openapi.json", host.url())));
    println!("{stdout}");
    assert!(status.success(), "{stderr}");
}

#[test]
fn a_generated_client_places_an_order() {
    if no_python() {
        return;
    }
    let site = Site::new(&configuration());
    let host = site.start();
    let packages = built("openapi-python-client");
    let folder = tempfile::tempdir().unwrap();
    let run = |command: &mut Command| {
        let Ended { status, stdout, stderr } = ended(command.current_dir(folder.path()));
        assert!(status.success(), "{stdout}{stderr}");
        stdout + &stderr
    };
    let generate = ["-m", "openapi_python_client", "generate", "--meta", "none", "--output-path", "shop"];
    let generated = run(python(&packages)
        .args(generate)
        .args(["--fail-on-warning", "--url", &format!("{}/openapi.json", host.url())])
        .arg("--config")
        .arg(file("client.yaml")));
    println!("{generated}");
    run(python(&packages).args(["-m", "compileall", "-q", "shop"]));
    run(python(&packages)
        .arg(file("client.py"))
        .arg(host.url())
        .env("PYTHONPATH", std::env::join_paths([folder.path(), &packages]).unwrap()));
    assert_eq!(host.stock("tea"), (8, 2));
}

fn file(name: &str) -> PathBuf {
    Path::new(FILES).join(name)
}

/// Returns whether there is no Python, and says that the tools are not asked then.
fn no_python() -> bool {
    let missing = Command::new("python3").arg("--version").output().is_err();
    if missing {
        eprintln!("skipped: Python 3 is missing, in which the tools are written");
    }
    missing
}
