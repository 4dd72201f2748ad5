//! The services API of NATS, version 1 (ADR-32), for `nats micro`: the services there are (PING), their
//! endpoints (INFO) and statistics (STATS). The client library has an implementation, but its endpoints are
//! subscriptions: they cannot follow a deployment without losing requests, and their errors have no body.

use std::sync::atomic::Ordering;

use async_nats::{Client, Message, Subscriber};
use futures::stream::{SelectAll, select_all};
use serde_json::{Value, json};
use uuid::Uuid;

use super::QUEUE;
use super::table::{Endpoint, Table};
use crate::clock::rfc3339;

const NAME: &str = "kontor";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const VERBS: [&str; 3] = ["PING", "INFO", "STATS"];

/// This host as a service of NATS.
pub(super) struct Discovery {
    id: String,
    /// RFC 3339
    started: String,
}

impl Discovery {
    pub(super) fn new(now_ms: u64) -> Self {
        Self { id: Uuid::now_v7().simple().to_string(), started: rfc3339(now_ms) }
    }

    /// Subscribes to the questions, each for all services, for those with a name, and for one.
    pub(super) async fn subscribe(
        &self,
        client: &Client,
    ) -> Result<SelectAll<Subscriber>, async_nats::SubscribeError> {
        let mut questions = Vec::new();
        for verb in VERBS {
            for suffix in [String::new(), format!(".{NAME}"), format!(".{NAME}.{}", self.id)] {
                questions.push(client.subscribe(format!("$SRV.{verb}{suffix}")).await?);
            }
        }
        Ok(select_all(questions))
    }

    /// Returns the answer to a question; none if its verb is unknown.
    pub(super) fn answer(&self, question: &Message, table: &Table) -> Option<Value> {
        let verb = question.subject.split('.').nth(1)?;
        let kind = format!("io.nats.micro.v1.{}_response", verb.to_ascii_lowercase());
        let mut answer =
            json!({"type": kind, "name": NAME, "id": self.id, "version": VERSION, "metadata": {}});
        match verb {
            "PING" => {}
            "INFO" => {
                answer["description"] =
                    json!("A Kontor host: the commands and queries of the services it runs.");
                answer["endpoints"] = table.endpoints().map(info).collect();
            }
            "STATS" => {
                answer["started"] = json!(self.started);
                answer["endpoints"] = table.endpoints().map(stats).collect();
            }
            _ => return None,
        }
        Some(answer)
    }
}

/// Returns the name of an endpoint, which has no dots: `order-cmd-order-create`.
fn name(endpoint: &Endpoint) -> String {
    let subject = &endpoint.subject;
    subject.strip_prefix("kontor.").unwrap_or(subject).replace('.', "-")
}

fn info(endpoint: &Endpoint) -> Value {
    json!({
        "name": name(endpoint), "subject": endpoint.subject, "queue_group": QUEUE,
        "metadata": {"description": endpoint.description},
    })
}

fn stats(endpoint: &Endpoint) -> Value {
    let tally = &endpoint.tally;
    let requests = tally.requests.load(Ordering::Relaxed);
    let nanoseconds = tally.nanoseconds.load(Ordering::Relaxed);
    json!({
        "name": name(endpoint), "subject": endpoint.subject, "queue_group": QUEUE,
        "num_requests": requests, "num_errors": tally.errors.load(Ordering::Relaxed),
        "last_error": tally.last_error(),
        "processing_time": nanoseconds, "average_processing_time": nanoseconds / requests.max(1),
    })
}
