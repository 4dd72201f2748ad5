//! A probe that finds out whether the stream accepts messages. It asks the stream's leader all the time, so
//! that an append fails at once, and not after a timeout, while the stream is unavailable.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Request};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::Sequence;
use super::pending_appends::PendingAppends;
use crate::clock::Stopwatch;

/// The pause between two requests: the longest time until the host notices that the stream is available
/// again.
const PAUSE: Duration = Duration::from_millis(250);
/// The timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(500);
/// The time without an answer after which the stream is unavailable. A busy server answers sooner, an
/// election (4.3 to 6.4 s) takes longer.
const UNAVAILABLE_AFTER: Duration = Duration::from_secs(2);
/// The same without a connection: within this time the client connects to another server of a cluster.
const UNAVAILABLE_AFTER_DISCONNECT: Duration = Duration::from_millis(500);
/// The time in which a replica must have answered its leader: two heartbeats of the servers, and some time
/// for the second to arrive.
const HEARTBEATS: Duration = Duration::from_millis(2_500);

/// Asks for the state of the stream.
pub(super) struct LeaderProbe {
    pub(super) client: Client,
    /// The name of the stream.
    pub(super) name: String,
    pub(super) pending: Arc<PendingAppends>,
    /// True while the stream accepts messages.
    pub(super) available: watch::Sender<bool>,
}

/// The server's answer to a request for the state of the stream.
#[derive(Deserialize)]
struct Info {
    state: StreamState,
    /// `None`: the server is not in a cluster.
    cluster: Option<Cluster>,
}

#[derive(Deserialize)]
struct StreamState {
    last_seq: Sequence,
}

#[derive(Deserialize)]
struct Cluster {
    leader: Option<String>,
    /// The other servers that keep the stream.
    #[serde(default)]
    replicas: Vec<Replica>,
}

#[derive(Deserialize)]
struct Replica {
    /// The nanoseconds since the leader has heard from it. 0: it never has.
    active: u64,
}

impl Info {
    /// Returns whether there is a leader that a majority of the servers can hear. A leader that has lost its
    /// majority notices that only after ten seconds, and answers even then.
    fn takes_messages(&self) -> bool {
        let Some(cluster) = &self.cluster else { return true };
        let heard = |replica: &&Replica| (1..HEARTBEATS.as_nanos()).contains(&replica.active.into());
        let with_leader = 1 + cluster.replicas.iter().filter(heard).count();
        cluster.leader.is_some() && 2 * with_leader > 1 + cluster.replicas.len()
    }
}

impl LeaderProbe {
    /// Probes until `stop` is closed.
    pub(super) async fn run(self, mut stop: watch::Receiver<()>) {
        tokio::select! {
            biased;
            _ = stop.changed() => {}
            () = self.watch() => {}
        }
    }

    /// Asks at a fixed interval. Each copied message is a sign of availability too.
    async fn watch(&self) {
        let mut due = tokio::time::interval(PAUSE);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut since_sign, mut last_copied) = (Stopwatch::start(), Sequence::START);
        loop {
            due.tick().await;
            let connected = self.client.connection_state() == State::Connected;
            let last = if connected { request_last(&self.client, &self.name).await } else { None };
            if let Some(last) = last {
                self.pending.note_stored(last);
            }
            let copied = self.pending.last_copied();
            if last.is_some() || copied != last_copied {
                since_sign = Stopwatch::start();
            }
            last_copied = copied;
            let limit = if connected { UNAVAILABLE_AFTER } else { UNAVAILABLE_AFTER_DISCONNECT };
            self.report(since_sign.elapsed() < limit);
        }
    }

    /// Publishes the state, and logs a change.
    fn report(&self, available: bool) {
        if self.available.send_replace(available) == available {
            return;
        }
        match available {
            true => tracing::info!(stream = self.name, "the log is available again; commands are accepted"),
            false => tracing::warn!(
                stream = self.name,
                "the log is unavailable: the NATS servers do not answer, or have no leader for it; commands \
                 are refused"
            ),
        }
    }
}

/// Returns the last message of a stream. `None`: no answer came, or the stream does not accept messages.
pub(super) async fn request_last(client: &Client, name: &str) -> Option<Sequence> {
    let subject = format!("$JS.API.STREAM.INFO.{name}");
    let request = Request::new().timeout(Some(REQUEST_TIMEOUT));
    let answer = client.send_request(subject, request).await.ok()?;
    // Err: the answer is an error, such as that there is no such stream.
    let info: Info = serde_json::from_slice(&answer.payload).ok()?;
    info.takes_messages().then_some(info.state.last_seq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_takes_messages_if_a_majority_of_its_servers_is_there() {
        let table = [
            ("null", true),
            (r#"{"leader": "n1"}"#, true),
            (r#"{"leader": "n1", "replicas": [{"active": 900000000}, {"active": 900000000}]}"#, true),
            (r#"{"leader": "n1", "replicas": [{"active": 2900000000}, {"active": 1}]}"#, true),
            (r#"{"leader": "n1", "replicas": [{"active": 2900000000}, {"active": 0}]}"#, false),
            (r#"{"replicas": [{"active": 1}, {"active": 1}, {"active": 1}]}"#, false),
        ];
        for (cluster, expected) in table {
            let info = format!(r#"{{"state": {{"last_seq": 7}}, "cluster": {cluster}}}"#);
            let info: Info = serde_json::from_str(&info).unwrap();
            assert_eq!(info.takes_messages(), expected, "{cluster}");
        }
    }
}
