//! Runs one saga from the end of its journal as far as it continues by itself.

use std::sync::{Arc, Mutex, PoisonError};

use super::SagaStatus;
use super::driver::{Driver, awaited};
use super::entry::{Entry, Trigger};
use super::index::SagaHandle;
use super::inner::Inner;
use super::journal::{STEP_ZERO, Saga, SagaState};
use super::record::{Record, RecordError, caller, own_caller, written};
use super::replay::{HaltReason, Progress, Replay};
use super::retry::Phase;
use super::sender::{Relinquished, Sender, StepResult};
use crate::deployed::PastError;
use crate::error::Chain;
use crate::model::{Caller, Command, CommandId, CommandName, Recorded, Rejection, StreamId, Version};
use crate::runtime::{Component, SagaEnd};

/// The number of faulting runs after which the saga parks. A fault by chance seldom comes three times.
const MAX_FAULTS: u32 = 3;
/// The characters of a fault's cause that the journal keeps: enough for the message of a panic.
const MAX_CAUSE: usize = 400;
/// The end of the name under which dispatch records an undo.
const UNDO: &str = "/undo";

/// The reason why a saga does not continue now.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error(transparent)]
    Relinquished(#[from] Relinquished),
    #[error("the event that started it is not in the log")]
    NoTrigger,
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Component(#[from] PastError),
}

/// A running saga.
struct Running {
    inner: Arc<Inner>,
    handle: Arc<SagaHandle>,
    trigger: Recorded,
    sender: Sender,
    progress: Arc<Mutex<Progress>>,
    /// True if another process, or an earlier run, may have sent commands that the journal does not have.
    resumed: bool,
    /// The number of runs that have faulted so far.
    faults: u32,
}

/// Reads the event that started a saga.
pub(super) async fn trigger(inner: &Inner, handle: &SagaHandle) -> Result<Recorded, RunError> {
    let Trigger { stream, version } = &handle.trigger;
    let events = inner.deps.log.read(stream, version.before(1), 1).await.map_err(RecordError::from)?;
    events.into_iter().find(|event| event.version == *version).ok_or(RunError::NoTrigger)
}

/// Runs a saga until it has ended, parked or waits, and that is on disk. `new`: the trigger of a saga that
/// has never run.
pub(super) async fn run(
    inner: &Arc<Inner>,
    handle: &Arc<SagaHandle>,
    new: Option<Recorded>,
) -> Result<SagaStatus, RunError> {
    let lease = inner.deps.cluster.lease();
    let resumed = new.is_none();
    let trigger = match new {
        Some(trigger) => trigger,
        None => trigger(inner, handle).await?,
    };
    let caller = caller(&handle.id, &trigger, &inner.deps.nobody);
    let record = match resumed {
        true => Record::open(&inner.deps, &handle.id, &trigger, caller.clone()).await?,
        false => Record::new(&inner.deps, &handle.id, &trigger, caller.clone())?,
    };
    let runner = record.saga().and_then(|saga| saga.runner.clone());
    let settled = record.saga().is_some_and(|saga| saga.state.settled());
    if !settled && !inner.deps.cluster.owns(handle.id.as_str(), runner.as_ref()) {
        return Err(Relinquished.into());
    }
    let mut running = Running {
        inner: inner.clone(),
        handle: handle.clone(),
        sender: Sender::new(inner, handle, &trigger, caller, (lease, record.chain())),
        trigger,
        resumed,
        progress: Arc::new(Mutex::new(Progress::new(record))),
        faults: 0,
    };
    match inner.deps.cluster.me() {
        _ if settled => {}
        Some(me) if runner.as_ref() != Some(me) => running.start(Some(Entry::Taken { node: me.clone() }))?,
        // Another host may have taken it meanwhile.
        Some(_) => running.with(|progress| progress.record.confirm()),
        None => running.start(None)?,
    }
    loop {
        let status = running.saga(|saga| SagaStatus::of(&handle.id, saga)).ok_or(RecordError::NoEntries)?;
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

    fn park(&self, why: &str) -> Result<(), RunError> {
        self.write(Entry::parked(why))
    }

    async fn written(&self) -> Result<(), RunError> {
        let appending = self.with(|progress| progress.record.take_appending());
        Ok(written(appending).await?)
    }

    /// Begins the journal if there is none yet. `taken`: the entry of a host that takes the saga.
    fn start(&self, taken: Option<Entry>) -> Result<(), RunError> {
        let started = match self.saga(|_| ()) {
            Some(()) => None,
            None => Some(self.started()),
        };
        let entries: Vec<_> = started.into_iter().chain(taken).collect();
        Ok(self.with(|progress| progress.record.write(&entries))?)
    }

    fn started(&self) -> Entry {
        let SagaHandle { service, name, digest, trigger, .. } = &*self.handle;
        Entry::Started {
            service: service.clone(),
            saga: name.clone(),
            digest: *digest,
            trigger: trigger.clone(),
        }
    }

    /// Runs the saga's code once, from its first line, on the component that its journal names.
    async fn run_code(&mut self) -> Result<(), RunError> {
        let digest = self.saga(|saga| saga.digest).ok_or(RecordError::NoEntries)?;
        let component = match self.inner.deps.components.get(digest).await {
            Ok(component) => component,
            // This host follows the deployment late, or refuses to.
            Err(error @ (PastError::Read { .. } | PastError::Untrusted { .. })) => return Err(error.into()),
            Err(error) => {
                let error = Chain(&error);
                return self.park(&format!("the component that it started on cannot be loaded: {error}"));
            }
        };
        let end = self.call(&component).await;
        self.resumed = true;
        let pivoted = self.saga(|saga| saga.pivoted).unwrap_or_default();
        let halt_reason = self.with(|progress| progress.halt_reason.take());
        match (end, halt_reason) {
            (SagaEnd::Returned(returned), _) => self.returned(returned, pivoted),
            (SagaEnd::Halted, Some(HaltReason::Unwind(reason))) => self.write(Entry::Unwinding { reason }),
            (SagaEnd::Halted, Some(HaltReason::Park(parked))) => self.write(parked),
            (SagaEnd::Halted, Some(HaltReason::Wait | HaltReason::ContinueAsNew)) => Ok(()),
            (SagaEnd::Halted, Some(HaltReason::Record(error))) => Err(error.into()),
            // Only a dry run comes to the end of its journal.
            (SagaEnd::Halted, Some(HaltReason::Relinquished | HaltReason::EndOfJournal) | None) => {
                Err(Relinquished.into())
            }
            (SagaEnd::Fault(fault), _) => {
                self.faults += 1;
                if self.faults < MAX_FAULTS {
                    self.with(|progress| progress.record.write_noted());
                    let retry =
                        self.inner.deps.retries.of(self.handle.name.as_str(), "run", Phase::BeforePivot);
                    return Ok(self.inner.pause(retry.wait(self.faults, self.handle.id.as_str())).await?);
                }
                // Its code is at fault, so nothing is undone: a component that mends it takes it further.
                let cause: String = fault.cause().chars().take(MAX_CAUSE).collect();
                self.write(Entry::parked_by_fault(&format!("{fault}: {cause}")))
            }
        }
    }

    async fn call(&self, component: &Component) -> SagaEnd {
        self.with(Progress::start_over);
        let driver = Driver {
            sender: self.sender.clone(),
            replay: Replay::new(self.progress.clone()),
            resumed: self.resumed,
        };
        let SagaHandle { id, name, .. } = &*self.handle;
        component.run_saga(name, id, &self.trigger, Box::new(driver)).await
    }

    fn returned(&self, returned: Result<(), Rejection>, pivoted: bool) -> Result<(), RunError> {
        // A replay that leaves out a part of its journal has diverged.
        if let Some(parked) = self.with(|progress| progress.left_out()).map_err(RecordError::from)? {
            return self.write(parked);
        }
        match returned {
            Ok(()) => self.write(Entry::Completed {}),
            Err(reason) if pivoted => {
                self.park(&format!("the run returned a rejection after its pivot: {reason}"))
            }
            Err(reason) => self.write(Entry::Unwinding { reason }),
        }
    }

    /// Wakes the saga if the event is there or the time is over. Returns false if it has to wait: the saga is
    /// in the wait list before the log is read, so no event is missed.
    async fn wake(&self) -> Result<bool, RunError> {
        let Some(waiting) = self.saga(|saga| saga.waiting.clone()).flatten() else {
            return Ok(false);
        };
        self.inner.wait_list.add(self.handle.clone(), waiting.until_ms, waiting.wait.event());
        self.written().await?;
        let event = awaited(&self.sender, &self.trigger, &waiting).await?;
        if event.is_none() && self.inner.deps.clock.now_ms() < waiting.until_ms {
            return Ok(false);
        }
        self.inner.wait_list.remove(&self.handle.id);
        self.write(Entry::Awoken { name: waiting.name, event })?;
        Ok(true)
    }

    /// Undoes the steps, the last one first and step zero last. A step that cannot be undone does not keep
    /// the others from being undone.
    async fn unwind(&self) -> Result<(), RunError> {
        let steps: Vec<String> =
            self.saga(|saga| saga.to_undo().map(str::to_owned).collect()).unwrap_or_default();
        for name in steps {
            let Some(command) = self.undo_of(&name) else {
                self.write(Entry::NotUndone { name })?;
                continue;
            };
            let appending = self.with(|progress| progress.record.pending_before_commands());
            written(appending).await?;
            let (result, effort) = self.sender.step(&name, Phase::Undo, command).await?;
            self.write(match result {
                StepResult::Accepted(_) | StepResult::Rejected(_) => Entry::Undone { name, effort },
                StepResult::Failed(error) => Entry::UndoFailed { name, error, effort },
            })?;
        }
        let failed: Vec<String> = self.saga(|saga| saga.failed.iter().cloned().collect()).unwrap_or_default();
        match failed.is_empty() {
            true => self.write(Entry::Compensated {}),
            false => self.park(&format!("not undone: {}", failed.join(", "))),
        }
    }

    /// Returns the command that undoes a step, or `None` if nothing can undo it.
    fn undo_of(&self, name: &str) -> Option<Command> {
        let reason = self.saga(|saga| saga.reason.clone())??;
        let unique = self.saga(|saga| saga.unique(name))?;
        let (stream, command, undone) = if name == STEP_ZERO {
            let meta = &self.trigger.meta;
            (self.trigger.stream.clone(), meta.command.clone(), meta.command_id.clone())
        } else {
            let action = self.saga(|saga| saga.action(name).cloned())??;
            (action.stream, action.command.into(), CommandId::of_step(&self.handle.id, &unique))
        };
        let compensable = self.is_compensable(&stream, &command) && self.may_undo(name, &stream);
        compensable.then(|| self.sender.undo(&unique, stream, command, undone, reason))
    }

    /// Returns false for the trigger's command if another service owns it: only a saga of that service may
    /// take it back.
    fn may_undo(&self, name: &str, stream: &StreamId) -> bool {
        let deployed = self.inner.deps.components.current();
        let own = deployed.service(self.handle.service.as_str());
        // The undo for a service that is not deployed fails and says why.
        name != STEP_ZERO || own.is_none_or(|own| own.manifest().aggregate(stream.aggregate()).is_some())
    }

    /// Returns false if a command has no compensation: it is an undo itself, or its service says so.
    fn is_compensable(&self, stream: &StreamId, command: &CommandName) -> bool {
        let deployed = self.inner.deps.components.current();
        let owner = deployed.owner_of(stream);
        let known = owner.and_then(|owner| owner.manifest().command(stream.aggregate(), command.as_str()));
        // The undo of a command that is not deployed is sent: the command may come back, or the undo fails
        // and says why.
        !command.as_str().ends_with(UNDO) && known.is_none_or(|known| known.compensable)
    }
}

/// Parks a saga whose run has ended with an error that stays. Returns its status then.
pub(super) async fn park(
    inner: &Inner,
    handle: &SagaHandle,
    error: &RunError,
) -> Result<SagaStatus, RunError> {
    let trigger = trigger(inner, handle).await?;
    let mut record = Record::open(&inner.deps, &handle.id, &trigger, own_caller(&handle.id)).await?;
    let saga = record.saga().ok_or(RecordError::NoEntries)?;
    if !inner.deps.cluster.owns(handle.id.as_str(), saga.runner.as_ref()) {
        return Err(Relinquished.into());
    }
    if !saga.state.settled() {
        record.write(&[Entry::parked(&Chain(error).to_string())])?;
        written(record.take_appending()).await?;
    }
    let saga = record.saga().ok_or(RecordError::NoEntries)?;
    Ok(SagaStatus::of(&handle.id, saga))
}

/// Appends the entries that `decide` makes from the saga and the version of its journal. The saga does not
/// run: it is claimed or active.
pub(super) async fn act<E>(
    inner: &Inner,
    handle: &SagaHandle,
    caller: Caller,
    decide: impl FnOnce(Option<&Saga>, Version) -> Result<Vec<Entry>, E>,
) -> Result<Result<(), E>, RunError> {
    let trigger = trigger(inner, handle).await?;
    let mut record = Record::open(&inner.deps, &handle.id, &trigger, caller).await?;
    match decide(record.saga(), record.version()) {
        Ok(entries) => {
            record.write(&entries)?;
            written(record.take_appending()).await?;
            Ok(Ok(()))
        }
        Err(rejected) => Ok(Err(rejected)),
    }
}
