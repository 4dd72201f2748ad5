use std::fs::{self, File};

use super::*;
use crate::log::{Append, EmbeddedLog};
use crate::model::{Json, NewEvent};

/// Opens the index of a log that lies beside it.
async fn open(dir: &Path) -> Index {
    Index::open(dir, &EmbeddedLog::open(dir).unwrap()).await.unwrap()
}

/// Makes a log with an event, and returns its mark.
async fn first_event(dir: &Path) -> LogMark {
    let log = EmbeddedLog::open(dir).unwrap();
    let event = NewEvent { name: "order-created".into(), payload: Json::empty_object() };
    let (stream, expected) = (StreamId::parse("order/o1").unwrap(), Version::START);
    let append = Append { events: vec![event], ..Append::nothing(stream, expected) };
    log.append(vec![append]).await.unwrap();
    log.read_all(Position::START, 1).await.unwrap()[0].mark()
}

fn mark(position: u64) -> LogMark {
    LogMark { position: Position::new(position), ..LogMark::START }
}

fn started(id: &str) -> Change {
    Change::Started { handle: SagaHandle::example(id).into() }
}

fn moved(id: &str, state: SagaState) -> Change {
    Change::Moved { id: id.into(), state }
}

#[tokio::test]
async fn a_trigger_applied_twice_is_one_saga_and_an_ended_saga_is_not_unfinished() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path()).await;
    let mark = first_event(dir.path()).await;
    let both = vec![started("a"), started("b")];
    index.apply(both.clone(), mark).await.unwrap();
    index.apply(vec![moved("a", SagaState::Completed)], mark).await.unwrap();
    drop(index);

    let index = open(dir.path()).await;
    index.apply(both, mark).await.unwrap();
    let b = UnfinishedSaga { handle: SagaHandle::example("b"), runner: None, sleeps_until_ms: None };
    assert_eq!(index.unfinished().await.unwrap(), [b]);
    assert_eq!(index.mark().await.unwrap(), mark);
}

#[tokio::test]
async fn an_index_that_is_damaged_or_of_another_log_is_made_anew() {
    let lose_log = |dir: &Path| derived::remove(&dir.join("events.db")).unwrap();
    let garbage = |dir: &Path| fs::write(dir.join(FILE), "no database ".repeat(1_000)).unwrap();
    let short =
        |dir: &Path| File::options().write(true).open(dir.join(FILE)).unwrap().set_len(8_000).unwrap();
    let nothing = |_: &Path| {};
    type Case<'a> = (&'a str, &'a dyn Fn(&Path), usize);
    let cases: [Case<'_>; 4] = [
        ("nothing", &nothing, 1),
        ("a lost log", &lose_log, 0),
        ("garbage", &garbage, 0),
        ("short", &short, 0),
    ];
    for (name, accident, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mark = first_event(dir.path()).await;
        open(dir.path()).await.apply(vec![started("a")], mark).await.unwrap();
        accident(dir.path());
        let index = open(dir.path()).await;
        assert_eq!(index.unfinished().await.unwrap().len(), expected, "{name}");
        assert_eq!(index.mark().await.unwrap(), if expected == 1 { mark } else { LogMark::START }, "{name}");
    }
}

#[tokio::test]
async fn a_position_alone_is_written_now_and_then() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path()).await;
    for (position, written) in [(9_999, 0), (10_000, 10_000), (19_999, 10_000), (20_000, 20_000)] {
        index.apply(Vec::new(), mark(position)).await.unwrap();
        assert_eq!(index.mark().await.unwrap().position.get(), written, "after {position}");
    }
}

#[tokio::test]
async fn a_sleeping_saga_is_marked_and_a_resumed_saga_returns_to_its_state() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path()).await;
    let id = |id: &str| -> SagaId { id.into() };
    let parked = |of: &str| Change::Parked { id: id(of), why: "why".to_owned() };
    let mut changes: Vec<_> = ["a", "b", "c", "d"].map(started).into();
    changes.extend([
        Change::Slept { id: id("a"), until_ms: 50 },
        moved("b", SagaState::Unwinding),
        parked("b"),
        parked("c"),
        Change::Slept { id: id("d"), until_ms: 60 },
        moved("d", SagaState::Running),
    ]);
    index.apply(changes, mark(9)).await.unwrap();
    let unfinished = index.unfinished().await.unwrap();
    assert_eq!(
        unfinished.iter().map(|saga| (saga.handle.id.as_str(), saga.sleeps_until_ms)).collect::<Vec<_>>(),
        [("a", Some(50)), ("d", None)]
    );
    let listed = index.list(Some(SagaState::Parked), None, None, 10).await.unwrap();
    assert_eq!(
        listed.iter().map(|listed| (listed.handle.id.as_str(), listed.why.as_deref())).collect::<Vec<_>>(),
        [("c", Some("why")), ("b", Some("why"))]
    );
    assert_eq!(
        index.counts().await.unwrap(),
        [(SagaState::Parked, 2, id("b")), (SagaState::Running, 1, id("d")), (SagaState::Waiting, 1, id("a"))]
    );

    let again = vec![Change::Resumed { id: id("b") }, Change::Resumed { id: id("c") }];
    index.apply(again, mark(10)).await.unwrap();
    let listed = index.list(None, Some("place-order".to_owned()), Some("d".to_owned()), 2).await.unwrap();
    assert_eq!(
        listed.iter().map(|listed| (listed.handle.id.as_str(), listed.state)).collect::<Vec<_>>(),
        [("c", SagaState::Running), ("b", SagaState::Unwinding)]
    );
}

#[tokio::test]
async fn sagas_that_have_ended_and_are_old_are_collected_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let index = open(dir.path()).await;
    let at = first_event(dir.path()).await;
    let sagas = (0..2_500).map(|number| format!("a-{number:04}"));
    let ended = sagas.flat_map(|id| [started(&id), moved(&id, SagaState::Compensated)]);
    let others = [started("a-open"), started("b-new"), moved("b-new", SagaState::Completed)];
    index.write(ended.chain(others).collect(), at).await.unwrap();
    for (collection, items) in
        [(Collection::DryRun, 2_500), (Collection::Remove, 2_500), (Collection::Remove, 0)]
    {
        let garbage = index.collect("b".to_owned(), collection).await.unwrap();
        assert_eq!((garbage.items, garbage.bytes > 0), (items, items > 0), "{collection:?}");
    }
    let left = index.list(None, None, None, 10).await.unwrap();
    let left: Vec<_> = left.iter().map(|saga| saga.handle.id.as_str()).collect();
    assert_eq!(left, ["b-new", "a-open"]);
}
