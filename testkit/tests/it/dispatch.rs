//! Dispatch on a log whose disk fails at any moment: every acknowledged command is recorded, and none takes
//! effect twice.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use kontor::aggregate::{CommandError, Dispatch, DispatchDeps, DispatchLimits, StateCache};
use kontor::clock::SystemClock;
use kontor::deployed::{Deployed, Registry};
use kontor::log::{EmbeddedLog, EventLog, JetStreamLog, JetStreamOptions, Snapshots, Subscription};
use kontor::model::{
    AppendChain, Caller, Command, CommandId, Intent, Json, Origin, Position, Precondition, StreamId, Version,
};
use kontor::runtime::{Ask, AskFailure, Component, HttpClient, Request, Runtime, RuntimeLimits};
use kontor_testkit::log::{Fault, FaultyLog};
use kontor_testkit::nats::NatsServer;

const COMMANDS: u64 = 40;

struct NobodyToAsk;

#[async_trait]
impl Ask for NobodyToAsk {
    async fn ask(&self, _: &Caller, _: Request, _: usize) -> Result<Json, AskFailure> {
        Err(AskFailure::Unavailable("nobody is there".to_owned()))
    }
}

async fn inventory(data: &Path) -> Component {
    component(data, "plugins/inventory").await
}

async fn component(data: &Path, name: &str) -> Component {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("../{name}.wasm"));
    let wasm = std::fs::read(file).expect("`cargo xtask build` builds the components");
    let runtime = Runtime::new(data, RuntimeLimits::default(), HashMap::new()).unwrap();
    runtime.load(wasm).await.unwrap()
}

fn deps(data: &Path, log: Arc<dyn EventLog>, registry: Arc<Registry>) -> DispatchDeps {
    let snapshots = Snapshots::open(data).unwrap();
    DispatchDeps {
        log: log.clone(),
        states: Arc::new(StateCache::new(log, snapshots, registry.clone())),
        registry,
        ask: Arc::new(NobodyToAsk),
        http: Arc::new(HttpClient::default()),
        clock: Arc::new(SystemClock),
    }
}

fn dispatch(data: &Path, log: Arc<dyn EventLog>, component: Component) -> Dispatch {
    let registry = Arc::new(Registry::default());
    registry.replace(Deployed::new([component]).unwrap());
    Dispatch::new(deps(data, log, registry), DispatchLimits::default())
}

fn command(id: &str, name: &str, payload: &str) -> Command {
    Command {
        id: CommandId::from_key(id),
        repeatable: true,
        keyed: false,
        stream: StreamId::new("product", "tea").unwrap(),
        name: name.into(),
        payload: Json::parse(payload.to_owned()).unwrap(),
        intent: Intent::Decide,
        precondition: Precondition::default(),
        origin: Origin { caller: Caller::named("test"), correlation_id: id.into(), causation_id: None },
        journal: None,
    }
}

fn register() -> Command {
    command("register", "register", r#"{"name":"Tea","unit_price":1,"quantity":10}"#)
}

fn take(index: u64) -> Command {
    command(&format!("take-{index}"), "remove-stock", r#"{"quantity":1}"#)
}

fn available(view: &Json) -> u64 {
    view.read::<serde_json::Value>().unwrap()["available"].as_u64().unwrap()
}

/// Sends 40 commands for 10 pieces: exactly 10 must be accepted, among them all acknowledged ones.
async fn check_the_rest(data: &Path, component: Component, acknowledged: &[u64]) {
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(data).unwrap());
    let dispatch = dispatch(data, log.clone(), component);
    dispatch.submit(register()).await.unwrap();
    let mut accepted = Vec::new();
    for index in 0..COMMANDS {
        match dispatch.submit(take(index)).await {
            Ok(_) => accepted.push(index),
            Err(CommandError::Rejected(rejection)) => assert_eq!(rejection.code, "insufficient-stock"),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(accepted.len(), 10);
    for index in acknowledged {
        assert!(accepted.contains(index), "command {index} was acknowledged and is gone");
    }
    let product = StreamId::new("product", "tea").unwrap();
    let viewed = dispatch.view(&product, None).await.unwrap().unwrap();
    assert_eq!((viewed.version.get(), available(&viewed.view)), (11, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_on_disk_whenever_the_disk_goes_away() {
    let compiled = tempfile::tempdir().unwrap();
    let component = inventory(compiled.path()).await;
    for fault in [Fault::BeforeWriting, Fault::AfterWriting] {
        for operations in 0..16 {
            let data = tempfile::tempdir().unwrap();
            let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(data.path()).unwrap());
            let faulty = Arc::new(FaultyLog::new(log.clone(), operations, fault));
            let faulty = dispatch(data.path(), faulty, component.clone());
            let registered = faulty.submit(register()).await.is_ok();
            let at_once = (0..COMMANDS).map(|index| {
                let faulty = faulty.clone();
                tokio::spawn(async move { (index, faulty.submit(take(index)).await) })
            });
            let (mut acknowledged, mut refused) = (Vec::new(), 0);
            for sent in at_once.collect::<Vec<_>>() {
                match sent.await.unwrap() {
                    (index, Ok(_)) => acknowledged.push(index),
                    (_, Err(CommandError::Rejected(rejection))) if rejection.code == "insufficient-stock" => {
                        refused += 1;
                    }
                    (_, Err(CommandError::Rejected(rejection))) => {
                        assert!(!registered, "{rejection} although the product is there");
                    }
                    (_, Err(CommandError::Append(_) | CommandError::Read(_))) => {}
                    (_, Err(error)) => panic!("{error}"),
                }
            }
            assert!(refused == 0 || acknowledged.len() == 10, "refused for want of stock that was not gone");
            drop(faulty);
            // Its worker has answered, and may not have dropped the log yet.
            while Arc::strong_count(&log) > 1 {
                tokio::task::yield_now().await;
            }
            drop(log);
            check_the_rest(data.path(), component.clone(), &acknowledged).await;
        }
    }
}

/// A rejection that is only confirmed leaves no message in the log's stream; a fence is one.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_rejection_of_a_step_that_may_have_been_sent_before_is_a_fence() {
    let server = NatsServer::start();
    let data = tempfile::tempdir().unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let monitoring = vec![server.monitoring_url()];
    let options = JetStreamOptions { monitoring, ..JetStreamOptions::default() };
    let log: Arc<dyn EventLog> =
        Arc::new(JetStreamLog::open(client, &options, 1, data.path()).await.unwrap());
    let dispatch = dispatch(data.path(), log.clone(), inventory(data.path()).await);
    dispatch.submit(register()).await.unwrap();
    let messages = || log.state().copy.unwrap().sequence.get();
    for (journal, repeatable, fences) in [
        (None, false, 0),
        (None, true, 0),
        (Some(AppendChain::new()), false, 0),
        (Some(AppendChain::new()), true, 1),
    ] {
        let before = messages();
        let too_much = command("too-much", "remove-stock", r#"{"quantity":11}"#);
        let rejected = dispatch.submit(Command { journal, repeatable, ..too_much }).await;
        assert!(matches!(rejected, Err(CommandError::Rejected(_))), "{rejected:?}");
        assert_eq!(messages() - before, fences, "{journal:?}, {repeatable}");
    }
    assert_eq!(log.head().borrow().get(), 1, "a fence is no event");
}

/// Sends commands that change a beast and commands that do not, all at once. A reply must cover the events
/// that it was decided on: a client that sends its position back sees them.
#[tokio::test(flavor = "multi_thread")]
async fn the_reply_to_a_command_that_changes_nothing_covers_what_it_was_decided_on() {
    let data = tempfile::tempdir().unwrap();
    let component = component(data.path(), "fixtures/unruly").await;
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(data.path()).unwrap());
    let dispatch = dispatch(data.path(), log.clone(), component);
    let bear = StreamId::new("beast", "bear").unwrap();
    let sent = (0..20 * COMMANDS).map(|index| {
        let name = if index % 2 == 0 { "wait" } else { "rest" };
        let command = Command { stream: bear.clone(), ..command(&format!("{name}-{index}"), name, "{}") };
        let dispatch = dispatch.clone();
        tokio::spawn(async move { dispatch.submit(command).await })
    });
    let sent: Vec<_> = sent.collect();
    let mut replies = Vec::new();
    for sent in sent {
        replies.push(sent.await.unwrap().unwrap());
    }
    for reply in replies.iter().filter(|reply| reply.version > Version::START) {
        let decided_on = log.read(&bear, reply.version.before(1), 1).await.unwrap();
        assert!(reply.position >= decided_on[0].position, "{reply:?} of {}", decided_on[0].position);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_has_begun_ends_although_its_caller_has_gone() {
    let data = tempfile::tempdir().unwrap();
    let component = inventory(data.path()).await;
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(data.path()).unwrap());
    let dispatch = dispatch(data.path(), log, component);
    dispatch.submit(register()).await.unwrap();
    for index in 0..10 {
        tokio::select! {
            biased;
            taken = dispatch.submit(take(index)) => drop(taken.unwrap()),
            () = std::future::ready(()) => {}
        }
    }
    dispatch.close().await;
    let product = StreamId::new("product", "tea").unwrap();
    let viewed = dispatch.view(&product, None).await.unwrap().unwrap();
    assert_eq!((viewed.version.get(), available(&viewed.view)), (11, 0));
}

/// The second of two registrations would be rejected, if it were not known as the same command.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_is_sent_many_times_at_once_takes_effect_once_and_has_one_answer() {
    let data = tempfile::tempdir().unwrap();
    let component = inventory(data.path()).await;
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(data.path()).unwrap());
    let dispatch = dispatch(data.path(), log, component);
    for keyed in [false, true] {
        let product = StreamId::new("product", &format!("tea-{keyed}")).unwrap();
        let sent = (0..COMMANDS).map(|_| {
            let (dispatch, stream) = (dispatch.clone(), product.clone());
            tokio::spawn(async move { dispatch.submit(Command { keyed, stream, ..register() }).await })
        });
        for sent in sent.collect::<Vec<_>>() {
            let accepted = sent.await.unwrap().unwrap();
            assert_eq!((accepted.version.get(), accepted.events.len()), (1, 1), "keyed: {keyed}");
        }
    }
}

/// Follows the log of a product that changes all the time. Its view must never be older than an event that
/// can be read.
#[tokio::test(flavor = "multi_thread")]
async fn a_view_is_never_older_than_an_event_that_can_be_read() {
    let data = tempfile::tempdir().unwrap();
    let component = inventory(data.path()).await;
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(data.path()).unwrap());
    let dispatch = dispatch(data.path(), log.clone(), component);
    dispatch.submit(register()).await.unwrap();
    let sent = (0..20 * COMMANDS).map(|index| {
        let dispatch = dispatch.clone();
        let add = command(&format!("add-{index}"), "add-stock", r#"{"quantity":1}"#);
        tokio::spawn(async move { dispatch.submit(add).await.unwrap() })
    });
    let sent: Vec<_> = sent.collect();
    let (mut events, mut version) = (Subscription::new(log, Position::START), Version::START);
    while version < Version::new(20 * COMMANDS + 1) {
        let page = events.next().await.unwrap().unwrap();
        let last = page.last().unwrap();
        let viewed = dispatch.view(&last.stream, None).await.unwrap().unwrap();
        assert!(viewed.version >= last.version, "{} after {}", viewed.version, last.version);
        version = last.version;
    }
    for sent in sent {
        sent.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_so_and_loses_nothing() {
    let data: PathBuf = tempfile::tempdir().unwrap().keep();
    let component = inventory(&data).await;
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(&data).unwrap());
    let registry = Arc::new(Registry::default());
    registry.replace(Deployed::new([component]).unwrap());
    let limits = DispatchLimits { commands: 8, aggregate: 2 };
    let dispatch = Dispatch::new(deps(&data, log, registry), limits);
    dispatch.submit(register()).await.unwrap();
    let sent = (0..COMMANDS).map(|index| {
        let dispatch = dispatch.clone();
        let add = command(&format!("add-{index}"), "add-stock", r#"{"quantity":1}"#);
        tokio::spawn(async move { dispatch.submit(add).await })
    });
    let (mut added, mut busy) = (0, 0);
    for sent in sent.collect::<Vec<_>>() {
        match sent.await.unwrap() {
            Ok(_) => added += 1,
            Err(CommandError::Busy { .. }) => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(busy > 0, "40 commands at once fit into queues of 8 and 2");
    let product = StreamId::new("product", "tea").unwrap();
    let viewed = dispatch.view(&product, None).await.unwrap().unwrap();
    assert_eq!(available(&viewed.view), 10 + added);
    std::fs::remove_dir_all(data).unwrap();
}
