//! Runs one saga from wherever its journal stands to where it does not go on by itself.

use std::sync::{Arc, Mutex, PoisonError};

use super::driver::{Driver, Progress, Verdict, awaited};
use super::entry::{Entry, Trigger};
use super::index::Open;
use super::journal::{STEP_ZERO, Saga, SagaState};
use super::record::{Record, RecordError, actor, written};
use super::retry::Phase;
use super::sender::{Fate, NotHere, Sender};
use super::{SagaStatus, Shared, unreadable};
use crate::aggregate::CallError;
use crate::log::{AppendError, ReadError};
use crate::model::{Command, CommandId, Recorded, Rejection, Version};
use crate::runtime::{Component, SagaEnd};

/// How often a run that faults is started again.
const MAX_FAULTS: u32 = 3;

/// Why a saga does not go on now.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error(transparent)]
    NotHere(#[from] NotHere),
    #[error("the service {0} is not deployed")]
    NoService(Arc<str>),
    #[error("the event that started it is not in the log")]
    NoTrigger,
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl RunError {
    /// Whether somebody else has written to the journal first, and what they wrote can be read.
    pub(super) fn is_overtaken(&self) -> bool {
        matches!(self, Self::Record(RecordError::Append(AppendError::Conflict { .. })))
    }

    /// Whether the saga can go on when the log answers again.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::Record(RecordError::Read(_) | RecordError::Append(_)))
    }
}

/// A saga under way.
struct Running {
    shared: Arc<Shared>,
    open: Arc<Open>,
    trigger: Recorded,
    sender: Sender,
    progress: Arc<Mutex<Progress>>,
    resumed: bool,
    faults: u32,
}

/// The event that started a saga.
pub(super) async fn trigger(shared: &Shared, open: &Open) -> Result<Recorded, RunError> {
    let events = shared.deps.log.read_all(open.trigger.before(1), 1).await.map_err(RecordError::from)?;
    events.into_iter().find(|event| event.position == open.trigger).ok_or(RunError::NoTrigger)
}

/// Runs a saga until it has ended, parked or waits, and that is on disk. `new`: the event that started it, of a saga that
/// has never run.
pub(super) async fn run(
    shared: &Arc<Shared>,
    open: &Arc<Open>,
    new: Option<Recorded>,
) -> Result<SagaStatus, RunError> {
    let actor = actor(&open.id);
    let lease = shared.deps.nodes.lease();
    let resumed = new.is_none();
    let (trigger, record) = match new {
        Some(trigger) => {
            let record = Record::new(&shared.deps, &open.id, &trigger, actor)?;
            (trigger, record)
        }
        None => {
            let trigger = trigger(shared, open).await?;
            let record = Record::open(&shared.deps, &open.id, &trigger, actor).await?;
            (trigger, record)
        }
    };
    let runner = record.saga().and_then(|saga| saga.runner.clone());
    let settled = record.saga().is_some_and(|saga| saga.state.settled());
    if !settled && !shared.deps.nodes.owns(open.id.as_str(), runner.as_ref()) {
        return Err(NotHere.into());
    }
    let mut running = Running {
        shared: shared.clone(),
        open: open.clone(),
        sender: Sender::new(shared, open, &trigger, lease),
        trigger,
        resumed,
        progress: Arc::new(Mutex::new(Progress { record, verdict: None, reached: Default::default() })),
        faults: 0,
    };
    match shared.deps.nodes.me() {
        _ if settled => {}
        Some(me) if runner.as_ref() != Some(me) => running.start(Some(Entry::Taken { node: me.clone() }))?,
        // Another host may have taken it meanwhile.
        Some(_) => running.with(|progress| progress.record.confirm()),
        None => running.start(None)?,
    }
    loop {
        let status = running.saga(|saga| SagaStatus::of(&open.id, saga)).ok_or(RunError::NoTrigger)?;
        match status.state {
            SagaState::Running => running.run_code().await?,
            SagaState::Unwinding => running.unwind().await?,
            SagaState::Waiting if running.wake().await? => {}
            _ => {
                running.written().await?;
                return Ok(status);
            }
        }
    }
}

impl Running {
    fn with<T>(&self, work: impl FnOnce(&mut Progress) -> T) -> T {
        work(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn saga<T>(&self, read: impl FnOnce(&Saga) -> T) -> Option<T> {
        self.with(|progress| progress.record.saga().map(read))
    }

    fn write(&self, entry: Entry) -> Result<(), RunError> {
        Ok(self.with(|progress| progress.record.write(&[entry]))?)
    }

    fn park(&self, why: String) -> Result<(), RunError> {
        self.write(Entry::Parked { why, divergence: None })
    }

    async fn written(&self) -> Result<(), RunError> {
        let appending = self.with(|progress| progress.record.take_appending());
        Ok(written(appending).await?)
    }

    /// Begins the journal if there is none yet. `taken`: what a host writes that takes the saga.
    fn start(&self, taken: Option<Entry>) -> Result<(), RunError> {
        let started = match self.saga(|_| ()) {
            Some(()) => None,
            None => Some(self.started()?),
        };
        let entries: Vec<_> = started.into_iter().chain(taken).collect();
        Ok(self.with(|progress| progress.record.write(&entries))?)
    }

    fn started(&self) -> Result<Entry, RunError> {
        let deployed = self.shared.deps.components.current();
        let component = deployed.service(&self.open.service);
        let component = component.ok_or_else(|| RunError::NoService(self.open.service.clone()))?;
        Ok(Entry::Started {
            service: self.open.service.clone(),
            saga: self.open.name.clone(),
            digest: component.digest(),
            trigger: Trigger { stream: self.trigger.stream.clone(), version: self.trigger.version },
        })
    }

    /// Runs the component's code once, from its first line, on the component that the saga started with.
    async fn run_code(&mut self) -> Result<(), RunError> {
        let Some(digest) = self.saga(|saga| saga.digest) else {
            return Err(RunError::NoTrigger);
        };
        let component = match self.shared.deps.components.get(digest).await {
            Ok(component) => component,
            Err(error) => {
                let why = crate::error::with_causes(&error);
                return self.park(format!("the component that it started on cannot be had: {why}"));
            }
        };
        let end = self.call(&component).await;
        self.resumed = true;
        let pivoted = self.saga(|saga| saga.pivoted).unwrap_or_default();
        let verdict = self.with(|progress| progress.verdict.take());
        match (end, verdict) {
            (SagaEnd::Returned(returned), _) => self.returned(returned, pivoted),
            (SagaEnd::Halted, Some(Verdict::Unwind(reason))) => self.write(Entry::Unwinding { reason }),
            (SagaEnd::Halted, Some(Verdict::Park(parked))) => self.write(parked),
            (SagaEnd::Halted, Some(Verdict::Wait)) => Ok(()),
            (SagaEnd::Halted, Some(Verdict::Record(error))) => Err(error.into()),
            (SagaEnd::Halted, Some(Verdict::NotHere | Verdict::Rehearsed) | None) => Err(NotHere.into()),
            (SagaEnd::Fault(fault), _) => {
                self.faults += 1;
                if self.faults < MAX_FAULTS {
                    self.with(|progress| progress.record.write_noted());
                    let retry = self.shared.deps.retries.of(&self.open.name, "run", Phase::BeforePivot);
                    return Ok(self.shared.pause(retry.wait(self.faults, self.open.id.as_str())).await?);
                }
                match pivoted {
                    true => self.park(fault.to_string()),
                    false => {
                        let message = format!("The saga {} failed: {fault}.", self.open.name);
                        self.write(Entry::Unwinding { reason: Rejection::new("saga-failed", message) })
                    }
                }
            }
        }
    }

    async fn call(&self, component: &Component) -> SagaEnd {
        self.with(|progress| progress.reached.clear());
        let driver = Driver {
            sender: self.sender.clone(),
            progress: self.progress.clone(),
            resumed: self.resumed,
            rehearsal: false,
        };
        let Open { id, name, .. } = &*self.open;
        component.run_saga(name, id, &self.trigger, Box::new(driver)).await.0
    }

    fn returned(&self, returned: Result<(), Rejection>, pivoted: bool) -> Result<(), RunError> {
        // A replay that leaves out what the journal has is another run.
        if let Some(parked) = self.with(|progress| progress.left_out()) {
            return self.write(parked.map_err(RecordError::from)?);
        }
        match returned {
            Ok(()) => self.write(Entry::Completed {}),
            Err(reason) if pivoted => {
                self.park(format!("the run returned a rejection after its pivot: {reason}"))
            }
            Err(reason) => self.write(Entry::Unwinding { reason }),
        }
    }

    /// Wakes the saga if the event is there or the time is over. If not, it will be: who writes the event finds it among
    /// those who wait.
    async fn wake(&self) -> Result<bool, RunError> {
        let Some(waiting) = self.saga(|saga| saga.waiting.clone()).flatten() else {
            return Ok(false);
        };
        self.shared.waits.add(self.open.clone(), waiting.until_ms, waiting.wait.event());
        self.written().await?;
        let event = awaited(&self.sender, &self.trigger, &waiting).await?;
        if event.is_none() && self.shared.deps.clock.now_ms() < waiting.until_ms {
            return Ok(false);
        }
        self.shared.waits.remove(&self.open.id);
        self.write(Entry::Awoken { name: waiting.name, event })?;
        Ok(true)
    }

    /// Undoes what was done, the last step first and step zero last. A step that cannot be undone does not keep the others.
    async fn unwind(&self) -> Result<(), RunError> {
        let steps: Vec<String> =
            self.saga(|saga| saga.to_undo().map(str::to_owned).collect()).unwrap_or_default();
        for name in steps {
            let Some(command) = self.undo_of(&name) else {
                continue;
            };
            let appending = self.with(|progress| progress.record.overtakable());
            written(appending).await?;
            let (fate, effort) = self.sender.step(&name, Phase::Undo, command).await?;
            self.write(match fate {
                Fate::Accepted(_) | Fate::Refused(_) => Entry::Undone { name, effort },
                Fate::Failed(error) => Entry::UndoFailed { name, error, effort },
            })?;
        }
        let failed: Vec<String> = self.saga(|saga| saga.failed.iter().cloned().collect()).unwrap_or_default();
        match failed.is_empty() {
            true => self.write(Entry::Compensated {}),
            false => self.park(format!("not undone: {}", failed.join(", "))),
        }
    }

    fn undo_of(&self, name: &str) -> Option<Command> {
        let reason = self.saga(|saga| saga.reason.clone())??;
        if name == STEP_ZERO {
            let meta = &self.trigger.meta;
            let (stream, undone) = (self.trigger.stream.clone(), meta.command_id.clone());
            return Some(self.sender.undo(name, stream, meta.command.clone(), undone, reason));
        }
        let action = self.saga(|saga| saga.action(name).cloned())??;
        let undone = CommandId::of_step(&self.open.id, name);
        Some(self.sender.undo(name, action.stream, action.command.into(), undone, reason))
    }
}

/// Runs the code of an open saga on another component, as far as its journal goes. None if it is not to run any more;
/// otherwise the version of the journal, and how it would go another way if it does.
pub(super) async fn rehearse(
    shared: &Arc<Shared>,
    open: &Open,
    component: &Component,
) -> Result<Option<(Version, Result<(), String>)>, RunError> {
    let trigger = trigger(shared, open).await?;
    let record = Record::open(&shared.deps, &open.id, &trigger, actor(&open.id)).await?;
    let version = record.version();
    if !record.saga().is_some_and(|saga| saga.reason.is_none() && !saga.state.ended()) {
        return Ok(None);
    }
    let progress = Progress { record, verdict: None, reached: Default::default() };
    let progress = Arc::new(Mutex::new(progress));
    let driver = Driver {
        sender: Sender::new(shared, open, &trigger, None),
        progress: progress.clone(),
        resumed: true,
        rehearsal: true,
    };
    let (end, _) = component.run_saga(&open.name, &open.id, &trigger, Box::new(driver)).await;
    let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
    let parked = match (end, progress.verdict.take()) {
        (SagaEnd::Fault(fault), _) => {
            return Ok(Some((version, Err(format!("{fault}: {}", fault.cause())))));
        }
        (_, Some(Verdict::Record(error))) => return Err(error.into()),
        (_, Some(Verdict::Park(parked))) => Some(parked),
        _ => progress.left_out().transpose().map_err(RecordError::from)?,
    };
    Ok(Some((
        version,
        match parked {
            Some(Entry::Parked { why, .. }) => Err(why),
            _ => Ok(()),
        },
    )))
}

/// Writes what is decided about a saga that does not run here, on its journal and the version of that.
pub(super) async fn act<E>(
    shared: &Shared,
    open: &Open,
    actor: Arc<str>,
    decide: impl FnOnce(Option<&Saga>, Version) -> Result<Entry, E>,
) -> Result<Result<(), E>, RunError> {
    let trigger = trigger(shared, open).await?;
    let mut record = Record::open(&shared.deps, &open.id, &trigger, actor).await?;
    match decide(record.saga(), record.version()) {
        Ok(entry) => {
            record.write(&[entry])?;
            written(record.take_appending()).await?;
            Ok(Ok(()))
        }
        Err(refused) => Ok(Err(refused)),
    }
}

pub(super) fn call_error(error: RunError) -> CallError {
    match error {
        RunError::Record(error) => unreadable(error),
        RunError::NotHere(_) => CallError::ShuttingDown,
        error @ (RunError::NoService(_) | RunError::NoTrigger) => CallError::Read(ReadError(Arc::new(error))),
    }
}
