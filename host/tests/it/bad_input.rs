//! Wrong input: the host answers with one problem, records nothing, and keeps working.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use serde_json::{Value, json};

use crate::common::deploy::{self, fixture};
use crate::common::http::{Headers, Reply};
use crate::common::shop::{configuration, order};
use crate::common::{Host, Site};

const MIB: usize = 1 << 20;

fn open_shop(site: &Site) -> Host {
    let host = site.start();
    host.register("apple", 300, 10);
    host
}

/// Sends a wrong request. Checks that nothing is recorded and that the next good request works.
#[track_caller]
fn refused(host: &Host, method: &str, path: &str, headers: Headers<'_>, body: &str) -> Reply {
    let head = host.head();
    let reply = host.send(method, path, headers, body);
    assert_eq!(host.events(head), Vec::<Value>::new(), "{method} {path} {body:.100}");
    host.get("/products/apple").ok();
    reply
}

#[test]
fn a_request_that_is_wrong_is_a_problem_with_a_code() {
    const KEY: &str = "idempotency-key";
    let long_key = "k".repeat(256);
    let too_long = [(KEY, &*long_key)];
    let long_id = format!("/products/{}", "x".repeat(129));
    let good = order(&[("apple", 1)]).json().to_string();
    let more = r#"{"quantity":1}"#;
    let add = "/products/apple/add-stock";
    // Method, path, headers, body; then the status and the code of the problem.
    let table: Vec<(&str, &str, Headers<'_>, &str, u16, &str)> = vec![
        ("POST", "/orders", &[], "", 422, "invalid-payload"),
        ("POST", "/orders", &[], "[]", 422, "invalid-payload"),
        ("POST", "/orders", &[], "{} {}", 400, "invalid-json"),
        ("POST", "/orders", &[], "{\"user_id\": NaN}", 400, "invalid-json"),
        ("POST", "/orders", &[("content-type", "text/plain")], &good, 415, "unsupported-media-type"),
        ("POST", "/orders", &[("sec-fetch-site", "cross-site")], &good, 403, "cross-site"),
        ("POST", "/orders", &[(KEY, "")], &good, 400, "invalid-header"),
        ("POST", "/orders", &[(KEY, "two words")], &good, 400, "invalid-header"),
        ("POST", "/orders", &too_long, &good, 400, "invalid-header"),
        ("POST", add, &[("if-match", "\"7\"")], more, 412, "version-mismatch"),
        ("POST", add, &[("if-match", "7")], more, 400, "invalid-header"),
        ("POST", add, &[("if-match", "W/\"1\"")], more, 412, "version-mismatch"),
        ("POST", add, &[("if-match", "\"7\", \"8\"")], more, 412, "version-mismatch"),
        ("POST", add, &[("if-none-match", "*")], more, 412, "version-mismatch"),
        ("POST", add, &[("if-none-match", "\"7\", W/\"1\"")], more, 412, "version-mismatch"),
        ("POST", add, &[("if-none-match", "1")], more, 400, "invalid-header"),
        ("POST", add, &[(KEY, "a"), (KEY, "b")], more, 400, "invalid-header"),
        ("POST", add, &[("content-encoding", "gzip")], more, 415, "unsupported-encoding"),
        ("PUT", "/admin/plugins", &[("content-encoding", "gzip")], "x", 415, "unsupported-encoding"),
        ("GET", "/events", &[("accept", "text/html")], "", 406, "not-acceptable"),
        ("POST", "/products/nothing/add-stock", &[], more, 404, "not-found"),
        ("PUT", "/products/apple", &[], r#"{"name":"A","unit_price":1,"quantity":1}"#, 409, "already-exists"),
        ("PUT", "/products/a%20b", &[], r#"{"name":"A","unit_price":1,"quantity":1}"#, 400, "invalid-id"),
        ("PUT", "/products/a%2Fb", &[], r#"{"name":"A","unit_price":1,"quantity":1}"#, 400, "invalid-id"),
        ("GET", &long_id, &[], "", 400, "invalid-id"),
        ("GET", "/products/%FF", &[], "", 400, "invalid-parameter"),
        ("GET", "/products?limit=many", &[], "", 422, "invalid-arguments"),
        ("GET", "/products?limit=0", &[], "", 422, "invalid-arguments"),
        ("GET", "/products?limit=1&limit=2", &[], "", 400, "invalid-parameter"),
        ("GET", "/products?color=red", &[], "", 422, "invalid-arguments"),
        ("GET", "/products", &[("kontor-position", "yesterday")], "", 400, "invalid-header"),
        ("GET", "/events?after=-1", &[("accept", "application/json")], "", 400, "invalid-parameter"),
        ("GET", "/events", &[("last-event-id", "x")], "", 400, "invalid-header"),
        ("GET", "/streams/order/a%20b", &[], "", 400, "invalid-id"),
        ("GET", "/streams/product/apple?at=x", &[], "", 400, "invalid-parameter"),
        ("GET", "/sagas/nothing", &[], "", 404, "not-found"),
        ("POST", "/admin/dead-letters/redrive", &[], r#"{"id":7,"id":8}"#, 422, "invalid-payload"),
        ("POST", add, &[], r#"{"quantity":1,"quantity":-5}"#, 422, "invalid-payload"),
        ("POST", add, &[], r#"{"quantity":1.5}"#, 422, "invalid-payload"),
        ("POST", "/admin/dead-letters/redrive", &[], r#"{"id":1e30}"#, 422, "invalid-payload"),
        ("GET", "/nowhere", &[], "", 404, "unknown-route"),
        ("GET", "/products/apple/", &[], "", 404, "unknown-route"),
        ("GET", "/products/apple/peel", &[], "", 404, "unknown-route"),
    ];
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    for (method, path, headers, body, status, code) in table {
        refused(&host, method, path, headers, body).problem(status, code);
    }
}

#[test]
fn a_client_that_has_sent_its_request_may_close_its_side() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let address = host.url().strip_prefix("http://").unwrap();
    let body = r#"{"quantity":1}"#;
    let head =
        "POST /products/apple/add-stock HTTP/1.1\r\nConnection: close\r\nContent-Type: application/json";
    let length = body.len();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "{head}\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply:?}");
    }
    assert_eq!(host.stock("apple"), (20, 0));
}

#[test]
fn a_condition_names_the_versions_that_a_client_has_seen() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let add = |headers| host.post("/products/apple/add-stock", headers, &json!({"quantity": 1}));
    assert_eq!(add(&[("if-match", "\"7\", \"1\"")]).ok()["version"], json!(2));
    assert_eq!(add(&[("if-none-match", "\"1\"")]).ok()["version"], json!(3));
    let product = json!({"name": "Pear", "unit_price": 1, "quantity": 1}).to_string();
    let create = || {
        let headers = [("if-none-match", "*"), ("content-type", "application/json")];
        host.send("PUT", "/products/pear", &headers, &product)
    };
    assert_eq!(create().status, 201);
    create().problem(412, "version-mismatch");
}

#[test]
fn an_integer_may_be_written_as_any_number() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    for (written, available) in [("1.0", 11), ("2e0", 13), ("0.3e1", 16)] {
        let body = format!("{{\"quantity\": {written}}}");
        let reply =
            host.send("POST", "/products/apple/add-stock", &[("content-type", "application/json")], &body);
        assert_eq!(reply.ok()["state"]["available"], available, "{written}");
    }
}

#[test]
fn text_that_is_not_json_is_rejected_with_its_line_and_column() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let problem =
        refused(&host, "POST", "/orders", &[], "{\n  \"lines\": [,\n}").problem(400, "invalid-json");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("line 2 column 13"), "{detail}");
}

#[test]
fn every_place_of_a_wrong_payload_is_reported() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let good = order(&[("apple", 1)]).json();
    let changed = |pointer: &str, value: Value| {
        let mut wrong = good.clone();
        *wrong.pointer_mut(pointer).unwrap() = value;
        wrong
    };
    let mut unknown_field = good.clone();
    unknown_field["lines"][0]["color"] = json!("red");
    let mut missing_field = good.clone();
    missing_field["address"].as_object_mut().unwrap().remove("region");
    let mut all_wrong = changed("/user_id", json!(7));
    all_wrong["lines"] = json!("apples");
    let table: [(Value, &[&str]); 6] = [
        (changed("/lines/0/quantity", json!("two")), &["/lines/0/quantity"]),
        (changed("/lines/0/quantity", json!(1.5)), &["/lines/0/quantity"]),
        (changed("/payment/0/method", json!("cash")), &["/payment/0/method"]),
        (unknown_field, &["/lines/0/color"]),
        (missing_field, &["/address/region"]),
        (all_wrong, &["/lines", "/user_id"]),
    ];
    for (payload, pointers) in table {
        let reply = refused(&host, "POST", "/orders", &[], &payload.to_string());
        let problem = reply.problem(422, "invalid-payload");
        let mut found: Vec<_> = problem["errors"].as_array().unwrap().iter().map(pointer).collect();
        found.sort_unstable();
        assert_eq!(found, pointers, "{payload}");
    }
}

fn pointer(error: &Value) -> &str {
    error["pointer"].as_str().unwrap()
}

#[test]
fn an_order_that_breaks_a_rule_is_rejected_with_its_code() {
    let apple = || order(&[("apple", 1)]);
    let table = [
        (order(&[]), "no-lines"),
        (order(&[("apple", 1), ("apple", 2)]), "duplicate-product"),
        (order(&[("apple", 0)]), "invalid-quantity"),
        (order(&[("apple", -1)]), "invalid-quantity"),
        (order(&[("apple", i64::MAX)]), "insufficient-stock"),
        (order(&[("nothing", 1)]), "unknown-product"),
        (apple().paid(&[("card", "0.5"), ("card", "0.5")]), "duplicate-method"),
        (apple().paid(&[("card", "0.9"), ("points", "0.2")]), "invalid-payment-shares"),
        (apple().paid(&[("card", "1e0")]), "invalid-payment-shares"),
        (apple().paid(&[]), "invalid-payment-shares"),
    ];
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    for (wanted, code) in table {
        refused(&host, "POST", "/orders", &[], &wanted.json().to_string()).problem(409, code);
    }
}

#[test]
fn a_body_that_is_too_large_is_refused_however_it_comes() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let body = format!("\"{}\"", "x".repeat(2 * MIB));
    refused(&host, "POST", "/orders", &[], &body).problem(413, "payload-too-large");

    // A request without a Content-Length.
    let head = host.head();
    let mut reader = body.as_bytes();
    let chunked = ureq::SendBody::from_reader(&mut reader);
    let chunked = host.try_send("POST", "/orders", &[], chunked).unwrap();
    chunked.problem(413, "payload-too-large");
    assert_eq!(host.events(head), Vec::<Value>::new());
}

#[test]
fn a_method_that_a_path_does_not_know_gets_those_it_knows() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    for (method, path, allowed) in [
        ("PATCH", "/orders", "POST"),
        ("DELETE", "/products/apple", "GET, PUT"),
        ("POST", "/healthz", "GET"),
        ("BREW", "/orders", "POST"),
    ] {
        let reply = refused(&host, method, path, &[], "");
        reply.problem(405, "method-not-allowed");
        let mut allow: Vec<_> = reply.header("allow").unwrap().split(", ").collect();
        allow.retain(|method| *method != "HEAD");
        allow.sort_unstable();
        assert_eq!(allow.join(", "), allowed, "{method} {path}");
    }
}

#[test]
fn a_component_that_misbehaves_harms_only_its_own_call() {
    let (site, _plugins) = deploy::site(&[("unruly", fixture("unruly"))], "[limits]\ncall_time_ms = 200\n");
    let host = site.start();
    let table = [
        ("loop", json!({}), 504, "component-timeout"),
        ("allocate", json!({}), 500, "component-out-of-memory"),
        ("trap", json!({"message": "on purpose"}), 500, "component-trapped"),
        ("recurse", json!({}), 500, "component-trapped"),
        ("lie", json!({}), 502, "component-broke-contract"),
    ];
    host.get("/beasts/spin").problem(504, "component-timeout");
    for (number, (command, payload, status, code)) in table.into_iter().enumerate() {
        let head = host.head();
        let problem = host.post(&format!("/beasts/b/{command}"), &[], &payload).problem(status, code);
        assert!(!problem.to_string().contains("on purpose"), "{problem}");
        assert_eq!(host.events(head), Vec::<Value>::new(), "{command}");
        let good = host.post("/beasts/b/wait", &[], &json!({})).ok();
        assert_eq!(good["state"]["waits"], number + 1, "after {command}");
    }
}

#[test]
fn a_host_does_not_start_with_a_file_that_is_no_component_of_its_world() {
    let site = Site::new(&configuration());
    let host = open_shop(&site);
    let recorded = host.events(0);
    assert!(host.stop().success());
    let mut compiled = fs::read_dir(site.data().join("compiled")).unwrap().map(|entry| entry.unwrap().path());
    let compiled =
        compiled.find(|file| file.extension().is_some_and(|extension| extension == "cwasm")).unwrap();
    let table: [(&str, &[u8], &str); 5] = [
        ("text", b"#!/bin/sh\nexit 0\n", "this is no WebAssembly file"),
        ("empty", b"", "this is no WebAssembly file"),
        ("core-module", b"\0asm\x01\0\0\0", "this is a core module, not a component"),
        ("other-world", b"\0asm\x0d\0\x01\0", "it does not implement the world kontor:service/service"),
        ("native-code", &fs::read(compiled).unwrap(), "this is precompiled native code"),
    ];
    for (name, bytes, reason) in table {
        let plugins = tempfile::tempdir().unwrap();
        let file = plugins.path().join(format!("{name}.wasm"));
        fs::write(&file, bytes).unwrap();
        let ended = site.fail_to_start(plugins.path());
        assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""), "{name}: {}", ended.stderr);
        let error = ended.stderr.lines().last().unwrap_or_default();
        let file = file.display();
        let expected = format!("error: {file} cannot be deployed: the gate component refuses it: {reason}");
        assert!(error.starts_with(&expected), "{name}: {}", ended.stderr);
        assert_eq!(ended.stderr.matches("error:").count(), 1, "{name}: {}", ended.stderr);
    }
    assert_eq!(site.start().events(0), recorded);
}
