//! NATS clients: one of another make, and one that reads published messages.

use std::env;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use async_nats::jetstream::consumer::{self, DeliverPolicy, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Message};
use futures::StreamExt as _;
use kontor_testkit::nats::NatsServer;
use serde_json::Value;
use tokio::time::timeout;

use super::shop::configuration;
use super::{Site, built};

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/common/nats_client.py");
/// The subscriptions of the fixture `parcels`.
const SUBSCRIPTIONS: usize = 2;
/// Longer than anything takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Returns a site with the shop, connected to NATS.
pub(crate) fn site(url: &str) -> Site {
    Site::new(&configured(url))
}

/// Returns the `kontor.toml` of the shop with NATS. Its section `[nats]` comes last.
pub(crate) fn configured(url: &str) -> String {
    format!("{}[nats]\nurl = '{url}'\n", configuration())
}

/// Returns the `kontor.toml` of the shop with its log in NATS.
pub(crate) fn with_log(server: &NatsServer) -> String {
    let (nats, monitoring) = (configured(&server.url()), server.monitoring_url());
    format!("log = 'jetstream'\n{nats}[jetstream]\nmonitoring = ['{monitoring}']\n")
}

/// Runs `nats_client.py` (nats-py for Python). Returns its output: one JSON object per line.
#[track_caller]
pub(crate) fn python(url: &str, arguments: &[&str], input: &[Value]) -> Vec<Value> {
    let mut client = Command::new("python3");
    client.arg(CLIENT).arg(url).args(arguments).env("PYTHONPATH", built("nats"));
    let mut client = client
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is needed: the other client of NATS is written in it");
    let mut stdin = client.stdin.take().unwrap();
    input.iter().for_each(|line| writeln!(stdin, "{line}").unwrap());
    drop(stdin);
    let output = client.wait_with_output().unwrap();
    assert!(output.status.success(), "nats_client.py {arguments:?} fails");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Reads the stream of events from its beginning to the event at this position.
pub(crate) fn published(url: &str, head: u64) -> Vec<Message> {
    read(url, "kontor-events", |messages| messages.last().is_some_and(|last| position(last) >= head))
}

/// Reads a stream from its beginning until `enough` is true of the messages.
#[track_caller]
pub(crate) fn read(url: &str, stream: &'static str, enough: impl Fn(&[Message]) -> bool) -> Vec<Message> {
    let read = async {
        let client = async_nats::ConnectOptions::new().retry_on_initial_connect().connect(url).await.unwrap();
        let jetstream = jetstream::new(client);
        let config = pull::OrderedConfig { deliver_policy: DeliverPolicy::All, ..Default::default() };
        let stream = loop {
            // The host creates the stream once it is connected.
            if let Ok(stream) = jetstream.get_stream(stream).await {
                break stream;
            }
            tokio::task::yield_now().await;
        };
        let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
        let mut read = Vec::new();
        while !enough(&read) {
            read.push(messages.next().await.unwrap().unwrap());
        }
        read
    };
    run(async { timeout(LIMIT, read).await }).expect("the messages are not there in time")
}

/// Publishes messages to the stream of their subjects, once the host has created it and subscribed: no
/// message before that is kept.
#[track_caller]
pub(crate) fn publish(url: &str, messages: &[(&str, &str, Value)]) {
    publish_as(url, None, messages);
}

/// Publishes messages with this header `Authorization`, as [`publish`] does.
#[track_caller]
pub(crate) fn publish_as(url: &str, authorization: Option<&str>, messages: &[(&str, &str, Value)]) {
    let messages: Vec<_> = messages
        .iter()
        .map(|(subject, id, payload)| {
            let payload = payload.as_str().map_or_else(|| payload.to_string(), str::to_owned);
            let message = PublishMessage::build().message_id(id).payload(payload.into());
            let message =
                authorization.iter().fold(message, |message, value| message.header("Authorization", *value));
            ((*subject).to_owned(), message)
        })
        .collect();
    with(url, async |jetstream| {
        await_consumers(&jetstream, SUBSCRIPTIONS).await;
        for (subject, message) in messages {
            jetstream.send_publish(subject, message).await.unwrap().await.unwrap();
        }
    });
}

/// Waits until the streams of messages have this many consumers.
pub(crate) async fn await_consumers(jetstream: &jetstream::Context, count: usize) {
    while consumers(jetstream).await.len() < count {
        tokio::task::yield_now().await;
    }
}

/// Returns the consumers of the streams in which the host keeps messages.
pub(crate) async fn consumers(jetstream: &jetstream::Context) -> Vec<consumer::Info> {
    let mut found = Vec::new();
    // The servers may not answer yet.
    let names: Vec<_> = jetstream.stream_names().filter_map(async |name| name.ok()).collect().await;
    for name in names.iter().filter(|name| name.starts_with("kontor-messages")) {
        let Ok(stream) = jetstream.get_stream(name).await else { continue };
        found.extend(stream.consumers().filter_map(async |info| info.ok()).collect::<Vec<_>>().await);
    }
    found
}

/// Runs a client of JetStream, for [`LIMIT`] at most.
#[track_caller]
pub(crate) fn with<T>(url: &str, client: impl AsyncFnOnce(jetstream::Context) -> T) -> T {
    let ran = async {
        let connected = async_nats::ConnectOptions::new().retry_on_initial_connect().connect(url).await;
        client(jetstream::new(connected.unwrap())).await
    };
    run(async { timeout(LIMIT, ran).await }).expect("it does not come to be in time")
}

pub(crate) fn position(message: &Message) -> u64 {
    header(message, "ce-position").parse().unwrap()
}

pub(crate) fn header<'m>(message: &'m Message, name: &str) -> &'m str {
    message.headers.as_ref().unwrap().get(name).unwrap_or_else(|| panic!("no {name}")).as_str()
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
