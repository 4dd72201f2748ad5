//! `kontor:service/services`: queries from one service to another.

use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;

use crate::model::{Caller, Json, Rejection};
use crate::runtime::bindings::services::{self, Failure, Host};
use crate::runtime::bindings::{json, types};
use crate::runtime::call::{Denied, Guest};
use crate::runtime::instance_data::Identity;

/// The name of the import in messages.
const IMPORT: &str = "services.query";
/// Maximum number of requests of one call. An order has at most 100 lines; a screen needs a handful of
/// answers.
const MAX_REQUESTS: usize = 256;

/// A query from one service to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The service that is asked.
    pub service: String,
    /// The name of the query, or of one of the service's aggregates.
    pub query: String,
    /// The arguments, a JSON object.
    pub arguments: Json,
    /// The longest wait for the answer. None, or more than the host's own limit: that limit.
    pub time_limit: Option<Duration>,
}

/// The reason why there is no answer.
#[derive(Clone, Debug)]
pub enum AskFailure {
    /// The service rejected the query.
    Rejected(Rejection),
    /// The service did not answer. The text says why, for the asking component and the log.
    Unavailable(String),
}

/// Answers the queries of components: the host with its other services, the testkit with a test's script.
#[async_trait]
pub trait Ask: Send + Sync {
    /// Answers a query on behalf of a caller. `depth`: the number of nested calls between services, this one
    /// included.
    async fn ask(&self, caller: &Caller, request: Request, depth: usize) -> Result<Json, AskFailure>;
}

impl Host for Guest<'_> {
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
        let caller = &self.scope.caller;
        let answers = join_all(requests.into_iter().map(|request| ask.ask(caller, request, depth))).await;
        self.scope.unanswered |=
            answers.iter().any(|answer| matches!(answer, Err(AskFailure::Unavailable(_))));
        Ok(answers.into_iter().map(guest_answer).collect())
    }
}

impl Identity {
    /// Checks that the component may send this request.
    pub(super) fn permitted(&self, request: services::Request) -> Result<Request, Denied> {
        let services::Request { service, query, arguments, time_limit_ms } = request;
        self.may_query(&service)?;
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
