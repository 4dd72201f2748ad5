//! The section `[limits]`, and the limits and rules of each part of the host: the only place that knows both.

use std::collections::{BTreeMap, HashMap};
use std::thread;
use std::time::Duration;

use serde::Deserialize;

use super::{Config, ConfigError};
use crate::aggregate::DispatchLimits;
use crate::clock::milliseconds;
use crate::contract::ReservedRoute;
use crate::deploy::DeployRules;
use crate::edge::Rate;
use crate::edge::http::HttpLimits;
use crate::model::Json;
use crate::query::QueryLimits;
use crate::runtime::{CALL_WAIT, HttpLimits as OutgoingLimits, RuntimeLimits};

/// The section `[limits]`. Beyond a limit the caller gets a clear problem, and nothing is lost.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest body of a request.
    pub body_bytes: usize,
    /// The longest time that a component may compute in one call. Waiting for the host does not count.
    #[serde(rename = "call_time_ms", deserialize_with = "milliseconds")]
    pub call_time: Duration,
    /// The largest memory of one instance of a component.
    pub call_memory_bytes: usize,
    /// The largest number of instances of all components at one time.
    pub instances: usize,
    /// The largest number of commands in flight in the host.
    pub queue: usize,
    /// The largest number of commands in flight on one aggregate.
    pub aggregate_queue: usize,
    /// The largest number of sagas that run at one time; the others wait.
    pub saga_concurrency: usize,
    /// The longest time that a request may wait for a saga (`Prefer: wait`) or a read model.
    #[serde(rename = "wait_ms", deserialize_with = "milliseconds")]
    pub wait: Duration,
    /// The longest time that a component waits for one HTTP answer, to its last byte.
    #[serde(rename = "http_time_ms", deserialize_with = "milliseconds")]
    pub http_time: Duration,
    /// The largest body of an HTTP request of a component.
    pub http_request_bytes: usize,
    /// The largest body of the answer.
    pub http_response_bytes: usize,
    /// The largest number of HTTP requests of one service at one time.
    pub http_concurrency: usize,
    /// The largest size of a read database on disk.
    pub read_model_bytes: u64,
    /// The largest number of requests over NATS at one time.
    pub nats_requests: usize,
    /// The largest number of commands of one caller in a second.
    pub caller_commands_per_second: u32,
    /// The largest number of commands of one caller at once.
    pub caller_burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        let http = OutgoingLimits::default();
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            // An order of a thousand lines is a tenth of this.
            body_bytes: 1024 * 1024,
            // Calls take microseconds, so a second means an endless loop.
            call_time: Duration::from_secs(1),
            call_memory_bytes: 64 * 1024 * 1024,
            // Calls do not wait while they compute, so a few for each core keep it busy. The rest is for
            // calls that query another service, and for sagas. The upper bound is a tenth of what the address
            // space takes.
            instances: (64 * cores).clamp(128, 1_024),
            // Four of the log's largest groups: the disk always has the next one ready.
            queue: 4_096,
            // One group. Commands behind it would wait for longer than a client does.
            aggregate_queue: 1_024,
            // A run that waits for a step costs 75 KiB and a slot of the pool. One service has half of them.
            saga_concurrency: 512,
            // Proxies on the way commonly give up after a minute.
            wait: Duration::from_secs(30),
            http_time: http.time,
            http_request_bytes: http.request_bytes,
            http_response_bytes: http.response_bytes,
            http_concurrency: http.concurrency,
            // Some hundred million rows: a mistake, or a service that needs a database of its own.
            read_model_bytes: 16 << 30,
            // Half of the commands in flight: the other half is for clients over HTTP.
            nats_requests: 2_048,
            // Ten times of what two cores can do, so it only stops a caller that has gone wrong. Without
            // authentication all programs of an address are one caller.
            caller_commands_per_second: 100_000,
            caller_burst: 100_000,
        }
    }
}

impl Limits {
    /// Checks that every limit lets something through.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let zeros = [
            ("body_bytes", self.body_bytes == 0),
            ("call_time_ms", self.call_time.is_zero()),
            ("call_memory_bytes", self.call_memory_bytes == 0),
            ("instances", self.instances == 0),
            ("queue", self.queue == 0),
            ("aggregate_queue", self.aggregate_queue == 0),
            ("saga_concurrency", self.saga_concurrency == 0),
            ("wait_ms", self.wait.is_zero()),
            ("http_time_ms", self.http_time.is_zero()),
            ("http_request_bytes", self.http_request_bytes == 0),
            ("http_response_bytes", self.http_response_bytes == 0),
            ("http_concurrency", self.http_concurrency == 0),
            ("read_model_bytes", self.read_model_bytes == 0),
            ("nats_requests", self.nats_requests == 0),
            ("caller_commands_per_second", self.caller_commands_per_second == 0),
            ("caller_burst", self.caller_burst == 0),
        ];
        if let Some((name, _)) = zeros.iter().find(|(_, zero)| *zero) {
            return Err(ConfigError::ZeroLimit(name));
        }
        if self.http_time >= CALL_WAIT {
            return Err(ConfigError::HttpTime);
        }
        Ok(())
    }
}

impl Config {
    /// Returns the limits of clients over HTTP.
    pub(crate) fn http_limits(&self) -> HttpLimits {
        HttpLimits { body_bytes: self.limits.body_bytes, wait: self.limits.wait, ..HttpLimits::default() }
    }

    /// Returns the limit of the commands of one caller.
    pub(crate) fn caller_rate(&self) -> Rate {
        Rate::per_second(self.limits.caller_commands_per_second, self.limits.caller_burst)
    }

    /// Returns the limits of queries.
    pub(crate) fn query_limits(&self) -> QueryLimits {
        QueryLimits { catch_up: self.limits.wait, ..QueryLimits::default() }
    }

    /// Returns the limits of commands in flight.
    pub(crate) fn dispatch_limits(&self) -> DispatchLimits {
        DispatchLimits { commands: self.limits.queue, aggregate: self.limits.aggregate_queue }
    }

    /// Returns the limits of components.
    pub(crate) fn runtime_limits(&self) -> RuntimeLimits {
        let limits = &self.limits;
        RuntimeLimits {
            call_time: limits.call_time,
            memory_bytes: limits.call_memory_bytes,
            instances: limits.instances,
            sagas: limits.saga_concurrency,
            http: OutgoingLimits {
                time: limits.http_time,
                request_bytes: limits.http_request_bytes,
                response_bytes: limits.http_response_bytes,
                concurrency: limits.http_concurrency,
            },
            ..RuntimeLimits::default()
        }
    }

    /// Returns the values of `config.get` for each service, as the JSON that components get. Reads the
    /// secrets.
    pub fn service_configuration(&self) -> Result<HashMap<String, BTreeMap<String, Json>>, ConfigError> {
        self.values().map_err(|error| error.at(&self.places))
    }

    fn values(&self) -> Result<HashMap<String, BTreeMap<String, Json>>, ConfigError> {
        let mut all: HashMap<String, BTreeMap<String, Json>> = HashMap::new();
        for (service, keys) in &self.services {
            let values = all.entry(service.clone()).or_default();
            for (key, value) in keys {
                let value = Json::of(value).map_err(|source| not_json(service, key, source))?;
                values.insert(key.clone(), value);
            }
        }
        for (service, keys) in &self.secrets {
            let values = all.entry(service.clone()).or_default();
            for (key, source) in keys {
                let secret = source.read().map_err(|source| {
                    let (service, key) = (service.clone(), key.clone());
                    ConfigError::Secret { service, key, source }
                })?;
                let value = Json::of(&secret.reveal()).map_err(|source| not_json(service, key, source))?;
                if values.insert(key.clone(), value).is_some() {
                    return Err(ConfigError::Twice { service: service.clone(), key: key.clone() });
                }
            }
        }
        Ok(all)
    }

    /// Returns the rules of deployments, with the grants of the configuration. `reserved` are the host's own
    /// routes.
    pub(crate) fn deploy_rules(&self, reserved: Vec<ReservedRoute<()>>) -> DeployRules {
        let grants = self.grants.iter();
        let grants = grants.map(|(service, grants)| (service.clone(), grants.internal().collect()));
        DeployRules {
            trusted: self.deploy.trusted_keys.clone(),
            grants: grants.collect(),
            history_limit: self.deploy.history_time,
            rollback: self.deploy.rollback,
            retried: self.retries.steps.keys().cloned().collect(),
            places: self.places.clone(),
            reserved,
        }
    }
}

fn not_json(service: &str, key: &str, source: serde_json::Error) -> ConfigError {
    ConfigError::NotJson { service: service.to_owned(), key: key.to_owned(), source }
}
