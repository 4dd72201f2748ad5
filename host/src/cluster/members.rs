//! The hosts that share one log: who they are, how they are, and which of them a saga belongs to.
//!
//! Every host says five times in its silence limit that it is there, on a plain subject of NATS. Who has not been heard for
//! the whole limit counts as gone, and what belonged to it is shared out anew: each saga goes to the host with the highest
//! hash of both their names, so whoever sees the same hosts comes to the same answer, and only the sagas of the one that
//! came or went move. Where they do not see the same, the saga's journal decides: a host takes a saga by writing there.
//!
//! *Invariant:* a host owns nothing if it has not heard itself for half of the limit. So it has stopped before others begin.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_nats::{Client, SubscribeError, Subscriber};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use crate::clock::{Time, millis};
use crate::model::{Digest, NodeId, Position, Version};

/// A time in which this host has heard itself without a gap, so that no other can have taken it for gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lease(u64);

/// The file in the data directory that it is in.
const FILE: &str = "node";
/// How many times a host says that it is there before the others take it for gone.
const BEATS: u32 = 5;
/// How often whoever waits for other hosts looks at what they have said.
const LOOK: Duration = Duration::from_millis(20);
/// How long a host that is gone is still shown.
const SHOWN: Duration = Duration::from_secs(600);

/// A host, as it describes itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(inline)]
pub struct Member {
    pub id: NodeId,
    /// As the configuration calls it.
    pub name: Arc<str>,
    /// Where it answers HTTP.
    pub address: SocketAddr,
    /// Of Kontor.
    pub version: String,
    /// When it was started.
    pub since: Time,
    #[serde(flatten)]
    pub status: Status,
}

/// How a host is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(inline)]
pub struct Status {
    /// Up to where it has the log.
    pub position: Position,
    /// Up to which version of their stream it runs the deployments.
    pub deployment: Version,
    /// What is wrong with it, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<String>,
}

/// A host, as this one sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ObservedMember {
    #[serde(flatten)]
    pub node: Member,
    pub state: MemberState,
    /// How long ago it was heard.
    pub heard_ms: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MemberState {
    Up,
    /// It was not heard for the whole limit, and others have what was its own.
    Silent,
    /// It was asked to end.
    Left,
}

/// What a host says of itself.
#[derive(Serialize, Deserialize)]
struct Heartbeat {
    node: Member,
    /// Another one after each start.
    process: Uuid,
    leaving: bool,
}

struct Heard {
    node: Member,
    at: Instant,
    left: bool,
}

/// Which hosts there are. Changes when one comes or goes, and when this one is cut off or back.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Members {
    up: BTreeSet<NodeId>,
    /// Whether this host hears itself, and since when without a gap.
    lease: Option<Lease>,
    /// Whether this host has listened for the whole limit without a gap: before, anybody may be there.
    listened: bool,
}

/// The hosts of a log, as one of them sees them. Cheap to clone.
#[derive(Clone)]
pub struct Cluster(Arc<Shared>);

struct Shared {
    me: NodeId,
    process: Uuid,
    /// None: the log is this host's own.
    sharing: Option<Sharing>,
    members: watch::Sender<Members>,
    hosts: Mutex<Hosts>,
    /// Tells how this host is, once it is announced.
    describe: OnceLock<Describe>,
}

type Describe = Box<dyn Fn() -> Member + Send + Sync>;

struct Sharing {
    client: Client,
    subject: String,
    silence: Duration,
    /// Told when the others are to know at once how this host is.
    news: Notify,
    leaving: AtomicBool,
}

#[derive(Default)]
struct Hosts {
    heard: BTreeMap<NodeId, Heard>,
    /// When this host heard itself last.
    myself: Option<Instant>,
    /// The last lease that began, and when.
    lease: Lease,
    leased: Option<Instant>,
    /// When another process was heard with this host's id.
    twin: Option<Instant>,
}

/// The id of the host in a data directory. A new directory makes a new host.
pub fn id_of(data: &Path) -> io::Result<NodeId> {
    let file = data.join(FILE);
    match fs::read_to_string(&file) {
        Ok(id) if Uuid::try_parse(id.trim()).is_ok() => Ok(id.trim().into()),
        // Empty: the machine went down before it was on disk, and nobody has seen it.
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
    /// Of a log that no other host writes to.
    pub fn alone(me: NodeId) -> Self {
        Self::new(me, None)
    }

    /// Begins to listen to the hosts that share a stream. This one owns nothing before [`Cluster::announce`].
    pub async fn listen(
        me: NodeId,
        client: &Client,
        stream: &str,
        silence: Duration,
    ) -> Result<Self, SubscribeError> {
        let subject = format!("{stream}-nodes");
        let beats = client.subscribe(subject.clone()).await?;
        let sharing = Sharing {
            client: client.clone(),
            subject,
            silence,
            news: Notify::new(),
            leaving: AtomicBool::new(false),
        };
        let nodes = Self::new(me, Some(sharing));
        tokio::spawn(nodes.clone().hear(beats, silence / BEATS));
        Ok(nodes)
    }

    fn new(me: NodeId, sharing: Option<Sharing>) -> Self {
        Self(Arc::new(Shared {
            me,
            process: Uuid::now_v7(),
            sharing,
            members: watch::Sender::default(),
            hosts: Mutex::default(),
            describe: OnceLock::new(),
        }))
    }

    /// This host; none if the log is its own.
    pub(crate) fn me(&self) -> Option<&NodeId> {
        self.0.sharing.is_some().then_some(&self.0.me)
    }

    pub fn id(&self) -> &NodeId {
        &self.0.me
    }

    /// Says from now on that this host is there. `describe` tells how it is; only the first counts.
    pub fn announce(&self, describe: impl Fn() -> Member + Send + Sync + 'static) {
        let first = self.0.describe.set(Box::new(describe)).is_ok();
        if first && self.0.sharing.is_some() {
            tokio::spawn(self.clone().beat());
        }
    }

    /// Says that this host ends: the others need not wait for its silence.
    pub async fn leave(&self) {
        if let Some(sharing) = &self.0.sharing {
            sharing.leaving.store(true, Ordering::Relaxed);
            self.say(sharing).await;
            // Err: the others will notice.
            let _ = tokio::time::timeout(sharing.silence / BEATS, sharing.client.flush()).await;
        }
    }

    /// Has the others know at once how this host is.
    pub(crate) fn tell(&self) {
        if let Some(sharing) = &self.0.sharing {
            sharing.news.notify_one();
        }
    }

    /// The hosts that are up, when all of them run the deployments up to a version; or after `limit` as they are then.
    pub(crate) async fn follow(&self, version: Version, limit: Duration) -> Vec<Member> {
        let end = Instant::now() + limit;
        let mut looks = interval(LOOK);
        loop {
            looks.tick().await;
            let up = self.list().into_iter().filter(|seen| seen.state == MemberState::Up);
            let up: Vec<Member> = up.map(|seen| seen.node).collect();
            if Instant::now() >= end || up.iter().all(|node| node.status.deployment >= version) {
                return up;
            }
        }
    }

    /// Returns whether this host is to do a piece of work, such as a saga. `runner`: the host that runs it by its
    /// journal.
    pub(crate) fn owns(&self, work: &str, runner: Option<&NodeId>) -> bool {
        let Some(sharing) = &self.0.sharing else { return true };
        if self.hosts().lease(sharing).is_none() {
            return false;
        }
        let members = self.0.members.borrow();
        match runner {
            Some(runner) if *runner == self.0.me => true,
            Some(runner) if !members.listened || members.up.contains(runner) => false,
            _ => members.owner(work) == Some(&self.0.me),
        }
    }

    /// The lease under which this host may act now. Who began under another one has to look at the log anew.
    pub(crate) fn lease(&self) -> Option<Lease> {
        match &self.0.sharing {
            Some(sharing) => self.hosts().lease(sharing),
            None => Some(Lease(u64::MAX)),
        }
    }

    /// A signal when sagas may have become this host's.
    pub(crate) fn changed(&self) -> watch::Receiver<Members> {
        self.0.members.subscribe()
    }

    /// All hosts that are there or were lately, by name.
    pub fn list(&self) -> Vec<ObservedMember> {
        let myself = self.0.describe.get().map(|describe| ObservedMember {
            node: describe(),
            state: MemberState::Up,
            heard_ms: 0,
        });
        let mut seen: Vec<_> = myself.into_iter().collect();
        if let Some(sharing) = &self.0.sharing {
            let hosts = self.hosts();
            let others = hosts.heard.values().filter(|heard| heard.node.id != self.0.me);
            seen.extend(others.map(|heard| ObservedMember {
                node: heard.node.clone(),
                state: heard.state(sharing.silence),
                heard_ms: millis(heard.at.elapsed()),
            }));
        }
        seen.sort_by(|one, other| (&one.node.name, &one.node.id).cmp(&(&other.node.name, &other.node.id)));
        seen
    }

    /// What is wrong with how this host takes part, if something is.
    pub fn trouble(&self) -> Option<String> {
        let sharing = self.0.sharing.as_ref()?;
        let hosts = self.hosts();
        if hosts.has_twin(sharing) {
            return Some(format!(
                "another host has the id {}, so no saga runs here: delete the file {FILE} in the data directory of one of \
                 them and start it again",
                self.0.me
            ));
        }
        let cut_off = hosts.myself.is_some() && hosts.lease(sharing).is_none();
        cut_off.then(|| "this host does not hear itself over NATS, so no saga runs here".to_owned())
    }

    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn beat(self) {
        let Some(sharing) = &self.0.sharing else { return };
        let mut beats = interval(sharing.silence / BEATS);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !sharing.leaving.load(Ordering::Relaxed) {
            self.say(sharing).await;
            tokio::select! {
                _ = beats.tick() => {}
                () = sharing.news.notified() => {}
            }
        }
    }

    async fn say(&self, sharing: &Sharing) {
        let Some(describe) = self.0.describe.get() else { return };
        let leaving = sharing.leaving.load(Ordering::Relaxed);
        let beat = Heartbeat { node: describe(), process: self.0.process, leaving };
        match serde_json::to_vec(&beat) {
            // Err: there is no connection any more; the silence says it.
            Ok(beat) => drop(sharing.client.publish(sharing.subject.clone(), beat.into()).await),
            Err(error) => tracing::error!(%error, "a host cannot say that it is there"),
        }
    }

    async fn hear(self, mut beats: Subscriber, look: Duration) {
        let Some(sharing) = &self.0.sharing else { return };
        let mut looks = interval(look);
        loop {
            tokio::select! {
                beat = beats.next() => {
                    let Some(beat) = beat else { return };
                    match serde_json::from_slice(&beat.payload) {
                        Ok(beat) => self.hear_beat(beat, sharing),
                        Err(error) => tracing::warn!(%error, "what says that it is a host is none"),
                    }
                }
                _ = looks.tick() => {}
            }
            self.look(sharing);
        }
    }

    fn hear_beat(&self, Heartbeat { node, process, leaving }: Heartbeat, sharing: &Sharing) {
        let now = Instant::now();
        let mut hosts = self.hosts();
        if node.id == self.0.me {
            match process == self.0.process {
                true => hosts.hear_myself(now, sharing),
                false => hosts.twin = Some(now),
            }
        }
        hosts.heard.insert(node.id.clone(), Heard { node, at: now, left: leaving });
    }

    /// Tells those who wait when the hosts are others now.
    fn look(&self, sharing: &Sharing) {
        let mut hosts = self.hosts();
        hosts.heard.retain(|_, heard| heard.at.elapsed() < sharing.silence.max(SHOWN));
        let up = hosts.heard.iter().filter(|(_, heard)| heard.state(sharing.silence) == MemberState::Up);
        let members = Members {
            up: up.map(|(id, _)| id.clone()).collect(),
            lease: hosts.lease(sharing),
            listened: hosts.leased.is_some_and(|at| at.elapsed() >= sharing.silence),
        };
        drop(hosts);
        self.0.members.send_if_modified(|before| {
            let changed = *before != members;
            if before.up != members.up {
                tracing::info!(hosts = members.up.len(), "the hosts that share the log are others now");
            }
            *before = members;
            changed
        });
    }
}

impl Hosts {
    fn hear_myself(&mut self, now: Instant, sharing: &Sharing) {
        if self.lease(sharing).is_none() {
            self.lease = Lease(self.lease.0 + 1);
            self.leased = Some(now);
        }
        self.myself = Some(now);
    }

    fn lease(&self, sharing: &Sharing) -> Option<Lease> {
        let heard = self.myself.is_some_and(|at| at.elapsed() < sharing.silence / 2);
        (heard && !self.has_twin(sharing)).then_some(self.lease)
    }

    fn has_twin(&self, sharing: &Sharing) -> bool {
        self.twin.is_some_and(|at| at.elapsed() < sharing.silence)
    }
}

impl Heard {
    fn state(&self, silence: Duration) -> MemberState {
        match self.left {
            true => MemberState::Left,
            false if self.at.elapsed() < silence => MemberState::Up,
            false => MemberState::Silent,
        }
    }
}

impl Members {
    /// The host that work goes to if none has it.
    fn owner(&self, work: &str) -> Option<&NodeId> {
        self.up.iter().max_by_key(|node| Digest::of(format!("{node}/{work}").as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(nodes: &[&str]) -> Members {
        Members { up: nodes.iter().map(|id| NodeId::from(*id)).collect(), ..Members::default() }
    }

    fn owners(members: &Members) -> Vec<String> {
        (0..300).map(|saga| members.owner(&saga.to_string()).unwrap().to_string()).collect()
    }

    #[test]
    fn every_host_gets_its_share_and_only_what_was_of_one_that_goes_moves() {
        let three = owners(&members(&["a", "b", "c"]));
        for node in ["a", "b", "c"] {
            let share = three.iter().filter(|owner| **owner == node).count();
            assert!((60..140).contains(&share), "{node} has {share} of 300");
        }
        let two = owners(&members(&["a", "c"]));
        for (before, after) in three.iter().zip(&two) {
            assert!(before == "b" || before == after);
        }
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
