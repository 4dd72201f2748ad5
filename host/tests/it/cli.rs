//! The CLI commands that talk to a running host.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::common::shop::{self, configuration, order};
use crate::common::{Ended, Host, Site, ended, kontor};

fn ask(host: &Host, arguments: &[&str]) -> Command {
    let mut command = kontor(arguments);
    command.args(["--host", host.url()]);
    command
}

/// Runs a command that must succeed without a word on stderr. Returns its output.
#[track_caller]
fn printed(host: &Host, arguments: &[&str]) -> String {
    let Ended { status, stdout, stderr } = ended(&mut ask(host, arguments));
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{arguments:?}");
    stdout
}

fn lines_of_json(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Starts a host whose log holds five events besides those of the saga: a product, an order, and the events
/// that confirm it.
fn busy_host(site: &Site) -> Host {
    let host = site.start();
    host.register("apple", 300, 10);
    host.place(&order(&[("apple", 1)])).ok();
    host
}

#[test]
fn plugins_are_listed_as_the_host_has_them() {
    let site = Site::new(&configuration());
    let host = busy_host(&site);

    let table = printed(&host, &["plugins"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["SERVICE", "VERSION", "DIGEST", "AGGREGATES", "SAGAS", "ROUTES", "SINCE", "BY"]);
    let row = |service: &str| rows.iter().find(|row| row[0] == service).unwrap();
    assert_eq!(rows.len(), 6);
    assert_eq!(row("order")[3..7], ["order", "place-order,", "change-order,", "delete-order"]);
    assert_eq!(row("report")[3..5], ["-", "-"]);

    let json: Value = serde_json::from_str(&printed(&host, &["plugins", "--json"])).unwrap();
    assert_eq!(json, host.get("/admin/plugins").ok());
}

#[test]
fn events_are_printed_as_lines_or_as_json() {
    let site = Site::new(&configuration());
    let host = busy_host(&site);
    let recorded = host.events(0);

    assert_eq!(lines_of_json(&printed(&host, &["events", "--json"])), recorded);
    let text = printed(&host, &["events"]);
    assert_eq!(text.lines().count(), recorded.len());
    for (line, event) in text.lines().zip(&recorded) {
        for part in ["stream", "name", "time"] {
            assert!(line.contains(event[part].as_str().unwrap()), "{part} is missing in {line}");
        }
    }

    let of_apple = lines_of_json(&printed(&host, &["events", "--json", "--stream", "product/apple"]));
    assert_eq!(of_apple, host.history("product/apple"));
    let two = lines_of_json(&printed(&host, &["events", "--json", "--after", "1", "--limit", "2"]));
    assert_eq!(two, recorded[1..3]);

    let Ended { status, stderr, .. } = ended(&mut ask(&host, &["events", "--stream", "order/nothing"]));
    assert_eq!(status.code(), Some(3));
    assert!(stderr.starts_with("error: ") && stderr.contains("(not-found)"), "{stderr}");
}

/// A running `kontor events --follow`, read line by line. It is killed when dropped.
struct Following(Child, BufReader<std::process::ChildStdout>);

impl Following {
    fn start(host: &Host, arguments: &[&str]) -> Self {
        let mut command = ask(host, &["events", "--follow", "--json"]);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let stdout = process.stdout.take().unwrap();
        Self(process, BufReader::new(stdout))
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // Err: it has already ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn events_can_be_followed_as_they_are_recorded() {
    let site = Site::new(&configuration());
    let host = busy_host(&site);
    let recorded = host.events(0);
    let mut following = Following::start(&host, &[]);
    for event in &recorded {
        assert_eq!(following.next(), *event);
    }

    for quantity in 1..=3 {
        host.post("/products/apple/add-stock", &[], &serde_json::json!({"quantity": quantity})).ok();
        let event = following.next();
        assert_eq!(
            (&event["name"], &event["payload"]["quantity"]),
            (&"stock-added".into(), &quantity.into())
        );
    }

    let last = host.head();
    assert!(host.stop().success());
    let mut error = String::new();
    following.0.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert_eq!(following.0.wait().unwrap().code(), Some(4));
    assert_eq!(error, format!("error: the host has ended the stream; continue with `--after {last}`\n"));
}

#[test]
fn following_ends_by_itself_when_it_has_printed_enough() {
    let site = Site::new(&configuration());
    let host = busy_host(&site);
    let arguments = ["events", "--follow", "--json", "--stream", "order", "--limit", "2"];
    let arguments = arguments.map(|argument| match argument {
        "order" => format!("order/{}", order_id(&host)),
        other => other.to_owned(),
    });
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let printed = lines_of_json(&printed(&host, &arguments));
    assert_eq!(shop::names(&printed), ["order-created", "order-confirmed"]);
}

fn order_id(host: &Host) -> String {
    let created = host.events(0).into_iter().find(|event| event["name"] == "order-created").unwrap();
    created["stream"].as_str().unwrap().strip_prefix("order/").unwrap().to_owned()
}
