//! Commits that fail, by the real means of SQLite: at every event, of the log and of a copy, and while
//! another process holds the database.

use std::path::Path;
use std::sync::Mutex;

use kontor::log::{AppendError, EmbeddedLog, EventLog, JetStreamLog, JetStreamOptions};
use kontor::model::{CommandId, Position};
use kontor_testkit::log::{audit, everything, work};
use kontor_testkit::nats::NatsServer;
use rusqlite::Connection;
use tempfile::TempDir;

const ROUNDS: usize = 8;
/// The events of all rounds.
const EVENTS: u64 = 16;

fn database(dir: &Path) -> Connection {
    Connection::open(dir.join("events.db")).unwrap()
}

/// Lets each transaction fail that writes the event at a position.
fn fail_at(database: &Connection, position: u64) {
    let trigger = format!(
        "CREATE TRIGGER disk_error BEFORE INSERT ON events WHEN new.position = {position}
        BEGIN SELECT raise(ROLLBACK, 'the disk is gone'); END"
    );
    database.execute_batch(&trigger).unwrap();
}

fn mend(database: &Connection) {
    database.execute_batch("DROP TRIGGER disk_error").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_at_any_event_loses_and_tears_nothing() {
    for position in 1..=EVENTS {
        let dir = TempDir::new().unwrap();
        let log = EmbeddedLog::open(dir.path()).unwrap();
        let database = database(dir.path());
        fail_at(&database, position);
        let acknowledged = Mutex::new(Vec::new());
        let acknowledge = |command: &CommandId| acknowledged.lock().unwrap().push(command.clone());
        work(&log, "w", ROUNDS, acknowledge).await.expect_err("the commit of the event fails");
        assert!(log.head().borrow().get() < position);

        mend(&database);
        work(&log, "w", ROUNDS, acknowledge).await.expect("the log goes on by itself");
        assert!(log.state().takes_appends);
        let acknowledged = acknowledged.into_inner().unwrap();
        assert_eq!(audit(&log, &acknowledged).await, acknowledged.len(), "what has failed is not there");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_a_copy_that_fails_at_any_event_leaves_the_same_log() {
    let server = NatsServer::start();
    for position in 1..=EVENTS {
        let dirs = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let stream = format!("log-{position}");
        let open = async |dir: &TempDir| {
            let client = async_nats::connect(server.url()).await.unwrap();
            let monitoring = vec![server.monitoring_url()];
            let options =
                JetStreamOptions { stream: stream.clone(), monitoring, ..JetStreamOptions::default() };
            JetStreamLog::open(client, &options, 1, dir.path()).await.unwrap()
        };
        let (first, second) = (open(&dirs[0]).await, open(&dirs[1]).await);
        let database = database(dirs[1].path());
        fail_at(&database, position);
        let acknowledged = Mutex::new(Vec::new());
        let acknowledge = |command: &CommandId| acknowledged.lock().unwrap().push(command.clone());
        work(&first, "w", ROUNDS, acknowledge).await.unwrap();
        assert!(second.head().borrow().get() < position);

        mend(&database);
        let end: Position = *first.head().borrow();
        second.head().wait_for(|head| *head >= end).await.unwrap();
        work(&second, "v", ROUNDS, acknowledge).await.expect("the host takes appends again");
        let end: Position = *second.head().borrow();
        first.head().wait_for(|head| *head >= end).await.unwrap();
        assert_eq!(everything(&first).await, everything(&second).await, "both copies are the same");
        audit(&first, &acknowledged.into_inner().unwrap()).await;
    }
}

/// The writer waits five seconds for another process, then its commit fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_says_so_until_it_can_be_again() {
    let dir = TempDir::new().unwrap();
    let log = EmbeddedLog::open(dir.path()).unwrap();
    let acknowledged = Mutex::new(Vec::new());
    let acknowledge = |command: &CommandId| acknowledged.lock().unwrap().push(command.clone());
    work(&log, "w", ROUNDS, acknowledge).await.unwrap();

    let database = database(dir.path());
    database.execute_batch("BEGIN IMMEDIATE").unwrap();
    let failed = work(&log, "w", ROUNDS, acknowledge).await.expect_err("another process holds the log");
    assert!(matches!(failed.downcast_ref(), Some(AppendError::Failed(_))), "{failed}");
    assert!(!log.state().takes_appends, "no command is let in");

    // Nobody appends, and the log finds out by itself.
    database.execute_batch("COMMIT").unwrap();
    let writable = async {
        while !log.state().takes_appends {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), writable)
        .await
        .expect("it can be written again");
    work(&log, "w", ROUNDS, acknowledge).await.unwrap();
    let acknowledged = acknowledged.into_inner().unwrap();
    assert_eq!(audit(&log, &acknowledged).await, acknowledged.len());
}
