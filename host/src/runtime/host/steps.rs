//! `kontor:service/steps`: the steps of a saga.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::services::Request;
use crate::model::{Json, NewEvent, Recorded, Rejection, StreamId, Version};
use crate::runtime::bindings::steps::{self, Host};
use crate::runtime::bindings::{json, services, types};
use crate::runtime::guest::{InstanceData, forbidden};

/// The maximum number of steps sent at once: more than twice the lines of an order.
const MAX_STEPS_AT_ONCE: usize = 256;
/// The maximum length of a step's name. Names are part of command ids.
const MAX_NAME_BYTES: usize = 200;

/// A command that a saga sends, under a name that is unique in the saga.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The step's name: `reserve-tea`.
    pub name: String,
    /// The command.
    pub action: Action,
}

/// The command of a step. Its JSON form is stored in journals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Action {
    /// The aggregate that the command is for.
    pub stream: StreamId,
    /// The command's name.
    pub command: String,
    /// The command's payload.
    pub payload: Json,
}

/// The result of an accepted step. Its JSON form is stored in journals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The aggregate's version after the command.
    pub version: Version,
    /// The events of the command, oldest first.
    pub events: Vec<NewEvent>,
    /// The aggregate's view after the command; `None` if it has none.
    pub view: Option<Json>,
}

/// The events that a saga waits for: the first of any of these names on a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Awaited {
    /// The stream.
    pub stream: StreamId,
    /// The names of the events.
    pub events: Vec<String>,
}

/// The error that ends a run which must not continue. The implementation of [`Steps`] keeps the reason.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the saga's run was halted")]
pub struct Halt;

/// Takes the steps of one run: the host's saga runner, or its dry run of a journal.
#[async_trait]
pub trait Steps: Send {
    /// Takes several steps at once. Returns one answer for each, in their order.
    async fn steps(&mut self, steps: Vec<Step>) -> Result<Vec<Result<Outcome, Rejection>>, Halt>;
    /// Takes the deciding step: once it is accepted, nothing is undone.
    async fn pivot(&mut self, step: Step) -> Result<Result<Outcome, Rejection>, Halt>;
    /// Queries another service.
    async fn query(&mut self, name: String, request: Request) -> Result<Result<Json, Rejection>, Halt>;
    /// Waits for a time.
    async fn sleep(&mut self, name: String, duration_ms: u64) -> Result<(), Halt>;
    /// Waits for an event. Returns `None` if the time was up first.
    async fn wait_for(
        &mut self,
        name: String,
        awaited: Awaited,
        timeout_ms: u64,
    ) -> Result<Option<Recorded>, Halt>;
}

impl InstanceData {
    fn driver(&mut self) -> wasmtime::Result<&mut Box<dyn Steps>> {
        let operation = self.operation();
        let driver = self.scope.as_mut().and_then(|scope| scope.steps.as_mut());
        driver.ok_or_else(|| forbidden("steps", operation))
    }
}

impl Host for InstanceData {
    async fn step(
        &mut self,
        step: steps::Action,
    ) -> wasmtime::Result<Result<steps::Outcome, types::Rejection>> {
        let answers = self.steps(vec![step]).await?;
        answers.into_iter().next().ok_or_else(|| wasmtime::Error::new(Halt))
    }

    async fn steps(
        &mut self,
        steps: Vec<steps::Action>,
    ) -> wasmtime::Result<Vec<Result<steps::Outcome, types::Rejection>>> {
        if steps.len() > MAX_STEPS_AT_ONCE {
            let error = format!("{} steps at once, the limit is {MAX_STEPS_AT_ONCE}", steps.len());
            return Err(wasmtime::Error::msg(error));
        }
        let steps = steps.into_iter().map(host_step).collect::<wasmtime::Result<Vec<_>>>()?;
        let answers = self.driver()?.steps(steps).await.map_err(wasmtime::Error::new)?;
        Ok(answers.into_iter().map(guest_answer).collect())
    }

    async fn pivot(
        &mut self,
        step: steps::Action,
    ) -> wasmtime::Result<Result<steps::Outcome, types::Rejection>> {
        let step = host_step(step)?;
        let answer = self.driver()?.pivot(step).await.map_err(wasmtime::Error::new)?;
        Ok(guest_answer(answer))
    }

    async fn query(
        &mut self,
        name: String,
        request: services::Request,
    ) -> wasmtime::Result<Result<String, types::Rejection>> {
        check_name(&name)?;
        let Some(identity) = &self.identity else {
            return Err(forbidden("steps.query", self.operation()));
        };
        let request = identity.permitted(request)?;
        let answer = self.driver()?.query(name, request).await.map_err(wasmtime::Error::new)?;
        Ok(answer
            .map(|json| json.as_str().to_owned())
            .map_err(|rejection| types::Rejection::from(&rejection)))
    }

    async fn sleep(&mut self, name: String, duration_ms: u64) -> wasmtime::Result<()> {
        check_name(&name)?;
        self.driver()?.sleep(name, duration_ms).await.map_err(wasmtime::Error::new)
    }

    async fn wait_for(
        &mut self,
        name: String,
        awaited: steps::Awaited,
        timeout_ms: u64,
    ) -> wasmtime::Result<Option<types::RecordedEvent>> {
        check_name(&name)?;
        let stream = StreamId::new(&awaited.aggregate, &awaited.id).map_err(wasmtime::Error::new)?;
        let awaited = Awaited { stream, events: awaited.events };
        let event = self.driver()?.wait_for(name, awaited, timeout_ms).await.map_err(wasmtime::Error::new)?;
        Ok(event.as_ref().map(types::RecordedEvent::from))
    }
}

fn check_name(name: &str) -> wasmtime::Result<()> {
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains('/') {
        let error = format!("{name:?} is not a valid step name: 1 to {MAX_NAME_BYTES} bytes without a slash");
        return Err(wasmtime::Error::msg(error));
    }
    Ok(())
}

fn host_step(step: steps::Action) -> wasmtime::Result<Step> {
    check_name(&step.name)?;
    let action = Action {
        stream: StreamId::new(&step.aggregate, &step.id).map_err(wasmtime::Error::new)?,
        command: step.command,
        payload: json("a step's payload", step.payload).map_err(wasmtime::Error::new)?,
    };
    Ok(Step { name: step.name, action })
}

fn guest_answer(answer: Result<Outcome, Rejection>) -> Result<steps::Outcome, types::Rejection> {
    let outcome = answer.map_err(|rejection| types::Rejection::from(&rejection))?;
    let event = |event: NewEvent| types::Event {
        name: event.name.as_str().to_owned(),
        payload: event.payload.as_str().to_owned(),
    };
    Ok(steps::Outcome {
        version: outcome.version.get(),
        events: outcome.events.into_iter().map(event).collect(),
        view: outcome.view.map(|view| view.as_str().to_owned()),
    })
}
