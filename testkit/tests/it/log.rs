//! The event logs under the conformance suite, and on a disk that fails.

use std::sync::{Arc, Mutex};

use kontor::log::{EmbeddedLog, EventLog, JetStreamLog, JetStreamOptions};
use kontor_testkit::log::{Fault, FaultyLog, audit, conformance, work};
use kontor_testkit::nats::NatsServer;

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_log_conforms() {
    let dir = tempfile::tempdir().unwrap();
    conformance(async |name: &str| EmbeddedLog::open(&dir.path().join(name)).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_jetstream_log_conforms() {
    let server = NatsServer::start();
    let dir = tempfile::tempdir().unwrap();
    conformance(async |name: &str| {
        let client = async_nats::connect(server.url()).await.unwrap();
        let options = JetStreamOptions {
            stream: name.to_owned(),
            monitoring: vec![server.monitoring_url()],
            ..JetStreamOptions::default()
        };
        JetStreamLog::open(client, &options, 1, &dir.path().join(name)).await.unwrap()
    })
    .await;
}

/// The disk fails after the first operation, after the second, and so on, until the whole workload is done
/// before.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_at_any_operation_loses_and_tears_nothing() {
    const ROUNDS: usize = 8;
    for fault in [Fault::BeforeWriting, Fault::AfterWriting] {
        let mut operations = 0;
        loop {
            let dir = tempfile::tempdir().unwrap();
            let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(dir.path()).unwrap());
            let acknowledged = Mutex::new(Vec::new());
            let faulty = FaultyLog::new(log.clone(), operations, fault);
            let ended =
                work(&faulty, "w", ROUNDS, |command| acknowledged.lock().unwrap().push(command.clone()))
                    .await;
            drop((faulty, log));

            let acknowledged = acknowledged.into_inner().unwrap();
            let log = EmbeddedLog::open(dir.path()).unwrap();
            let recorded = audit(&log, &acknowledged).await;
            let surplus = recorded - acknowledged.len();
            match fault {
                Fault::BeforeWriting => assert_eq!(surplus, 0, "after {operations} operations"),
                Fault::AfterWriting => assert!(surplus <= 1, "after {operations} operations"),
            }
            if ended.is_ok() {
                assert_eq!(acknowledged.len(), ROUNDS);
                break;
            }
            operations += 1;
        }
        assert!(operations >= 2 * ROUNDS, "the disk was taken away at every operation");
    }
}
