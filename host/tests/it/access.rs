//! Each caller tries every route of the shop, and gets what the access of the route says and nothing else.

use std::fs;

use serde_json::{Value, json};

use crate::common::certificates::{Authority, Certificates};
use crate::common::curl::{curl_each_in, text};
use crate::common::http::{Client, Reply};
use crate::common::machine::Machine;
use crate::common::shop::{SAGA_END, configuration, new_key, order};
use crate::common::{Host, Site};

/// A caller with its token; nobody without one.
struct Caller {
    roles: &'static [&'static str],
    authorization: Option<String>,
}

impl Caller {
    fn send(&self, host: &Client, method: &str, path: &str, body: &Value) -> Reply {
        self.send_with(host, method, path, &[("accept", "application/json"), SAGA_END], body)
    }

    fn send_with(
        &self,
        host: &Client,
        method: &str,
        path: &str,
        headers: &[(&'static str, &str)],
        body: &Value,
    ) -> Reply {
        let authorization = self.authorization.iter().map(|value| ("authorization", value.as_str()));
        let headers: Vec<_> = headers.iter().copied().chain(authorization).collect();
        match method {
            "GET" => host.get_with(path, &headers),
            _ if body.is_null() => host.send(method, path, &headers, ""),
            _ => host.send(method, path, &headers, &body.to_string()),
        }
    }

    /// Returns the arguments of curl for an attempt.
    fn call(&self, host: &Host, authority: &Authority, attempt: &Attempt<'_>) -> Vec<String> {
        let Attempt { method, path, .. } = attempt;
        let url = format!("{}{path}", host.url());
        let mut call = vec!["--cacert", text(&authority.file), "--request", method, &url];
        let (saga_end, wait) = SAGA_END;
        let headers = [format!("{saga_end}: {wait}"), "accept: application/json".to_owned()];
        let authorization = self.authorization.iter().map(|value| format!("authorization: {value}"));
        let headers: Vec<_> = headers.into_iter().chain(authorization).collect();
        call.extend(headers.iter().flat_map(|header| ["--header", header]));
        if method != "GET" {
            call.extend(["--json", "{}"]);
        }
        call.into_iter().map(str::to_owned).collect()
    }
}

/// Starts a shop whose requests are authenticated.
fn shop(site: &Site) -> (Host, Caller) {
    let host = site.start();
    (host, first_operator(site))
}

/// Returns the caller with the token that the host has made for the operator.
fn first_operator(site: &Site) -> Caller {
    let token = fs::read_to_string(site.data().join("operator.token")).unwrap();
    Caller { roles: &["operator"], authorization: Some(format!("Bearer {}", token.trim())) }
}

/// Makes a token for a subject with these roles.
fn signed_in(host: &Client, operator: &Caller, subject: &str, roles: &'static [&'static str]) -> Caller {
    let asked = json!({"subject": subject, "roles": roles});
    let made = operator.send(host, "POST", "/admin/tokens", &asked).ok();
    Caller { roles, authorization: Some(format!("Bearer {}", made["token"].as_str().unwrap())) }
}

/// Returns the status with which a route refuses a caller; none if it does not.
fn refusal(operation: &Value, caller: &Caller) -> Option<u16> {
    let requirement = operation["security"].as_array().unwrap().first()?;
    let roles = requirement["token"].as_array().unwrap();
    match &caller.authorization {
        None => Some(401),
        Some(_) if roles.is_empty() || caller.roles.iter().any(|role| roles.contains(&json!(role))) => None,
        Some(_) => Some(403),
    }
}

/// A request to a route of the document, and what the document says of it.
struct Attempt<'d> {
    method: String,
    path: String,
    operation: &'d Value,
}

/// Returns a request to each route.
fn attempts(document: &Value) -> Vec<Attempt<'_>> {
    let mut attempts = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let path = path.replace("{aggregate}", "order").replace("{id}", "x").replace("{service}", "x");
        let path = path.replace("{code}", "busy");
        let operations = operations.as_object().unwrap().iter();
        attempts.extend(operations.map(|(method, operation)| Attempt {
            method: method.to_uppercase(),
            path: path.clone(),
            operation,
        }));
    }
    attempts
}

/// Has each caller try every route. `send` returns the status and the text of each answer.
fn check_every_route(
    host: &Client,
    operator: Caller,
    send: impl Fn(&Caller, &[Attempt<'_>]) -> Vec<(u16, String)>,
) {
    let mut callers = vec![
        ("anonymous", Caller { roles: &[], authorization: None }),
        ("customer", signed_in(host, &operator, "ann", &[])),
        ("clerk", signed_in(host, &operator, "cleo", &["clerk"])),
        ("deployer", signed_in(host, &operator, "dan", &["deployer"])),
        ("auditor", signed_in(host, &operator, "ada", &["auditor"])),
        ("monitor", signed_in(host, &operator, "prometheus", &["monitor"])),
    ];
    callers.push(("operator", operator));
    let document = host.get("/openapi.json").ok();
    let attempts = attempts(&document);
    let (mut tried, mut refused) = (0, 0);
    for (name, caller) in &callers {
        for (attempt, (status, text)) in attempts.iter().zip(send(caller, &attempts)) {
            let Attempt { method, path, operation } = attempt;
            // A clerk may read orders, so also their events; a customer only the own orders.
            let sees_no_events = path == "/events" && ["customer", "deployer", "monitor"].contains(name);
            let expected = refusal(operation, caller).or(sees_no_events.then_some(403));
            let found = Some(status).filter(|status| [401, 403].contains(status));
            assert_eq!(found, expected, "{name}: {method} {path}: {status} {text}");
            assert!((200..500).contains(&status), "{name}: {method} {path}: {status} {text}");
            tried += 1;
            refused += usize::from(expected.is_some());
        }
    }
    assert_eq!(tried, callers.len() * attempts.len());
    assert!(refused > 50 && tried - refused > 50, "{refused} of {tried} were refused");
}

#[test]
fn every_caller_gets_what_the_access_of_each_route_says_and_nothing_else() {
    let site = Site::new(&format!("{}[auth]\n", configuration()));
    let (host, operator) = shop(&site);
    check_every_route(&host, operator, |caller, attempts| {
        let answers = attempts.iter().map(|Attempt { method, path, .. }| {
            let reply = caller.send(&host, method, path, &json!({}));
            (reply.status, reply.text)
        });
        answers.collect()
    });
}

#[test]
fn every_caller_gets_the_same_from_another_machine() {
    let Some(machine) = Machine::connect() else {
        eprintln!("skipped: a network namespace can be made only by root");
        return;
    };
    let files = Certificates::new();
    let ours = files.authority("ours");
    let site = Site::new(&files.configuration(&ours, &machine.here, "[auth]\n"));
    let host = site.start_with(&["--listen", &format!("{}:0", machine.here)]);
    let client = Client::trusting(host.url(), &fs::read(&ours.file).unwrap());
    check_every_route(&client, first_operator(&site), |caller, attempts| {
        let calls: Vec<_> = attempts.iter().map(|attempt| caller.call(&host, &ours, attempt)).collect();
        let answers = curl_each_in(&machine.name, &calls);
        answers.into_iter().map(|answer| (answer.status, answer.body + &answer.error)).collect()
    });
    assert!(host.log().contains(&machine.there), "it was the other machine that was denied: {}", host.log());
}

#[test]
fn a_customer_sees_and_changes_only_own_orders_and_a_clerk_all() {
    let site = Site::new(&format!("{}[auth]\n", configuration()));
    let (host, operator) = shop(&site);
    let ann = signed_in(&host, &operator, "ann", &[]);
    let bob = signed_in(&host, &operator, "bob", &[]);
    let clerk = signed_in(&host, &operator, "cleo", &["clerk"]);
    let tea = json!({"name": "Tea", "unit_price": 250, "quantity": 100});
    ann.send(&host, "PUT", "/products/tea", &tea).problem(403, "forbidden");
    clerk.send(&host, "PUT", "/products/tea", &tea).ok();

    let wanted = order(&[("tea", 2)]);
    let mut body = wanted.json();
    body["user_id"] = json!("bob");
    ann.send(&host, "POST", "/orders", &body).problem(403, "forbidden");
    body["user_id"] = json!("ann");
    let key = new_key();
    let keyed: &[_] = &[("idempotency-key", &*key), ("prefer", "wait=0")];
    let placed = ann.send_with(&host, "POST", "/orders", keyed, &body).ok();
    assert_eq!(ann.send_with(&host, "POST", "/orders", keyed, &body).ok()["id"], placed["id"]);
    body["user_id"] = json!("bob");
    let other = bob.send_with(&host, "POST", "/orders", keyed, &body).ok();
    assert_ne!(other["id"], placed["id"], "another caller's key is another key");

    let (id, saga) = (placed["id"].as_str().unwrap(), placed["saga"]["id"].as_str().unwrap());
    let saga = format!("/sagas/{saga}");
    assert_eq!(ann.send(&host, "GET", &saga, &Value::Null).ok()["state"], "completed");
    bob.send(&host, "GET", &saga, &Value::Null).problem(403, "forbidden");
    for path in [format!("/orders/{id}"), format!("/orders/{id}/details")] {
        for (caller, sees) in [(&ann, true), (&bob, false), (&clerk, true), (&operator, true)] {
            let reply = caller.send(&host, "GET", &path, &Value::Null);
            match sees {
                true => assert_eq!(reply.ok()["user_id"], "ann"),
                false => drop(reply.problem(403, "forbidden")),
            }
        }
    }
    let path = format!("/orders/{id}");
    bob.send(&host, "DELETE", &path, &Value::Null).problem(403, "forbidden");
    bob.send(&host, "PUT", &path, &wanted.change()).problem(403, "forbidden");
    clerk.send(&host, "PUT", &path, &order(&[("tea", 1)]).change()).ok();
    ann.send(&host, "DELETE", &path, &Value::Null).ok();

    let history = operator.send(&host, "GET", &format!("/streams/order/{id}"), &Value::Null).ok();
    let by = |event: &Value| (event["actor"].as_str().unwrap().to_owned(), event["via"].is_string());
    let by: Vec<_> = history["items"].as_array().unwrap().iter().map(by).collect();
    let expected = ["ann", "ann", "cleo", "cleo", "ann", "ann"].map(str::to_owned);
    let expected: Vec<_> = expected.into_iter().zip([false, true].into_iter().cycle()).collect();
    assert_eq!(by, expected, "a saga acts for the caller that started it");
}

#[test]
fn an_answer_that_looked_at_its_caller_is_confirmed_to_nobody_else() {
    let grants = "[grants.hostile]\ncommands = ['payment.cancel', 'product.reserve']\n\
                  events = ['order.order-created']\nservices = ['inventory']\n[auth]\n";
    let site = Site::new(grants);
    let (host, operator) = shop(&site);
    let fixture = crate::common::deploy::fixture("hostile");
    let headers: Vec<_> = [("content-type", "application/wasm")]
        .into_iter()
        .chain(operator.authorization.iter().map(|value| ("authorization", value.as_str())))
        .collect();
    host.try_send("PUT", "/admin/plugins", &headers, &fixture[..]).unwrap().ok();
    let ann = signed_in(&host, &operator, "ann", &["clerk"]);
    let shown = ann.send(&host, "GET", "/hostile/whoami", &Value::Null);
    assert_eq!(shown.ok(), json!({"subject": "ann", "roles": ["clerk"]}));
    assert_eq!(shown.header("etag"), None, "no cache may confirm it to somebody else");
    let users = ann.send(&host, "GET", "/hostile/users", &Value::Null);
    assert!(users.header("etag").is_some(), "an answer that looked at nothing but the read model");
}
