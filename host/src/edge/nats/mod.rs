//! The NATS edge: commands on `kontor.<service>.cmd.<aggregate>.<command>` and queries on
//! `kontor.<service>.query.<name>`, as request and reply, with the bodies of HTTP. All hosts on the same
//! servers share the requests.

mod discovery;
mod request;
mod table;

use std::sync::Arc;

use async_nats::client::PublishErrorKind;
use async_nats::{Client, Message, SubscribeError, Subscriber};
use futures::stream::{SelectAll, select_all};
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;

use self::discovery::Discovery;
use self::request::Answer;
use self::table::{Endpoint, Table, Tallies};
use super::metrics::RequestMetrics;
use super::{HostContext, stopped};
use crate::clock::Stopwatch;
use crate::cluster::Connection;
use crate::contract::{Problem, ProblemCode};
use crate::identity::Identity;
use crate::messaging::Callers;

/// All commands and queries. The subscriptions are the same whatever is deployed, so a deployment loses no
/// request.
const SUBJECTS: [&str; 2] = ["kontor.*.cmd.*.*", "kontor.*.query.*"];
/// The queue group: its hosts share the requests.
const QUEUE: &str = "kontor";
/// The name of requests without an endpoint in the metrics.
const UNMATCHED: &str = "unmatched";

/// Returns the callers of the messages that become commands by a subscription: those of requests.
pub(crate) fn callers(identity: Arc<Identity>) -> Callers {
    Arc::new(move |headers| {
        let identity = identity.clone();
        async move { request::caller_of(&identity, headers.as_ref()).await }.boxed()
    })
}

/// Serves up to `limit` requests at the same time until `stopping` is true. Then it accepts no more, and ends
/// when those in progress are answered, or after [`drain`](super::http::HttpLimits::drain).
pub async fn serve(
    nats: &Connection,
    edge: Arc<HostContext>,
    limit: usize,
    now_ms: u64,
    stopping: watch::Receiver<bool>,
) -> Result<JoinHandle<()>, SubscribeError> {
    let client = nats.client();
    let mut requests = Vec::new();
    for subject in SUBJECTS {
        requests.push(client.queue_subscribe(subject, QUEUE.to_owned()).await?);
    }
    let discovery = Discovery::new(now_ms);
    let questions = discovery.subscribe(client).await?;
    nats.flush().await;
    let mut tallies = Tallies::new();
    let server = NatsServer {
        table: Table::new(edge.registry.current(), &mut tallies),
        tallies,
        places: Arc::new(Semaphore::new(limit)),
        limit,
        unmatched: RequestMetrics::of_subject(UNMATCHED),
        nats: nats.clone(),
        edge,
        discovery,
        stopping,
    };
    Ok(tokio::spawn(server.serve(select_all(requests), questions)))
}

/// The server of one host.
struct NatsServer {
    nats: Connection,
    edge: Arc<HostContext>,
    table: Table,
    tallies: Tallies,
    discovery: Discovery,
    /// One permit for each request in progress, and their number.
    places: Arc<Semaphore>,
    limit: usize,
    unmatched: RequestMetrics,
    stopping: watch::Receiver<bool>,
}

impl NatsServer {
    async fn serve(mut self, mut requests: SelectAll<Subscriber>, mut questions: SelectAll<Subscriber>) {
        loop {
            tokio::select! {
                () = stopped(self.stopping.clone()) => break,
                Some(request) = requests.next() => self.take(request).await,
                Some(question) = questions.next() => self.answer_question(question).await,
                else => break,
            }
        }
        for subscriber in requests.iter_mut() {
            // Err: the connection is closed, so no more requests come.
            let _ = subscriber.drain().await;
        }
        let drain = self.edge.limits.drain;
        let left = async {
            while let Some(request) = requests.next().await {
                self.take(request).await;
            }
            let all = u32::try_from(self.limit).unwrap_or(u32::MAX);
            // Err: never, the semaphore is not closed.
            let _ = self.places.acquire_many(all).await;
        };
        if tokio::time::timeout(drain, left).await.is_err() {
            tracing::warn!("requests over NATS did not end in time; they are dropped without an answer");
        }
        self.nats.flush().await;
    }

    /// Rebuilds the table if another set is deployed.
    fn follow(&mut self) {
        let deployed = self.edge.registry.current();
        if !self.table.is_of(&deployed) {
            self.table = Table::new(deployed, &mut self.tallies);
        }
    }

    /// Starts the answer to a request, or refuses it if there is no endpoint or no permit.
    async fn take(&mut self, message: Message) {
        let started = Stopwatch::start();
        self.follow();
        let Some(endpoint) = self.table.find(&message.subject).cloned() else {
            let detail = format!("No deployed service has the subject {}.", message.subject);
            let problem = Problem::new(ProblemCode::NotDeployed, detail);
            return self.refuse(None, started, message, problem).await;
        };
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            let detail = "The host has as many requests over NATS as it accepts. Nothing was done.";
            let problem = Problem::new(ProblemCode::Busy, detail);
            return self.refuse(Some(&endpoint), started, message, problem).await;
        };
        let (client, edge, stopping) = (self.nats.client().clone(), self.edge.clone(), self.stopping.clone());
        tokio::spawn(answer(client, edge, endpoint, message, stopping, place));
    }

    async fn refuse(
        &self,
        endpoint: Option<&Endpoint>,
        started: Stopwatch,
        message: Message,
        problem: Problem,
    ) {
        let (answer, took) = (Answer::from(problem), started.elapsed());
        if let Some(endpoint) = endpoint {
            endpoint.tally.count(answer.error(), took);
        }
        endpoint.map_or(&self.unmatched, |endpoint| &endpoint.metrics).record(answer.status, took);
        reply(self.nats.client(), message, answer).await;
    }

    /// Answers a question about the host.
    async fn answer_question(&mut self, question: Message) {
        self.follow();
        let answer = self.discovery.answer(&question, &self.table);
        if let (Some(to), Some(answer)) = (question.reply, answer) {
            // Err: the connection is closed; the answer is lost.
            let _ = self.nats.client().publish(to, answer.to_string().into()).await;
        }
    }
}

async fn answer(
    client: Client,
    edge: Arc<HostContext>,
    endpoint: Arc<Endpoint>,
    message: Message,
    stopping: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let started = Stopwatch::start();
    let answer = request::answer(&edge, &endpoint, &message, stopping).await;
    let took = started.elapsed();
    endpoint.tally.count(answer.error(), took);
    endpoint.metrics.record(answer.status, took);
    let duration_ms = took.as_secs_f64() * 1e3;
    tracing::debug!(subject = endpoint.subject, status = answer.status, duration_ms, "request over NATS");
    reply(&client, message, answer).await;
}

/// Sends the answer, if the message has a reply subject.
async fn reply(client: &Client, message: Message, answer: Answer) {
    let Some(to) = message.reply else { return };
    let sent = client.publish_with_headers(to.clone(), answer.headers, answer.body).await;
    if sent.is_err_and(|error| error.kind() == PublishErrorKind::MaxPayloadExceeded) {
        let detail = "The answer exceeds the maximum size of a NATS message. HTTP has no such limit.";
        let answer = Answer::from(Problem::new(ProblemCode::AnswerTooLarge, detail));
        // Err: the connection is closed; the answer is lost.
        let _ = client.publish_with_headers(to, answer.headers, answer.body).await;
    }
}
