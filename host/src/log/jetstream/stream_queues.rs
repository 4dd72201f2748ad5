//! The order of the appends of this process. Those to one event stream go out one after another, as each is bound to the
//! sequence of the one before; what waits meanwhile and builds on one another goes out together, in one message. Those to
//! different streams do not wait for each other.

use std::collections::{HashMap, HashSet, VecDeque};

use quick_cache::unsync::Cache;
use tokio::sync::oneshot;

use super::Sequence;
use crate::log::{Append, AppendChain, AppendError, Appended};
use crate::model::{StreamId, Version};

/// Appends that may wait: as many as the embedded log lets wait.
const MAX_WAITING: usize = 4_096;
/// Appends in one message. More would only make the first of them wait longer.
const MAX_GROUP: usize = 256;
/// Bytes of payload at which a message takes no further append: half of what a server takes by default.
const MAX_BYTES: usize = 512 << 10;
/// Lineages of which something has failed that are remembered: far more than callers who have not been told yet.
const MAX_FAILED: usize = 65_536;
/// Streams whose heads are remembered, so that the leader need not be asked: about 10 MB.
const MAX_HEADS: usize = 65_536;

pub(super) struct Request {
    pub(super) chain: AppendChain,
    pub(super) batch: Vec<Append>,
    pub(super) reply: oneshot::Sender<Result<Appended, AppendError>>,
}

impl Request {
    /// Its event streams, each once.
    fn streams(&self) -> Vec<StreamId> {
        let mut seen = HashSet::new();
        let streams = self.batch.iter().map(|append| &append.stream);
        streams.filter(|stream| seen.insert(*stream)).cloned().collect()
    }

    pub(super) fn events(&self) -> usize {
        self.batch.iter().map(|append| append.events.len()).sum()
    }

    fn bytes(&self) -> usize {
        let events = self.batch.iter().flat_map(|append| &append.events);
        events.map(|event| event.payload.as_str().len()).sum()
    }
}

/// What goes out at once: several requests for one stream, each on top of the one before, or one for several streams.
pub(super) struct Group {
    pub(super) requests: Vec<Request>,
    pub(super) streams: Vec<StreamId>,
}

impl Group {
    /// The same for all of its requests.
    fn chain(&self) -> Option<AppendChain> {
        self.requests.first().map(|first| first.chain)
    }
}

/// Where an event stream ends, and with which message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) version: Version,
    pub(super) sequence: Sequence,
}

type Ticket = u64;

pub(super) struct Lanes {
    waiting: HashMap<Ticket, Waiting>,
    next_ticket: Ticket,
    lanes: HashMap<StreamId, Lane>,
    heads: Cache<StreamId, Head>,
    failed: Cache<AppendChain, AppendError>,
}

struct Waiting {
    request: Request,
    /// Those of the request.
    streams: Vec<StreamId>,
}

#[derive(Default)]
struct Lane {
    queue: VecDeque<Ticket>,
    /// Whether a group is on its way.
    busy: bool,
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            next_ticket: 0,
            lanes: HashMap::new(),
            heads: Cache::new(MAX_HEADS),
            failed: Cache::new(MAX_FAILED),
        }
    }
}

impl Lanes {
    /// Gives a request its place. Returns the group that can go out now, if there is one; the request itself if too many
    /// wait.
    pub(super) fn push(&mut self, request: Request) -> Result<Option<Group>, Request> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(request);
        }
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let streams = request.streams();
        for stream in &streams {
            self.lanes.entry(stream.clone()).or_default().queue.push_back(ticket);
        }
        let first = streams.first().cloned();
        self.waiting.insert(ticket, Waiting { request, streams });
        Ok(first.and_then(|first| self.take(&first)))
    }

    /// Why an earlier append of a group's chain has failed, if one has.
    pub(super) fn failure(&mut self, group: &Group) -> Option<AppendError> {
        self.failed.get(&group.chain()?).cloned()
    }

    /// Nothing has come of a group: what builds on it is to fail, and where its streams end is to be asked for.
    pub(super) fn fail(&mut self, group: &Group, error: &AppendError) {
        group.streams.iter().for_each(|stream| drop(self.heads.remove(stream)));
        if let Some(chain) = group.chain() {
            self.failed.insert(chain, error.clone());
        }
    }

    /// What was sent to these streams has got its sequence or will get none. Returns the groups that can go out now.
    pub(super) fn done(&mut self, streams: &[StreamId]) -> Vec<Group> {
        for stream in streams {
            if let Some(lane) = self.lanes.get_mut(stream) {
                lane.busy = false;
            }
        }
        let ready = streams.iter().filter_map(|stream| self.take(stream)).collect();
        for stream in streams {
            if self.lanes.get(stream).is_some_and(|lane| !lane.busy && lane.queue.is_empty()) {
                self.lanes.remove(stream);
            }
        }
        ready
    }

    /// Where a stream ended when this process wrote to it last, or asked for it.
    pub(super) fn head(&mut self, stream: &StreamId) -> Option<Head> {
        self.heads.get(stream).copied()
    }

    pub(super) fn remember(&mut self, stream: &StreamId, head: Head) {
        self.heads.insert(stream.clone(), head);
    }

    /// The request at the front of a stream, and those that go with it.
    fn take(&mut self, stream: &StreamId) -> Option<Group> {
        let ticket = *self.lanes.get(stream)?.queue.front()?;
        let streams = self.waiting.get(&ticket)?.streams.clone();
        let ready = |stream| {
            self.lanes.get(stream).is_some_and(|lane| !lane.busy && lane.queue.front() == Some(&ticket))
        };
        if !streams.iter().all(ready) {
            return None;
        }
        let mut requests = Vec::new();
        match &streams[..] {
            [only] => self.take_chain(only, &mut requests),
            several => {
                for stream in several {
                    self.lanes.get_mut(stream)?.queue.pop_front();
                }
                requests.extend(self.waiting.remove(&ticket).map(|waiting| waiting.request));
            }
        }
        for stream in &streams {
            self.lanes.get_mut(stream)?.busy = true;
        }
        Some(Group { requests, streams })
    }

    /// Requests for one stream as long as each expects what the one before leaves.
    fn take_chain(&mut self, stream: &StreamId, requests: &mut Vec<Request>) {
        let Some(lane) = self.lanes.get_mut(stream) else { return };
        let (mut bytes, mut version) = (0, None);
        while let Some(waiting) = lane.queue.front().and_then(|ticket| self.waiting.get(ticket)) {
            let Waiting { request, streams } = waiting;
            let related = requests.first().is_some_and(|first| first.chain == request.chain);
            let chained = version == request.batch.first().map(|first| first.expected);
            let size = request.bytes();
            let full = requests.len() >= MAX_GROUP || bytes + size > MAX_BYTES;
            if !requests.is_empty() && (streams.len() > 1 || !related || !chained || full) {
                return;
            }
            bytes += size;
            let leaves = |last: &Append| last.expected.after(last.events.len());
            version = request.batch.last().map(leaves);
            let ticket = lane.queue.pop_front();
            let taken = ticket.and_then(|ticket| self.waiting.remove(&ticket));
            requests.extend(taken.map(|waiting| waiting.request));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::model::{Json, NewEvent};

    /// One event for each stream, on top of a version.
    fn request(chain: AppendChain, appends: &[(&str, u64)]) -> Request {
        let event = NewEvent { name: "done".into(), payload: Json::empty_object() };
        let append = |(id, expected): &(&str, u64)| Append {
            events: vec![event.clone()],
            ..Append::nothing(stream(id), Version::new(*expected))
        };
        Request { chain, batch: appends.iter().map(append).collect(), reply: oneshot::channel().0 }
    }

    fn stream(id: &str) -> StreamId {
        StreamId::new("thing", id).unwrap()
    }

    /// A group as its appends: stream and expected version.
    fn told(group: &Group) -> String {
        let appends = group.requests.iter().flat_map(|request| &request.batch);
        let told = appends.map(|append| format!("{}{}", append.stream.id(), append.expected));
        told.collect::<Vec<_>>().join(" ")
    }

    /// One for the whole test.
    fn ours() -> AppendChain {
        static OURS: LazyLock<AppendChain> = LazyLock::new(AppendChain::new);
        *OURS
    }

    fn push(lanes: &mut Lanes, appends: &[(&str, u64)]) -> Option<String> {
        push_in(ours(), lanes, appends)
    }

    fn push_in(chain: AppendChain, lanes: &mut Lanes, appends: &[(&str, u64)]) -> Option<String> {
        let Ok(group) = lanes.push(request(chain, appends)) else { panic!("too many wait") };
        group.as_ref().map(told)
    }

    fn done(lanes: &mut Lanes, streams: &[&str]) -> Vec<String> {
        let streams = streams.iter().map(|id| stream(id)).collect::<Vec<_>>();
        lanes.done(&streams).iter().map(told).collect()
    }

    #[test]
    fn what_waits_for_a_stream_goes_out_together() {
        let mut lanes = Lanes::default();
        assert_eq!(push(&mut lanes, &[("a", 0)]).as_deref(), Some("a0"));
        for version in 1..4 {
            assert_eq!(push(&mut lanes, &[("a", version)]), None);
        }
        assert_eq!(push(&mut lanes, &[("b", 7)]).as_deref(), Some("b7"), "other streams do not wait");
        assert_eq!(done(&mut lanes, &["a"]), ["a1 a2 a3"]);
        assert_eq!(done(&mut lanes, &["a"]), [""; 0]);
        assert_eq!(push(&mut lanes, &[("a", 4)]).as_deref(), Some("a4"));
    }

    #[test]
    fn what_is_not_on_top_of_the_one_before_goes_out_after_it() {
        let mut lanes = Lanes::default();
        push(&mut lanes, &[("a", 0)]);
        for version in [1, 9, 2] {
            push(&mut lanes, &[("a", version)]);
        }
        assert_eq!(done(&mut lanes, &["a"]), ["a1"]);
        assert_eq!(done(&mut lanes, &["a"]), ["a9"]);
        assert_eq!(done(&mut lanes, &["a"]), ["a2"]);
    }

    #[test]
    fn what_builds_on_something_else_shares_no_fate() {
        let mut lanes = Lanes::default();
        push(&mut lanes, &[("a", 0)]);
        push(&mut lanes, &[("a", 1)]);
        push_in(AppendChain::new(), &mut lanes, &[("a", 2)]);
        assert_eq!(done(&mut lanes, &["a"]), ["a1"]);
        assert_eq!(done(&mut lanes, &["a"]), ["a2"]);
    }

    #[test]
    fn what_builds_on_something_that_failed_fails_too() {
        let mut lanes = Lanes::default();
        let Ok(Some(first)) = lanes.push(request(ours(), &[("a", 0)])) else { panic!("it can go out") };
        lanes.fail(&first, &AppendError::Busy);
        lanes.done(&first.streams);
        let Ok(Some(second)) = lanes.push(request(ours(), &[("a", 1)])) else { panic!("it can go out") };
        assert!(matches!(lanes.failure(&second), Some(AppendError::Busy)));
        lanes.done(&second.streams);
        let Ok(Some(other)) = lanes.push(request(AppendChain::new(), &[("a", 1)])) else {
            panic!("it can go out")
        };
        assert!(lanes.failure(&other).is_none());
    }

    #[test]
    fn what_is_for_several_streams_waits_for_all_of_them_and_goes_alone() {
        let mut lanes = Lanes::default();
        push(&mut lanes, &[("a", 0)]);
        assert_eq!(push(&mut lanes, &[("b", 0), ("a", 1)]), None);
        assert_eq!(push(&mut lanes, &[("b", 1)]), None, "it keeps its place in each stream");
        assert_eq!(push(&mut lanes, &[("a", 2)]), None);
        assert_eq!(done(&mut lanes, &["a"]), ["b0 a1"]);
        assert_eq!(done(&mut lanes, &["b", "a"]), ["b1", "a2"]);
        assert_eq!(done(&mut lanes, &["a", "b"]), [""; 0]);
        assert!(lanes.lanes.is_empty() && lanes.waiting.is_empty(), "nothing is left behind");
    }

    #[test]
    fn there_is_a_limit() {
        let mut lanes = Lanes::default();
        push(&mut lanes, &[("a", 0)]);
        for version in 1..=MAX_WAITING as u64 {
            push(&mut lanes, &[("a", version)]);
        }
        assert!(lanes.push(request(ours(), &[("a", 0)])).is_err());
        assert_eq!(lanes.done(&[stream("a")])[0].requests.len(), MAX_GROUP);
    }
}
