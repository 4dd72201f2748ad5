use std::sync::mpsc::sync_channel;

use super::*;
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
    Request { footing, batch, messages: None, committed: None, reply: oneshot::channel().0 }
}

/// Returns the outcome of each batch as text: its last position, or the error.
fn outcomes(written: &Written) -> Vec<String> {
    let outcome = |outcome: &Result<Appended, AppendError>| match outcome {
        Ok(appended) => appended.position.to_string(),
        Err(error) => Chain(error).to_string(),
    };
    written.outcomes.iter().map(outcome).collect()
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

    let bad = group([vec![append("a", 2, "2")], vec![append("b", 0, "bad")], vec![append("c", 0, "3")]]);
    let error = writer.write(&bad).err().expect("the transaction fails");
    writer.give_up(bad.into_iter(), error);
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
    let group = vec![request(journal.into(), vec![append("saga", 0, "reason")])];
    let error = writer.write(&group).err().expect("the transaction fails");
    writer.give_up(group.into_iter(), error);

    let undo = Footing { chain: AppendChain::new(), stands_on: Some(journal) };
    let written = writer.write(&[request(undo, vec![append("stock", 0, "undo")])]).unwrap();
    assert_eq!(outcomes(&written), ["an append of the journal that this one stands on has failed"]);
    assert_eq!(last_position(&writer.connection).unwrap(), Position::START);
}

#[test]
fn a_copy_takes_only_the_next_message() {
    let message = |after: u64, last: u64, batch: Vec<Append>| {
        let messages = Messages { after: Sequence::new(after), last: Sequence::new(last) };
        Request { messages: Some(messages), ..request(AppendChain::new().into(), batch) }
    };
    let first = || message(0, 1, vec![append("a", 0, "bad")]);
    let second = || message(1, 3, vec![append("a", 2, "2")]);
    let third = || message(3, 4, vec![append("b", 0, "3")]);

    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(&dir);
    writer.connection.execute_batch("CREATE TABLE copied (sequence)").unwrap();
    fail_on(&writer, "bad");
    let failed = vec![first()];
    let error = writer.write(&failed).err().expect("the transaction fails");
    writer.give_up(failed.into_iter(), error);
    let mut queued = vec![second(), third()];
    let written = writer.write(&queued).unwrap();
    let expected = [
        "the log cannot be written: the copy ends at message 0, and message 2 does not follow it",
        "the log cannot be written: the copy ends at message 0, and message 4 does not follow it",
    ];
    assert_eq!(outcomes(&written), expected);
    writer.acknowledge(&mut queued, written);

    writer.connection.execute_batch("DROP TRIGGER disk_error").unwrap();
    let again = message(4, 5, vec![append("b", 2, "3")]);
    let conflict = message(5, 6, vec![append("b", 7, "4")]);
    let behind = message(6, 7, vec![append("b", 2, "5")]);
    let mut again = vec![first(), second(), third(), second(), again, conflict, behind];
    let written = writer.write(&again).unwrap();
    let expected = [
        "2",
        "4",
        "6",
        "the log cannot be written: the copy ends at message 4, and message 2 does not follow it",
        "command 3 has already been recorded in stream thing/b",
        "stream thing/b is at version 2, not 7",
        "the log cannot be written: the copy ends at message 5, and message 7 does not follow it",
    ];
    assert_eq!(outcomes(&written), expected);
    writer.acknowledge(&mut again, written);
    assert_eq!(*writer.signals.copied.borrow(), Sequence::new(5));
}
