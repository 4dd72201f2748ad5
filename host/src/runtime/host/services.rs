//! `kontor:service/services`: one service asks another.

use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;

use crate::model::{Json, Rejection};
use crate::runtime::bindings::services::{self, Failure, Host};
use crate::runtime::bindings::{json, types};
use crate::runtime::call::{Caller, Denied};
use crate::runtime::instance_data::Identity;

/// The name of the import in messages.
const IMPORT: &str = "services.query";
/// Maximum number of requests of one call. An order has at most 100 lines; a screen is made from a handful of answers.
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

impl Host for Caller<'_> {
    async fn query(
        &mut self,
        requests: Vec<services::Request>,
    ) -> wasmtime::Result<Vec<Result<String, Failure>>> {
        let identity = self.identity(IMPORT)?;
        let ask = self.scope.call.ask()?.clone();
        if requests.len() > MAX_REQUESTS {
            let (count, limit) = (requests.len(), MAX_REQUESTS);
            return Err(Denied::TooMany { import: IMPORT, items: "requests", count, limit }.into());
        }
        let requests = requests.into_iter().map(|request| identity.permitted(request));
        let requests = requests.collect::<Result<Vec<_>, _>>()?;
        let depth = self.scope.depth + 1;
        let answers = join_all(requests.into_iter().map(|request| ask.ask(request, depth))).await;
        Ok(answers.into_iter().map(guest_answer).collect())
    }
}

impl Identity {
    /// Checks that the component may send this request.
    pub(super) fn permitted(&self, request: services::Request) -> Result<Request, Denied> {
        let services::Request { service, query, arguments, time_limit_ms } = request;
        if *service != *self.manifest.service && !self.manifest.permissions.services.contains(&service) {
            return Err(Denied::Service(service));
        }
        let arguments = json("the arguments of a query", arguments)?;
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
