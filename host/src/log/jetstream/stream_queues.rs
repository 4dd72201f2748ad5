//! The queues of appends of this process, one for each event stream. Appends to one stream are published one
//! after another, because each expects the sequence of the one before. Waiting appends that build on each
//! other are published together, in one message. Appends to different streams do not wait for each other.

use std::collections::{HashMap, HashSet, VecDeque};

use quick_cache::unsync::Cache;
use tokio::sync::oneshot;

use super::setup::LEAST_PAYLOAD;
use super::{Sequence, wire};
use crate::log::failed_chains::FailedChains;
use crate::log::{Append, AppendError, Appended, Footing};
use crate::model::{AppendChain, StreamId, Version};

/// The largest number of waiting appends: the same as that of the embedded log.
const MAX_WAITING: usize = 4_096;
/// The largest number of appends in one message. More would only make the first of them wait longer.
const MAX_GROUP: usize = 256;
/// The largest encoded size of the appends in one message, unless one of them alone is larger: half of what
/// every server accepts, so that appends which fit one by one never fail together.
const MAX_BYTES: usize = LEAST_PAYLOAD / 2;
/// The number of streams whose heads are cached, so that the leader need not be asked: about 10 MB.
const MAX_HEADS: usize = 65_536;

/// A batch to append.
pub(super) struct Request {
    pub(super) footing: Footing,
    pub(super) batch: Vec<Append>,
    /// True if a message is published even if there are no events.
    pub(super) fence: bool,
    /// The last message in the copy when the request was made.
    pub(super) begun: Sequence,
    pub(super) reply: oneshot::Sender<Result<Appended, AppendError>>,
}

impl Request {
    /// Returns its event streams, each once.
    fn streams(&self) -> Vec<StreamId> {
        let mut seen = HashSet::new();
        let streams = self.batch.iter().map(|append| &append.stream);
        streams.filter(|stream| seen.insert(*stream)).cloned().collect()
    }

    /// Returns whether a message must be published for it.
    pub(super) fn writes(&self) -> bool {
        self.fence || self.batch.iter().any(Append::writes)
    }

    /// Returns the number of its events.
    pub(super) fn events(&self) -> usize {
        self.batch.iter().map(|append| append.events.len()).sum()
    }

    /// Returns the bytes that it takes in a message.
    fn bytes(&self) -> usize {
        self.batch.iter().map(wire::encoded_len).sum()
    }
}

/// Requests that are published together: several for one stream, each on top of the one before, or one for
/// several streams.
pub(super) struct Group {
    pub(super) requests: Vec<Request>,
    pub(super) streams: Vec<StreamId>,
}

impl Group {
    /// Returns the last message in the copy when its first request was made.
    pub(super) fn begun(&self) -> Sequence {
        self.requests.first().map_or(Sequence::START, |first| first.begun)
    }

    /// Returns the chain, which is the same for all requests of the group.
    fn chain(&self) -> Option<AppendChain> {
        self.requests.first().map(|first| first.footing.chain)
    }
}

/// The end of an event stream: its version, and its last message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) version: Version,
    pub(super) sequence: Sequence,
}

/// The number of a waiting request.
type Ticket = u64;

/// The queues of all event streams that have waiting or published appends.
pub(super) struct StreamQueues {
    waiting: HashMap<Ticket, Waiting>,
    next_ticket: Ticket,
    by_stream: HashMap<StreamId, StreamQueue>,
    heads: Cache<StreamId, Head>,
    failed: FailedChains,
}

struct Waiting {
    request: Request,
    /// The streams of the request.
    streams: Vec<StreamId>,
}

/// The appends to one event stream, in their order.
#[derive(Default)]
struct StreamQueue {
    /// The waiting requests.
    tickets: VecDeque<Ticket>,
    /// True while a published group has no sequence yet.
    busy: bool,
}

impl Default for StreamQueues {
    fn default() -> Self {
        Self {
            waiting: HashMap::new(),
            next_ticket: 0,
            by_stream: HashMap::new(),
            heads: Cache::new(MAX_HEADS),
            failed: FailedChains::default(),
        }
    }
}

impl StreamQueues {
    /// Queues a request. Returns the group that can be published now, if there is one. Fails if too many are
    /// waiting, or if the request stands on a chain that has failed.
    pub(super) fn push(&mut self, request: Request) -> Result<Option<Group>, AppendError> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(AppendError::Busy);
        }
        self.failed.check(request.footing).inspect_err(|_| self.failed.insert(request.footing.chain))?;
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let streams = request.streams();
        for stream in &streams {
            self.by_stream.entry(stream.clone()).or_default().tickets.push_back(ticket);
        }
        let first = streams.first().cloned();
        self.waiting.insert(ticket, Waiting { request, streams });
        Ok(first.and_then(|first| self.take(&first)))
    }

    /// Fails if an earlier append of the group's chain has failed.
    pub(super) fn check(&self, group: &Group) -> Result<(), AppendError> {
        group.chain().map_or(Ok(()), |chain| self.failed.check(chain.into()))
    }

    /// Records that a group has failed. Later appends of its chain fail too, and the leader must be asked for
    /// the ends of its streams.
    pub(super) fn fail(&mut self, group: &Group) {
        group.streams.iter().for_each(|stream| drop(self.heads.remove(stream)));
        if let Some(chain) = group.chain() {
            self.failed.insert(chain);
        }
    }

    /// Records that the group that was published to these streams has its sequence, or will never have one.
    /// Returns the groups that can be published now.
    pub(super) fn done(&mut self, streams: &[StreamId]) -> Vec<Group> {
        for stream in streams {
            if let Some(queue) = self.by_stream.get_mut(stream) {
                queue.busy = false;
            }
        }
        let ready = streams.iter().filter_map(|stream| self.take(stream)).collect();
        for stream in streams {
            if self.by_stream.get(stream).is_some_and(|queue| !queue.busy && queue.tickets.is_empty()) {
                self.by_stream.remove(stream);
            }
        }
        ready
    }

    /// Returns the end of a stream as of this process's last append to it or request for it.
    pub(super) fn head(&mut self, stream: &StreamId) -> Option<Head> {
        self.heads.get(stream).copied()
    }

    /// Caches the end of a stream.
    pub(super) fn remember(&mut self, stream: &StreamId, head: Head) {
        self.heads.insert(stream.clone(), head);
    }

    /// Takes the request at the front of a stream's queue, with those that can be published together with it.
    fn take(&mut self, stream: &StreamId) -> Option<Group> {
        let ticket = *self.by_stream.get(stream)?.tickets.front()?;
        let streams = self.waiting.get(&ticket)?.streams.clone();
        let ready = |stream| {
            self.by_stream
                .get(stream)
                .is_some_and(|queue| !queue.busy && queue.tickets.front() == Some(&ticket))
        };
        if !streams.iter().all(ready) {
            return None;
        }
        let mut requests = Vec::new();
        match &streams[..] {
            [only] => self.take_chain(only, &mut requests),
            several => {
                for stream in several {
                    self.by_stream.get_mut(stream)?.tickets.pop_front();
                }
                requests.extend(self.waiting.remove(&ticket).map(|waiting| waiting.request));
            }
        }
        for stream in &streams {
            self.by_stream.get_mut(stream)?.busy = true;
        }
        Some(Group { requests, streams })
    }

    /// Takes requests for one stream as long as each expects the version that the one before leaves.
    fn take_chain(&mut self, stream: &StreamId, requests: &mut Vec<Request>) {
        let Some(queue) = self.by_stream.get_mut(stream) else { return };
        let (mut bytes, mut version) = (0, None);
        while let Some(waiting) = queue.tickets.front().and_then(|ticket| self.waiting.get(ticket)) {
            let Waiting { request, streams } = waiting;
            let related = requests.first().is_some_and(|first| first.footing.chain == request.footing.chain);
            let chained = version == request.batch.first().map(|first| first.expected);
            let size = request.bytes();
            let full = requests.len() >= MAX_GROUP || bytes + size > MAX_BYTES;
            if !requests.is_empty() && (streams.len() > 1 || !related || !chained || full) {
                return;
            }
            bytes += size;
            let leaves = |last: &Append| last.expected.after(last.events.len());
            version = request.batch.last().map(leaves);
            let ticket = queue.tickets.pop_front();
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

    /// Returns a request with one event for each stream, on top of a version.
    fn request(chain: AppendChain, appends: &[(&str, u64)]) -> Request {
        let event = NewEvent { name: "done".into(), payload: Json::empty_object() };
        let append = |(id, expected): &(&str, u64)| Append {
            events: vec![event.clone()],
            ..Append::nothing(stream(id), Version::new(*expected))
        };
        let footing = chain.into();
        Request {
            footing,
            batch: appends.iter().map(append).collect(),
            fence: false,
            begun: Sequence::START,
            reply: oneshot::channel().0,
        }
    }

    fn stream(id: &str) -> StreamId {
        StreamId::new("thing", id).unwrap()
    }

    /// Returns the appends of a group as text: stream and expected version.
    fn text(group: &Group) -> String {
        let appends = group.requests.iter().flat_map(|request| &request.batch);
        let texts = appends.map(|append| format!("{}{}", append.stream.id(), append.expected));
        texts.collect::<Vec<_>>().join(" ")
    }

    /// Returns the chain of all requests in these tests.
    fn ours() -> AppendChain {
        static OURS: LazyLock<AppendChain> = LazyLock::new(AppendChain::new);
        *OURS
    }

    fn push(queues: &mut StreamQueues, appends: &[(&str, u64)]) -> Option<String> {
        push_in(ours(), queues, appends)
    }

    fn push_in(chain: AppendChain, queues: &mut StreamQueues, appends: &[(&str, u64)]) -> Option<String> {
        let Ok(group) = queues.push(request(chain, appends)) else { panic!("too many are waiting") };
        group.as_ref().map(text)
    }

    fn done(queues: &mut StreamQueues, streams: &[&str]) -> Vec<String> {
        let streams = streams.iter().map(|id| stream(id)).collect::<Vec<_>>();
        queues.done(&streams).iter().map(text).collect()
    }

    #[test]
    fn requests_that_wait_for_one_stream_are_published_together() {
        let mut queues = StreamQueues::default();
        assert_eq!(push(&mut queues, &[("a", 0)]).as_deref(), Some("a0"));
        for version in 1..4 {
            assert_eq!(push(&mut queues, &[("a", version)]), None);
        }
        assert_eq!(push(&mut queues, &[("b", 7)]).as_deref(), Some("b7"), "other streams do not wait");
        assert_eq!(done(&mut queues, &["a"]), ["a1 a2 a3"]);
        assert_eq!(done(&mut queues, &["a"]), [""; 0]);
        assert_eq!(push(&mut queues, &[("a", 4)]).as_deref(), Some("a4"));
    }

    #[test]
    fn requests_that_fit_one_by_one_fit_together() {
        let mut queues = StreamQueues::default();
        let event =
            NewEvent { name: "a-name-that-is-longer-than-its-payload".into(), payload: Json::empty_object() };
        let large = |expected| {
            let append = Append {
                events: vec![event.clone(); 100],
                ..Append::nothing(stream("a"), Version::new(expected))
            };
            Request { batch: vec![append], ..request(ours(), &[]) }
        };
        for number in 0..256 {
            assert!(queues.push(large(number * 100)).is_ok());
        }
        let mut sizes = Vec::new();
        while let Some(group) = queues.done(&[stream("a")]).pop() {
            let appends = group.requests.iter().flat_map(|request| &request.batch);
            sizes.push(wire::encode(&stream("a"), (1, 1), appends).unwrap().len());
        }
        assert!(sizes.len() > 1 && sizes.iter().all(|size| *size < LEAST_PAYLOAD), "{sizes:?}");
    }

    #[test]
    fn a_request_that_is_not_on_top_of_the_one_before_is_published_after_it() {
        let mut queues = StreamQueues::default();
        push(&mut queues, &[("a", 0)]);
        for version in [1, 9, 2] {
            push(&mut queues, &[("a", version)]);
        }
        assert_eq!(done(&mut queues, &["a"]), ["a1"]);
        assert_eq!(done(&mut queues, &["a"]), ["a9"]);
        assert_eq!(done(&mut queues, &["a"]), ["a2"]);
    }

    #[test]
    fn requests_of_different_chains_are_published_apart() {
        let mut queues = StreamQueues::default();
        push(&mut queues, &[("a", 0)]);
        push(&mut queues, &[("a", 1)]);
        push_in(AppendChain::new(), &mut queues, &[("a", 2)]);
        assert_eq!(done(&mut queues, &["a"]), ["a1"]);
        assert_eq!(done(&mut queues, &["a"]), ["a2"]);
    }

    #[test]
    fn a_request_of_a_chain_that_has_failed_fails_too() {
        let mut queues = StreamQueues::default();
        let Ok(Some(first)) = queues.push(request(ours(), &[("a", 0)])) else {
            panic!("it can be published")
        };
        assert!(matches!(queues.push(request(ours(), &[("a", 1)])), Ok(None)), "it waits for the first");
        queues.fail(&first);
        let second = queues.done(&first.streams).pop().expect("it was waiting");
        assert!(matches!(queues.check(&second), Err(AppendError::Discarded)));
        queues.done(&second.streams);
        assert!(matches!(queues.push(request(ours(), &[("a", 1)])), Err(AppendError::Discarded)));
        let on_ours = Footing { chain: AppendChain::new(), stands_on: Some(ours()) };
        let stands = Request { footing: on_ours, ..request(ours(), &[("b", 0)]) };
        assert!(matches!(queues.push(stands), Err(AppendError::Unfounded)));
        let Ok(Some(other)) = queues.push(request(AppendChain::new(), &[("a", 1)])) else {
            panic!("it can be published")
        };
        assert!(queues.check(&other).is_ok());
    }

    #[test]
    fn a_request_for_several_streams_waits_for_all_of_them_and_is_published_alone() {
        let mut queues = StreamQueues::default();
        push(&mut queues, &[("a", 0)]);
        assert_eq!(push(&mut queues, &[("b", 0), ("a", 1)]), None);
        assert_eq!(push(&mut queues, &[("b", 1)]), None, "it keeps its place in each stream");
        assert_eq!(push(&mut queues, &[("a", 2)]), None);
        assert_eq!(done(&mut queues, &["a"]), ["b0 a1"]);
        assert_eq!(done(&mut queues, &["b", "a"]), ["b1", "a2"]);
        assert_eq!(done(&mut queues, &["a", "b"]), [""; 0]);
        assert!(queues.by_stream.is_empty() && queues.waiting.is_empty(), "nothing is left behind");
    }

    #[test]
    fn the_number_of_waiting_requests_is_limited() {
        let mut queues = StreamQueues::default();
        push(&mut queues, &[("a", 0)]);
        for version in 1..=MAX_WAITING as u64 {
            push(&mut queues, &[("a", version)]);
        }
        assert!(queues.push(request(ours(), &[("a", 0)])).is_err());
        assert_eq!(queues.done(&[stream("a")])[0].requests.len(), MAX_GROUP);
    }
}
