//! Tests of this log alone. Tests of all logs are in the conformance suite of the testkit.

use std::path::Path;

use rusqlite::Connection;

use super::*;
use crate::log::{CommitHasher, version_at};
use crate::model::{AppendChain, CommandId, CommitHash, Json, Meta, NewEvent};

fn append(expected: u64) -> Append {
    let meta = Meta {
        command_id: CommandId::new(),
        command: "do".into(),
        fingerprint: 0,
        correlation_id: "test".into(),
        causation_id: None,
        digest: None,
        time_ms: 0,
        actor: "tester".into(),
        ..Meta::default()
    };
    let event = NewEvent { name: "done".into(), payload: Json::empty_object() };
    let expected = Version::new(expected);
    let events = vec![event.clone(), event];
    Append { events, meta: meta.into(), ..Append::nothing(thing(), expected) }
}

fn thing() -> StreamId {
    StreamId::new("thing", "a").unwrap()
}

fn database(dir: &Path) -> Connection {
    Connection::open(dir.join("events.db")).unwrap()
}

fn refusal(dir: &Path) -> String {
    EmbeddedLog::open(dir).err().expect("the log must not open").to_string()
}

#[test]
fn a_directory_holds_one_open_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path()).unwrap();
    assert!(refusal(dir.path()).contains("is in use by another process"));
    drop(log);
    EmbeddedLog::open(dir.path()).expect("the directory is free again");
}

#[tokio::test]
async fn a_log_of_an_older_version_gets_the_index_of_acts() {
    let act = || {
        let deployed = NewEvent { name: "deployed".into(), payload: Json::empty_object() };
        Append { stream: StreamId::new("deployment", "a").unwrap(), events: vec![deployed], ..append(0) }
    };
    for before in [
        "DROP INDEX events_acts",
        "DROP INDEX events_acts; CREATE INDEX events_acts ON events (position) WHERE name = 'done'",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(dir.path()).unwrap();
        log.append(vec![append(0), act()]).await.unwrap();
        drop(log);
        database(dir.path()).execute_batch(before).unwrap();
        let log = EmbeddedLog::open(dir.path()).unwrap();
        let acts = log.acts(Position::START, 9).await.unwrap();
        assert_eq!(acts.iter().map(|act| act.position.get()).collect::<Vec<_>>(), [3], "{before}");
    }
}

#[tokio::test]
async fn the_version_of_a_stream_at_a_position_is_found_in_a_few_reads() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path()).unwrap();
    let other = StreamId::new("thing", "b").unwrap();
    for version in [0, 2, 4, 6, 8] {
        log.append(vec![append(version)]).await.unwrap();
        log.append(vec![Append { stream: other.clone(), ..append(version) }]).await.unwrap();
    }
    let events = log.read_all(Position::START, 99).await.unwrap();
    for position in (0..=events.len() as u64 + 1).map(Position::new) {
        for stream in [&thing(), &other] {
            let is_before = |event: &&Recorded| event.stream == *stream && event.position <= position;
            let last = events.iter().rfind(is_before);
            let expected = last.map_or(Version::START, |event| event.version);
            assert_eq!(version_at(&log, stream, position).await.unwrap(), expected, "{stream} at {position}");
        }
    }
}

#[test]
fn files_that_are_not_ours_are_refused_and_left_alone() {
    let text = |dir: &Path| std::fs::write(dir.join("events.db"), "not a database ".repeat(100)).unwrap();
    let foreign = |dir: &Path| database(dir).execute_batch("CREATE TABLE guests (name)").unwrap();
    let newer = |dir: &Path| {
        drop(EmbeddedLog::open(dir).unwrap());
        database(dir).pragma_update(None, "user_version", 9).unwrap();
    };
    type Prepare<'a> = &'a dyn Fn(&Path);
    let cases: [(Prepare<'_>, &str); 3] = [
        (&text, "is not an event log of Kontor"),
        (&foreign, "is not an event log of Kontor"),
        (&newer, "was written by a newer version of Kontor (layout 9"),
    ];
    for (prepare, reason) in cases {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let before = std::fs::read(dir.path().join("events.db")).unwrap();
        let refusal = refusal(dir.path());
        assert!(refusal.contains(reason), "{refusal}");
        assert_eq!(std::fs::read(dir.path().join("events.db")).unwrap(), before);
    }
}

/// Turns a log into one of layout 1, which has no hashes.
fn downgrade(dir: &Path) {
    let batch = "ALTER TABLE events DROP COLUMN hash; PRAGMA user_version = 1";
    database(dir).execute_batch(batch).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_layout_1_gets_its_hashes_when_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path()).unwrap();
    for version in 0..1_200 {
        log.append(vec![append(version * 2)]).await.unwrap();
    }
    let events = log.read_all(Position::new(1_900), MAX_PAGE).await.unwrap();
    drop(log);

    downgrade(dir.path());
    let older = LogFile::open(dir.path()).err().expect("it must be upgraded first").to_string();
    assert!(older.contains("was written by an older version of Kontor (layout 1"), "{older}");
    let log = EmbeddedLog::open(dir.path()).unwrap();
    assert_eq!(log.read_all(Position::new(1_900), MAX_PAGE).await.unwrap(), events);
    let next = log.append(vec![append(2_400)]).await.unwrap().position;
    let last = log.read_all(next.before(1), 1).await.unwrap().pop().unwrap();
    assert_eq!(last.hash, append_hash(&last, events.last().unwrap().hash), "the chain goes on");
    assert!(LogFile::open(dir.path()).is_ok());
}

/// Returns the hash of the commit of two events that ends with `last`.
fn append_hash(last: &Recorded, previous: CommitHash) -> CommitHash {
    let (position, version) = (last.position.before(1), last.version.before(1));
    let mut hasher = CommitHasher::begin(previous, position, &last.stream, version, &last.meta);
    for _ in 0..2 {
        hasher.event(last.name.as_str(), last.payload.as_str());
    }
    hasher.finish()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_upgraded_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path()).unwrap();
    log.append(vec![append(0)]).await.unwrap();
    drop(log);
    downgrade(dir.path());
    database(dir.path()).execute_batch("UPDATE events SET meta = '{' WHERE position = 1").unwrap();
    for _ in 0..2 {
        let refusal = refusal(dir.path());
        assert!(refusal.contains("cannot be upgraded to layout 2; it is as it was"), "{refusal}");
    }
    let layout: i32 =
        database(dir.path()).pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(layout, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_an_error_that_names_the_event() {
    let damages = [
        "UPDATE events SET payload = '{' WHERE position = 2",
        "UPDATE events SET payload = CAST(x'22ff22' AS TEXT) WHERE position = 2",
        "UPDATE events SET meta = '{}' WHERE position = 1",
        "UPDATE events SET hash = NULL WHERE position = 1",
        "UPDATE events SET hash = x'00' WHERE position = 1",
        "UPDATE events SET command_index = 7 WHERE position = 2",
        "UPDATE events SET command_index = -1 WHERE position = 2",
        "UPDATE events SET version = -5 WHERE position = 1",
        "UPDATE streams SET name = 'no stream'",
        "DELETE FROM events WHERE position = 1",
    ];
    for damage in damages {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(dir.path()).unwrap();
        log.append(vec![append(0)]).await.unwrap();
        drop(log);
        database(dir.path())
            .execute_batch(&format!("PRAGMA ignore_check_constraints = on; {damage}"))
            .unwrap();
        let log = EmbeddedLog::open(dir.path()).unwrap();
        let error = log.read_all(Position::START, 10).await.expect_err(damage);
        let cause = error.0.to_string();
        assert!(cause.starts_with("the event at position"), "{damage}: {cause}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_so_at_once_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path()).unwrap();
    let in_the_way = database(dir.path());
    in_the_way.execute_batch("BEGIN IMMEDIATE").unwrap();

    let mut waiting = Vec::new();
    // Appends that the writer has already taken are not in the queue.
    for version in 0..=2 * QUEUE as u64 {
        waiting.push(log.append(vec![append(version * 2)]));
    }
    let last = waiting.pop().unwrap();
    assert!(matches!(last.await, Err(AppendError::Busy)));

    in_the_way.execute_batch("COMMIT").unwrap();
    let mut accepted = 0;
    for append in waiting {
        match append.await {
            Ok(_) => accepted += 1,
            // After the first refusal the writer may make room. Later appends then expect the version that
            // the refused one would have left.
            Err(AppendError::Busy | AppendError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(accepted >= QUEUE);
    let end = log.read(&thing(), Version::START.after(2 * accepted - 1), 10).await.unwrap();
    assert_eq!(end.len(), 1, "accepted appends are recorded, and nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_finishes_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path()).unwrap();
    let queued: Vec<_> = (0..500).map(|version| log.append(vec![append(version * 2)])).collect();
    drop(log);
    for append in queued {
        append.await.unwrap();
    }
    let log = EmbeddedLog::open(dir.path()).unwrap();
    assert_eq!(*log.head().borrow(), Position::new(1_000));
}

#[tokio::test]
async fn the_file_of_a_closed_log_is_the_whole_log() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = EmbeddedLog::open(dir.path()).unwrap();
    log.append(vec![append(0)]).await.unwrap();
    // A read that ends last closes a connection that cannot write.
    let reader = crate::log::readers::connect(&dir.path().join("events.db")).unwrap();
    drop(log);
    std::fs::copy(dir.path().join("events.db"), copy.path().join("events.db")).unwrap();
    drop(reader);
    let log = EmbeddedLog::open(copy.path()).unwrap();
    assert_eq!(log.head().borrow().get(), 2);
}

#[tokio::test]
async fn a_committed_batch_is_reported_before_anybody_can_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path()).unwrap();
    let (head, (seen, was)) = (log.head(), std::sync::mpsc::channel());
    let committed = Box::new(move || seen.send(*head.borrow()).unwrap());
    log.append_then(AppendChain::new().into(), vec![append(0)], Some(committed)).await.unwrap();
    assert_eq!((was.recv().unwrap(), *log.head().borrow()), (Position::START, Position::new(2)));

    let committed = Box::new(|| panic!("the batch conflicts"));
    log.append_then(AppendChain::new().into(), vec![append(0)], Some(committed)).await.unwrap_err();
}
