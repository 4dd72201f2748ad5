//! The queue of appends of this process. All that wait go out together, in one message; the next message
//! gathers what comes in while that one is under way. With two under way each would have half as many
//! appends, and the servers' work comes with the messages. The copies find out if an append fits, in the
//! order of the stream. So an append is published once the outcome of everything that it builds on is
//! known, or in the same message behind it, where the copies refuse it if that is refused.

use std::collections::{HashMap, HashSet, VecDeque};

use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::setup::LEAST_PAYLOAD;
use super::{Sequence, wire};
use crate::log::failed_chains::FailedChains;
use crate::log::{Append, AppendError, Footing, Outcome};
use crate::model::{AppendChain, StreamId};

/// The largest number of waiting appends: the same as that of the embedded log.
const MAX_WAITING: usize = 4_096;
/// The largest number of appends in one message. More would only make the first of them wait longer.
const MAX_GROUP: usize = 1_024;
/// The largest encoded size of the appends in one message, unless one of them alone is larger: half of what
/// every server accepts, so that appends which fit one by one never fail together.
const MAX_BYTES: usize = LEAST_PAYLOAD / 2;

/// A batch to append.
pub(super) struct Request {
    pub(super) footing: Footing,
    pub(super) batch: Vec<Append>,
    /// The batch as it stands in a message. `None`: nothing is published for it, its versions are confirmed.
    pub(super) encoded: Option<Box<RawValue>>,
    /// True if later appends of other hosts that were begun before are to be refused.
    pub(super) fence: bool,
    /// The last message in the copy when the request was made.
    pub(super) begun: Sequence,
    pub(super) reply: oneshot::Sender<Outcome>,
}

impl Request {
    /// Returns a request, and the receiver of its outcome.
    pub(super) fn new(
        footing: Footing,
        batch: Vec<Append>,
        fence: bool,
        begun: Sequence,
    ) -> serde_json::Result<(Self, oneshot::Receiver<Outcome>)> {
        let writes = fence || batch.iter().any(Append::writes);
        let encoded = writes.then(|| wire::encode_batch(&batch)).transpose()?;
        let (reply, outcome) = oneshot::channel();
        Ok((Self { footing, batch, encoded, fence, begun, reply }, outcome))
    }

    pub(super) fn kind(&self) -> Kind {
        if self.encoded.is_some() { Kind::Publish } else { Kind::Confirm }
    }

    /// Returns the bytes that it takes in a message.
    fn bytes(&self) -> usize {
        self.encoded.as_ref().map_or(0, |encoded| encoded.get().len())
    }

    fn streams(&self) -> impl Iterator<Item = &StreamId> {
        self.batch.iter().map(|append| &append.stream)
    }
}

/// The two ways of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// It becomes a part of a message.
    Publish,
    /// The leader is asked whether the versions are the newest.
    Confirm,
}

/// Requests that are processed together.
pub(super) struct Group {
    pub(super) kind: Kind,
    pub(super) requests: Vec<Request>,
}

/// The appends that wait, and what those under way are on.
#[derive(Default)]
pub(super) struct Outgoing {
    waiting: VecDeque<Request>,
    /// The kinds of which a group is under way.
    under_way: HashSet<Kind>,
    /// The streams of these groups.
    streams: HashSet<StreamId>,
    /// The chains of these groups.
    chains: HashSet<AppendChain>,
    failed: FailedChains,
}

/// A group that is being gathered, and what stays behind.
struct Gathering {
    kind: Kind,
    requests: Vec<Request>,
    bytes: usize,
    /// The streams of the group, each with the chain of its appends.
    streams: HashMap<StreamId, AppendChain>,
    /// The streams and the chains of the requests that stay behind, which later ones must not overtake.
    passed_streams: HashSet<StreamId>,
    passed_chains: HashSet<AppendChain>,
}

impl Gathering {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            requests: Vec::new(),
            bytes: 0,
            streams: HashMap::new(),
            passed_streams: HashSet::new(),
            passed_chains: HashSet::new(),
        }
    }

    fn is_full(&self) -> bool {
        self.requests.len() >= MAX_GROUP || self.bytes >= MAX_BYTES
    }

    /// Takes a request into the group if it may go out now, or leaves it behind.
    fn offer(&mut self, request: Request, outgoing: &Outgoing) -> Option<Request> {
        let size = request.bytes();
        let fits = self.requests.is_empty() || self.bytes + size <= MAX_BYTES;
        if request.kind() == self.kind && fits && !self.is_full() && self.may_go(&request, outgoing) {
            self.bytes += size;
            let chain = request.footing.chain;
            self.streams.extend(request.streams().map(|stream| (stream.clone(), chain)));
            self.requests.push(request);
            return None;
        }
        self.passed_streams.extend(request.streams().cloned());
        self.passed_chains.insert(request.footing.chain);
        Some(request)
    }

    /// Returns false if a request builds on something that is under way or stays behind, or would be in a
    /// group with appends of another chain to its stream.
    fn may_go(&self, request: &Request, outgoing: &Outgoing) -> bool {
        let Footing { chain, stands_on } = request.footing;
        let chain_is_free =
            |chain: &AppendChain| !outgoing.chains.contains(chain) && !self.passed_chains.contains(chain);
        let stream_is_free = |stream: &StreamId| {
            !outgoing.streams.contains(stream)
                && !self.passed_streams.contains(stream)
                && self.streams.get(stream).is_none_or(|other| *other == chain)
        };
        chain_is_free(&chain) && stands_on.iter().all(chain_is_free) && request.streams().all(stream_is_free)
    }
}

impl Outgoing {
    /// Queues a request. Returns false if it has to wait for one that is under way. Fails if too many are
    /// waiting, or if the request builds on one that has failed.
    pub(super) fn push(&mut self, request: Request) -> Result<bool, AppendError> {
        if self.waiting.len() >= MAX_WAITING {
            return Err(AppendError::Busy);
        }
        self.check(request.footing)?;
        let Footing { chain, stands_on } = request.footing;
        let held = request.streams().any(|stream| self.streams.contains(stream))
            || stands_on.iter().chain([&chain]).any(|chain| self.chains.contains(chain));
        self.waiting.push_back(request);
        Ok(!held)
    }

    /// Takes the requests of a kind that can be processed now. Replies to those that build on a failed one.
    pub(super) fn take(&mut self, kind: Kind) -> Option<Group> {
        if self.under_way.contains(&kind) {
            return None;
        }
        let mut gathering = Gathering::new(kind);
        let mut left = VecDeque::new();
        while !gathering.is_full()
            && let Some(request) = self.waiting.pop_front()
        {
            match self.check(request.footing) {
                Ok(()) => left.extend(gathering.offer(request, self)),
                // Err: nobody waits any more.
                Err(error) => drop(request.reply.send(Err(error))),
            }
        }
        left.append(&mut self.waiting);
        self.waiting = left;
        let Gathering { requests, streams, .. } = gathering;
        if requests.is_empty() {
            return None;
        }
        self.under_way.insert(kind);
        self.streams.extend(streams.into_keys());
        self.chains.extend(requests.iter().map(|request| request.footing.chain));
        Some(Group { kind, requests })
    }

    /// Records that a group has its outcomes.
    pub(super) fn done(&mut self, group: &Group, outcomes: &[Outcome]) {
        self.under_way.remove(&group.kind);
        for (request, outcome) in group.requests.iter().zip(outcomes) {
            for stream in request.streams() {
                self.streams.remove(stream);
            }
            self.chains.remove(&request.footing.chain);
            if outcome.is_err() {
                self.failed.insert(request.footing.chain);
            }
        }
    }

    /// Fails if an earlier append has failed that one with this footing builds on.
    fn check(&mut self, footing: Footing) -> Result<(), AppendError> {
        self.failed.check(footing).inspect_err(|_| self.failed.insert(footing.chain))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::log::Appended;
    use crate::model::{Json, NewEvent, Position, Version};

    /// Returns a request with one event for each stream, on top of a version.
    fn request(footing: Footing, appends: &[(&str, u64)]) -> Request {
        let event = NewEvent { name: "done".into(), payload: Json::empty_object() };
        let append =
            |(id, expected): &(&str, u64)| Append { events: vec![event.clone()], ..nothing(id, *expected) };
        of(footing, appends.iter().map(append).collect())
    }

    fn of(footing: Footing, batch: Vec<Append>) -> Request {
        Request::new(footing, batch, false, Sequence::START).unwrap().0
    }

    fn nothing(id: &str, expected: u64) -> Append {
        Append::nothing(StreamId::new("thing", id).unwrap(), Version::new(expected))
    }

    fn new() -> Footing {
        AppendChain::new().into()
    }

    /// Returns the chain of all requests of one caller.
    fn ours() -> Footing {
        static OURS: LazyLock<AppendChain> = LazyLock::new(AppendChain::new);
        (*OURS).into()
    }

    /// Returns the appends of a group as text: stream and expected version.
    fn text(group: &Group) -> String {
        let appends = group.requests.iter().flat_map(|request| &request.batch);
        let texts = appends.map(|append| format!("{}{}", append.stream.id(), append.expected));
        texts.collect::<Vec<_>>().join(" ")
    }

    fn take(outgoing: &mut Outgoing) -> (Option<Group>, String) {
        let group = outgoing.take(Kind::Publish);
        let text = group.as_ref().map(text).unwrap_or_default();
        (group, text)
    }

    fn done(outgoing: &mut Outgoing, group: Option<Group>) {
        let group = group.unwrap();
        let kept = Ok(Appended { position: Position::START });
        outgoing.done(&group, &vec![kept; group.requests.len()]);
    }

    #[test]
    fn all_that_waits_goes_out_together_and_nothing_overtakes_what_it_builds_on() {
        let mut outgoing = Outgoing::default();
        assert!(outgoing.push(request(ours(), &[("a", 0)])).unwrap());
        let (first, text) = take(&mut outgoing);
        assert_eq!(text, "a0");
        let on_ours = Footing { stands_on: Some(ours().chain), ..new() };
        for (footing, appends, ready) in [
            (ours(), &[("a", 1)][..], false),
            (new(), &[("b", 0)], true),
            (new(), &[("c", 0), ("d", 0)], true),
            (new(), &[("c", 1)], true),
            (on_ours, &[("e", 0)], false),
            (new(), &[("e", 1)], true),
            (new(), &[("f", 0)], true),
        ] {
            assert_eq!(outgoing.push(request(footing, appends)).unwrap(), ready, "{appends:?}");
        }
        assert_eq!(take(&mut outgoing).1, "", "one is under way");
        done(&mut outgoing, first);
        let (second, text) = take(&mut outgoing);
        // The append that stands on a chain goes out behind it; other chains' for c and e stay behind.
        assert_eq!(text, "a1 b0 c0 d0 e0 f0");
        done(&mut outgoing, second);
        let (third, text) = take(&mut outgoing);
        assert_eq!(text, "c1 e1");
        done(&mut outgoing, third);
        assert!(outgoing.waiting.is_empty());
    }

    #[test]
    fn what_writes_nothing_is_confirmed_behind_the_appends_before_it() {
        let mut outgoing = Outgoing::default();
        let fence = Request::new(new(), vec![nothing("c", 4)], true, Sequence::START).unwrap().0;
        outgoing.push(request(ours(), &[("a", 0)])).unwrap();
        outgoing.push(of(ours(), vec![nothing("a", 1)])).unwrap();
        outgoing.push(of(new(), vec![nothing("b", 3)])).unwrap();
        outgoing.push(fence).unwrap();
        let (published, published_text) = take(&mut outgoing);
        let confirmed = outgoing.take(Kind::Confirm).unwrap();
        assert_eq!((published_text.as_str(), text(&confirmed).as_str()), ("a0 c4", "b3"));
        assert!(outgoing.take(Kind::Confirm).is_none());
        done(&mut outgoing, published);
        assert!(outgoing.take(Kind::Confirm).is_none());
        done(&mut outgoing, Some(confirmed));
        assert_eq!(text(&outgoing.take(Kind::Confirm).unwrap()), "a1");
    }

    #[test]
    fn requests_that_fit_one_by_one_fit_together() {
        let mut outgoing = Outgoing::default();
        let event =
            NewEvent { name: "a-name-that-is-longer-than-its-payload".into(), payload: Json::empty_object() };
        for number in 0..256 {
            let append = Append { events: vec![event.clone(); 100], ..nothing("a", number * 100) };
            outgoing.push(of(ours(), vec![append])).unwrap();
        }
        let mut sizes = Vec::new();
        while let (Some(group), _) = take(&mut outgoing) {
            sizes.push(wire::encode(&group.requests).unwrap().len());
            done(&mut outgoing, Some(group));
        }
        assert!(sizes.len() > 1 && sizes.iter().all(|size| *size < LEAST_PAYLOAD), "{sizes:?}");
    }

    #[test]
    fn what_builds_on_a_failed_request_fails_too() {
        let mut outgoing = Outgoing::default();
        outgoing.push(request(ours(), &[("a", 0)])).unwrap();
        let (first, _) = take(&mut outgoing);
        let first = first.unwrap();
        let (reply, mut waiting) = oneshot::channel();
        assert!(!outgoing.push(Request { reply, ..request(ours(), &[("a", 1)]) }).unwrap());
        outgoing.done(&first, &[Err(AppendError::Busy)]);
        assert_eq!(take(&mut outgoing).1, "");
        assert!(matches!(waiting.try_recv(), Ok(Err(AppendError::Discarded))));

        let refused = |pushed| if let Err(error) = pushed { error } else { panic!("it is queued") };
        let again = outgoing.push(request(ours(), &[("a", 1)]));
        assert!(matches!(refused(again), AppendError::Discarded));
        let on_ours = Footing { stands_on: Some(ours().chain), ..new() };
        let stands = outgoing.push(request(on_ours, &[("b", 0)]));
        assert!(matches!(refused(stands), AppendError::Unfounded));
        assert!(outgoing.push(request(new(), &[("a", 1)])).unwrap());
    }

    #[test]
    fn the_number_of_waiting_requests_is_limited() {
        let mut outgoing = Outgoing::default();
        for version in 0..MAX_WAITING as u64 {
            outgoing.push(request(ours(), &[("a", version)])).unwrap();
        }
        assert!(matches!(outgoing.push(request(new(), &[("b", 0)])), Err(AppendError::Busy)));
        assert_eq!(take(&mut outgoing).0.unwrap().requests.len(), MAX_GROUP);
    }
}
