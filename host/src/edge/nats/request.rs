//! One request: from the message to a command or a query, and from its outcome to the answer. The headers are
//! those of HTTP (`If-Match`, `Prefer`, `Kontor-Position`, `X-Request-Id`), and two that HTTP has in another
//! place:
//!
//! | header | meaning |
//! |---|---|
//! | `Nats-Msg-Id` | the id of the command, as `Idempotency-Key` of HTTP: repeated, it takes effect once |
//! | `Kontor-Id` | the aggregate's id, as in the path of HTTP. Without it the command creates an aggregate |

use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use async_nats::{HeaderMap as NatsHeaders, Message};
use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::watch;
use tracing::Instrument as _;

use super::table::{Does, Endpoint};
use crate::contract::{PROBLEM_JSON, Problem, arguments, payload};
use crate::edge::caller_limits::Sender;
use crate::edge::command::{CommandRequest, execute};
use crate::edge::log_rate::FAILED;
use crate::edge::query::refusal;
use crate::edge::{HostContext, denied, headers};
use crate::identity::{Evidence, Identity, Peer};
use crate::messaging::encode;
use crate::model::{Actor, Caller, Position};

const ID: HeaderName = HeaderName::from_static("kontor-id");
/// The headers of answers, in the case of HTTP/1: clients of NATS compare them exactly.
const CONTENT_TYPE: &str = "Content-Type";
const POSITION: &str = "Kontor-Position";
const RETRY_AFTER: &str = "Retry-After";

/// The answer to a request.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: NatsHeaders,
    pub(super) body: Bytes,
}

/// Answers a request; a failure is answered with a problem.
pub(super) async fn answer(
    edge: &HostContext,
    endpoint: &Endpoint,
    message: &Message,
    stopping: watch::Receiver<bool>,
) -> Answer {
    let span = tracing::info_span!("request", subject = endpoint.subject);
    match execute_or_query(edge, endpoint, message, stopping).instrument(span).await {
        Ok(answer) => answer,
        Err(problem) => {
            if problem.is_to_be_logged()
                && let Some(left_out) = FAILED.admit()
            {
                let (subject, code) = (&endpoint.subject, problem.code());
                tracing::error!(subject, code, left_out, "request over NATS failed: {}", problem.log_text());
            }
            problem.into()
        }
    }
}

async fn execute_or_query(
    edge: &HostContext,
    endpoint: &Endpoint,
    message: &Message,
    stopping: watch::Receiver<bool>,
) -> Result<Answer, Problem> {
    let limit = edge.limits.body_bytes;
    if message.payload.len() > limit {
        return Err(Problem::too_large("The message", limit));
    }
    let headers = headers_of(message.headers.as_ref())?;
    let sender = |caller: &Caller| Sender::of(caller.subject.as_ref(), Some(&Peer::Nats), None);
    let note =
        |problem: Problem, caller: &Caller| denied::note(problem, || sender(caller), &endpoint.subject);
    let caller = caller(&edge.identity, &headers).await;
    let caller = caller.map_err(|problem| note(problem, &Caller::default()))?;
    let admitted = endpoint.check(&caller).map_err(Problem::from).and_then(|()| match endpoint.does {
        Does::Command { .. } => edge.callers.take_command(sender(&caller)),
        Does::Query { .. } => Ok(()),
    });
    admitted.map_err(|problem| note(problem, &caller))?;
    let at_least = headers::at_least(&headers, edge.limits.wait, &stopping)?;
    match &endpoint.does {
        Does::Command { aggregate, command } => {
            let request = CommandRequest {
                aggregate: aggregate.clone(),
                command: command.clone(),
                id: id(&headers)?,
                key: headers::idempotency_key(&headers, headers::MESSAGE_ID)?,
                payload: payload(&message.payload)?,
                precondition: headers::precondition(&headers)?,
                wait: at_least.wait,
                at_least,
                correlation_id: headers::correlation_id(&headers, headers::MESSAGE_ID),
                caller,
            };
            let executed = execute(edge, request, stopping).await?;
            let body = serde_json::to_vec(&executed.reply()).map_err(|_| Problem::internal())?;
            Ok(Answer::good(body.into(), executed.position))
        }
        Does::Query { service, query } => {
            let arguments = arguments(&message.payload)?;
            let inquiry = edge.queries.inquiry(caller, at_least);
            let answer = inquiry.answer(service.as_str(), query.as_str(), arguments).await;
            let answer = answer.map_err(|error| refusal(error, &inquiry))?;
            Ok(Answer::good(Bytes::copy_from_slice(answer.body.as_str().as_bytes()), inquiry.reflects()))
        }
    }
}

/// Returns the caller of a message that becomes a command by a subscription: as that of a request, by the
/// headers `Authorization` and `Kontor-Actor`.
pub(super) async fn caller_of(identity: &Identity, headers: Option<&NatsHeaders>) -> Result<Caller, Problem> {
    caller(identity, &headers_of(headers)?).await
}

/// Returns the caller whose token is in the headers. Without a token it is that of the account.
async fn caller(identity: &Identity, headers: &HeaderMap) -> Result<Caller, Problem> {
    let authorization = headers::authorization(headers)?;
    let evidence = Evidence { authorization, peer: Some(&Peer::Nats), ..Evidence::default() };
    let caller = identity.caller(evidence).await?;
    Ok(Caller { on_behalf_of: headers::actor(headers)?.map(Actor::from), ..caller })
}

/// Returns the headers of a message as those of HTTP, whose names ignore case.
fn headers_of(message: Option<&NatsHeaders>) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::new();
    for (name, values) in message.into_iter().flat_map(NatsHeaders::iter) {
        for value in values {
            let named: &str = name.as_ref();
            let refused = || Problem::invalid_header(format!("The header {named:?} cannot be read."));
            let name = HeaderName::try_from(named).map_err(|_| refused())?;
            headers.append(name, HeaderValue::try_from(value.as_str()).map_err(|_| refused())?);
        }
    }
    Ok(headers)
}

fn id(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(ID) else {
        return Ok(None);
    };
    let id =
        value.to_str().map_err(|_| Problem::invalid_header("Kontor-Id must be the id of an aggregate."))?;
    Ok(Some(id.to_owned()))
}

impl Answer {
    fn good(body: Bytes, position: Position) -> Self {
        let mut answer = Self { status: 200, headers: NatsHeaders::new(), body };
        answer.headers.insert(CONTENT_TYPE, "application/json");
        answer.set_position(position);
        answer
    }

    fn set_position(&mut self, position: Position) {
        self.headers.insert(POSITION, position.to_string());
    }

    /// Returns the error as the statistics of the services API have it, such as `404:not-found`. None: the
    /// answer is no error.
    pub(super) fn error(&self) -> Option<String> {
        let error = self.headers.get(NATS_SERVICE_ERROR)?;
        Some(format!("{}:{error}", self.status))
    }
}

/// An error of the services API of NATS, with the problem as the body.
impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        let status = problem.status().as_u16();
        let mut answer = Self { status, headers: NatsHeaders::new(), body: problem.body().into() };
        // The code of a service may be any text, and clients take an error by a header that is not empty. The
        // code itself is in the body.
        let code = match encode(problem.code()) {
            code if code.is_empty() => problem.status().canonical_reason().unwrap_or("error").to_owned(),
            code => code,
        };
        answer.headers.insert(NATS_SERVICE_ERROR, code);
        answer.headers.insert(NATS_SERVICE_ERROR_CODE, status.to_string());
        answer.headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        if let Some(seconds) = problem.retry_after_s() {
            answer.headers.insert(RETRY_AFTER, seconds.to_string());
        }
        if let Some(position) = problem.reflects() {
            answer.set_position(position);
        }
        answer
    }
}

#[cfg(test)]
mod fuzz {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::tests::nats_headers;
    use super::*;
    use async_nats::HeaderValue as NatsValue;

    use crate::contract::fuzz::{is_clear, near, near_text};

    const NAMES: &[&str] =
        &["Kontor-Id", "Nats-Msg-Id", "If-Match", "Authorization", "Prefer", "Content-Type"];
    const VALUES: &[&str] = &["o-1", "\"7\"", "Bearer abc", "wait=5", "42"];
    const BODIES: &[&str] = &["{\"id\":\"o-1\",\"quantity\":7}", "", "[1,2.5e3,null]"];
    const WORDS: &[&str] =
        &["-", "_", "\u{e9}", "\u{1}", " ", "\t", ",", "[[[[", "\"", "\\u00", "\\ud800", "1e999"];

    proptest! {
        #[test]
        fn a_message_is_read_or_refused_with_a_sentence(
            headers in vec((near_text(NAMES, WORDS), near_text(VALUES, WORDS)), 0..4),
            body in near(BODIES.iter().map(|body| body.as_bytes().to_vec()).collect(), WORDS),
        ) {
            // The client of NATS passes on no others.
            let valid = |(name, value): &(String, String)| {
                name.parse::<async_nats::HeaderName>().is_ok() && value.parse::<NatsValue>().is_ok()
            };
            let headers: Vec<_> = headers.into_iter().filter(valid).collect();
            let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
            let refused = match headers_of(Some(&nats_headers(&headers))) {
                Ok(headers) => vec![
                    id(&headers).err(),
                    headers::idempotency_key(&headers, headers::MESSAGE_ID).err(),
                    headers::authorization(&headers).err(),
                ],
                Err(problem) => vec![Some(problem)],
            };
            refused.iter().flatten().try_for_each(is_clear)?;
            if let Err(problem) = payload(&body) {
                is_clear(&problem)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::contract::ProblemCode;
    use crate::model::Rejection;

    pub(super) fn nats_headers(headers: &[(&str, &str)]) -> NatsHeaders {
        let mut map = NatsHeaders::new();
        headers.iter().for_each(|(name, value)| map.append(*name, *value));
        map
    }

    #[test]
    fn names_of_headers_ignore_case() {
        let headers = nats_headers(&[("Kontor-Id", "A-1"), ("PREFER", "wait=5")]);
        let headers = headers_of(Some(&headers)).unwrap();
        assert_eq!(id(&headers).unwrap().as_deref(), Some("A-1"));
        assert_eq!(headers.get("prefer").unwrap(), "wait=5");
        let refused = headers_of(Some(&nats_headers(&[("Nats-Msg-Id", "a\u{1}b")]))).unwrap_err();
        assert_eq!(refused.code(), "invalid-header");
    }

    #[test]
    fn a_problem_is_an_error_of_the_services_api_with_a_body() {
        let answer =
            Answer::from(Problem::new(ProblemCode::Busy, "Not now.").with_position(Position::new(7)));
        assert_eq!(answer.error().as_deref(), Some("503:busy"));
        for (name, value) in [
            ("Nats-Service-Error", "busy"),
            ("Nats-Service-Error-Code", "503"),
            ("Content-Type", "application/problem+json"),
            ("Retry-After", "1"),
            ("Kontor-Position", "7"),
        ] {
            assert_eq!(answer.headers.get(name).unwrap().as_str(), value, "{name}");
        }
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((&body["code"], &body["status"]), (&"busy".into(), &503.into()));
        let flooded = Problem::new(ProblemCode::TooManyCommands, "Too many.").with_retry_after(7);
        assert_eq!(Answer::from(flooded).headers.get("Retry-After").unwrap().as_str(), "7");
        let strange = Problem::not_found("No.");
        assert!(Answer::from(strange).headers.get("Retry-After").is_none());
    }

    #[test]
    fn the_error_of_any_code_is_a_header() {
        for (code, expected) in [
            ("out-of-stock", "out-of-stock"),
            ("", "Conflict"),
            ("a\r\nb", "a%0D%0Ab"),
            ("k\u{f6}ln 5%", "k%C3%B6ln%205%25"),
        ] {
            let rejection = Rejection { code: code.to_owned(), message: String::new(), details: None };
            let answer = Answer::from(Problem::from(rejection));
            assert_eq!(answer.headers.get("Nats-Service-Error").unwrap().as_str(), expected);
            assert_eq!(answer.headers.get("Nats-Service-Error-Code").unwrap().as_str(), "409");
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(body["code"], code);
        }
    }
}
