//! Hosts in the test's own process: real components, the real log, dispatch and sagas, and a clock that the
//! test moves.
//!
//! ```no_run
//! use kontor_testkit::host::{Services, Site};
//! use kontor_testkit::{command, json};
//!
//! let services = Services::load(&["inventory"], &json!({}));
//! let site = Site::new();
//! let host = site.start(&services);
//! let tea = json!({"name": "Tea", "unit_price": 1, "quantity": 2});
//! host.send(&command("product", "tea", "register", tea)).unwrap();
//! host.kill();
//! assert_eq!(site.start(&services).view("product", "tea")["available"], 2);
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a host that does not work is a test that fails"
)]

mod life;
mod services;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use kontor::aggregate::{Accepted, CommandError, Dispatch, DispatchDeps, DispatchLimits, StateCache, Submit};
use kontor::cluster::Cluster;
use kontor::deployed::{Components, Deployed, Registry, Store};
use kontor::log::{EmbeddedLog, EventLog, MAX_PAGE, Snapshots, Subscription};
use kontor::model::{
    Caller, Command, CommandId, Intent, Json, Origin, Position, Precondition, Recorded, SagaId,
};
use kontor::projection::{Overview, ProjectionDeps, Projections, Redrive};
use kontor::query::{Answer, AtLeast, Queries, QueryDeps, QueryError, QueryLimits};
use kontor::runtime::{Ask, HttpClient};
use kontor::saga::{Act, Deps, Retries, Retry, SagaError, SagaState, SagaStatus, Sagas};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::TestClock;
use crate::command::stream;
use life::MortalLog;

pub use life::Life;
pub(crate) use life::Order;
pub use services::Services;

/// The initial time of a site's clock, 2023-11-14 22:13:20 UTC.
pub const START_MS: u64 = 1_700_000_000_000;

/// Longer than anything takes on a busy machine that waits for nothing.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A failed step is retried once and at once, so that no test waits.
const RETRY: Retry = Retry::new(2, Duration::ZERO, Duration::ZERO);

/// The data and the clock of a test's hosts. Hosts come and go on it, one at a time.
pub struct Site {
    data: Arc<TempDir>,
    clock: Arc<TestClock>,
    order: Order,
    /// The maximum size of an append, in bytes of payload.
    largest_append: usize,
}

/// A running host. It is killed when dropped.
pub struct Host {
    /// `None` once it is killed.
    executor: Option<Runtime>,
    life: Arc<Life>,
    parts: Parts,
    /// Keeps the directory for as long as the host.
    _data: Arc<TempDir>,
}

/// The parts of a host.
struct Parts {
    log: Arc<dyn EventLog>,
    registry: Arc<Registry>,
    dispatch: Dispatch,
    projections: Arc<Projections>,
    queries: Queries,
    commands: Arc<dyn Submit>,
    sagas: Sagas,
}

/// The connections from a host's sagas to the rest of it.
pub(crate) type Between = (Arc<dyn Submit>, Arc<dyn Ask>);

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    /// An empty site.
    pub fn new() -> Self {
        Self::with(Order::default())
    }

    /// A site whose log takes appends in this order.
    pub(crate) fn with(order: Order) -> Self {
        let data = tempfile::tempdir().expect("a directory for the host's data");
        Self {
            data: Arc::new(data),
            clock: Arc::new(TestClock::new(START_MS)),
            order,
            largest_append: usize::MAX,
        }
    }

    /// Limits the appends that the log takes, as a message of a shared log does. `bytes`: of payload.
    pub fn with_largest_append(self, bytes: usize) -> Self {
        Self { largest_append: bytes, ..self }
    }

    /// Returns a copy of this site. No host may be running on it.
    pub(crate) fn copy(&self) -> Self {
        let copy = Self { largest_append: self.largest_append, ..Self::with(self.order) };
        copy_dir(self.data(), copy.data()).expect("a copy of the host's data");
        copy
    }

    /// Returns the directory of the host's data.
    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// Returns the clock shared by all hosts of this site.
    pub fn clock(&self) -> &TestClock {
        &self.clock
    }

    /// Starts a host.
    pub fn start(&self, services: &Services) -> Host {
        self.start_with(services, &Arc::default(), |between| between)
    }

    /// Starts a host whose sagas send commands and queries through `between`. The host is dead once its life
    /// ends.
    pub(crate) fn start_with(
        &self,
        services: &Services,
        life: &Arc<Life>,
        between: impl FnOnce(Between) -> Between,
    ) -> Host {
        let mut executor = tokio::runtime::Builder::new_multi_thread();
        let executor = executor.worker_threads(2).enable_all().build().expect("threads for the host");
        let parts = executor.block_on(self.wire(services, life, between));
        Host { executor: Some(executor), life: life.clone(), parts, _data: self.data.clone() }
    }

    async fn wire(
        &self,
        services: &Services,
        life: &Arc<Life>,
        between: impl FnOnce(Between) -> Between,
    ) -> Parts {
        let data = self.data();
        let log = Arc::new(EmbeddedLog::open(data).expect("a log"));
        let registry = Registry::default();
        deploy(&registry, &*log, services).await;
        let log: Arc<dyn EventLog> = Arc::new(MortalLog {
            log,
            life: life.clone(),
            order: self.order,
            largest_append: self.largest_append,
        });
        let store = Store::open(data).unwrap();
        services.files.iter().for_each(|wasm| store.keep(wasm).expect("a component that is kept"));
        let registry = Arc::new(registry);
        let states = Arc::new(StateCache::new(
            log.clone(),
            Snapshots::open(data).expect("snapshots"),
            registry.clone(),
        ));
        let clock = self.clock.clone();
        let components = Arc::new(Components::new(registry.clone(), services.runtime.clone(), store));
        let deps = ProjectionDeps {
            log: log.clone(),
            components: components.clone(),
            clock: clock.clone(),
            max_bytes: 1 << 30,
        };
        let projections = Arc::new(Projections::start(data, deps).await.expect("read models"));
        let deps = QueryDeps {
            states: states.clone(),
            registry: registry.clone(),
            projections: projections.clone(),
            log: log.clone(),
            clock: clock.clone(),
        };
        let queries = Queries::new(deps, QueryLimits::default());
        let ask: Arc<dyn Ask> = Arc::new(queries.clone());
        let deps = DispatchDeps {
            log: log.clone(),
            states,
            registry: registry.clone(),
            ask: ask.clone(),
            // A client that permits nothing.
            http: Arc::new(HttpClient::default()),
            clock: clock.clone(),
        };
        let dispatch = Dispatch::new(deps, DispatchLimits::default());
        let (commands, ask) = between((Arc::new(dispatch.clone()), ask));
        let deps = Deps {
            log: log.clone(),
            commands: commands.clone(),
            ask,
            components,
            clock,
            nobody: Caller::unauthenticated_operator(),
            cluster: Cluster::alone("tested".into()),
            retries: Retries { before_pivot: RETRY, after_pivot: RETRY, undo: RETRY, ..Retries::default() },
        };
        let sagas = Sagas::start(data, deps).await.expect("sagas");
        Parts { log, registry, dispatch, projections, queries, commands, sagas }
    }
}

impl Host {
    /// Waits for a future on this host's threads. Not for async tests.
    pub fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.executor.as_ref().expect("a host that runs").block_on(future)
    }

    /// Returns the sagas of the host.
    pub fn sagas(&self) -> &Sagas {
        &self.parts.sagas
    }

    /// Sends a command under a new key.
    pub fn send(&self, command: &crate::Command) -> Result<Accepted, CommandError> {
        self.run(self.submit(CommandId::new(), command))
    }

    /// Sends commands all at once, each under a new key.
    pub fn send_all(&self, commands: &[crate::Command]) -> Result<Vec<Accepted>, CommandError> {
        let sent = commands.iter().map(|command| self.submit(CommandId::new(), command));
        self.run(try_join_all(sent))
    }

    pub(crate) async fn submit(
        &self,
        id: CommandId,
        command: &crate::Command,
    ) -> Result<Accepted, CommandError> {
        let command = Command {
            origin: Origin { caller: caller(), correlation_id: id.shared().into(), causation_id: None },
            id,
            repeatable: true,
            keyed: false,
            stream: command.stream.clone(),
            name: command.name.as_str().into(),
            payload: Json::of(&command.payload).expect("any value can be written as JSON"),
            intent: Intent::Decide,
            precondition: Precondition::default(),
            journal: None,
        };
        self.parts.commands.submit(command).await
    }

    /// Waits until a saga has ended or parked. Returns its status.
    #[track_caller]
    pub fn settled(&self, saga: &SagaId) -> SagaStatus {
        let status = self.run(self.parts.sagas.wait(saga, LIMIT));
        let status = status.expect("a journal").unwrap_or_else(|| panic!("the saga {saga} has not begun"));
        let settled = status.state.ended() || status.state == SagaState::Parked;
        assert!(settled, "the saga {saga} does not end: {:?}", self.journal(saga));
        status
    }

    /// Acts on a parked saga in the name of an operator.
    pub fn act(&self, saga: &SagaId, act: Act) -> Result<SagaStatus, SagaError> {
        self.run(self.parts.sagas.act(saga, act, &caller()))
    }

    /// Returns all events of the log, oldest first.
    pub fn events(&self) -> Vec<Recorded> {
        let mut events: Vec<Recorded> = Vec::new();
        loop {
            let after = events.last().map_or(Position::START, |event| event.position);
            let page = self.run(self.parts.log.read_all(after, MAX_PAGE)).expect("a page of the log");
            if page.is_empty() {
                return events;
            }
            events.extend(page);
        }
    }

    /// Returns the journal of a saga: the name and the payload of each entry.
    pub fn journal(&self, saga: &SagaId) -> Vec<(String, Value)> {
        let of_saga = |event: &Recorded| event.stream.aggregate() == "saga" && *saga == event.stream.id();
        let entry = |event: Recorded| {
            (event.name.as_str().to_owned(), event.payload.read().expect("an entry that can be read"))
        };
        self.events().into_iter().filter(of_saga).map(entry).collect()
    }

    /// Waits until the log holds `count` events for which `what` is true.
    #[track_caller]
    pub fn until(&self, count: usize, what: impl Fn(&Recorded) -> bool) {
        let mut subscription = Subscription::new(self.parts.log.clone(), Position::START);
        let mut left = count;
        let look = async {
            while left > 0 {
                let page = subscription.next().await.expect("a page of the log").unwrap_or_default();
                left = left.saturating_sub(page.iter().filter(|event| what(event)).count());
            }
        };
        let found = self.run(async { timeout(LIMIT, look).await });
        assert!(found.is_ok(), "{left} of {count} events have not come");
    }

    /// Returns the view that clients get of an aggregate, or null if the aggregate does not exist.
    pub fn view(&self, aggregate: &str, id: &str) -> Value {
        let viewed = self.run(self.parts.dispatch.view(&stream(aggregate, id), None)).expect("a view");
        viewed.map_or(Value::Null, |viewed| viewed.view.read().expect("a view that is JSON"))
    }

    /// Queries a service. `at_least`: the position that the answer must reflect.
    pub fn ask(
        &self,
        service: &str,
        query: &str,
        arguments: &Value,
        at_least: Position,
    ) -> Result<Answer, QueryError> {
        let inquiry = self.parts.queries.inquiry(caller(), AtLeast::position(at_least));
        self.run(inquiry.answer(service, query, arguments.clone()))
    }

    /// Returns the status of a service's read model.
    pub fn read_model(&self, service: &str) -> Overview {
        self.run(self.parts.projections.overview(service)).expect("a read model")
    }

    /// Applies the events that are parked in a read model.
    pub fn redrive(&self, service: &str) -> Redrive {
        self.run(self.parts.projections.redrive(service, None)).expect("a read model")
    }

    /// Replaces the services of this host.
    pub fn deploy(&self, services: &Services) {
        self.run(deploy(&self.parts.registry, &*self.parts.log, services));
        self.run(self.parts.projections.follow()).expect("read models");
    }

    /// Ends the host as a power cut does: nothing more is written, and all work is interrupted.
    pub fn kill(self) {
        drop(self);
    }

    /// Stops the host after the work in progress.
    pub fn stop(self) {
        self.run(async {
            self.parts.sagas.close().await;
            self.parts.dispatch.close().await;
        });
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.life.end();
        if let Some(executor) = self.executor.take() {
            // They work on threads that cannot be interrupted, and only on data that can be rebuilt.
            executor.block_on(self.parts.projections.close());
            executor.shutdown_timeout(LIMIT);
        }
    }
}

/// Records a deployment, and makes it visible to all calls.
async fn deploy(registry: &Registry, log: &dyn EventLog, services: &Services) {
    let components = &services.components;
    registry.history().record(log, components).await.expect("a deployment in the log");
    registry.replace(Deployed::new(components.clone()).expect("services that go together"));
}

/// Returns the caller of all commands and queries: an operator with a name.
fn caller() -> Caller {
    Caller { subject: Some("tester".into()), ..Caller::unauthenticated_operator() }
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let copy = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&copy)?;
            copy_dir(&entry.path(), &copy)?;
        } else {
            fs::copy(entry.path(), copy)?;
        }
    }
    Ok(())
}
