//! The members of a cluster: the hosts that share one log, their states, and the member that owns a saga.
//!
//! Every member sends five heartbeats in its heartbeat timeout, on a plain subject of NATS. A member without
//! a heartbeat for the whole timeout counts as gone, and its sagas are distributed anew: each saga belongs to
//! the member with the highest hash of both ids. So members that see the same members agree on the
//! owner, and only the sagas of a member that came or went move. Where members do not see the same, the
//! saga's journal decides: a member takes over a saga by writing an entry there.
//!
//! *Invariant:* a member owns nothing if it has not heard itself for half of the timeout. So it has stopped
//! before another one begins.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_nats::{Client, SubscribeError};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::interval;
use uuid::Uuid;

use super::heartbeats::{Observed, Sharing};
use crate::clock::{Stopwatch, Time, millis};
use crate::model::{Digest, NodeId, Position, Version};

/// A time in which this host has heard itself without a gap, so that no other host can have taken over its
/// sagas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lease(pub(super) u64);

/// The file in the data directory that holds the host's id.
const FILE: &str = "node";
/// The interval at which a caller that waits for other members checks their states.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// A member, as it describes itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(inline)]
pub struct Member {
    /// The id, which stays with the data directory.
    pub id: NodeId,
    /// The name from the configuration.
    pub name: Arc<str>,
    /// The address of its HTTP server.
    pub address: SocketAddr,
    /// Its version of Kontor.
    pub version: String,
    /// The time of its start.
    pub since: Time,
    /// Its state at its last heartbeat.
    #[serde(flatten)]
    pub status: Status,
}

/// The part of a member's description that changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(inline)]
pub struct Status {
    /// The position up to which it has the log.
    pub position: Position,
    /// The version of the stream of deployments up to which it runs them.
    pub deployment: Version,
    /// Its warnings, a sentence each.
    // The alias is the name that older hosts write: during an upgrade the members of a cluster have different
    // versions.
    #[serde(alias = "troubles", default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A member, as this host sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ObservedMember {
    /// The member's description of itself.
    #[serde(flatten)]
    pub node: Member,
    /// Its state.
    pub state: MemberState,
    /// The milliseconds since its last heartbeat.
    pub heard_ms: u64,
}

/// The state of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MemberState {
    /// It sends heartbeats.
    Up,
    /// It has sent no heartbeat for the whole timeout, and other members have taken over its sagas.
    Silent,
    /// It was shut down.
    Left,
}

/// The members that are up. Changes when one comes or goes, and when this host is cut off or connected again.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Members {
    pub(super) up: BTreeSet<NodeId>,
    /// This host's lease. `None`: it does not hear itself.
    pub(super) lease: Option<Lease>,
    /// True if this host has listened for a whole timeout without a gap. Before, an unheard member may be up.
    pub(super) listened: bool,
}

/// The members that share a log, as one of them sees them. Cheap to clone.
#[derive(Clone)]
pub struct Cluster(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) me: NodeId,
    pub(super) process: Uuid,
    /// `None`: the log is this host's own.
    pub(super) sharing: Option<Sharing>,
    pub(super) members: watch::Sender<Members>,
    observed: Mutex<Observed>,
    /// Describes this host. Empty before [`Cluster::announce`].
    pub(super) describe: OnceLock<Describe>,
}

type Describe = Box<dyn Fn() -> Member + Send + Sync>;

/// Returns the id of the host with this data directory. A new directory gets a new id.
pub fn id_of(data: &Path) -> io::Result<NodeId> {
    let file = data.join(FILE);
    match fs::read_to_string(&file) {
        Ok(id) if Uuid::try_parse(id.trim()).is_ok() => Ok(id.trim().into()),
        // Empty: the machine went down before the id was on disk, so nobody has seen it.
        Ok(id) if !id.is_empty() => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} holds no UUID", file.display())))
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => {
            let id = Uuid::now_v7().to_string();
            fs::write(file, &id)?;
            Ok(id.into())
        }
    }
}

impl Cluster {
    /// Returns the cluster of a host whose log no other host writes to.
    pub fn alone(me: NodeId) -> Self {
        Self::new(me, None)
    }

    /// Begins to listen to the hosts that share a stream. This host owns nothing before
    /// [`Cluster::announce`].
    pub async fn listen(
        me: NodeId,
        client: &Client,
        stream: &str,
        heartbeat_timeout: Duration,
    ) -> Result<Self, SubscribeError> {
        let subject = format!("{stream}-nodes");
        let heartbeats = client.subscribe(subject.clone()).await?;
        let sharing = Sharing {
            client: client.clone(),
            subject,
            heartbeat_timeout,
            due: Notify::new(),
            leaving: AtomicBool::new(false),
        };
        let cluster = Self::new(me, Some(sharing));
        tokio::spawn(cluster.clone().receive_heartbeats(heartbeats));
        Ok(cluster)
    }

    fn new(me: NodeId, sharing: Option<Sharing>) -> Self {
        Self(Arc::new(Inner {
            me,
            process: Uuid::now_v7(),
            sharing,
            members: watch::Sender::default(),
            observed: Mutex::default(),
            describe: OnceLock::new(),
        }))
    }

    /// Returns the id of this host among others. `None`: the log is this host's own.
    pub(crate) fn me(&self) -> Option<&NodeId> {
        self.0.sharing.is_some().then_some(&self.0.me)
    }

    /// Returns the id of this host.
    pub fn id(&self) -> &NodeId {
        &self.0.me
    }

    /// Begins to send heartbeats with the description that `describe` returns. Later calls do nothing.
    pub fn announce(&self, describe: impl Fn() -> Member + Send + Sync + 'static) {
        let first = self.0.describe.set(Box::new(describe)).is_ok();
        if first && self.0.sharing.is_some() {
            tokio::spawn(self.clone().send_heartbeats());
        }
    }

    /// Sends a last heartbeat, so that the other members need not wait for the timeout.
    pub async fn leave(&self) {
        if let Some(sharing) = &self.0.sharing {
            sharing.leaving.store(true, Ordering::Relaxed);
            self.publish_heartbeat(sharing).await;
            // Err: the heartbeat may be lost; the others notice the timeout.
            let _ = tokio::time::timeout(sharing.interval(), sharing.client.flush()).await;
        }
    }

    /// Sends a heartbeat at once, with the current state of this host.
    pub(crate) fn send_heartbeat(&self) {
        if let Some(sharing) = &self.0.sharing {
            sharing.due.notify_one();
        }
    }

    /// Waits until all members that are up run the deployments up to a version. Returns these members, or
    /// those that are up after `limit`.
    pub(crate) async fn follow(&self, version: Version, limit: Duration) -> Vec<Member> {
        let waited = Stopwatch::start();
        let mut checks = interval(CHECK_INTERVAL);
        loop {
            checks.tick().await;
            let up = self.list().into_iter().filter(|seen| seen.state == MemberState::Up);
            let up: Vec<Member> = up.map(|seen| seen.node).collect();
            if waited.elapsed() >= limit || up.iter().all(|member| member.status.deployment >= version) {
                return up;
            }
        }
    }

    /// Returns whether this host owns a piece of work, such as a saga. `runner`: the host that runs it
    /// according to its journal.
    pub(crate) fn owns(&self, work: &str, runner: Option<&NodeId>) -> bool {
        if self.lease().is_none() {
            return false;
        }
        if self.0.sharing.is_none() {
            return true;
        }
        let members = self.0.members.borrow();
        match runner {
            Some(runner) if *runner == self.0.me => true,
            Some(runner) if !members.listened || members.up.contains(runner) => false,
            _ => members.owner(work) == Some(&self.0.me),
        }
    }

    /// Returns the lease under which this host may act now. Work that began under another lease must read the
    /// log again.
    pub(crate) fn lease(&self) -> Option<Lease> {
        match &self.0.sharing {
            Some(sharing) => self.observed().lease(sharing.heartbeat_timeout),
            None => Some(Lease(u64::MAX)),
        }
    }

    /// Returns a channel that signals when this host may have become the owner of sagas.
    pub(crate) fn changed(&self) -> watch::Receiver<Members> {
        self.0.members.subscribe()
    }

    /// Returns all members that are up or were lately, by name.
    pub fn list(&self) -> Vec<ObservedMember> {
        let myself = self.0.describe.get().map(|describe| ObservedMember {
            node: describe(),
            state: MemberState::Up,
            heard_ms: 0,
        });
        let mut seen: Vec<_> = myself.into_iter().collect();
        if let Some(sharing) = &self.0.sharing {
            let observed = self.observed();
            let others = observed.heard.values().filter(|heard| heard.member.id != self.0.me);
            seen.extend(others.map(|heard| ObservedMember {
                node: heard.member.clone(),
                state: heard.state(sharing.heartbeat_timeout),
                heard_ms: millis(heard.since.elapsed()),
            }));
        }
        seen.sort_by(|one, other| (&one.node.name, &one.node.id).cmp(&(&other.node.name, &other.node.id)));
        seen
    }

    /// Returns a sentence if this host cannot take part in the cluster.
    pub fn warning(&self) -> Option<String> {
        let timeout = self.0.sharing.as_ref()?.heartbeat_timeout;
        let observed = self.observed();
        if observed.has_duplicate_id(timeout) {
            return Some(format!(
                "another host has the id {}, so no saga runs here: delete the file {FILE} in the data \
                 directory of one of them and start it again",
                self.0.me
            ));
        }
        let cut_off = observed.own.is_some() && observed.lease(timeout).is_none();
        cut_off.then(|| "this host does not hear itself over NATS, so no saga runs here".to_owned())
    }

    pub(super) fn observed(&self) -> MutexGuard<'_, Observed> {
        self.0.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Members {
    /// Returns the member that a piece of work belongs to if no member runs it.
    fn owner(&self, work: &str) -> Option<&NodeId> {
        self.up.iter().max_by_key(|member| Digest::of(format!("{member}/{work}").as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(ids: &[&str]) -> Members {
        Members { up: ids.iter().map(|id| NodeId::from(*id)).collect(), ..Members::default() }
    }

    fn owners(members: &Members) -> Vec<String> {
        (0..300).map(|saga| members.owner(&saga.to_string()).unwrap().to_string()).collect()
    }

    #[test]
    fn every_member_owns_its_share_and_only_the_sagas_of_one_that_goes_move() {
        let three = owners(&members(&["a", "b", "c"]));
        for member in ["a", "b", "c"] {
            let share = three.iter().filter(|owner| **owner == member).count();
            assert!((60..140).contains(&share), "{member} has {share} of 300");
        }
        let two = owners(&members(&["a", "c"]));
        for (before, after) in three.iter().zip(&two) {
            assert!(before == "b" || before == after);
        }
    }

    #[test]
    fn the_warnings_of_an_older_host_are_read() {
        let text = r#"{"id": "b", "name": "b", "address": "127.0.0.1:7071", "version": "0.1.0",
            "since": "2026-11-22T03:18:01.250Z", "position": 40, "deployment": 2,
            "troubles": ["NATS does not answer"]}"#;
        let member: Member = serde_json::from_str(text).unwrap();
        assert_eq!(member.status.warnings, ["NATS does not answer"]);
    }

    #[test]
    fn a_data_directory_is_the_same_host_at_every_start() {
        let data = tempfile::tempdir().unwrap();
        let id = id_of(data.path()).unwrap();
        assert_eq!(id_of(data.path()).unwrap(), id);
        fs::write(data.path().join(FILE), "me").unwrap();
        assert!(id_of(data.path()).unwrap_err().to_string().contains("holds no UUID"));
    }
}
