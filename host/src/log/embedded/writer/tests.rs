use std::sync::mpsc::sync_channel;

use uuid::Uuid;

use super::*;
use crate::log::embedded::message::Unit;
use crate::log::embedded::meta;
use crate::log::embedded::schema::{self, Durability};
use crate::log::embedded::{last_position, read};
use crate::model::{AppendChain, CommandId, Json, Meta};

fn append(id: &str, expected: u64, command: &str) -> Append {
    let meta = Meta {
        command_id: CommandId::from(command.to_owned()),
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
    let stream = StreamId::new("thing", id).unwrap();
    let (expected, events) = (Version::new(expected), vec![event.clone(), event]);
    Append { events, meta: meta.into(), ..Append::nothing(stream, expected) }
}

fn writer(dir: &tempfile::TempDir) -> Writer {
    let (_, connection) = schema::open(dir.path(), Durability::EveryCommit).unwrap();
    let answered = Answered::load(&connection).unwrap();
    Writer::new(
        connection,
        Arc::default(),
        (answered.into(), Arc::default()),
        Signals {
            position: watch::Sender::default(),
            copied: watch::Sender::default(),
            versions: None,
            writable: Arc::new(AtomicBool::new(true)),
            commits: Arc::default(),
            checkpointer: sync_channel(1).0,
        },
    )
}

fn group(batches: impl IntoIterator<Item = Vec<Append>>) -> Vec<Request> {
    batches.into_iter().map(|batch| request(AppendChain::new().into(), batch)).collect()
}

fn request(footing: Footing, batch: Vec<Append>) -> Request {
    let metas = meta::write_all(&batch).unwrap();
    Request::Batch { footing, batch, metas, committed: None, reply: oneshot::channel().0 }
}

/// Returns the outcome of each batch and each unit as text: its last position, or the error. The error of a
/// message that is not taken is one line.
fn outcomes(written: &Written) -> Vec<String> {
    let text = |outcome: &Outcome| match outcome {
        Ok(appended) => appended.position.to_string(),
        Err(error) => Chain(error).to_string(),
    };
    let texts = |result: &Done| match result {
        Done::Batch(outcome) => vec![text(outcome)],
        Done::Message(Ok(outcomes)) => outcomes.iter().map(text).collect(),
        Done::Message(Err(error)) => vec![Chain(error).to_string()],
    };
    written.results.iter().flat_map(texts).collect()
}

/// Lets each transaction fail that has an event of this command.
fn fail_on(writer: &Writer, command: &str) {
    let trigger = format!(
        "CREATE TEMP TRIGGER disk_error BEFORE INSERT ON main.events WHEN new.command_id = '{command}'
        BEGIN SELECT raise(ROLLBACK, 'the disk is gone'); END"
    );
    writer.connection.execute_batch(&trigger).unwrap();
}

#[test]
fn a_refused_batch_leaves_the_rest_of_its_group_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(&dir);
    let written = writer
        .write(&group([
            vec![append("a", 0, "1")],
            vec![append("a", 0, "2")],
            vec![append("a", 2, "3"), append("b", 0, "3")],
            vec![append("b", 2, "4"), append("c", 0, "4"), append("a", 4, "1")],
            vec![append("c", 0, "5"), append("b", 0, "5")],
            vec![append("b", 2, "4"), append("c", 0, "4"), append("a", 4, "4")],
        ]))
        .unwrap();
    let expected = [
        "2",
        "stream thing/a is at version 2, not 0",
        "6",
        "command 1 has already been recorded in stream thing/a",
        "stream thing/b is at version 2, not 0",
        "12",
    ];
    assert_eq!(outcomes(&written), expected);
    assert_eq!(last_position(&writer.connection).unwrap(), Position::new(12));
    let read = read::all(&writer.connection, Position::START, 100).unwrap();
    assert_eq!(written.events, read, "the events in memory are those on disk");
}

#[test]
fn a_failed_transaction_leaves_nothing_and_the_next_one_works() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(&dir);
    writer.write(&group([vec![append("a", 0, "1")]])).unwrap();
    fail_on(&writer, "bad");

    let mut bad = group([vec![append("a", 2, "2")], vec![append("b", 0, "bad")], vec![append("c", 0, "3")]]);
    let error = writer.write(&bad).err().expect("the transaction fails");
    writer.give_up(&mut bad, error);
    assert_eq!(last_position(&writer.connection).unwrap(), Position::new(2));

    let written = writer.write(&group([vec![append("a", 2, "2")], vec![append("b", 0, "3")]])).unwrap();
    assert_eq!(outcomes(&written), ["4", "6"]);
}

#[test]
fn an_append_on_top_of_a_failed_one_fails_though_its_version_fits() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(&dir);
    writer.write(&group([vec![append("a", 0, "1")]])).unwrap();
    let (ours, theirs) = (AppendChain::new(), AppendChain::new());
    let written = writer
        .write(&[
            request(ours.into(), vec![append("a", 0, "2")]),
            request(ours.into(), vec![append("a", 2, "3")]),
            request(Footing { chain: theirs, stands_on: Some(ours) }, vec![append("b", 0, "4")]),
            request(theirs.into(), vec![append("b", 0, "5")]),
            request(AppendChain::new().into(), vec![append("a", 2, "3")]),
        ])
        .unwrap();
    let expected = [
        "stream thing/a is at version 2, not 0",
        "an earlier append, which this one builds on, has failed",
        "an append of the journal that this one stands on has failed",
        "an earlier append, which this one builds on, has failed",
        "4",
    ];
    assert_eq!(outcomes(&written), expected);
}

#[test]
fn an_append_that_stands_on_a_group_that_failed_fails_too() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(&dir);
    let journal = AppendChain::new();
    fail_on(&writer, "reason");
    let mut group = vec![request(journal.into(), vec![append("saga", 0, "reason")])];
    let error = writer.write(&group).err().expect("the transaction fails");
    writer.give_up(&mut group, error);

    let undo = Footing { chain: AppendChain::new(), stands_on: Some(journal) };
    let written = writer.write(&[request(undo, vec![append("stock", 0, "undo")])]).unwrap();
    assert_eq!(outcomes(&written), ["an append of the journal that this one stands on has failed"]);
    assert_eq!(last_position(&writer.connection).unwrap(), Position::START);
}

fn message((after, last): (u64, u64), process: Uuid, units: Vec<Unit>) -> Request {
    let (after, last) = (Sequence::new(after), Sequence::new(last));
    let message = CopiedMessage { after, last, process: Some(process), units };
    Request::Message { message, reply: oneshot::channel().0 }
}

/// Returns the writer of a copy.
fn copying_writer(dir: &tempfile::TempDir) -> Writer {
    let (_, connection) = schema::open(dir.path(), Durability::EveryCheckpoint).unwrap();
    connection.execute_batch("CREATE TABLE IF NOT EXISTS copied (sequence INTEGER)").unwrap();
    drop(connection);
    writer(dir)
}

#[test]
fn a_copy_takes_only_the_next_message() {
    let message = |places, append: Append| message(places, Uuid::nil(), vec![Unit::of(vec![append])]);
    let first = || message((0, 1), append("a", 0, "bad"));
    let second = || message((1, 3), append("a", 2, "2"));
    let third = || message((3, 4), append("b", 0, "3"));

    let dir = tempfile::tempdir().unwrap();
    let mut writer = copying_writer(&dir);
    fail_on(&writer, "bad");
    let mut failed = vec![first()];
    let error = writer.write(&failed).err().expect("the transaction fails");
    writer.give_up(&mut failed, error);
    let mut queued = vec![second(), third()];
    let written = writer.write(&queued).unwrap();
    let expected = [
        "the log cannot be written: the copy ends at message 0, and message 2 does not follow it",
        "the log cannot be written: the copy ends at message 0, and message 4 does not follow it",
    ];
    assert_eq!(outcomes(&written), expected);
    writer.acknowledge(&mut queued, written);

    writer.connection.execute_batch("DROP TRIGGER disk_error").unwrap();
    let again = message((4, 5), append("b", 2, "3"));
    let conflict = message((5, 6), append("b", 7, "4"));
    let gap = message((7, 8), append("b", 2, "5"));
    let mut again = vec![first(), second(), third(), second(), again, conflict, gap];
    let written = writer.write(&again).unwrap();
    let expected = [
        "2",
        "4",
        "6",
        "the log cannot be written: the copy ends at message 4, and message 2 does not follow it",
        "command 3 has already been recorded in stream thing/b",
        "stream thing/b is at version 2, not 7",
        "the log cannot be written: the copy ends at message 6, and message 8 does not follow it",
    ];
    assert_eq!(outcomes(&written), expected);
    writer.acknowledge(&mut again, written);
    assert_eq!(*writer.signals.copied.borrow(), Sequence::new(6));
}

#[test]
fn what_builds_on_a_refused_unit_of_its_message_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = copying_writer(&dir);
    let unit = |chain, stands_on, append| Unit { chain, stands_on, ..Unit::of(vec![append]) };
    let units = || {
        vec![
            unit(0, None, append("a", 0, "1")),
            unit(1, None, append("a", 0, "2")),
            // It fits, but was decided on the one that is refused.
            unit(1, None, append("a", 2, "3")),
            unit(2, Some(1), append("b", 0, "4")),
            unit(2, None, append("b", 0, "5")),
            unit(3, Some(0), append("c", 0, "6")),
        ]
    };
    let written = writer
        .write(&[message((0, 1), Uuid::nil(), units()), message((1, 2), Uuid::nil(), units())])
        .unwrap();
    let [refused, discarded, unfounded] = [
        "stream thing/a is at version 2, not 0",
        "an earlier append, which this one builds on, has failed",
        "an append of the journal that this one stands on has failed",
    ];
    assert_eq!(
        outcomes(&written),
        [
            ["2", refused, discarded, unfounded, discarded, "4"],
            // A message that arrives twice has no effect.
            [refused, refused, discarded, unfounded, discarded, unfounded],
        ]
        .concat()
    );
}

#[test]
fn a_unit_that_another_process_has_fenced_since_it_was_begun_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = copying_writer(&dir);
    let (ours, theirs) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let of = |begun, append| vec![Unit { begun: Sequence::new(begun), ..Unit::of(vec![append]) }];
    let fence = |expected| {
        let nothing = Append::nothing(append("a", 0, "").stream, Version::new(expected));
        vec![Unit { fence: true, begun: Sequence::START, ..Unit::of(vec![nothing]) }]
    };
    let mut group = vec![
        message((0, 1), ours, of(0, append("a", 0, "1"))),
        message((1, 2), ours, fence(0)),
        message((2, 3), ours, fence(2)),
        message((3, 4), theirs, of(2, append("a", 2, "2"))),
        message((4, 5), theirs, of(2, append("b", 0, "2"))),
        message((5, 6), ours, of(2, append("a", 2, "3"))),
        message((6, 7), theirs, of(3, append("a", 4, "4"))),
    ];
    let written = writer.write(&group).unwrap();
    let fenced = "another host has decided on stream thing/a since";
    let expected = ["2", "stream thing/a is at version 2, not 0", "2", fenced, "4", "6", "8"];
    assert_eq!(outcomes(&written), expected);
    writer.acknowledge(&mut group, written);

    // A fence of a transaction that fails does not count, and the one before it does.
    fail_on(&writer, "bad");
    let mut failed =
        vec![message((7, 8), ours, fence(6)), message((8, 9), ours, of(8, append("b", 2, "bad")))];
    let error = writer.write(&failed).err().expect("the transaction fails");
    writer.give_up(&mut failed, error);
    let written = writer.write(&[message((7, 8), theirs, of(2, append("a", 6, "5")))]).unwrap();
    assert_eq!(outcomes(&written), [fenced]);
    let written = writer.write(&[message((7, 8), theirs, of(7, append("c", 0, "5")))]).unwrap();
    assert_eq!(outcomes(&written), ["10"]);

    // A fence is in the file, until nothing can be on its way any more.
    drop(writer);
    let mut writer = copying_writer(&dir);
    writer.signals.copied.send_replace(Sequence::new(7));
    let far = 3 + 1_000_000;
    let written = writer
        .write(&[
            message((7, 8), theirs, of(2, append("a", 6, "5"))),
            message((8, far), theirs, of(3, append("a", 6, "6"))),
            message((far, far + 1), ours, of(3, append("a", 8, "7"))),
            message((far + 1, far + 2), theirs, of(far, append("b", 2, "8"))),
        ])
        .unwrap();
    assert_eq!(outcomes(&written), [fenced, "12", fenced, "14"]);
}
