//! The host's own routes as rows: a method, a path and a handler, whose types are those of the request and
//! the reply.
//!
//! A handler is a function `async fn(Request<Q, B>) -> Result<R, Problem>`. `Q` are the parameters of the
//! query string, `B` is the body, `R` the reply; the row checks, reads, writes and documents them by these
//! types.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::BodyDataStream;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use percent_encoding::percent_decode_str;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::Instrument as _;

use super::header_docs::Header;
use super::parameters::QuerySchema;
use super::{HttpServer, Tables, body, headers, json_reply, schemas};
use crate::audit::Intended;
use crate::contract::{Access, Method, Problem, ProblemCode, ReservedRoute, Schema, checked};
use crate::edge::HostContext;
use crate::model::{Caller, OPERATOR, Position};

pub(super) const JSON: &str = "application/json";

/// The beginning of the paths of the routes for operators.
const ADMIN: &str = "/admin/";

/// One of the host's own routes.
pub(super) struct HostRoute {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// The stable name of the operation in the OpenAPI document.
    pub(super) name: &'static str,
    /// One sentence: "Lists the sagas, newest first."
    pub(super) summary: &'static str,
    /// The callers that may use it: operators, unless the row names others.
    pub(super) access: Access,
    /// The status of a reply that is no problem, and the others that the route may answer with.
    pub(super) statuses: Vec<StatusCode>,
    pub(super) headers: &'static [Header],
    /// The statuses of problems that are not those of every route of its kind.
    pub(super) problems: &'static [StatusCode],
    /// True if the placeholders of the path are parts of the name of a stream.
    pub(super) ids: bool,
    /// True if only the listener of the operators answers it, where there is one.
    pub(super) for_operators: bool,
    pub(super) query: Result<QuerySchema, String>,
    /// The media types of the request body with their schemas; none without a body.
    pub(super) body: Vec<Content>,
    /// The media types of the reply with their schemas.
    pub(super) reply: Vec<Content>,
    /// The schema of a JSON body, compiled. None: the body is no JSON, or there is none.
    body_check: Result<Option<Schema>, String>,
    handler: Handler,
}

/// A media type, and its schema in a document.
pub(super) type Content = (&'static str, fn(&mut SchemaGenerator) -> Value);

type Handler = Box<
    dyn for<'b> Fn(
            &'static HostRoute,
            Head,
            &'b mut BodyDataStream,
        ) -> BoxFuture<'b, Result<Response, Problem>>
        + Send
        + Sync,
>;

/// A request before its parameters and its body are read.
pub(super) struct Head {
    pub(super) server: Arc<HttpServer>,
    pub(super) tables: Arc<Tables>,
    pub(super) caller: Caller,
    pub(super) headers: HeaderMap,
    /// The text behind the question mark.
    pub(super) query: Option<String>,
    /// The placeholders of the path and their texts, percent-encoded.
    pub(super) placeholders: Vec<(String, String)>,
}

/// A request to one of the host's own routes.
pub(super) struct Request<Q = (), B = ()> {
    head: Head,
    /// The parameters of the query string.
    pub(super) query: Q,
    /// The body.
    pub(super) body: B,
}

/// A body of a request.
pub(super) trait FromBody: Sized + Send {
    /// The media types with their schemas.
    fn content() -> Vec<Content>;

    /// Returns the schema to check a JSON body with, if the body is JSON.
    fn schema() -> Option<Value> {
        None
    }

    /// Reads the body within its limits.
    fn read(
        route: &HostRoute,
        head: &Head,
        body: &mut BodyDataStream,
    ) -> impl Future<Output = Result<Self, Problem>> + Send;
}

/// A reply of a handler.
pub(super) trait Reply {
    /// The media types with their schemas.
    fn content() -> Vec<Content>;

    /// Returns the response with the status of the row.
    fn respond(self, status: StatusCode) -> Result<Response, Problem>;
}

/// A body of JSON, in a request or in a reply.
pub(super) struct Json<T>(pub(super) T);

/// A reply of JSON that reflects at least this position of the log.
pub(super) struct JsonAt<T>(pub(super) T, pub(super) Position);

impl HostRoute {
    pub(super) fn get<Q, R, F, A>(path: &'static str, name: &'static str, handler: F) -> Self
    where
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        R: Reply + 'static,
        F: Fn(Request<Q>) -> A + Copy + Send + Sync + 'static,
        A: Future<Output = Result<R, Problem>> + Send,
    {
        Self::new(Method::Get, path, name, handler)
    }

    pub(super) fn post<Q, B, R, F, A>(path: &'static str, name: &'static str, handler: F) -> Self
    where
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        B: FromBody + 'static,
        R: Reply + 'static,
        F: Fn(Request<Q, B>) -> A + Copy + Send + Sync + 'static,
        A: Future<Output = Result<R, Problem>> + Send,
    {
        Self::new(Method::Post, path, name, handler)
    }

    /// Returns a row with status 200. The types of the handler are those of the route.
    pub(super) fn new<Q, B, R, F, A>(
        method: Method,
        path: &'static str,
        name: &'static str,
        handler: F,
    ) -> Self
    where
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        B: FromBody + 'static,
        R: Reply + 'static,
        F: Fn(Request<Q, B>) -> A + Copy + Send + Sync + 'static,
        A: Future<Output = Result<R, Problem>> + Send,
    {
        Self {
            method,
            path,
            name,
            summary: "",
            access: Access::Roles(Vec::new()),
            statuses: vec![StatusCode::OK],
            headers: &[],
            problems: &[],
            ids: false,
            for_operators: path.starts_with(ADMIN),
            query: QuerySchema::of::<Q>(),
            body: B::content(),
            reply: R::content(),
            body_check: B::schema().map(|schema| Schema::compile(&schema)).transpose(),
            handler: Box::new(move |route, head, body| {
                async move {
                    let query = route.query.as_ref().map_err(|_| Problem::internal())?;
                    let query = query.read(head.query.as_deref())?;
                    let body = B::read(route, &head, body).await?;
                    let reply = handler(Request { head, query, body }).await?;
                    reply.respond(route.status())
                }
                .boxed()
            }),
        }
    }

    pub(super) fn summary(self, summary: &'static str) -> Self {
        Self { summary, ..self }
    }

    /// Opens the route to everybody.
    pub(super) fn anyone(self) -> Self {
        Self { access: Access::Anyone, ..self }
    }

    /// Opens the route to every caller that has signed in.
    pub(super) fn signed_in(self) -> Self {
        Self { access: Access::SignedIn, ..self }
    }

    /// Opens the route to callers with one of these roles.
    pub(super) fn roles(self, roles: &[&'static str]) -> Self {
        Self { access: Access::Roles(roles.iter().map(|role| (*role).into()).collect()), ..self }
    }

    /// Replaces the statuses: first that of a reply, then the others that are no problems.
    pub(super) fn statuses(self, statuses: &[StatusCode]) -> Self {
        Self { statuses: statuses.to_vec(), ..self }
    }

    /// Adds the headers that the route reads.
    pub(super) fn headers(self, headers: &'static [Header]) -> Self {
        Self { headers, ..self }
    }

    /// Adds statuses of problems that not every route of its kind has.
    pub(super) fn problems(self, problems: &'static [StatusCode]) -> Self {
        Self { problems, ..self }
    }

    /// Makes the placeholders of the path parts of the name of a stream.
    pub(super) fn ids(self) -> Self {
        Self { ids: true, ..self }
    }

    /// Returns whether a request needs a body.
    pub(super) fn needs_body(&self) -> bool {
        match &self.body_check {
            Ok(Some(schema)) => schema.check(&json!({})).is_err(),
            Ok(None) | Err(_) => !self.body.is_empty(),
        }
    }

    /// Marks a route for operators whose path does not say so.
    pub(super) fn for_operators(self) -> Self {
        Self { for_operators: true, ..self }
    }

    /// Adds a media type of the reply that has no schema.
    pub(super) fn media(mut self, media_type: &'static str) -> Self {
        self.reply.push((media_type, |_| json!({"type": "string"})));
        self
    }

    /// Adds JSON as a media type of the reply, for a handler that makes the response itself.
    pub(super) fn json<T: JsonSchema>(mut self) -> Self {
        self.reply.push((JSON, json_schema::<T>));
        self
    }

    /// Returns the entry in a table of routes.
    pub(super) fn reserved<H>(&self, handle: H) -> ReservedRoute<H> {
        ReservedRoute { method: self.method, path: self.path, handle }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.statuses.first().copied().unwrap_or_default()
    }

    /// Returns an error, a sentence, if a schema of the row is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        self.query.as_ref().map_err(Clone::clone)?;
        self.body_check.as_ref().map_err(Clone::clone)?;
        Ok(())
    }

    /// Answers a request. Everything that the head says is checked before the body is read. The reply
    /// reflects the position that the client asks for, and has that which it reflects.
    pub(super) async fn answer(
        &'static self,
        head: Head,
        body: &mut BodyDataStream,
    ) -> Result<Response, Problem> {
        let server = head.server.clone();
        let inquiry = server.host.queries.inquiry(head.caller.clone(), server.at_least(&head.headers)?);
        inquiry.await_log().await?;
        let seen = inquiry.reflects();
        let reply = (self.handler)(self, head, body).await;
        let mut reply = reply.map_err(|problem| match problem.status() {
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => problem.with_position(seen),
            _ => problem,
        })?;
        // An act has its effect in the log by now; a reading may have missed what came meanwhile.
        let position = if self.method == Method::Get { seen } else { *server.host.log.head().borrow() };
        reply.headers_mut().entry(headers::POSITION).or_insert_with(|| position.get().into());
        Ok(reply)
    }
}

impl<Q, B> Request<Q, B> {
    pub(super) fn server(&self) -> &HttpServer {
        &self.head.server
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.head.tables
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// Returns the caller of the request.
    pub(super) fn caller(&self) -> &Caller {
        &self.head.caller
    }

    /// Returns the text behind the question mark, for a route whose parameters others choose.
    pub(super) fn query_string(&self) -> Option<&str> {
        self.head.query.as_deref()
    }

    /// Returns the caller of an act, which always has a name in the log. Callers that have not signed in name
    /// themselves in `Kontor-Actor`.
    pub(super) fn actor(&self) -> Caller {
        let Caller { subject, on_behalf_of, .. } = &self.head.caller;
        let named = || on_behalf_of.clone().unwrap_or_else(|| OPERATOR.into());
        match subject {
            Some(_) => self.head.caller.clone(),
            None => Caller::named(named()),
        }
    }

    /// Performs an act and records it, with its outcome. Continues if the caller stops waiting. `failed`:
    /// returns the reason why an act with an answer has failed, at least in part.
    pub(super) async fn perform<T, A>(
        &self,
        intended: Intended,
        act: impl FnOnce(Arc<HostContext>) -> A,
        failed: impl FnOnce(&T) -> Option<String> + Send + 'static,
    ) -> Result<T, Problem>
    where
        T: Send + Sync + 'static,
        A: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        let (host, by) = (self.head.server.host.clone(), self.actor());
        let act = act(host.clone());
        let performed = async move { host.audit.perform(intended, &by, act, failed).await };
        let performed = tokio::spawn(performed.in_current_span()).await;
        // Err: it has panicked, which the panic hook has reported.
        performed.unwrap_or_else(|_| Err(Problem::internal()))
    }

    /// Returns the text of a placeholder of the path.
    pub(super) fn path(&self, name: &str) -> Result<Cow<'_, str>, Problem> {
        let found = self.head.placeholders.iter().find(|(known, _)| known == name);
        decode_placeholder(name, found.map_or("", |(_, text)| text))
    }
}

/// Decodes the text of a placeholder.
pub(super) fn decode_placeholder<'t>(name: &str, text: &'t str) -> Result<Cow<'t, str>, Problem> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map_err(|_| Problem::invalid_parameter(format!("{name} is not UTF-8.")))
}

impl FromBody for () {
    fn content() -> Vec<Content> {
        Vec::new()
    }

    async fn read(_: &HostRoute, _: &Head, _: &mut BodyDataStream) -> Result<Self, Problem> {
        Ok(())
    }
}

impl<T: DeserializeOwned + JsonSchema + Send> FromBody for Json<T> {
    fn content() -> Vec<Content> {
        vec![(JSON, json_schema::<T>)]
    }

    fn schema() -> Option<Value> {
        let settings = schemas::settings().for_deserialize();
        Some(settings.into_generator().into_root_schema_for::<T>().to_value())
    }

    async fn read(route: &HostRoute, head: &Head, body: &mut BodyDataStream) -> Result<Self, Problem> {
        let Ok(Some(schema)) = &route.body_check else {
            return Err(Problem::internal());
        };
        let bytes = body::read(&head.server.host.limits, &head.headers, body).await?;
        read_json(schema, &bytes).map(Self)
    }
}

/// Checks a body against its schema and reads it.
fn read_json<T: DeserializeOwned>(schema: &Schema, bytes: &[u8]) -> Result<T, Problem> {
    // A schema takes 7.0 for a whole number, and numbers of any size.
    checked(schema, bytes)?.read().map_err(|error| {
        Problem::new(ProblemCode::InvalidPayload, format!("The payload cannot be read: {error}."))
    })
}

impl<T: Serialize + JsonSchema> Reply for Json<T> {
    fn content() -> Vec<Content> {
        vec![(JSON, json_schema::<T>)]
    }

    fn respond(self, status: StatusCode) -> Result<Response, Problem> {
        json_reply(status, &self.0)
    }
}

impl<T: Serialize + JsonSchema> Reply for JsonAt<T> {
    fn content() -> Vec<Content> {
        vec![(JSON, json_schema::<T>)]
    }

    fn respond(self, status: StatusCode) -> Result<Response, Problem> {
        let mut response = json_reply(status, &self.0)?;
        response.headers_mut().insert(headers::POSITION, self.1.get().into());
        Ok(response)
    }
}

/// A response that the handler makes itself; the row names its media types.
impl Reply for Response {
    fn content() -> Vec<Content> {
        Vec::new()
    }

    fn respond(self, _: StatusCode) -> Result<Response, Problem> {
        Ok(self)
    }
}

/// Returns whether a reply with this status has a body.
pub(super) fn has_body(status: StatusCode) -> bool {
    ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED, StatusCode::SEE_OTHER].contains(&status)
}

fn json_schema<T: JsonSchema>(schemas: &mut SchemaGenerator) -> Value {
    schemas.subschema_for::<T>().to_value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{RedriveDeadLetters, ReplayRequest, SkipRequest};

    fn read<T: DeserializeOwned + JsonSchema + Send>(text: &str) -> Result<T, String> {
        let schema = Schema::compile(&Json::<T>::schema().unwrap()).unwrap();
        read_json(&schema, text.as_bytes()).map_err(|problem| problem.code().to_owned())
    }

    #[test]
    fn a_body_follows_the_schema_of_its_type() {
        assert_eq!(read::<ReplayRequest>("").unwrap(), ReplayRequest::default());
        assert!(read::<ReplayRequest>(r#"{"from": "2026-11-01T00:00:00Z"}"#).unwrap().from.is_some());
        assert!(read::<SkipRequest>(r#"{"reason": "refunded by hand"}"#).is_ok());
        for wrong in [r#"{"reason": ""}"#, r#"{"reason": "  "}"#, "{}", r#"{"reason": "x", "color": 1}"#] {
            assert_eq!(read::<SkipRequest>(wrong).unwrap_err(), "invalid-payload", "{wrong}");
        }
        for wrong in [r#"{"from": "yesterday"}"#, r#"{"since": "2026-11-01T00:00:00Z"}"#] {
            assert_eq!(read::<ReplayRequest>(wrong).unwrap_err(), "invalid-payload", "{wrong}");
        }
        for wrong in [r#"{"id": 0}"#, r#"{"id": 1e30}"#, r#"{"service": "A B"}"#] {
            assert_eq!(read::<RedriveDeadLetters>(wrong).unwrap_err(), "invalid-payload", "{wrong}");
        }
    }
}
