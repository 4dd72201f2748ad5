//! `kontor:service/steps`: the steps of a saga.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::services::Request;
use crate::model::{Json, Recorded, Rejection, StreamId, Version};
use crate::runtime::bindings::steps::{self, Host};
use crate::runtime::bindings::{json, services, types};
use crate::runtime::call::{Denied, Guest};
use crate::runtime::instance_data::Identity;
use crate::runtime::step_watch::InStep;

/// The maximum number of steps sent at once: more than twice the lines of an order.
const MAX_STEPS_AT_ONCE: usize = 256;
/// The maximum length of a step's name. Names are part of command ids.
const MAX_NAME_BYTES: usize = 200;
/// The maximum size of a step's command, of a query and of a wait. A journal keeps them, and a message of a
/// shared log has room for 1 MiB: four times as much, for an entry may show two of them.
const MAX_ASKED_BYTES: usize = 256 << 10;

/// The name of step zero: the command that caused the saga's trigger. No step of a run has it.
pub const STEP_ZERO: &str = "trigger";

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
    /// The aggregate's view after the command; `None` if it has none, or one that is too large for a journal.
    pub view: Option<Json>,
}

/// The events that a saga waits for: the first of any of these names on a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Awaited {
    /// The stream.
    pub stream: StreamId,
    /// The names of the events.
    pub events: Vec<String>,
    /// Only an event after this version counts.
    pub after: Option<Version>,
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
    /// Ends the run, and begins the saga anew with this progress.
    async fn continue_as_new(&mut self, progress: Json) -> Halt;
    /// Returns the progress with which the saga continued as new last.
    fn progress(&self) -> Option<Json>;
}

impl Guest<'_> {
    /// Returns the driver of the steps. The step lasts for as long as the second value lives.
    fn driver(&mut self) -> Result<(&mut dyn Steps, InStep), Denied> {
        let in_step = self.scope.watch.step();
        Ok((self.scope.call.steps()?, in_step))
    }
}

impl Host for Guest<'_> {
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
            let (count, limit) = (steps.len(), MAX_STEPS_AT_ONCE);
            return Err(Denied::TooMany { import: "steps.steps", items: "steps", count, limit }.into());
        }
        let identity = self.identity("steps.steps")?;
        let steps = steps.into_iter().map(|step| host_step(identity, step)).collect::<Result<Vec<_>, _>>()?;
        let (driver, _in_step) = self.driver()?;
        let answers = driver.steps(steps).await.map_err(wasmtime::Error::new)?;
        Ok(answers.into_iter().map(guest_answer).collect())
    }

    async fn pivot(
        &mut self,
        step: steps::Action,
    ) -> wasmtime::Result<Result<steps::Outcome, types::Rejection>> {
        let step = host_step(self.identity("steps.pivot")?, step)?;
        let (driver, _in_step) = self.driver()?;
        let answer = driver.pivot(step).await.map_err(wasmtime::Error::new)?;
        Ok(guest_answer(answer))
    }

    async fn query(
        &mut self,
        name: String,
        request: services::Request,
    ) -> wasmtime::Result<Result<String, types::Rejection>> {
        check_name(&name)?;
        let bytes = request.service.len() + request.query.len() + request.arguments.len();
        check_size("a query of a saga", bytes)?;
        let request = self.identity("steps.query")?.permitted(request)?;
        let (driver, _in_step) = self.driver()?;
        let answer = driver.query(name, request).await.map_err(wasmtime::Error::new)?;
        Ok(answer
            .map(|json| json.as_str().to_owned())
            .map_err(|rejection| types::Rejection::from(&rejection)))
    }

    async fn sleep(&mut self, name: String, duration_ms: u64) -> wasmtime::Result<()> {
        check_name(&name)?;
        let (driver, _in_step) = self.driver()?;
        driver.sleep(name, duration_ms).await.map_err(wasmtime::Error::new)
    }

    async fn wait_for(
        &mut self,
        name: String,
        awaited: steps::Awaited,
        timeout_ms: u64,
    ) -> wasmtime::Result<Option<types::RecordedEvent>> {
        check_name(&name)?;
        check_size("the awaited events", awaited.events.iter().map(|name| name.len() + 1).sum())?;
        let identity = self.identity("steps.wait-for")?;
        let mut events = awaited.events.iter();
        events.try_for_each(|event| identity.may_see(&awaited.aggregate, event))?;
        let stream = StreamId::new(&awaited.aggregate, &awaited.id).map_err(Denied::from)?;
        let after = awaited.after.map(Version::new);
        let awaited = Awaited { stream, events: awaited.events, after };
        let (driver, _in_step) = self.driver()?;
        let event = driver.wait_for(name, awaited, timeout_ms).await.map_err(wasmtime::Error::new)?;
        Ok(event.as_ref().map(types::RecordedEvent::from))
    }

    async fn continue_as_new(&mut self, progress: String) -> wasmtime::Result<()> {
        check_size("the progress of a saga", progress.len())?;
        let progress = json("the progress of a saga", progress)?;
        let (driver, _in_step) = self.driver()?;
        Err(wasmtime::Error::new(driver.continue_as_new(progress).await))
    }

    async fn progress(&mut self) -> wasmtime::Result<Option<String>> {
        let (driver, _in_step) = self.driver()?;
        Ok(driver.progress().map(|progress| progress.as_str().to_owned()))
    }
}

fn check_name(name: &str) -> Result<(), Denied> {
    let sound = !name.is_empty() && name.len() <= MAX_NAME_BYTES;
    if !sound || name == STEP_ZERO || name.contains(|char: char| char == '/' || char.is_control()) {
        return Err(Denied::StepName { name: name.to_owned(), max_bytes: MAX_NAME_BYTES });
    }
    Ok(())
}

/// Checks the size of something that the journal is to keep. `item`: its name in the message.
fn check_size(item: &'static str, bytes: usize) -> Result<(), Denied> {
    match bytes > MAX_ASKED_BYTES {
        true => Err(Denied::TooLarge { item, bytes, limit: MAX_ASKED_BYTES }),
        false => Ok(()),
    }
}

fn host_step(identity: &Identity, step: steps::Action) -> Result<Step, Denied> {
    check_name(&step.name)?;
    identity.may_send(&step.aggregate, &step.command)?;
    let bytes = step.aggregate.len() + step.id.len() + step.command.len() + step.payload.len();
    check_size("the command of a step", bytes)?;
    let action = Action {
        stream: StreamId::new(&step.aggregate, &step.id)?,
        command: step.command,
        payload: json("a step's payload", step.payload)?,
    };
    Ok(Step { name: step.name, action })
}

fn guest_answer(answer: Result<Outcome, Rejection>) -> Result<steps::Outcome, types::Rejection> {
    let outcome = answer.map_err(|rejection| types::Rejection::from(&rejection))?;
    Ok(steps::Outcome {
        version: outcome.version.get(),
        view: outcome.view.map(|view| view.as_str().to_owned()),
    })
}
