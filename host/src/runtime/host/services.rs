//! `kontor:service/services`: one service asks another.

use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;

use crate::model::{Json, Rejection};
use crate::runtime::bindings::services::{self, Failure, Host};
use crate::runtime::bindings::{json, types};
use crate::runtime::guest::{InstanceData, forbidden};

/// Requests of one call. An order has at most 100 lines; a screen is made from a handful of answers.
const MAX_REQUESTS: usize = 256;

/// A question of one service to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    pub service: String,
    pub query: String,
    pub arguments: Json,
    /// How long the asking component waits; none, or more than the host's own limit, means that limit.
    pub time_limit: Option<Duration>,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum AskFailure {
    Rejected(Rejection),
    /// Why, for the component that asked and the log.
    Unavailable(String),
}

/// Answers the questions of components: the host with its other services, the testkit with what the test says.
#[async_trait]
pub trait Ask: Send + Sync {
    /// `depth`: how many calls of services this one serves, itself included.
    async fn ask(&self, request: Request, depth: usize) -> Result<Json, AskFailure>;
}

impl Host for InstanceData {
    async fn query(
        &mut self,
        requests: Vec<services::Request>,
    ) -> wasmtime::Result<Vec<Result<String, Failure>>> {
        let (Some(identity), Some(scope)) = (&self.identity, &self.scope) else {
            return Err(forbidden("services.query", self.operation()));
        };
        let Some(ask) = scope.ask.clone() else {
            return Err(forbidden("services.query", self.operation()));
        };
        if requests.len() > MAX_REQUESTS {
            let error =
                format!("services.query: {} requests at once, the limit is {MAX_REQUESTS}", requests.len());
            return Err(wasmtime::Error::msg(error));
        }
        let requests = requests
            .into_iter()
            .map(|request| identity.permitted(request))
            .collect::<wasmtime::Result<Vec<_>>>()?;
        let depth = scope.depth + 1;
        let answers = join_all(requests.into_iter().map(|request| ask.ask(request, depth))).await;
        Ok(answers.into_iter().map(guest_answer).collect())
    }
}

impl super::super::guest::Identity {
    /// Checks that the component may ask what it asks.
    pub(super) fn permitted(&self, request: services::Request) -> wasmtime::Result<Request> {
        let services::Request { service, query, arguments, time_limit_ms } = request;
        if self.manifest.service != *service && !self.manifest.permissions.services.contains(&service) {
            let error = format!("the manifest does not ask for the permission to query {service:?}");
            return Err(wasmtime::Error::msg(error));
        }
        let arguments = json("the arguments of a query", arguments).map_err(wasmtime::Error::new)?;
        let time_limit = time_limit_ms.map(|limit| Duration::from_millis(limit.into()));
        Ok(Request { service, query, arguments, time_limit })
    }
}

fn guest_answer(answer: Result<Json, AskFailure>) -> Result<String, Failure> {
    match answer {
        Ok(json) => Ok(json.as_str().to_owned()),
        Err(AskFailure::Rejected(rejection)) => Err(Failure::Rejected(types::Rejection::from(&rejection))),
        Err(AskFailure::Unavailable(reason)) => Err(Failure::Unavailable(reason)),
    }
}
