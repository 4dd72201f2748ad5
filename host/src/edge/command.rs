//! Commands over HTTP and NATS: from a [`CommandRequest`] to a [`Command`], and from its outcome to a
//! [`CommandResponse`].

use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::watch;

use super::{HostContext, stopped};
use crate::aggregate::{Accepted, CommandError};
use crate::api::{CommandReply, SagaRef};
use crate::contract::Problem;
use crate::model::{
    AggregateName, Caller, Command, CommandId, CommandName, CorrelationId, EventName, Intent, Json, Origin,
    Position, Precondition, SagaId, StreamId, Version,
};
use crate::query::AtLeast;
use crate::saga::SagaState;

/// A command as the caller sent it.
pub(super) struct CommandRequest {
    pub(super) aggregate: AggregateName,
    pub(super) command: CommandName,
    /// None: a new aggregate, with the id of the command.
    pub(super) id: Option<String>,
    /// The caller's idempotency key.
    pub(super) key: Option<String>,
    pub(super) payload: Json,
    pub(super) precondition: Precondition,
    /// The time to wait for the end of the saga that the command starts.
    pub(super) wait: Option<Duration>,
    /// The position that the command must be decided on at least.
    pub(super) at_least: AtLeast,
    pub(super) correlation_id: CorrelationId,
    pub(super) caller: Caller,
}

/// The outcome of an accepted command, as the caller sees it.
#[derive(Clone)]
pub(super) struct CommandResponse {
    pub(super) stream: StreamId,
    /// The version of `view`.
    pub(super) version: Version,
    /// The position that covers the command, and the saga if the reply has waited for it.
    pub(super) position: Position,
    /// The names of the events that the command recorded.
    pub(super) events: Vec<EventName>,
    pub(super) view: Option<Json>,
    pub(super) saga: Option<SagaRef>,
    /// True if the caller preferred to wait for the end of the saga.
    pub(super) waited: bool,
    /// True if the command created its aggregate.
    pub(super) created: bool,
}

impl CommandResponse {
    fn new(accepted: Accepted) -> Self {
        let created =
            !accepted.events.is_empty() && accepted.version == Version::START.after(accepted.events.len());
        Self {
            stream: accepted.stream,
            version: accepted.version,
            position: accepted.position,
            events: accepted.events.into_iter().map(|event| event.name).collect(),
            view: accepted.view,
            saga: None,
            waited: false,
            created,
        }
    }

    /// Returns the body of the reply.
    pub(super) fn reply(&self) -> CommandReply {
        CommandReply {
            id: self.stream.id().to_owned(),
            version: self.version,
            position: self.position,
            events: self.events.clone(),
            state: self.view.clone(),
            saga: self.saga.clone(),
        }
    }

    /// Returns the saga, unless the reply has waited for its end.
    pub(super) fn unfinished_saga(&self) -> Option<&SagaRef> {
        self.saga.as_ref().filter(|saga| !(self.waited && saga.state.ended()))
    }
}

/// Executes a command. Stops waiting for its saga when the host shuts down.
pub(super) async fn execute(
    host: &HostContext,
    request: CommandRequest,
    stopping: watch::Receiver<bool>,
) -> Result<CommandResponse, Problem> {
    let (id, repeatable) = match request.key {
        Some(key) => (CommandId::from_key_of(&request.caller, &key), true),
        None => (CommandId::new(), false),
    };
    host.queries.inquiry(request.caller.clone(), request.at_least).await_log().await?;
    let stream = StreamId::new(request.aggregate.as_str(), request.id.as_deref().unwrap_or(id.as_str()))?;
    let command = Command {
        id,
        repeatable,
        keyed: repeatable,
        precondition: request.precondition,
        stream,
        name: request.command,
        payload: request.payload,
        intent: Intent::Decide,
        origin: Origin { caller: request.caller, correlation_id: request.correlation_id, causation_id: None },
        journal: None,
    };
    host.admission.check(command.stream.aggregate()).map_err(|error| problem(host, error))?;
    let accepted = host.dispatch.submit(command).await.map_err(|error| problem(host, error))?;
    let saga = accepted.saga.clone();
    let response = CommandResponse::new(accepted);
    match saga {
        None => Ok(response),
        Some(saga) => follow(host, response, saga, repeatable, request.wait, stopping).boxed().await,
    }
}

/// Returns the problem of a command that was not accepted. A rejection was decided on the log as it is now,
/// and carries that position like any other reply: a query at this position sees the reason. A fault reflects
/// nothing.
fn problem(host: &HostContext, error: CommandError) -> Problem {
    let decided = matches!(error, CommandError::Rejected(_) | CommandError::VersionMismatch { .. });
    let problem = Problem::from(error);
    if decided { problem.with_position(head(host)) } else { problem }
}

fn head(host: &HostContext) -> Position {
    *host.log.head().borrow()
}

/// Adds the saga that the command started. Without `wait` the response is that of the command, as recorded,
/// however often it is sent. With it, the response has the aggregate's view at the end of the saga or of the
/// wait, and a position that covers everything that the saga did.
async fn follow(
    host: &HostContext,
    response: CommandResponse,
    id: SagaId,
    repeatable: bool,
    wait: Option<Duration>,
    stopping: watch::Receiver<bool>,
) -> Result<CommandResponse, Problem> {
    let sagas = &host.sagas;
    let status = match wait {
        None if repeatable => sagas.journaled(&id).await?,
        // It was started just now.
        None => None,
        Some(wait) => tokio::select! {
            status = sagas.wait(&id, wait) => status?,
            () = stopped(stopping) => sagas.journaled(&id).await?,
        },
    };
    // A saga whose journal has not begun yet is about to run.
    let state = status.map_or(SagaState::Running, |status| status.state);
    let response = CommandResponse { saga: Some(SagaRef { id, state }), ..response };
    if wait.is_none() {
        return Ok(response);
    }
    let position = response.position.max(head(host));
    let (version, view) = match host.dispatch.view(&response.stream, None).await? {
        Some(viewed) => (viewed.version, Some(viewed.view)),
        None => (response.version, None),
    };
    Ok(CommandResponse { version, view, position, waited: true, ..response })
}
