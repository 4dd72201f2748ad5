//! Questions to other services. Each service must be named with
//! [`Service::asks_services`](crate::Service::asks_services).

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::kontor::service::services as wit;
use crate::{Error, json};

/// A question to a service.
#[derive(Clone, Debug)]
pub struct Request(pub(crate) wit::Request);

impl Request {
    /// Asks `service` its query `query`, or one of its aggregates for its view: then the arguments are
    /// `{"id": …}`.
    pub fn new(service: &str, query: &str, arguments: impl Serialize) -> Self {
        Self(wit::Request {
            service: service.to_owned(),
            query: query.to_owned(),
            arguments: json::text(&arguments),
            time_limit_ms: None,
        })
    }

    /// Limits the wait for the answer. Without it, and never longer, the host's own limit holds.
    pub fn within_ms(self, limit: u32) -> Self {
        Self(wit::Request { time_limit_ms: Some(limit), ..self.0 })
    }
}

/// Asks one service.
///
/// Fails with a rejection if the service's answer is no, and with a fault if there is no answer.
pub fn query<T: DeserializeOwned>(service: &str, query: &str, arguments: impl Serialize) -> Result<T, Error> {
    let mut answers = query_all([Request::new(service, query, arguments)]);
    answers.pop().unwrap_or_else(|| Err(Error::Fault(format!("the host passed no answer of {service} on"))))
}

/// Asks several services at once, or one several times. The answers are in the order of the requests.
pub fn query_all<T: DeserializeOwned>(requests: impl IntoIterator<Item = Request>) -> Vec<Result<T, Error>> {
    let requests: Vec<_> = requests.into_iter().map(|request| request.0).collect();
    let answers = wit::query(&requests);
    requests.iter().zip(answers).map(|(request, answer)| read(&request.service, answer)).collect()
}

fn read<T: DeserializeOwned>(service: &str, answer: Result<String, wit::Failure>) -> Result<T, Error> {
    match answer {
        Ok(answer) => json::read(&answer, format_args!("the answer of {service}")),
        Err(wit::Failure::Rejected(rejection)) => Err(Error::Rejected(rejection.into())),
        Err(wit::Failure::Unavailable(reason)) => {
            Err(Error::Fault(format!("{service} did not answer: {reason}")))
        }
    }
}
