//! The command or query of each subject, from the manifests of one deployed set. Commands and queries with a
//! route in the manifest are those for clients, and only they are served here too.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::contract::{Access, Denied, Manifest, Target};
use crate::deployed::Deployed;
use crate::edge::metrics::RequestMetrics;
use crate::model::{AggregateName, Caller, CommandName, QueryName, ServiceName};

/// All endpoints of one deployed set.
pub(super) struct Table {
    deployed: Arc<Deployed>,
    /// By subject.
    endpoints: BTreeMap<String, Arc<Endpoint>>,
}

pub(super) struct Endpoint {
    /// `kontor.order.cmd.order.create`
    pub(super) subject: String,
    pub(super) description: String,
    pub(super) does: Does,
    /// Those of the routes that lead to it, one at least.
    access: Vec<Access>,
    pub(super) tally: Arc<Tally>,
    pub(super) metrics: RequestMetrics,
}

pub(super) enum Does {
    Command { aggregate: AggregateName, command: CommandName },
    Query { service: ServiceName, query: QueryName },
}

/// The outcomes of the requests to all endpoints since the start of the host, by subject: deployments do not
/// begin them anew, since `started` does not change either.
pub(super) type Tallies = HashMap<String, Arc<Tally>>;

/// The outcomes of the requests to an endpoint.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) requests: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) nanoseconds: AtomicU64,
    last_error: Mutex<String>,
}

impl Table {
    pub(super) fn new(deployed: Arc<Deployed>, tallies: &mut Tallies) -> Self {
        let mut endpoints = BTreeMap::new();
        for component in deployed.services() {
            let manifest = component.manifest();
            for target in manifest.routes.iter().map(|route| &route.target) {
                match Endpoint::of(manifest, target, tallies) {
                    Ok(endpoint) => {
                        endpoints.insert(endpoint.subject.clone(), Arc::new(endpoint));
                    }
                    // The gates of a deployment refuse such a manifest.
                    Err(error) => {
                        let service = &manifest.service;
                        tracing::error!(%service, error, "a route leads nowhere; it has no subject")
                    }
                }
            }
        }
        Self { deployed, endpoints }
    }

    /// Returns whether the table is made from this set.
    pub(super) fn is_of(&self, deployed: &Arc<Deployed>) -> bool {
        Arc::ptr_eq(&self.deployed, deployed)
    }

    pub(super) fn find(&self, subject: &str) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(subject)
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.endpoints.values().map(|endpoint| &**endpoint)
    }
}

impl Endpoint {
    /// Returns the endpoint of a target. An error is a sentence that says why the manifest cannot be used.
    fn of(manifest: &Manifest, target: &Target, tallies: &mut Tallies) -> Result<Self, String> {
        let service = &manifest.service;
        let routes = manifest.routes.iter().filter(|route| route.target == *target);
        let access = routes.map(|route| route.access.clone()).collect();
        match target {
            Target::Command { aggregate, command } => {
                let declared = manifest.command(aggregate.as_str(), command.as_str());
                let declared =
                    declared.ok_or_else(|| format!("the manifest has no command {aggregate}.{command}"))?;
                Ok(Self::new(
                    format!("kontor.{service}.cmd.{aggregate}.{command}"),
                    &declared.description,
                    Does::Command { aggregate: aggregate.clone(), command: command.clone() },
                    access,
                    tallies,
                ))
            }
            Target::Query(query) => {
                let declared = manifest.query(query.as_str());
                let aggregate = manifest.aggregate(query.as_str()).map(|aggregate| &aggregate.description);
                let description = declared.map(|query| &query.description).or(aggregate);
                let description = description.ok_or_else(|| format!("the manifest has no query {query}"))?;
                Ok(Self::new(
                    format!("kontor.{service}.query.{query}"),
                    description,
                    Does::Query { service: service.clone(), query: query.clone() },
                    access,
                    tallies,
                ))
            }
        }
    }

    fn new(
        subject: String,
        description: &str,
        does: Does,
        access: Vec<Access>,
        tallies: &mut Tallies,
    ) -> Self {
        let metrics = RequestMetrics::of_subject(&subject);
        let tally = tallies.entry(subject.clone()).or_default().clone();
        Self { subject, description: description.to_owned(), does, access, tally, metrics }
    }

    /// Fails if the caller may use none of the routes that lead to it.
    pub(super) fn check(&self, caller: &Caller) -> Result<(), Denied> {
        self.access.iter().map(|access| access.check(caller)).reduce(Result::or).unwrap_or(Ok(()))
    }
}

impl Tally {
    /// Counts a request. `error`: that of its answer.
    pub(super) fn count(&self, error: Option<String>, took: Duration) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        if let Some(error) = error {
            self.errors.fetch_add(1, Ordering::Relaxed);
            *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
        }
    }

    /// Returns the last error, such as `404:not-found`; empty if there was none.
    pub(super) fn last_error(&self) -> String {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
