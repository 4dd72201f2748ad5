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
use super::landings::Landings;

/// Between two questions. So late it is noticed at most that the stream is back.
const PAUSE: Duration = Duration::from_millis(250);
/// For one answer.
const ANSWERED: Duration = Duration::from_millis(500);
/// Silence after which the stream is away. A busy server answers sooner, an election (4.3 to 6.4 s) takes longer.
const SILENCE: Duration = Duration::from_secs(2);
/// The same without a connection: another server of a cluster is connected to within that.
const DISCONNECTED: Duration = Duration::from_millis(500);

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
}

#[derive(Deserialize)]
struct StreamState {
    last_seq: Sequence,
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
        let (mut heard, mut seen) = (Instant::now(), 0);
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

    /// The last message, for the leader. None if there is no answer, or nobody who leads.
    async fn ask(&self) -> Option<Sequence> {
        let subject = format!("$JS.API.STREAM.INFO.{}", self.name);
        let request = Request::new().timeout(Some(ANSWERED));
        let answer = self.client.send_request(subject, request).await.ok()?;
        // Err: it is a refusal.
        let info: Info = serde_json::from_slice(&answer.payload).ok()?;
        Some(info.state.last_seq)
    }
}
