//! Whether the stream takes messages at the moment. It is asked all the time, so that nobody who comes while it is away has to
//! wait to learn that.

use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, Request};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::Sequence;
use super::pending_appends::Landings;

/// Between two questions. So late it is noticed at most that the stream is back.
const PAUSE: Duration = Duration::from_millis(250);
/// For one answer.
const ANSWERED: Duration = Duration::from_millis(500);
/// Silence after which the stream is away. A busy server answers sooner, an election (4.3 to 6.4 s) takes longer.
const SILENCE: Duration = Duration::from_secs(2);
/// The same without a connection: another server of a cluster is connected to within that.
const DISCONNECTED: Duration = Duration::from_millis(500);
/// Two beats of the servers' hearts, and some time for the second to arrive.
const HEARTBEATS: Duration = Duration::from_millis(2_500);

pub(super) struct Presence {
    pub(super) client: Client,
    /// Of the stream.
    pub(super) name: String,
    pub(super) landings: Arc<Landings>,
    /// Whether it is there.
    pub(super) here: watch::Sender<bool>,
}

/// The server's answer to a question about the stream.
#[derive(Deserialize)]
struct Info {
    state: StreamState,
    /// None for a server that stands alone.
    cluster: Option<Cluster>,
}

#[derive(Deserialize)]
struct StreamState {
    last_seq: Sequence,
}

#[derive(Deserialize)]
struct Cluster {
    leader: Option<String>,
    /// The others.
    #[serde(default)]
    replicas: Vec<Replica>,
}

#[derive(Deserialize)]
struct Replica {
    /// Nanoseconds since the leader has heard of it; 0 if it never has.
    active: u64,
}

impl Info {
    /// Whether there is a leader with a majority behind it. One that has lost it notices only after ten seconds, and tells of
    /// the stream even then.
    fn takes_messages(&self) -> bool {
        let Some(cluster) = &self.cluster else { return true };
        let heard = |replica: &&Replica| (1..HEARTBEATS.as_nanos()).contains(&replica.active.into());
        let with_leader = 1 + cluster.replicas.iter().filter(heard).count();
        cluster.leader.is_some() && 2 * with_leader > 1 + cluster.replicas.len()
    }
}

impl Presence {
    /// Until `stop` is closed.
    pub(super) async fn run(self, mut stop: watch::Receiver<()>) {
        tokio::select! {
            biased;
            _ = stop.changed() => {}
            () = self.watch() => {}
        }
    }

    async fn watch(&self) {
        let mut due = tokio::time::interval(PAUSE);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut seen) = (Instant::now(), Sequence::START);
        loop {
            due.tick().await;
            let connected = self.client.connection_state() == State::Connected;
            let last = if connected { self.ask().await } else { None };
            if let Some(last) = last {
                self.landings.stored(last);
            }
            let reached = self.landings.has_reached();
            if last.is_some() || reached != seen {
                heard = Instant::now();
            }
            seen = reached;
            let limit = if connected { SILENCE } else { DISCONNECTED };
            self.tell(heard.elapsed() < limit);
        }
    }

    fn tell(&self, here: bool) {
        if self.here.send_replace(here) == here {
            return;
        }
        match here {
            true => tracing::info!(stream = self.name, "the log takes commands again"),
            false => tracing::warn!(
                stream = self.name,
                "the log takes no commands: the NATS servers do not answer, or have no leader for it"
            ),
        }
    }

    /// The last message. None if there is no answer, or nobody who takes the next one.
    async fn ask(&self) -> Option<Sequence> {
        let subject = format!("$JS.API.STREAM.INFO.{}", self.name);
        let request = Request::new().timeout(Some(ANSWERED));
        let answer = self.client.send_request(subject, request).await.ok()?;
        // Err: it is a refusal.
        let info: Info = serde_json::from_slice(&answer.payload).ok()?;
        info.takes_messages().then_some(info.state.last_seq)
    }
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
