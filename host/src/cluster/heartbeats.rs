//! Heartbeats: how the members of a cluster learn of each other, and when a member may act.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Client, Subscriber};
use futures::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::members::{Cluster, Lease, Member, MemberState, Members};
use crate::clock::Stopwatch;
use crate::error::Chain;
use crate::model::NodeId;

/// The number of heartbeats that a member sends in one heartbeat timeout: so many that it does not count as
/// gone when some are lost.
const HEARTBEATS_PER_TIMEOUT: u32 = 5;
/// The largest number of heartbeat timeouts for which an append counts as a sign of life: some minutes, after
/// which the sagas of a member that is gone continue in any case.
const MAX_SIGN_TIMEOUTS: u32 = 64;
/// The time for which a member that is gone is still listed.
const LISTED: Duration = Duration::from_secs(600);

/// A member's message that it is alive.
#[derive(Serialize, Deserialize)]
struct Heartbeat {
    #[serde(rename = "node")]
    member: Member,
    /// The process of the member. It changes with every start.
    process: Uuid,
    /// True if the member is shutting down.
    leaving: bool,
}

/// The part of a [`Cluster`] that a host with a log of its own does not have.
pub(super) struct Sharing {
    pub(super) client: Client,
    /// The subject of the heartbeats.
    pub(super) subject: String,
    pub(super) heartbeat_timeout: Duration,
    /// Notified when a heartbeat is to be sent at once.
    pub(super) due: Notify,
    pub(super) leaving: AtomicBool,
}

impl Sharing {
    /// Returns the interval between two heartbeats.
    pub(super) fn interval(&self) -> Duration {
        self.heartbeat_timeout / HEARTBEATS_PER_TIMEOUT
    }
}

/// The last heartbeat of a member.
pub(super) struct Heard {
    pub(super) member: Member,
    pub(super) since: Stopwatch,
    left: bool,
}

impl Heard {
    /// Returns the member's state as seen from this host.
    pub(super) fn state(&self, heartbeat_timeout: Duration) -> MemberState {
        match self.left {
            true => MemberState::Left,
            false if self.since.elapsed() < heartbeat_timeout => MemberState::Up,
            false => MemberState::Silent,
        }
    }
}

/// The last append of a member whose heartbeats are not heard: the hosts reach the log, but not each other.
struct Sign {
    since: Stopwatch,
    /// The number of heartbeat timeouts for which the member counts as up. It doubles whenever the member
    /// turns out to be up after all, so two such hosts take sagas from one another ever more seldom.
    timeouts: u32,
}

impl Sign {
    fn counts(&self, heartbeat_timeout: Duration) -> bool {
        self.since.elapsed() < heartbeat_timeout * self.timeouts
    }
}

/// The signs of life of the members that this host has noticed.
#[derive(Default)]
pub(super) struct Observed {
    /// The last heartbeat of each member.
    pub(super) heard: BTreeMap<NodeId, Heard>,
    /// The last append of each member without heartbeats.
    signs: BTreeMap<NodeId, Sign>,
    /// The time since this host's own last heartbeat came back.
    pub(super) own: Option<Stopwatch>,
    /// The last lease that began.
    lease: Lease,
    /// The time since that lease began.
    leased: Option<Stopwatch>,
    /// The time since another process sent a heartbeat with this host's id.
    duplicate_id_seen: Option<Stopwatch>,
}

impl Observed {
    /// Records a heartbeat of this host itself. Begins a lease if there is none.
    fn hear_own(&mut self, heartbeat_timeout: Duration) {
        if self.lease(heartbeat_timeout).is_none() {
            self.lease = Lease(self.lease.0 + 1);
            self.leased = Some(Stopwatch::start());
        }
        self.own = Some(Stopwatch::start());
    }

    /// Records an append of another member. It does not count for one that is shut down: its last appends may
    /// be seen late.
    fn see_in_log(&mut self, member: &NodeId, heartbeat_timeout: Duration) {
        match self.heard.get(member).map(|heard| heard.state(heartbeat_timeout)) {
            Some(MemberState::Up | MemberState::Left) => {}
            Some(MemberState::Silent) | None => {
                let timeouts = match self.signs.get(member) {
                    None => 1,
                    Some(sign) if sign.counts(heartbeat_timeout) => sign.timeouts,
                    Some(sign) => (sign.timeouts * 2).min(MAX_SIGN_TIMEOUTS),
                };
                self.signs.insert(member.clone(), Sign { since: Stopwatch::start(), timeouts });
            }
        }
    }

    /// Returns the current lease. `None`: this host has not heard itself for half of the timeout, or shares
    /// its id.
    pub(super) fn lease(&self, heartbeat_timeout: Duration) -> Option<Lease> {
        let heard = self.own.is_some_and(|own| own.elapsed() < heartbeat_timeout / 2);
        (heard && !self.has_duplicate_id(heartbeat_timeout)).then_some(self.lease)
    }

    /// Returns whether another process with this host's id is up.
    pub(super) fn has_duplicate_id(&self, heartbeat_timeout: Duration) -> bool {
        self.duplicate_id_seen.is_some_and(|seen| seen.elapsed() < heartbeat_timeout)
    }

    /// Returns the members that are up. Forgets those that have been gone for long.
    fn members(&mut self, heartbeat_timeout: Duration) -> Members {
        self.heard.retain(|_, heard| heard.since.elapsed() < heartbeat_timeout.max(LISTED));
        let up = self.heard.iter().filter(|(_, heard)| heard.state(heartbeat_timeout) == MemberState::Up);
        let seen = self.signs.iter().filter(|(_, sign)| sign.counts(heartbeat_timeout));
        Members {
            up: up.map(|(id, _)| id).chain(seen.map(|(id, _)| id)).cloned().collect(),
            lease: self.lease(heartbeat_timeout),
            listened: self.leased.is_some_and(|leased| leased.elapsed() >= heartbeat_timeout),
        }
    }
}

impl Cluster {
    /// Sends heartbeats until this host leaves.
    pub(super) async fn send_heartbeats(self) {
        let Some(sharing) = &self.0.sharing else { return };
        let mut heartbeats = interval(sharing.interval());
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !sharing.leaving.load(Ordering::Relaxed) {
            self.publish_heartbeat(sharing).await;
            tokio::select! {
                _ = heartbeats.tick() => {}
                () = sharing.due.notified() => {}
            }
        }
    }

    /// Publishes one heartbeat, once this host is announced.
    pub(super) async fn publish_heartbeat(&self, sharing: &Sharing) {
        let Some(describe) = self.0.describe.get() else { return };
        let leaving = sharing.leaving.load(Ordering::Relaxed);
        let heartbeat = Heartbeat { member: describe(), process: self.0.process, leaving };
        match serde_json::to_vec(&heartbeat) {
            // Err: the connection is closed, so the other members miss the heartbeat.
            Ok(text) => drop(sharing.client.publish(sharing.subject.clone(), text.into()).await),
            Err(error) => {
                tracing::error!(error = %Chain(&error), "failed to write a heartbeat; its sagas may move");
            }
        }
    }

    /// Receives the heartbeats of all members, and checks which members are up.
    pub(super) async fn receive_heartbeats(self, mut heartbeats: Subscriber) {
        let Some(sharing) = &self.0.sharing else { return };
        let mut checks = interval(sharing.interval());
        loop {
            tokio::select! {
                message = heartbeats.next() => {
                    let Some(message) = message else { return };
                    match serde_json::from_slice(&message.payload) {
                        Ok(heartbeat) => self.hear(heartbeat, sharing),
                        Err(error) => tracing::warn!(error = %Chain(&error), "ignoring malformed heartbeat"),
                    }
                }
                _ = checks.tick() => {}
            }
            self.update_members(sharing);
        }
    }

    fn hear(&self, Heartbeat { member, process, leaving }: Heartbeat, sharing: &Sharing) {
        let mut observed = self.observed();
        if member.id == self.0.me {
            match process == self.0.process {
                true => observed.hear_own(sharing.heartbeat_timeout),
                false => observed.duplicate_id_seen = Some(Stopwatch::start()),
            }
        }
        observed.signs.remove(&member.id);
        let heard = Heard { member, since: Stopwatch::start(), left: leaving };
        observed.heard.insert(heard.member.id.clone(), heard);
    }

    /// Notes that another host has just taken a saga, by its entry in the log: it counts as up although its
    /// heartbeats may not arrive here.
    pub(crate) fn seen_in_log(&self, member: &NodeId) {
        if let Some(sharing) = &self.0.sharing {
            self.observed().see_in_log(member, sharing.heartbeat_timeout);
            self.update_members(sharing);
        }
    }

    /// Notifies the subscribers of [`Cluster::changed`] if the members have changed.
    fn update_members(&self, sharing: &Sharing) {
        let members = self.observed().members(sharing.heartbeat_timeout);
        self.0.members.send_if_modified(|before| {
            let changed = *before != members;
            if before.up != members.up {
                tracing::info!(
                    hosts = members.up.len(),
                    "the members of the cluster have changed; sagas may move"
                );
            }
            *before = members;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_hears_itself_has_a_lease_until_another_process_has_its_id() {
        let timeout = Duration::from_secs(60);
        let mut observed = Observed::default();
        assert_eq!(observed.lease(timeout), None);
        observed.hear_own(timeout);
        observed.hear_own(timeout);
        assert_eq!(observed.lease(timeout), Some(Lease(1)));
        observed.duplicate_id_seen = Some(Stopwatch::start());
        assert_eq!(observed.lease(timeout), None);
    }

    /// Two hosts that reach the log, but not each other.
    #[test]
    fn a_member_that_takes_sagas_counts_as_up_and_each_time_for_longer() {
        let timeout = Duration::from_secs(60);
        let member = NodeId::from("b");
        let mut observed = Observed::default();
        assert!(observed.members(timeout).up.is_empty());
        for timeouts in [1, 2, 4, 8, 16, 32, 64, 64] {
            // Whatever was seen before counts no more.
            observed.see_in_log(&member, Duration::ZERO);
            assert!(observed.members(Duration::ZERO).up.is_empty());
            assert!(observed.members(timeout).up.contains(&member));
            // Another append while it counts does not double the time.
            observed.see_in_log(&member, timeout);
            assert_eq!(observed.signs[&member].timeouts, timeouts);
        }
    }
}
