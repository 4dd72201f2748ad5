//! The suite. Each check gets its own log, which is empty at first.

mod chains;

use std::sync::Arc;
use std::time::Duration;

use kontor::log::{Append, AppendError, CommitHasher, EventLog, Footing, KeptAnswer, MAX_PAGE, Subscription};
use kontor::model::{
    AppendChain, CommandId, CommitHash, Json, LogMark, Meta, NewEvent, Position, Recorded, StreamId, Version,
};
use serde_json::json;
use tokio::time::timeout;

pub(super) use self::chains::assert_linked;
use super::{append, append_as, everything, happened, stream, whole_stream};

type Log = Arc<dyn EventLog>;

/// The time limit of one check: far more than any log needs, on a busy machine and over a network too.
const PATIENCE: Duration = Duration::from_secs(60);

/// Checks everything that [`EventLog`] promises. Panics at the first broken promise. `open` opens the log
/// with a name and creates an empty one if there is none. The suite opens a name again only after it has
/// dropped the log.
pub async fn conformance<L: EventLog + 'static>(open: impl AsyncFn(&str) -> L) {
    let open = async |name: &str| {
        let log: Log = Arc::new(open(name).await);
        log
    };
    check(events_come_back_as_they_were_appended(open("round-trip").await)).await;
    check(versions_count_from_one(open("versions").await)).await;
    check(another_version_than_expected_is_a_conflict(open("conflict").await)).await;
    check(several_streams_commit_all_or_nothing(open("several-streams").await)).await;
    check(a_command_is_recorded_once_in_a_stream(open("duplicate").await)).await;
    check(a_command_is_found_with_all_its_events(open("find").await)).await;
    check(reading_may_begin_anywhere(open("read-middle").await)).await;
    check(the_log_is_read_in_pages(open("pages").await)).await;
    check(the_streams_of_an_aggregate_are_listed(open("streams").await)).await;
    check(a_page_has_a_limit(open("page-limit").await)).await;
    check(the_acts_of_operators_are_read_alone(open("acts").await)).await;
    check(a_subscription_brings_old_events_then_new_ones(open("subscription").await)).await;
    check(appends_may_run_ahead(open("run-ahead").await)).await;
    check(an_append_that_nobody_waits_for_is_done(open("not-awaited").await)).await;
    check(one_appender_wins_each_version(open("contention").await)).await;
    check(a_position_that_was_reported_can_be_read(open("head").await)).await;
    check(chains::an_append_of_nothing_asks_for_the_version(open("nothing").await)).await;
    check(the_first_answer_without_events_is_kept(open("answers").await)).await;
    check(chains::an_append_on_top_of_a_failed_one_fails(open("chain").await)).await;
    check(chains::an_append_that_stands_on_a_failed_one_fails(open("footing").await)).await;
    check(chains::each_commit_is_linked_to_the_one_before(open("hashes").await)).await;
    check(everything_is_there_after_reopening(&open)).await;
}

async fn check(check: impl Future<Output = ()>) {
    timeout(PATIENCE, check).await.expect("the check ends");
}

async fn events_come_back_as_they_were_appended(log: Log) {
    let full = super::full_meta();
    let bare = Meta { command_id: CommandId::new(), causation_id: None, digest: None, ..full.clone() };
    // The text as written, including its blanks and digits.
    let payloads = ["{}", r#"{ "name": "K\u00e4se", "share": 1.50e0 }"#, "[18446744073709551616, null]"];
    let mut expected = Vec::new();
    for (name, meta) in [("full", Arc::new(full)), ("bare", Arc::new(bare))] {
        let event = |text: &str| NewEvent { name: "stock-reserved".into(), payload: json(text) };
        let events: Vec<_> = payloads.map(event).into();
        let batch = vec![Append {
            events: events.clone(),
            meta: meta.clone(),
            ..Append::nothing(stream(name), Version::START)
        }];
        let last = log.append(batch).await.unwrap().position;
        let hash = log.find(&stream(name), &meta.command_id).await.unwrap()[0].hash;
        let recorded: Vec<_> = (0..3)
            .map(|index: u32| Recorded {
                position: last.before(2).after(index as usize),
                stream: stream(name),
                version: Version::new(u64::from(index) + 1),
                index,
                name: "stock-reserved".into(),
                payload: events[index as usize].payload.clone(),
                meta: meta.clone(),
                hash,
            })
            .collect();
        assert_eq!(log.read(&stream(name), Version::START, MAX_PAGE).await.unwrap(), recorded);
        assert_eq!(log.find(&stream(name), &meta.command_id).await.unwrap(), recorded);
        expected.extend(recorded);
    }
    assert_eq!(log.read_all(Position::START, MAX_PAGE).await.unwrap(), expected);
}

async fn versions_count_from_one(log: Log) {
    let thing = stream("a");
    for (expected, count) in [(0, 1), (1, 3), (4, 2)] {
        log.append(vec![append(&thing, expected, count)]).await.unwrap();
    }
    assert_eq!(versions(&whole_stream(&*log, &thing).await), [1, 2, 3, 4, 5, 6]);
}

async fn another_version_than_expected_is_a_conflict(log: Log) {
    let thing = stream("a");
    log.append(vec![append(&thing, 0, 2)]).await.unwrap();
    let before = everything(&*log).await;
    for wrong in [0, 1, 3, u64::MAX] {
        assert_conflict(log.append(vec![append(&thing, wrong, 1)]).await, "a", wrong, 2);
    }
    assert_conflict(log.append(vec![append(&stream("new"), 1, 1)]).await, "new", 1, 0);
    assert_eq!(everything(&*log).await, before, "a refused append leaves nothing");
    log.append(vec![append(&thing, 2, 1)]).await.unwrap();
}

async fn the_first_answer_without_events_is_kept(log: Log) {
    let (thing, other) = (stream("a"), stream("b"));
    let command = CommandId::from_key("cart 7");
    let meta =
        |fingerprint, time_ms| Meta { fingerprint, time_ms, ..(*super::meta(&command)).clone() }.into();
    let answer = |stream: &StreamId, expected, meta, text: &str| Append {
        meta,
        answer: Some(json(text)),
        ..Append::nothing(stream.clone(), Version::new(expected))
    };
    let head = *log.head().borrow();
    log.append(vec![answer(&thing, 0, meta(u64::MAX, 5), r#"{"no": 1}"#)]).await.unwrap();
    log.append(vec![answer(&thing, 0, meta(8, 6), "2")]).await.unwrap();
    log.append(vec![append(&other, 0, 1)]).await.unwrap();
    assert_conflict(log.append(vec![answer(&other, 0, meta(9, 7), "3")]).await, "b", 0, 1);
    log.append(vec![answer(&other, 1, meta(10, 8), "4")]).await.unwrap();
    let kept = log.answer(&thing, &command).await.unwrap();
    assert_eq!(kept, Some(KeptAnswer { fingerprint: u64::MAX, time_ms: 5, answer: json(r#"{"no": 1}"#) }));
    let kept = log.answer(&other, &command).await.unwrap();
    assert_eq!(kept.map(|kept| kept.answer), Some(json("4")));
    assert_eq!(log.answer(&thing, &CommandId::from_key("cart 8")).await.unwrap(), None);
    assert_eq!(*log.head().borrow(), head.after(1), "an answer is no event");
    assert_eq!(everything(&*log).await.len(), 1);
}

async fn several_streams_commit_all_or_nothing(log: Log) {
    let (a, b, c) = (stream("a"), stream("b"), stream("c"));
    log.append(vec![append(&b, 0, 1)]).await.unwrap();
    let batch = |expected_of_b| vec![append(&a, 0, 2), append(&b, expected_of_b, 1), append(&c, 0, 1)];
    let before = everything(&*log).await;
    assert_conflict(log.append(batch(0)).await, "b", 0, 1);
    assert_eq!(everything(&*log).await, before, "a conflict in one stream keeps the others out");

    let last = log.append(batch(1)).await.unwrap().position;
    let lengths = [&a, &b, &c].map(|stream| whole_stream(&*log, stream));
    let [of_a, of_b, of_c] = lengths;
    assert_eq!(
        [versions(&of_a.await), versions(&of_b.await), versions(&of_c.await)],
        [vec![1, 2], vec![1, 2], vec![1]]
    );
    assert_eq!(everything(&*log).await.last().unwrap().position, last);
}

async fn a_command_is_recorded_once_in_a_stream(log: Log) {
    let (a, b, command) = (stream("a"), stream("b"), CommandId::from_key("cart 7"));
    log.append(vec![append_as(&command, &a, 0, 2)]).await.unwrap();
    log.append(vec![append(&a, 2, 1)]).await.unwrap();
    let before = everything(&*log).await;

    let again = append_as(&command, &a, 3, 1);
    for batch in [vec![again.clone()], vec![append(&b, 0, 1), again]] {
        match log.append(batch).await {
            Err(AppendError::Duplicate { stream, command: found }) => {
                assert_eq!((stream, found), (a.clone(), command.clone()))
            }
            other => panic!("a repeated command must be refused, but: {other:?}"),
        }
    }
    assert_eq!(everything(&*log).await, before, "a repeated command leaves nothing");
    log.append(vec![append_as(&command, &b, 0, 1)]).await.expect("another stream does not know the command");
    log.append(vec![append(&a, 3, 1)]).await.expect("the stream goes on");
}

async fn a_command_is_found_with_all_its_events(log: Log) {
    let (a, b) = (stream("a"), stream("b"));
    let commands = [1, 3, 1, 4].map(|count| (CommandId::new(), count));
    let mut version = 0;
    for (command, count) in &commands {
        log.append(vec![append_as(command, &a, version, *count)]).await.unwrap();
        version += *count as u64;
    }
    let all = whole_stream(&*log, &a).await;
    let mut rest = &all[..];
    for (command, count) in &commands {
        let (of_command, others) = rest.split_at(*count);
        assert_eq!(log.find(&a, command).await.unwrap(), of_command);
        assert!(log.find(&b, command).await.unwrap().is_empty(), "the command was not for this stream");
        rest = others;
    }
    assert!(log.find(&a, &CommandId::new()).await.unwrap().is_empty(), "nobody sent this command");
}

async fn reading_may_begin_anywhere(log: Log) {
    let (a, b) = (stream("a"), stream("b"));
    log.append(vec![append(&a, 0, 3), append(&b, 0, 2)]).await.unwrap();
    log.append(vec![append(&a, 3, 2)]).await.unwrap();
    let (all, of_a) = (everything(&*log).await, whole_stream(&*log, &a).await);
    for start in 0..=of_a.len() {
        assert_eq!(
            log.read(&a, Version::START.after(start), 2).await.unwrap(),
            of_a[start..(start + 2).min(of_a.len())]
        );
    }
    for (index, event) in all.iter().enumerate() {
        assert_eq!(log.read_all(event.position, MAX_PAGE).await.unwrap(), all[index + 1..]);
    }
    for after in [Version::new(6), Version::MAX] {
        assert!(log.read(&a, after, MAX_PAGE).await.unwrap().is_empty(), "nothing comes after the end");
    }
    assert!(log.read_all(Position::MAX, MAX_PAGE).await.unwrap().is_empty(), "nothing comes after the end");
    assert!(
        log.read(&stream("unknown"), Version::START, MAX_PAGE).await.unwrap().is_empty(),
        "there is no such stream"
    );
}

async fn the_log_is_read_in_pages(log: Log) {
    let streams = ["a", "b", "c"].map(stream);
    for round in 0..7 {
        for stream in &streams {
            log.append(vec![append(stream, round * 2, 2)]).await.unwrap();
        }
    }
    let all = everything(&*log).await;
    assert_eq!(all.len(), 42);
    assert!(all.is_sorted_by_key(|event| event.position), "positions grow");
    let mut paged: Vec<Recorded> = Vec::new();
    for _ in 0..9 {
        let after = paged.last().map_or(Position::START, |event| event.position);
        paged.extend(log.read_all(after, 5).await.unwrap());
    }
    assert_eq!(paged, all, "pages neither repeat nor leave out");
}

async fn the_streams_of_an_aggregate_are_listed(log: Log) {
    let named = |name: &str| StreamId::parse(name).unwrap();
    for name in ["thing/b", "thing-x/a", "other/a", "thing/c", "things/a", "thing/a"] {
        log.append(vec![append(&named(name), 0, 1)]).await.unwrap();
    }
    log.append(vec![append(&named("thing/b"), 1, 2)]).await.unwrap();
    let at = |name: &str, version| (named(name), Version::new(version));
    let first = log.streams("thing", None, 2).await.unwrap();
    assert_eq!(first, [at("thing/a", 1), at("thing/b", 3)]);
    let next = log.streams("thing", Some(&named("thing/b")), 2).await.unwrap();
    assert_eq!(next, [at("thing/c", 1)]);
    assert_eq!(log.streams("nothing", None, 2).await.unwrap(), []);
    for (aggregate, count) in [("thing", 3), ("thing-x", 1), ("nothing", 0)] {
        assert_eq!(log.count_streams(aggregate).await.unwrap(), count, "{aggregate}");
    }
}

async fn a_page_has_a_limit(log: Log) {
    let thing = stream("a");
    log.append(vec![append(&thing, 0, MAX_PAGE + 1)]).await.unwrap();
    assert_eq!(log.read(&thing, Version::START, usize::MAX).await.unwrap().len(), MAX_PAGE);
    assert_eq!(log.read_all(Position::START, usize::MAX).await.unwrap().len(), MAX_PAGE);
    assert_eq!(whole_stream(&*log, &thing).await.len(), MAX_PAGE + 1);
}

async fn the_acts_of_operators_are_read_alone(log: Log) {
    let pairs = ["deployment/deployed", "thing/deployed", "saga/resumed", "token/token-made"];
    for (kind, act) in pairs.iter().filter_map(|pair| pair.split_once('/')) {
        let (stream, events) =
            (StreamId::new(kind, "a").unwrap(), [("started", json!({})), (act, json!({}))]);
        log.append(vec![happened(stream, Version::START, &events)]).await.unwrap();
    }
    let acts = log.acts(Position::START, 9).await.unwrap();
    assert_eq!(acts.iter().map(|act| act.position.get()).collect::<Vec<_>>(), [2, 6, 8]);
    assert_eq!(log.acts(Position::new(2), 1).await.unwrap(), acts[1..2]);
}

async fn a_subscription_brings_old_events_then_new_ones(log: Log) {
    let mut start = Position::START;
    for version in 0..20 {
        let position = log.append(vec![append(&stream("old"), version, 1)]).await.unwrap().position;
        if version == 9 {
            start = position;
        }
    }
    let appenders = ["a", "b", "c", "d"].map(|name| {
        let log = log.clone();
        tokio::spawn(async move {
            for round in 0..50 {
                log.append(vec![append(&stream(name), round * 2, 2)]).await.unwrap();
            }
        })
    });
    let mut subscription = Subscription::new(log.clone(), start);
    let mut received: Vec<Recorded> = Vec::new();
    while received.len() < 10 + 4 * 50 * 2 {
        received.extend(subscription.next().await.unwrap().expect("the log is open"));
    }
    for appender in appenders {
        appender.await.unwrap();
    }
    let expected: Vec<_> =
        everything(&*log).await.into_iter().filter(|event| event.position > start).collect();
    assert_eq!(received, expected, "a subscription neither repeats nor leaves out");
}

async fn appends_may_run_ahead(log: Log) {
    let thing = stream("a");
    let ahead: Vec<_> = (0..200).map(|version| log.append(vec![append(&thing, version, 1)])).collect();
    let wrong = log.append(vec![append(&thing, 500, 1)]);
    let after_wrong = log.append(vec![append(&thing, 200, 1)]);
    // The results are awaited from the back: the order is that of the calls.
    let last = after_wrong.await.expect("a refused append is not in the way of the next").position;
    assert_conflict(wrong.await, "a", 500, 200);
    let mut positions: Vec<Position> = vec![last];
    for append in ahead.into_iter().rev() {
        positions.push(append.await.unwrap().position);
    }
    assert!(
        positions.is_sorted_by(|later, earlier| later > earlier),
        "positions are in the order of the calls"
    );
    assert_eq!(versions(&whole_stream(&*log, &thing).await), (1..=201).collect::<Vec<_>>());
}

async fn an_append_that_nobody_waits_for_is_done(log: Log) {
    let thing = stream("a");
    drop(log.append(vec![append(&thing, 0, 1)]));
    log.append(vec![append(&thing, 1, 1)]).await.expect("the first append has been done");
}

async fn one_appender_wins_each_version(log: Log) {
    const APPENDERS: usize = 16;
    const VERSIONS: u64 = 20;
    let appenders: Vec<_> = (0..APPENDERS)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut won = Vec::new();
                for version in 0..VERSIONS {
                    match log.append(vec![append(&stream("a"), version, 1)]).await {
                        Ok(_) => won.push(version),
                        Err(AppendError::Conflict { actual, .. }) => {
                            assert!(actual > Version::new(version), "nobody was faster")
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                won
            })
        })
        .collect();
    let mut won = Vec::new();
    for appender in appenders {
        won.extend(appender.await.unwrap());
    }
    won.sort_unstable();
    assert_eq!(won, (0..VERSIONS).collect::<Vec<_>>(), "each version has exactly one winner");
}

async fn a_position_that_was_reported_can_be_read(log: Log) {
    let last_at = async |position: Position| {
        log.read_all(position.before(1), 1).await.unwrap().first().map(|event| event.position)
            == Some(position)
    };
    let writer = {
        let log = log.clone();
        tokio::spawn(async move {
            for version in 0..300 {
                let position = log.append(vec![append(&stream("a"), version, 1)]).await.unwrap().position;
                let read = log.read_all(position.before(1), 1).await.unwrap();
                assert_eq!(read.len(), 1, "the event at the position of the reply can be read");
                assert!(*log.head().borrow() >= position, "the head is not behind the reply");
            }
        })
    };
    let mut head = log.head();
    while whole_stream(&*log, &stream("a")).await.len() < 300 {
        let position = *head.wait_for(|head| *head > Position::START).await.unwrap();
        assert!(last_at(position).await, "the event at the head can be read");
    }
    writer.await.unwrap();
    assert_eq!(*log.head().borrow(), everything(&*log).await.last().unwrap().position);
}

async fn everything_is_there_after_reopening(open: &impl AsyncFn(&str) -> Log) {
    const NAME: &str = "reopened";
    let (a, command) = (stream("a"), CommandId::from_key("once"));
    let log = open(NAME).await;
    assert_eq!(*log.head().borrow(), Position::START, "a new log is empty");
    log.append(vec![append_as(&command, &a, 0, 3), append(&stream("b"), 0, 1)]).await.unwrap();
    log.append(vec![append(&a, 3, 1)]).await.unwrap();
    let before = everything(&*log).await;
    drop(log);

    let log = open(NAME).await;
    assert_eq!(*log.head().borrow(), before.last().unwrap().position);
    assert_eq!(everything(&*log).await, before);
    assert_conflict(log.append(vec![append(&a, 0, 1)]).await, "a", 0, 4);
    let again = log.append(vec![append_as(&command, &a, 4, 1)]).await;
    assert!(
        matches!(again, Err(AppendError::Duplicate { .. })),
        "a repeated command must be refused, but: {again:?}"
    );
    let next = log.append(vec![append(&a, 4, 1)]).await.unwrap().position;
    assert!(next > before.last().unwrap().position, "positions go on where they ended");
    assert_linked(&everything(&*log).await);
}

#[track_caller]
fn assert_conflict(
    result: Result<kontor::log::Appended, AppendError>,
    id: &str,
    expected_version: u64,
    actual_version: u64,
) {
    match result {
        Err(AppendError::Conflict { stream: of, expected, actual }) => {
            assert_eq!((of, expected.get(), actual.get()), (stream(id), expected_version, actual_version));
        }
        other => panic!("an append of another version must be refused, but: {other:?}"),
    }
}

fn versions(events: &[Recorded]) -> Vec<u64> {
    events.iter().map(|event| event.version.get()).collect()
}

fn json(text: &str) -> Json {
    Json::parse(text.to_owned()).expect("valid JSON")
}
