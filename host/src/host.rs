//! Wires the parts of a host, runs them, and lets go of them in the right order.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::aggregate::{Dispatch, DispatchLimits, States};
use crate::clock::{Clock as _, SharedClock, SystemClock, Time};
use crate::cluster::{self, Cluster, Connection, Member, NatsError, Status};
use crate::config::{Config, ConfigError, Limits};
use crate::contract::RouteError;
use crate::deploy::{self, Boot, BootError, Booted, DeployDeps, DeployRules, Deployer};
use crate::deployed::{Bucket, Components, Deployed, Deployments, Registry, Running, Store};
use crate::edge::http::{self, HttpLimits};
use crate::edge::{self, HostContext};
use crate::log::{self, EventLog, JetStreamError, LogEngine, LogPlace, OpenError, OpenLogError, Snapshots};
use crate::messaging::{self, Messaging};
use crate::model::{Json, Position};
use crate::projection::{Projections, ProjectionsError};
use crate::query::{Queries, QueryLimits};
use crate::runtime::{
    Ask, GrantError, HttpClient, HttpLimits as OutgoingLimits, Runtime, RuntimeError, RuntimeLimits,
    system_resolver,
};
use crate::saga::{Deps, Sagas, SagasError};
use crate::telemetry::{self, TelemetryError};

/// How often the metrics' histograms are condensed.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// What a host says once it answers requests.
pub struct Started {
    /// Where it listens; the port is the one it got.
    pub address: SocketAddr,
    pub deployed: Arc<Deployed>,
    /// What runs, since when and by whom.
    pub running: Arc<Vec<Running>>,
    /// Files of the directory of components that do not run, because the log knows their services otherwise, a sentence each.
    pub differing: Vec<String>,
    pub deployer: Arc<Deployer>,
}

/// Why a host cannot run.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Log(#[from] OpenLogError),
    #[error(transparent)]
    Snapshots(#[from] OpenError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("the host's own id cannot be kept in the data directory")]
    Member(#[source] io::Error),
    #[error("the components that sagas may need cannot be kept in the data directory")]
    Store(#[source] io::Error),
    #[error(transparent)]
    Grants(#[from] GrantError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Routes(#[from] RouteError),
    #[error(transparent)]
    Projections(#[from] ProjectionsError),
    #[error(transparent)]
    Sagas(#[from] SagasError),
    #[error(transparent)]
    Nats(#[from] NatsError),
    #[error("NATS cannot be subscribed to")]
    Subscribe(#[from] async_nats::SubscribeError),
    #[error("the configuration of a service is not JSON")]
    Configuration(#[from] serde_json::Error),
    #[error("{address} cannot be listened on")]
    Listen { address: SocketAddr, source: io::Error },
}

/// Runs a host until `shutdown` resolves and everything under way has ended. `started` is called once, when requests are
/// answered.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
    started: impl FnOnce(Started),
) -> Result<(), HostError> {
    let metrics = telemetry::metrics()?;
    let storage = Storage::open(&config).await?;
    let nats = storage.nats.clone();
    let Wired { edge, differing, booted_at } = wire(&config, metrics.clone(), storage).await?;
    let messaging = nats.as_ref().map(|nats| start_messaging(&edge, nats, config.nats.replicas));
    let edge = Arc::new(HostContext { messaging, ..edge });
    let following = edge.nodes.me().map(|_| tokio::spawn(edge.deployer.clone().follow(booted_at)));
    let listening = |source| HostError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(listening)?;
    let address = listener.local_addr().map_err(listening)?;
    let upkeep = keep_up(metrics);
    let (stop, stopping) = watch::channel(false);
    let over_nats = match &nats {
        Some(nats) => {
            let (most, now_ms) = (config.limits.nats_requests, SystemClock.now_ms());
            Some(edge::nats::serve(nats, edge.clone(), most, now_ms, stopping).await?)
        }
        None => None,
    };
    announce(&edge, &config.name, address);
    started(Started {
        address,
        deployed: edge.registry.current(),
        running: edge.deployer.running(),
        differing,
        deployer: edge.deployer.clone(),
    });
    let shutdown = async {
        shutdown.await;
        stop.send_replace(true);
    };
    let served = http::serve(listener, edge.clone(), shutdown).await;

    // From the outside in: what is no longer fed comes to rest.
    if let Some(over_nats) = over_nats {
        // Err: it has panicked, and answers nothing any more.
        let _ = over_nats.await;
    }
    if let Some(messaging) = &edge.messaging {
        messaging.close();
    }
    if let Some(following) = following {
        following.abort();
    }
    let _no_deployment = edge.deployer.close().await;
    edge.sagas.close().await;
    edge.nodes.leave().await;
    edge.dispatch.close().await;
    edge.projections.close().await;
    upkeep.abort();
    tracing::info!("everything accepted is done");
    Ok(served?)
}

/// A host whose parts are together.
struct Wired {
    edge: HostContext,
    /// The files of components that are not what runs, a sentence each.
    differing: Vec<String>,
    /// What is deployed later than this position is still to be followed.
    booted_at: Position,
}

/// What everything else stands on.
struct Base {
    log: Arc<dyn EventLog>,
    nodes: Cluster,
    clock: SharedClock,
    http: Arc<HttpClient>,
    runtime: Runtime,
    store: Store,
}

impl Base {
    async fn lay(config: &Config, Storage { nats, log, store }: Storage) -> Result<Self, HostError> {
        let nodes = join(config, nats.as_ref()).await?;
        let limits = runtime_limits(&config.limits);
        let http = Arc::new(HttpClient::new(&config.grants, &limits.http, &system_resolver())?);
        let runtime = Runtime::new(&config.data, limits, configuration(&config.services)?)?;
        Ok(Self { log, nodes, clock: Arc::new(SystemClock), http, runtime, store })
    }

    async fn boot(&self, rules: &DeployRules, plugins: &Path) -> Result<Booted, BootError> {
        let Self { log, clock, http, runtime, store, .. } = self;
        deploy::boot(Boot { log, clock, runtime, store, http, rules, plugins }).await
    }
}

/// Puts the parts of a host together, the log first and the edge last.
async fn wire(config: &Config, metrics: PrometheusHandle, storage: Storage) -> Result<Wired, HostError> {
    let base = Base::lay(config, storage).await?;
    let booted_at = *base.log.head().borrow();
    let rules = config.deploy_rules(http::reserved_routes());
    let booted = base.boot(&rules, &config.plugins).await?;
    let Base { log, nodes, clock, http, runtime, store } = base;
    let registry = Arc::new(Registry::of(booted.deployed));
    let components = Arc::new(Components::new(registry.clone(), runtime.clone(), store.clone()));
    components.keep_releases(booted.deployments.digests().collect());

    let states = Arc::new(States::new(log.clone(), Snapshots::open(&config.data)?, registry.clone()));
    let projections = Projections::start(&config.data, log.clone(), components.clone(), clock.clone());
    let projections = Arc::new(projections.await?);
    let queries = Arc::new(Queries::new(
        states.clone(),
        registry.clone(),
        projections.clone(),
        log.clone(),
        clock.clone(),
        QueryLimits { catch_up: longest_wait(config), ..QueryLimits::default() },
    ));
    let ask: Arc<dyn Ask> = queries.clone();
    let dispatch = Arc::new(Dispatch::new(
        log.clone(),
        states,
        registry.clone(),
        ask.clone(),
        http.clone(),
        clock.clone(),
        DispatchLimits { commands: config.limits.queue, aggregate: config.limits.aggregate_queue },
    ));
    let deps = Deps {
        log: log.clone(),
        commands: dispatch.clone(),
        ask,
        components: components.clone(),
        clock: clock.clone(),
        retries: config.retries.clone(),
        nodes: nodes.clone(),
    };
    let sagas = Arc::new(Sagas::start(&config.data, deps).await?);
    let deps = DeployDeps {
        log: log.clone(),
        clock,
        runtime,
        store,
        registry: registry.clone(),
        components,
        http,
        projections: projections.clone(),
        sagas: sagas.clone(),
        cluster: nodes.clone(),
        rules,
    };
    let deployer = Deployer::new(deps, booted.deployments);
    let edge = HostContext {
        log,
        registry,
        dispatch,
        queries,
        projections,
        sagas,
        deployer,
        messaging: None,
        nodes,
        metrics,
        limits: http_limits(config),
    };
    Ok(Wired { edge, differing: booted.differing, booted_at })
}

/// Everything of a host that lasts: its log, and the components by digest.
pub struct Storage {
    /// The connection to NATS; none if none is configured.
    pub nats: Option<Connection>,
    pub log: Arc<dyn EventLog>,
    pub store: Store,
}

impl Storage {
    /// Opens the log that is configured, and the components beside it.
    pub async fn open(config: &Config) -> Result<Self, HostError> {
        let nats = Connection::open(&config.nats).await?;
        let place = match (config.log, &nats) {
            (LogEngine::Embedded, _) => LogPlace::Embedded,
            (LogEngine::JetStream, Some(nats)) => LogPlace::JetStream {
                client: nats.client().clone(),
                options: &config.jetstream,
                replicas: config.nats.replicas,
            },
            (LogEngine::JetStream, None) => return Err(ConfigError::LogWithoutNats.into()),
        };
        let log = log::open(place, &config.data).await?;
        let store = Store::open(&config.data).map_err(HostError::Store)?;
        let bucket =
            |nats: &Connection| Bucket::new(nats.client(), &config.jetstream.stream, config.nats.replicas);
        let store = store.shared(sharing(config, nats.as_ref()).map(bucket));
        Ok(Self { nats, log, store })
    }
}

/// Brings the copy of a log that is in NATS up to date, with the components that run by it, unless a host does that already.
pub async fn catch_up(config: &Config) -> Result<(), HostError> {
    if config.log == LogEngine::Embedded {
        return Ok(());
    }
    let locked = |error: &HostError| {
        matches!(
            error,
            HostError::Log(OpenLogError::JetStream(JetStreamError::Copy(OpenError::Locked { .. })))
        )
    };
    let Storage { log, store, .. } = match Storage::open(config).await {
        Err(error) if locked(&error) => return Ok(()),
        storage => storage?,
    };
    for digest in Deployments::load(&*log).await.map_err(BootError::from)?.digests() {
        // None: nobody has it any more. A host that is to run it says so.
        store.fetch(digest).await.map_err(HostError::Store)?;
    }
    Ok(())
}

/// By what the host reaches the others that share its log; none if the log is its own.
fn sharing<'n>(config: &Config, nats: Option<&'n Connection>) -> Option<&'n Connection> {
    nats.filter(|_| config.log == LogEngine::JetStream)
}

/// This host among those that share its log.
async fn join(config: &Config, nats: Option<&Connection>) -> Result<Cluster, HostError> {
    let me = cluster::id_of(&config.data).map_err(HostError::Member)?;
    let Some(nats) = sharing(config, nats) else { return Ok(Cluster::alone(me)) };
    let silence = Duration::from_millis(config.jetstream.silence_ms);
    Ok(Cluster::listen(me, nats.client(), &config.jetstream.stream, silence).await?)
}

/// Tells the others from now on how this host is.
fn announce(edge: &Arc<HostContext>, name: &str, address: SocketAddr) {
    let node = Member {
        id: edge.nodes.id().clone(),
        name: name.into(),
        address,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        since: Time(SystemClock.now_ms()),
        status: Status::default(),
    };
    // What tells it is a part of what is told of.
    let edge_ref = Arc::downgrade(edge);
    edge.nodes.announce(move || Member {
        status: edge_ref.upgrade().map(|edge| edge.status()).unwrap_or_default(),
        ..node.clone()
    });
}

fn start_messaging(edge: &HostContext, nats: &Connection, replicas: usize) -> Messaging {
    Messaging::start(messaging::Deps {
        log: edge.log.clone(),
        registry: edge.registry.clone(),
        commands: edge.dispatch.clone(),
        connection: nats.clone(),
        replicas,
        cluster: edge.nodes.clone(),
    })
}

fn keep_up(metrics: PrometheusHandle) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut due = tokio::time::interval(METRICS_UPKEEP);
        loop {
            due.tick().await;
            metrics.run_upkeep();
        }
    })
}

fn longest_wait(config: &Config) -> Duration {
    Duration::from_millis(config.limits.wait_ms)
}

fn http_limits(config: &Config) -> HttpLimits {
    let (body_bytes, wait) = (config.limits.body_bytes, longest_wait(config));
    HttpLimits { body_bytes, wait, ..HttpLimits::default() }
}

fn runtime_limits(limits: &Limits) -> RuntimeLimits {
    RuntimeLimits {
        call_time: Duration::from_millis(limits.call_time_ms),
        memory_bytes: limits.call_memory_bytes,
        instances: limits.instances,
        sagas: limits.saga_concurrency,
        http: OutgoingLimits {
            time: Duration::from_millis(limits.http_time_ms),
            request_bytes: limits.http_request_bytes,
            response_bytes: limits.http_response_bytes,
            concurrency: limits.http_concurrency,
        },
        ..RuntimeLimits::default()
    }
}

/// What components may ask for, as the JSON they get.
fn configuration(
    services: &BTreeMap<String, BTreeMap<String, Value>>,
) -> Result<HashMap<String, BTreeMap<String, Json>>, serde_json::Error> {
    let json = |(key, value): (&String, &Value)| Ok((key.clone(), Json::of(value)?));
    let service = |(name, keys): (&String, &BTreeMap<String, Value>)| {
        Ok((name.clone(), keys.iter().map(json).collect::<Result<_, serde_json::Error>>()?))
    };
    services.iter().map(service).collect()
}
