//! Appends that stand on others, and the chain of hashes.

use super::*;

pub(super) async fn an_append_of_nothing_asks_for_the_version(log: Log) {
    let thing = stream("a");
    let nothing = |expected| log.append(vec![append(&thing, expected, 0)]);
    nothing(0).await.expect("there is no such stream");
    assert_conflict(nothing(1).await, "a", 1, 0);
    let position = log.append(vec![append(&thing, 0, 2)]).await.unwrap().position;
    assert_conflict(nothing(0).await, "a", 0, 2);
    // In the order of the calls, including pending appends.
    let ahead = [nothing(2), log.append(vec![append(&thing, 2, 1)]), nothing(3), nothing(3), nothing(2)];
    let [before, written, after, again, late] = futures::future::join_all(ahead).await.try_into().unwrap();
    assert!(before.unwrap().position >= position);
    written.unwrap();
    after.unwrap();
    again.unwrap();
    assert_conflict(late, "a", 2, 3);
    assert_eq!(everything(&*log).await.len(), 3, "nothing has been written");
}

pub(super) async fn an_append_on_top_of_a_failed_one_fails(log: Log) {
    let (thing, chain) = (stream("a"), AppendChain::new());
    log.append(vec![append(&thing, 0, 1)]).await.unwrap();
    // Each of the later ones expects the version that the stream has, as if it stood on another append.
    let wrong = log.append_in(chain, vec![append(&thing, 0, 1)]);
    let ahead = log.append_in(chain, vec![append(&thing, 1, 1)]);
    assert_conflict(wrong.await, "a", 0, 1);
    assert_discarded(ahead.await);
    assert_discarded(log.append_in(chain, vec![append(&thing, 1, 1)]).await);
    assert_discarded(log.append_in(chain, vec![append(&stream("b"), 0, 1)]).await);
    log.append_in(AppendChain::new(), vec![append(&thing, 1, 1)]).await.expect("another chain goes on");
    assert_eq!(everything(&*log).await.len(), 2);
}

pub(super) async fn an_append_that_stands_on_a_failed_one_fails(log: Log) {
    let (journal, stock, chain) = (stream("a"), stream("b"), AppendChain::new());
    let on = |stands_on| Footing { chain, stands_on: Some(stands_on) };
    let written = AppendChain::new();
    log.append_in(written, vec![append(&journal, 0, 1)]).await.unwrap();
    log.append_on(on(written), vec![append(&stock, 0, 1)]).await.expect("the journal is written");

    let failed = AppendChain::new();
    assert_conflict(log.append_in(failed, vec![append(&journal, 0, 1)]).await, "a", 0, 1);
    match log.append_on(on(failed), vec![append(&stock, 1, 1)]).await {
        Err(AppendError::Unfounded) => {}
        other => panic!("an append that stands on a failed one must fail, but: {other:?}"),
    }
    assert_discarded(log.append_in(chain, vec![append(&stock, 1, 1)]).await);
    log.append(vec![append(&stock, 1, 1)]).await.expect("others go on");
}

#[track_caller]
fn assert_discarded(result: Result<kontor::log::Appended, AppendError>) {
    assert!(
        matches!(result, Err(AppendError::Discarded)),
        "an append on top of a failed one must fail, but: {result:?}"
    );
}

pub(super) async fn each_commit_is_linked_to_the_one_before(log: Log) {
    let (a, b) = (stream("a"), stream("b"));
    log.append(vec![append(&a, 0, 3)]).await.unwrap();
    log.append(vec![append(&a, 3, 1), append(&b, 0, 2)]).await.unwrap();
    assert_conflict(log.append(vec![append(&b, 2, 1), append(&a, 9, 1)]).await, "a", 9, 4);
    log.append(vec![append(&b, 2, 2)]).await.unwrap();
    let events = everything(&*log).await;
    assert_linked(&events);

    let same_commit = LogMark { position: events[1].position, hash: events[0].hash };
    for mark in [LogMark::START, events[0].mark(), same_commit, events.last().unwrap().mark()] {
        assert!(log.contains(mark).await.unwrap(), "{mark:?} is of this log");
    }
    let (first, last) = (events[0].mark(), events.last().unwrap().mark());
    for mark in [
        LogMark { hash: first.hash, ..last },
        LogMark { hash: first.hash, ..LogMark::START },
        LogMark { position: last.position.next(), ..last },
        LogMark { position: Position::MAX, ..last },
        LogMark { position: first.position, ..LogMark::START },
    ] {
        assert!(!log.contains(mark).await.unwrap(), "{mark:?} is of another log");
    }
}

/// Checks the hashes of a log that begins with these events.
pub(in crate::log) fn assert_linked(events: &[Recorded]) {
    let mut previous = CommitHash::GENESIS;
    for commit in events.chunk_by(|_, next| next.index > 0) {
        let Recorded { position, stream, version, meta, hash, .. } = &commit[0];
        let mut hasher = CommitHasher::begin(previous, *position, stream, *version, meta);
        for event in commit {
            assert_eq!(event.hash, *hash, "all events of a commit have its hash");
            hasher.event(event.name.as_str(), event.payload.as_str());
        }
        assert_eq!(hasher.finish(), *hash, "the commit at position {position} is linked to the one before");
        previous = *hash;
    }
}
