//! Asking other services. Each must be named with [`Service::asks_services`](crate::Service::asks_services).

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::kontor::service::services as wit;
use crate::{Rejection, json};

/// Why a question has no answer.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The answer is no.
    Rejected(Rejection),
    /// There is no answer, for a technical reason that the text names.
    Unavailable(String),
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<wit::Failure> for Failure {
    fn from(failure: wit::Failure) -> Self {
        match failure {
            wit::Failure::Rejected(rejection) => Self::Rejected(rejection.into()),
            wit::Failure::Unavailable(reason) => Self::Unavailable(reason),
        }
    }
}

/// One question to a service.
#[derive(Clone, Debug)]
pub struct Request(pub(crate) wit::Request);

impl Request {
    /// Asks `service` its query `query`, or one of its aggregates for its view: then the arguments are `{"id": …}`.
    pub fn new(service: &str, query: &str, arguments: impl Serialize) -> Self {
        Self(wit::Request {
            service: service.to_owned(),
            query: query.to_owned(),
            arguments: json::text(&arguments),
            time_limit_ms: None,
        })
    }

    /// Waits so long for the answer, and no longer; without it, as long as the host lets a service wait.
    pub fn within_ms(self, limit: u32) -> Self {
        Self(wit::Request { time_limit_ms: Some(limit), ..self.0 })
    }
}

/// Asks one service.
pub fn query<T: DeserializeOwned>(
    service: &str,
    query: &str,
    arguments: impl Serialize,
) -> Result<T, Failure> {
    let request = Request::new(service, query, arguments);
    let answer = wit::query(&[request.0]).pop();
    answer.map_or_else(|| Err(Failure::Unavailable("the host gave no answer".to_owned())), read)
}

/// Asks several at once; the answers are in the order of the requests.
pub fn query_all<T: DeserializeOwned>(
    requests: impl IntoIterator<Item = Request>,
) -> Vec<Result<T, Failure>> {
    let requests: Vec<_> = requests.into_iter().map(|request| request.0).collect();
    wit::query(&requests).into_iter().map(read).collect()
}

fn read<T: DeserializeOwned>(answer: Result<String, wit::Failure>) -> Result<T, Failure> {
    serde_json::from_str(&answer?)
        .map_err(|error| Failure::Unavailable(format!("the answer cannot be read: {error}")))
}
