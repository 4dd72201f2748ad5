//! A saga that cannot end by itself: the operator sees it and acts on it.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::shop::{configuration, order};
use crate::common::{Ended, Host, Site, built, ended, kontor};

/// One attempt for everything: a failure parks the saga at once.
const ONE_ATTEMPT: &str = "{ attempts = 1, first_wait_ms = 1, longest_wait_ms = 1 }";

/// The shop without its delivery service: no order can be scheduled, and no such step undone.
struct Shop {
    plugins: TempDir,
    site: Site,
}

impl Shop {
    fn new() -> Self {
        let plugins = tempfile::tempdir().unwrap();
        let configuration =
            format!("[retries]\nbefore_pivot = {ONE_ATTEMPT}\nundo = {ONE_ATTEMPT}\n{}", configuration());
        let shop = Self { site: Site::with_plugins(plugins.path(), &configuration), plugins };
        for service in ["inventory", "order", "payment", "report"] {
            shop.deploy(service);
        }
        shop
    }

    fn deploy(&self, service: &str) {
        let file = format!("{service}.wasm");
        symlink(built("plugins").join(&file), self.plugins.path().join(&file)).unwrap();
    }

    fn start(&self) -> Host {
        let host = self.site.start();
        host.register("apple", 300, 10);
        host
    }
}

/// Places an order whose saga parks. Returns the ids of the saga and the order.
fn park(host: &Host) -> (String, String) {
    let placed = host.place(&order(&[("apple", 2)]));
    assert_eq!(placed.status, 202, "a parked saga has not ended: {}", placed.text);
    let placed = placed.ok();
    assert_eq!(placed["saga"]["state"], "parked");
    let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
    (id(&placed["saga"]), id(&placed))
}

#[track_caller]
fn assert_metrics(host: &Host, expected: &[&str]) {
    let metrics = host.get("/metrics").text;
    for line in expected {
        assert!(metrics.lines().any(|known| known == *line), "{line} is missing in {metrics}");
    }
}

fn timeline(host: &Host, saga: &str) -> Value {
    host.get(&format!("/admin/sagas/{saga}")).ok()
}

/// Returns the name of each step, its outcome, and the outcome of its undo.
fn course(timeline: &Value) -> Vec<[&str; 3]> {
    let steps = timeline["steps"].as_array().unwrap().iter();
    let text = |value: &'_ Value| value.as_str().map_or("-", |text| &*text.to_owned().leak());
    steps.map(|step| [&step["name"], &step["outcome"], &step["undo"]["outcome"]].map(text)).collect()
}

fn ask(host: &Host, arguments: &[&str]) -> Ended {
    let mut command = kontor(arguments);
    ended(command.args(["--host", host.url()]))
}

/// Runs a command that must succeed without a word on stderr. Returns its output.
#[track_caller]
fn printed(host: &Host, arguments: &[&str]) -> String {
    let Ended { status, stdout, stderr } = ask(host, arguments);
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
    stdout
}

#[test]
fn a_saga_that_cannot_be_undone_is_parked_and_everything_says_so() {
    let shop = Shop::new();
    let host = shop.start();
    assert_metrics(
        &host,
        &[r#"kontor_sagas{state="parked"} 0"#, r#"kontor_sagas_oldest_seconds{state="parked"} 0"#],
    );
    let (saga, order) = park(&host);

    assert_eq!(host.stock("apple"), (10, 0), "what could be undone is");
    assert_metrics(
        &host,
        &[
            r#"kontor_sagas{state="parked"} 1"#,
            r#"kontor_sagas{state="running"} 0"#,
            r#"kontor_sagas{state="waiting"} 0"#,
            r#"kontor_sagas{state="unwinding"} 0"#,
            r#"kontor_sagas_settled_total{saga="place-order",state="parked"} 1"#,
            r#"kontor_saga_steps_total{saga="place-order",outcome="done"} 2"#,
            r#"kontor_saga_steps_total{saga="place-order",outcome="failed"} 1"#,
            r#"kontor_saga_undos_total{saga="place-order",outcome="done"} 3"#,
            r#"kontor_saga_undos_total{saga="place-order",outcome="failed"} 1"#,
        ],
    );
    let status = host.get(&format!("/sagas/{saga}")).ok();
    assert_eq!((&status["state"], &status["reason"]["code"]), (&json!("parked"), &json!("step-failed")));

    let shown = timeline(&host, &saga);
    let expected = [
        ["trigger", "done", "done"],
        ["reserve-apple", "done", "done"],
        ["pay", "done", "done"],
        ["schedule", "failed", "failed"],
    ];
    assert_eq!(course(&shown), expected);
    assert_eq!((&shown["why"], &shown["failed"]), (&json!("not undone: schedule"), &json!(["schedule"])));
    assert_eq!(
        shown["trigger"],
        json!({"stream": format!("order/{order}"), "version": 1, "event": "order-created"})
    );

    let text = printed(&host, &["saga", "show", &saga]);
    for part in [&*saga, "parked", "not undone: schedule", "kontor saga skip", "kontor saga resolve"] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    assert_eq!(
        serde_json::from_str::<Value>(&printed(&host, &["saga", "show", &saga, "--json"])).unwrap(),
        shown
    );
}

#[test]
fn every_metric_says_what_it_is() {
    let shop = Shop::new();
    let host = shop.start();
    park(&host);
    let metrics = host.get("/metrics").text;
    let named = |prefix: &str| -> BTreeSet<String> {
        let names = metrics.lines().filter_map(|line| line.strip_prefix(prefix)?.split(' ').next());
        names.map(str::to_owned).collect()
    };
    assert_eq!(named("# TYPE "), named("# HELP "));
}

#[test]
fn sagas_are_listed_newest_first_and_by_what_they_are() {
    let shop = Shop::new();
    let host = shop.start();
    let ids: Vec<String> = (0..3).map(|_| park(&host).0).collect();
    let list = |query: &str| host.get(&format!("/admin/sagas{query}")).ok();
    let listed = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|saga| saga["id"].as_str().unwrap().to_owned()).collect()
    };

    let all = list("?state=parked&saga=place-order");
    assert_eq!((listed(&all), &all["next"]), (ids.iter().rev().cloned().collect(), &Value::Null));
    assert_eq!(all["items"][0]["why"], "not undone: schedule");
    let first = list("?limit=2");
    assert_eq!((listed(&first), &first["next"]), (vec![ids[2].clone(), ids[1].clone()], &json!(ids[1])));
    assert_eq!(listed(&list(&format!("?limit=2&after={}", ids[1]))), [&*ids[0]]);
    assert_eq!(listed(&list("?state=running")), Vec::<String>::new());
    for refused in ["?state=stuck", "?limit=0", "?color=red"] {
        host.get(&format!("/admin/sagas{refused}")).problem(400, "invalid-parameter");
    }

    let table = printed(&host, &["sagas", "--state", "parked", "--limit", "2"]);
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].starts_with("ID") && lines[1].starts_with(&*ids[2]) && lines[2].starts_with(&*ids[1]),
        "{table}"
    );
    assert_eq!(
        serde_json::from_str::<Value>(&printed(&host, &["sagas", "--json", "--limit", "2"])).unwrap(),
        first
    );
}

#[test]
fn a_saga_that_is_tried_again_ends_when_what_failed_is_there_again() {
    let shop = Shop::new();
    let host = shop.start();
    let (saga, order) = park(&host);
    let output = printed(&host, &["saga", "retry", &saga]);
    assert!(output.starts_with(&format!("place-order {saga} is parked\n")), "{output}");
    assert_eq!(timeline(&host, &saga)["steps"][3]["undo"]["attempts"], 2);

    assert!(host.stop().success());
    shop.deploy("delivery");
    let host = shop.site.start();
    assert_metrics(&host, &[r#"kontor_sagas{state="parked"} 1"#]);
    let output = printed(&host, &["saga", "retry", &saga, "--actor", "ada"]);
    assert_eq!(output, format!("place-order {saga} is compensated\n"));
    assert_metrics(&host, &[r#"kontor_sagas{state="parked"} 0"#]);
    let shown = timeline(&host, &saga);
    assert_eq!(course(&shown)[3], ["schedule", "failed", "done"]);
    let acts: Vec<_> =
        shown["acts"].as_array().unwrap().iter().map(|act| (&act["act"], &act["actor"])).collect();
    assert_eq!(acts, [(&json!("retry"), &json!("operator")), (&json!("retry"), &json!("ada"))]);
    assert_eq!(host.get(&format!("/orders/{order}")).ok()["status"], "cancelled");
}

#[test]
fn what_is_left_out_stays_undone_and_its_reason_in_the_journal() {
    let shop = Shop::new();
    let host = shop.start();
    let (saga, _) = park(&host);
    let skip = format!("/admin/sagas/{saga}/skip");
    let other =
        host.post(&skip, &[], &json!({"step": "pay", "reason": "why"})).problem(409, "step-not-failed");
    assert_eq!(other["detail"], "The step pay has not failed, only schedule.");

    let output =
        printed(&host, &["saga", "skip", &saga, "--reason", "the carrier knows", "--actor", "Jürgen"]);
    assert_eq!(output, format!("place-order {saga} is compensated\n"));
    let shown = timeline(&host, &saga);
    assert_eq!(course(&shown)[3], ["schedule", "failed", "skipped"]);
    let act = &shown["acts"][0];
    assert_eq!((&act["actor"], &act["step"]), (&json!("Jürgen"), &json!("schedule")));
    let journal = host.history(&format!("saga/{saga}"));
    let skipped = journal.iter().find(|event| event["name"] == "skipped").unwrap();
    assert_eq!(
        (&skipped["actor"], &skipped["payload"]["reason"]),
        (&json!("Jürgen"), &json!("the carrier knows"))
    );
}

#[test]
fn a_saga_that_was_seen_to_by_hand_is_over() {
    let shop = Shop::new();
    let host = shop.start();
    let (saga, _) = park(&host);
    let output = printed(&host, &["saga", "resolve", &saga[..30], "--reason", "all done"]);
    assert_eq!(output, format!("place-order {saga} is resolved\n"));
    assert_metrics(&host, &[r#"kontor_sagas{state="parked"} 0"#]);
    let status = host.get_with(&format!("/sagas/{saga}"), &[("prefer", "wait=30")]).ok();
    assert_eq!(status["state"], "resolved");
    let again =
        host.post(&format!("/admin/sagas/{saga}/retry"), &[], &json!({})).problem(409, "saga-not-parked");
    assert_eq!(again["detail"], "The saga is resolved: only a parked one needs an operator.");
}

#[test]
fn an_invalid_act_is_rejected_and_changes_nothing() {
    let shop = Shop::new();
    let host = shop.start();
    let (saga, _) = park(&host);
    let long = json!({"reason": "x".repeat(1_001)}).to_string();
    let nobody = "01990000-0000-7000-8000-000000000000";
    let reason = r#"{"reason":"why"}"#;
    for (id, act, headers, body, status, code) in [
        (nobody, "retry", vec![], "{}", 404, "not-found"),
        ("a%20b", "retry", vec![], "{}", 404, "not-found"),
        (&*saga, "skip", vec![], "{}", 422, "invalid-payload"),
        (&*saga, "skip", vec![], r#"{"reason":"  "}"#, 422, "invalid-payload"),
        (&*saga, "resolve", vec![], r#"{"reason":""}"#, 422, "invalid-payload"),
        (&*saga, "resolve", vec![], &long, 422, "invalid-payload"),
        (&*saga, "resolve", vec![], r#"{"reason":"a","step":"b"}"#, 422, "invalid-payload"),
        (&*saga, "resolve", vec![], "reason", 400, "invalid-json"),
        (&*saga, "retry", vec![], r#"{"step":"a"}"#, 422, "invalid-payload"),
        (&*saga, "resolve", vec![("content-type", "text/plain")], reason, 415, "unsupported-media-type"),
        (&*saga, "resolve", vec![("sec-fetch-site", "cross-site")], reason, 403, "cross-site"),
        (&*saga, "resolve", vec![("kontor-actor", " ")], reason, 400, "invalid-header"),
        (&*saga, "forget", vec![], "{}", 404, "unknown-route"),
    ] {
        host.send("POST", &format!("/admin/sagas/{id}/{act}"), &headers, body).problem(status, code);
    }
    host.get(&format!("/admin/sagas/{saga}/retry")).problem(405, "method-not-allowed");
    host.get(&format!("/admin/sagas/{nobody}")).problem(404, "not-found");
    let shown = timeline(&host, &saga);
    assert_eq!((&shown["state"], &shown["acts"]), (&json!("parked"), &json!([])));

    let Ended { status, stderr, .. } =
        ask(&host, &["saga", "skip", &saga, "--step", "pay", "--reason", "why"]);
    let error = "error: the host refused: The step pay has not failed, only schedule. (step-not-failed)\n";
    assert_eq!((status.code(), &*stderr), (Some(3), error));
}
