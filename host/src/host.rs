//! Wires the parts of a host, runs them, and shuts them down from the outside in.

mod files;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::aggregate::{Dispatch, DispatchDeps, StateCache};
use crate::audit::Audit;
use crate::clock::{Clock as _, SharedClock, SystemClock, Time};
use crate::cluster::{self, Cluster, Connection, Member, NatsError, Status};
use crate::config::{Config, ConfigError};
use crate::contract::{Findings, RouteError};
use crate::deploy::{self, Boot, BootError, Booted, DeployDeps, DeployRules, Deployer, FoldMemory};
use crate::deployed::{Bucket, Components, Deployed, Deployments, Registry, Running, Store};
use crate::edge::http::{ListenError, Listeners};
use crate::edge::{self, CallerLimits, HostContext, http};
use crate::gc::{Gc, GcDeps};
use crate::identity::{Identity, IdentityDeps, IdentityError};
use crate::log::{
    self, EventLog, JetStreamError, JetStreamOptions, LogEngine, LogPlace, OpenError, OpenLogError,
    ReadError, Snapshots,
};
use crate::messaging::{self, Messaging};
use crate::model::Position;
use crate::projection::{ProjectionDeps, Projections, ProjectionsError};
use crate::query::{Queries, QueryDeps};
use crate::runtime::{GrantError, HttpClient, Runtime, RuntimeError, system_resolver};
use crate::saga::{Admission, Deps, Sagas, SagasError};
use crate::telemetry::{self, TelemetryError};

pub use self::files::keep_files_private;

/// The time between two condensations of the metrics' histograms: a few seconds of observations are small.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// A host that answers requests.
pub struct Started {
    /// The address that it listens on, with the port that it got.
    pub address: SocketAddr,
    /// True if its clients speak TLS.
    pub is_secure: bool,
    /// The address of the operators' listener, if there is one.
    pub admin: Option<SocketAddr>,
    /// The services that run.
    pub deployed: Arc<Deployed>,
    /// Their deployments: the time and the actor of each.
    pub running: Arc<Vec<Running>>,
    /// A sentence for each file of the directory of components that does not run, because the log has another
    /// component for its service.
    pub differing: Vec<String>,
    /// The deployer of the host.
    pub deployer: Arc<Deployer>,
}

/// A host cannot run.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log.
    #[error(transparent)]
    Log(#[from] OpenLogError),
    /// The snapshots.
    #[error(transparent)]
    Snapshots(#[from] OpenError),
    /// The metrics.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The runtime of the components.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The host's id, which is a file.
    #[error("the host's own id cannot be kept in the data directory")]
    Member(#[source] io::Error),
    /// The log may have the mark of an import, which cannot be read.
    #[error("it is unknown whether the log was imported in whole")]
    ImportMark(#[source] ReadError),
    /// An import into the log was interrupted.
    #[error(
        "the log has only the beginning of an export: run `kontor import` with the same file and settings \
         again, it continues; or start with an empty data directory and, with log = \"jetstream\", another \
         name in jetstream.stream"
    )]
    ImportedInHalf,
    /// The first event, from which components get random numbers, cannot be read.
    #[error("the first event of the log cannot be read")]
    Secret(#[source] ReadError),
    /// The store of components.
    #[error("the components that sagas may need cannot be kept in the data directory")]
    Store(#[source] io::Error),
    /// The grants of the configuration.
    #[error(transparent)]
    Grants(#[from] GrantError),
    /// The services of the log and of the directory of components.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The routes of the services.
    #[error(transparent)]
    Routes(#[from] RouteError),
    /// The read models.
    #[error(transparent)]
    Projections(#[from] ProjectionsError),
    /// The sagas.
    #[error(transparent)]
    Sagas(#[from] SagasError),
    /// The identification of callers.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The connection to NATS.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// The subjects of the services in NATS.
    #[error("cannot subscribe to NATS")]
    Subscribe(#[from] async_nats::SubscribeError),
    /// The sockets to listen on.
    #[error(transparent)]
    Listen(#[from] ListenError),
}

/// Runs a host until `shutdown` resolves and everything in progress has ended. Calls `started` once, as soon
/// as requests are answered.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()> + Send,
    started: impl FnOnce(Started),
) -> Result<(), HostError> {
    config.check_files()?;
    let metrics = telemetry::metrics()?;
    let storage = Storage::open(&config).await?;
    if storage.log.is_importing().await.map_err(HostError::ImportMark)? {
        return Err(HostError::ImportedInHalf);
    }
    let nats = storage.nats.clone();
    let Wired { edge, differing, boot_position } = wire(&config, metrics.clone(), storage).await?;
    let messaging = nats.as_ref().map(|nats| start_messaging(&edge, nats, &config));
    let edge = Arc::new(HostContext { messaging, ..edge });
    let following = edge.nodes.me().map(|_| tokio::spawn(edge.deployer.clone().follow(boot_position)));
    let listeners = Listeners::open(config.listen_options()).await?;
    let upkeep = spawn_upkeep(metrics);
    let gc = tokio::spawn(edge.gc.clone().run());
    let (stop, stopping) = watch::channel(false);
    let over_nats = match &nats {
        Some(nats) => {
            let (most, now_ms) = (config.limits.nats_requests, SystemClock.now_ms());
            Some(edge::nats::serve(nats, edge.clone(), most, now_ms, stopping).await?)
        }
        None => None,
    };
    announce(&edge, &config.name, listeners.address);
    started(Started {
        address: listeners.address,
        is_secure: listeners.is_secure(),
        admin: listeners.admin,
        deployed: edge.registry.current(),
        running: edge.deployer.running(),
        differing,
        deployer: edge.deployer.clone(),
    });
    let shutdown = async {
        shutdown.await;
        stop.send_replace(true);
    };
    let served = http::serve(listeners, edge.clone(), shutdown).await;

    // From the outside in: each part ends once nothing feeds it any more.
    if let Some(over_nats) = over_nats {
        // Err: the task has panicked, so it has ended too.
        let _ = over_nats.await;
    }
    if let Some(messaging) = &edge.messaging {
        messaging.close();
    }
    if let Some(following) = following {
        following.abort();
    }
    gc.abort();
    let _no_deployment = edge.deployer.close().await;
    edge.sagas.close().await;
    edge.nodes.leave().await;
    edge.dispatch.close().await;
    edge.projections.close().await;
    edge.identity.close().await;
    upkeep.abort();
    tracing::info!("everything accepted is done; the host ends");
    Ok(served?)
}

/// The parts of a host, wired.
struct Wired {
    edge: HostContext,
    /// See [`Started::differing`].
    differing: Vec<String>,
    /// The log position at boot. Later deployments are followed from here.
    boot_position: Position,
}

/// The parts that all others use.
struct Foundation {
    log: Arc<dyn EventLog>,
    nodes: Cluster,
    clock: SharedClock,
    http: Arc<HttpClient>,
    runtime: Runtime,
    store: Store,
    folds: FoldMemory,
}

impl Foundation {
    /// Opens the parts.
    async fn open(config: &Config, Storage { nats, log, store }: Storage) -> Result<Self, HostError> {
        let nodes = join(config, nats.as_ref()).await?;
        let limits = config.runtime_limits();
        let http = Arc::new(HttpClient::new(&config.grants, &limits.http, &system_resolver())?);
        let runtime = Runtime::new(&config.data, limits, config.service_configuration()?)?;
        let folds = FoldMemory::open(&config.data, &*log).await;
        Ok(Self { log, nodes, clock: Arc::new(SystemClock), http, runtime, store, folds })
    }

    /// Loads the services of the log and of the directory of components.
    async fn boot(&self, rules: &DeployRules, plugins: &Path) -> Result<Booted, HostError> {
        let Self { log, clock, http, runtime, store, folds, .. } = self;
        let booted = deploy::boot(Boot { log, clock, runtime, store, http, rules, folds, plugins }).await?;
        // The same on all hosts of the log, and unknown to its clients: the first deployment has a random id.
        let first = log.read_all(Position::START, 1).await.map_err(HostError::Secret)?;
        if let Some(first) = first.first() {
            runtime.seed(first.hash.as_bytes());
        }
        Ok(booted)
    }
}

/// Puts the parts of a host together, the log first and the edge last.
async fn wire(config: &Config, metrics: PrometheusHandle, storage: Storage) -> Result<Wired, HostError> {
    let foundation = Foundation::open(config, storage).await?;
    let boot_position = *foundation.log.head().borrow();
    let rules = config.deploy_rules(http::reserved_routes());
    let booted = foundation.boot(&rules, &config.plugins).await?;
    check_names(config, &booted.deployed, &foundation.runtime)?;
    let Foundation { log, nodes, clock, http, runtime, store, folds } = foundation;
    let registry = Arc::new(Registry::of(booted.deployed, booted.history));
    let components = Components::new(registry.clone(), runtime.clone(), store.clone());
    let trust = deploy::trust(log.clone(), rules.trusted.as_slice().into());
    let components = Arc::new(components.trusting(trust));
    components.keep_releases(booted.deployments.digests().collect());

    let states = Arc::new(StateCache::new(log.clone(), Snapshots::open(&config.data)?, registry.clone()));
    let projections = Arc::new(start_projections(config, &log, &components, &clock).await?);
    let queries = start_queries(config, (&log, &clock), (&states, &registry, &projections));
    let deps = {
        let (registry, ask, http) = (registry.clone(), queries.clone(), http.clone());
        let states = states.clone();
        DispatchDeps { log: log.clone(), states, registry, ask, http, clock: clock.clone() }
    };
    let dispatch = Arc::new(Dispatch::new(deps, config.dispatch_limits()));
    let deps = Deps {
        log: log.clone(),
        commands: dispatch.clone(),
        ask: queries.clone(),
        components: components.clone(),
        clock: clock.clone(),
        retries: config.retries.clone(),
        nobody: config.nobody(),
        cluster: nodes.clone(),
    };
    let sagas = Arc::new(Sagas::start(&config.data, deps).await?);
    let deps = DeployDeps {
        log: log.clone(),
        clock: clock.clone(),
        runtime,
        store,
        registry: registry.clone(),
        components,
        http,
        projections: projections.clone(),
        sagas: sagas.clone(),
        cluster: nodes.clone(),
        folds,
        rules,
    };
    let gc = garbage_collector(config, &deps, states);
    let deployer = Deployer::new(deps, booted.deployments);
    deployer.watch_again();
    let edge = HostContext {
        identity: Arc::new(identify(config, log.clone(), clock.clone()).await?),
        audit: Audit::new(log.clone(), clock),
        log,
        registry: registry.clone(),
        admission: Arc::new(Admission { dispatch: dispatch.clone(), registry, sagas: sagas.clone() }),
        dispatch,
        queries,
        projections,
        sagas,
        deployer,
        gc,
        messaging: None,
        nodes,
        metrics,
        limits: config.http_limits().fit_open_files(),
        perimeter: config.http.clone(),
        callers: CallerLimits::new(config.caller_rate()),
    };
    Ok(Wired { edge, differing: booted.differing, boot_position })
}

fn start_queries(
    config: &Config,
    (log, clock): (&Arc<dyn EventLog>, &SharedClock),
    (states, registry, projections): (&Arc<StateCache>, &Arc<Registry>, &Arc<Projections>),
) -> Arc<Queries> {
    let (states, registry, projections) = (states.clone(), registry.clone(), projections.clone());
    let deps = QueryDeps { states, registry, projections, log: log.clone(), clock: clock.clone() };
    Arc::new(Queries::new(deps, config.query_limits()))
}

fn garbage_collector(config: &Config, deps: &DeployDeps, states: Arc<StateCache>) -> Arc<Gc> {
    let DeployDeps { components, runtime, sagas, projections, clock, folds, .. } = deps;
    let deps = GcDeps {
        components: components.clone(),
        runtime: runtime.clone(),
        states,
        sagas: sagas.clone(),
        projections: projections.clone(),
        folds: folds.clone(),
        clock: clock.clone(),
    };
    Arc::new(Gc::new(deps, config.gc.clone()))
}

async fn start_projections(
    config: &Config,
    log: &Arc<dyn EventLog>,
    components: &Arc<Components>,
    clock: &SharedClock,
) -> Result<Projections, ProjectionsError> {
    let (log, components, clock) = (log.clone(), components.clone(), clock.clone());
    let deps = ProjectionDeps { log, components, clock, max_bytes: config.limits.read_model_bytes };
    Projections::start(&config.data, deps).await
}

/// Compares the names in the configuration with the services that run. Fails if one is nearly right.
fn check_names(config: &Config, deployed: &Deployed, runtime: &Runtime) -> Result<(), ConfigError> {
    let manifests: Vec<_> = deployed.services().map(|service| &**service.manifest()).collect();
    let Findings { errors, warnings } = config.findings(&manifests, &[], runtime.configuration());
    for warning in warnings {
        tracing::warn!("{} yet", config.places.locate(&warning));
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(ConfigError::Names(errors.iter().map(|error| config.places.locate(error)).collect())),
    }
}

/// The durable parts of a host: its log, and its components by digest.
pub struct Storage {
    /// The connection to NATS, or none if none is configured.
    pub nats: Option<Connection>,
    /// The event log.
    pub log: Arc<dyn EventLog>,
    /// The components.
    pub store: Store,
}

impl Storage {
    /// Opens the configured log and the store of components.
    pub async fn open(config: &Config) -> Result<Self, HostError> {
        files::close_to_others(&config.data);
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
        let store = store.shared(cluster_connection(config, nats.as_ref()).map(bucket));
        Ok(Self { nats, log, store })
    }
}

/// Brings the local copy of a log in NATS up to date, with the components deployed in it. Does nothing if a
/// host that runs on the copy does so.
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
    for digest in Deployments::load(&*log).await.map_err(BootError::from)?.0.digests() {
        // None: the component is lost. A host that needs it reports that.
        store.fetch(digest).await.map_err(HostError::Store)?;
    }
    Ok(())
}

/// Returns the NATS connection for cluster traffic, or `None` if this host runs alone.
fn cluster_connection<'n>(config: &Config, nats: Option<&'n Connection>) -> Option<&'n Connection> {
    nats.filter(|_| config.log == LogEngine::JetStream)
}

/// Starts the identification of callers.
async fn identify(
    config: &Config,
    log: Arc<dyn EventLog>,
    clock: SharedClock,
) -> Result<Identity, IdentityError> {
    let (data, auth) = (config.data.clone(), config.auth.clone());
    Identity::start(IdentityDeps { log, clock, data, auth }).await
}

/// Joins the cluster of the hosts that share the log.
async fn join(config: &Config, nats: Option<&Connection>) -> Result<Cluster, HostError> {
    let me = cluster::id_of(&config.data).map_err(HostError::Member)?;
    let Some(nats) = cluster_connection(config, nats) else { return Ok(Cluster::alone(me)) };
    let JetStreamOptions { stream, heartbeat_timeout, .. } = &config.jetstream;
    Ok(Cluster::listen(me, nats.client(), stream, *heartbeat_timeout).await?)
}

/// Starts the heartbeats of this host.
fn announce(edge: &Arc<HostContext>, name: &str, address: SocketAddr) {
    let member = Member {
        id: edge.nodes.id().clone(),
        name: name.into(),
        address,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        since: Time(SystemClock.now_ms()),
        status: Status::default(),
    };
    // Weak: the edge owns the cluster, which owns this closure.
    let edge_ref = Arc::downgrade(edge);
    edge.nodes.announce(move || Member {
        status: edge_ref.upgrade().map(|edge| edge.status()).unwrap_or_default(),
        ..member.clone()
    });
}

/// Starts the messages from and to NATS.
fn start_messaging(edge: &HostContext, nats: &Connection, config: &Config) -> Messaging {
    Messaging::start(messaging::Deps {
        log: edge.log.clone(),
        registry: edge.registry.clone(),
        commands: edge.admission.clone(),
        callers: edge::nats::callers(edge.identity.clone()),
        connection: nats.clone(),
        replicas: config.nats.replicas,
        cluster: edge.nodes.clone(),
        options: config.messaging.clone(),
    })
}

/// Condenses the metrics' histograms from time to time.
fn spawn_upkeep(metrics: PrometheusHandle) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut due = tokio::time::interval(METRICS_UPKEEP);
        loop {
            due.tick().await;
            metrics.run_upkeep();
        }
    })
}
