//! Wires the parts of a host, runs them, and lets go of them in the right order.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::clock::{SharedClock, SystemClock};
use crate::config::{Config, Limits};
use crate::deploy::{self, Components, Deployed, Deployer, DirectoryError, Registry, Store};
use crate::dispatch::{Dispatch, DispatchLimits};
use crate::edge::http::{self, Edge, HttpLimits, RouteError, RouteTable};
use crate::log::{EmbeddedLog, EventLog, OpenError, Snapshots};
use crate::model::Json;
use crate::projection::{Projections, ProjectionsError};
use crate::query::{Queries, QueryLimits};
use crate::runtime::{
    Ask, GrantError, HttpClient, HttpLimits as OutgoingLimits, Runtime, RuntimeError, RuntimeLimits,
    system_resolver,
};
use crate::saga::{Ground, Sagas, SagasError};
use crate::state::States;
use crate::telemetry::{self, TelemetryError};

/// How often the metrics' histograms are condensed.
const METRICS_UPKEEP: Duration = Duration::from_secs(5);

/// What a host says once it answers requests.
pub struct Started {
    /// Where it listens; the port is the one it got.
    pub address: SocketAddr,
    pub deployed: Arc<Deployed>,
}

/// Why a host cannot run.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error(transparent)]
    Log(#[from] OpenError),
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("the components that sagas may need cannot be kept in the data directory")]
    Store(#[source] io::Error),
    #[error(transparent)]
    Grants(#[from] GrantError),
    #[error(transparent)]
    Components(#[from] DirectoryError),
    #[error("these services cannot run side by side: {0}")]
    SideBySide(String),
    #[error(transparent)]
    Routes(#[from] RouteError),
    #[error(transparent)]
    Projections(#[from] ProjectionsError),
    #[error(transparent)]
    Sagas(#[from] SagasError),
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
    started: impl FnOnce(&Started),
) -> Result<(), HostError> {
    let metrics = telemetry::metrics()?;
    let log: Arc<dyn EventLog> = Arc::new(EmbeddedLog::open(&config.data)?);
    let snapshots = Snapshots::open(&config.data)?;
    let clock: SharedClock = Arc::new(SystemClock);
    let configuration = configuration(&config.services)?;
    let limits = runtime_limits(&config.limits);
    let outgoing = Arc::new(HttpClient::new(&config.grants, &limits.http, &system_resolver())?);
    let runtime = Runtime::new(&config.data, limits, configuration)?;

    let store = Store::open(&config.data).map_err(HostError::Store)?;
    let deployed = deploy::load(&runtime, &store, &outgoing, &config.plugins).await?;
    let deployed = Deployed::new(deployed).map_err(HostError::SideBySide)?;
    RouteTable::new(deployed.services().map(|service| &**service.manifest()))?;
    let registry = Arc::new(Registry::default());
    registry.replace(deployed);

    let components = Arc::new(Components::new(registry.clone(), runtime, store));
    let states = Arc::new(States::new(log.clone(), snapshots, registry.clone()));
    let projections =
        Projections::start(&config.data, log.clone(), components.clone(), clock.clone()).await?;
    let projections = Arc::new(projections);
    let limits =
        QueryLimits { catch_up: Duration::from_millis(config.limits.wait_ms), ..QueryLimits::default() };
    let queries = Arc::new(Queries::new(
        states.clone(),
        registry.clone(),
        projections.clone(),
        log.clone(),
        clock.clone(),
        limits,
    ));
    let ask: Arc<dyn Ask> = queries.clone();
    let limits = DispatchLimits { commands: config.limits.queue, aggregate: config.limits.aggregate_queue };
    let dispatch =
        Dispatch::new(log.clone(), states, registry.clone(), ask.clone(), outgoing, clock.clone(), limits);
    let ground = Ground {
        log: log.clone(),
        commands: Arc::new(dispatch.clone()),
        ask,
        components,
        clock,
        retries: config.retries.clone(),
    };
    let sagas = Arc::new(Sagas::start(&config.data, ground).await?);

    let listening = |source| HostError::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(listening)?;
    let address = listener.local_addr().map_err(listening)?;
    let upkeep = keep_up(metrics.clone());
    started(&Started { address, deployed: registry.current() });
    let edge = Edge {
        log,
        registry,
        dispatch: Arc::new(dispatch.clone()),
        queries,
        projections: projections.clone(),
        sagas: sagas.clone(),
        deployer: Arc::new(Deployer),
        metrics,
        limits: HttpLimits {
            body_bytes: config.limits.body_bytes,
            wait: Duration::from_millis(config.limits.wait_ms),
            ..HttpLimits::default()
        },
    };
    let served = http::serve(listener, Arc::new(edge), shutdown).await;

    // From the outside in: what is no longer fed comes to rest.
    sagas.close().await;
    dispatch.close().await;
    projections.close().await;
    upkeep.abort();
    tracing::info!("everything accepted is done");
    Ok(served?)
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
