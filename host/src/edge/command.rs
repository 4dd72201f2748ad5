//! Commands, whichever door they come in by: from what is asked to a [`Command`], and from its outcome to the reply's body.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use super::headers::IfMatch;
use super::{HostContext, stopped};
use crate::aggregate::{Accepted, CallError};
use crate::contract::Problem;
use crate::model::{
    AggregateName, Command, CommandId, CommandName, CorrelationId, Intent, Json, Origin, Position, SagaId,
    StreamId, Version,
};
use crate::saga::SagaState;

/// Who sends commands: nobody is asked for a name yet.
const ACTOR: &str = "anonymous";

/// A command as the caller put it.
pub(super) struct Asked {
    pub(super) aggregate: AggregateName,
    pub(super) command: CommandName,
    /// None: a new aggregate, with the command's id.
    pub(super) id: Option<String>,
    /// What the caller's key stands for.
    pub(super) key: Option<CommandId>,
    pub(super) payload: Json,
    pub(super) condition: Option<IfMatch>,
    /// How long to wait for the end of the saga that it starts.
    pub(super) wait: Option<Duration>,
    pub(super) correlation_id: CorrelationId,
}

/// What came of it.
pub(super) struct Done {
    pub(super) accepted: Accepted,
    pub(super) saga: Option<Started>,
    /// Whether it made its aggregate.
    pub(super) created: bool,
}

/// The saga that a command started, as far as it is known when the reply goes out.
#[derive(Serialize)]
pub(super) struct Started {
    pub(super) id: SagaId,
    pub(super) state: SagaState,
    /// Whether the reply was to come when it has ended.
    #[serde(skip)]
    pub(super) awaited: bool,
}

/// The body of a reply.
#[derive(Serialize)]
pub(super) struct Reply<'r> {
    id: &'r str,
    version: Version,
    position: Position,
    events: Vec<&'r str>,
    state: Option<&'r Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    saga: Option<&'r Started>,
}

impl Done {
    pub(super) fn reply(&self) -> Reply<'_> {
        Reply {
            id: self.accepted.stream.id(),
            version: self.accepted.version,
            position: self.accepted.position,
            events: self.accepted.events.iter().map(|event| event.name.as_str()).collect(),
            state: self.accepted.view.as_ref(),
            saga: self.saga.as_ref(),
        }
    }

    /// The saga, unless the reply was to wait for its end and did.
    pub(super) fn unfinished(&self) -> Option<&Started> {
        self.saga.as_ref().filter(|saga| !(saga.awaited && saga.state.ended()))
    }
}

/// Carries a command out. Does not wait for a saga any more when the host shuts down.
pub(super) async fn carry_out(
    edge: &HostContext,
    asked: Asked,
    stopping: watch::Receiver<bool>,
) -> Result<Done, Problem> {
    let (id, repeatable) = match asked.key {
        Some(id) => (id, true),
        None => (CommandId::new(), false),
    };
    let stream = StreamId::new(asked.aggregate.as_str(), asked.id.as_deref().unwrap_or(id.as_str()))?;
    let command = Command {
        id,
        repeatable,
        expected_version: expected_version(edge, &stream, asked.condition).await?,
        stream,
        name: asked.command,
        payload: asked.payload,
        intent: Intent::Decide,
        origin: Origin { actor: ACTOR.into(), correlation_id: asked.correlation_id, causation_id: None },
    };
    let accepted = edge.dispatch.submit(command).await.map_err(|error| refusal(edge, error))?;
    let created =
        !accepted.events.is_empty() && accepted.version == Version::START.after(accepted.events.len());
    let (accepted, saga) = follow(edge, accepted, repeatable, asked.wait, stopping).await?;
    Ok(Done { accepted, saga, created })
}

async fn expected_version(
    edge: &HostContext,
    stream: &StreamId,
    condition: Option<IfMatch>,
) -> Result<Option<Version>, Problem> {
    match condition {
        None => Ok(None),
        Some(IfMatch::Version(version)) => Ok(Some(version)),
        // Streams never disappear, so it is enough to look before.
        Some(IfMatch::Exists) if edge.log.read(stream, Version::START, 1).await?.is_empty() => {
            Err(Problem::version_mismatch(None, Version::START).reflecting(head(edge)))
        }
        Some(IfMatch::Exists) => Ok(None),
    }
}

/// A "no" was decided on what is in the log by now, and says so like any other reply: whoever reads that far sees why. A
/// fault reflects nothing.
fn refusal(edge: &HostContext, error: CallError) -> Problem {
    let decided = matches!(error, CallError::Rejected(_) | CallError::VersionMismatch { .. });
    let problem = Problem::from(error);
    if decided { problem.reflecting(head(edge)) } else { problem }
}

fn head(edge: &HostContext) -> Position {
    *edge.log.head().borrow()
}

/// Looks at the saga that the command started. Without `wait` the answer is that of the command, as recorded, however often
/// it is sent; with it, the aggregate as it stands when the saga has ended or the time is over, and a position that covers
/// all that the saga did.
async fn follow(
    edge: &HostContext,
    accepted: Accepted,
    repeatable: bool,
    wait: Option<Duration>,
    stopping: watch::Receiver<bool>,
) -> Result<(Accepted, Option<Started>), Problem> {
    let Some(id) = accepted.saga.clone() else {
        return Ok((accepted, None));
    };
    let sagas = &edge.sagas;
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
    let saga = Some(Started { id, state, awaited: wait.is_some() });
    if wait.is_none() {
        return Ok((accepted, saga));
    }
    let position = accepted.position.max(head(edge));
    let viewed = edge.dispatch.view(&accepted.stream, None).await?;
    let (version, view) = match viewed {
        Some(viewed) => (viewed.version, Some(viewed.view)),
        None => (accepted.version, None),
    };
    Ok((Accepted { version, view, position, ..accepted }, saga))
}
