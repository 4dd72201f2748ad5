//! Runs one saga from wherever its journal stands to its end.

use std::sync::{Arc, Mutex, PoisonError};

use super::driver::{Driver, GaveUp, Sender, Verdict, undo};
use super::index::Open;
use super::journal::{Entry, STEP_ZERO, Saga, SagaState, Trigger};
use super::record::{Record, RecordError, written};
use super::{SagaId, Shared};
use crate::model::{CommandId, Recorded, Rejection};
use crate::runtime::SagaEnd;

/// How often a run that faults is started again.
const MAX_FAULTS: u32 = 3;

/// Why a saga does not go on now.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("the host is stopping")]
    Stopping,
    #[error("the service {0} is not deployed")]
    NoService(Arc<str>),
    #[error("the event that started it is not in the log")]
    NoTrigger,
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl RunError {
    /// Whether the saga can go on when the log answers again.
    pub(super) fn passes(&self) -> bool {
        matches!(self, Self::Record(RecordError::Read(_) | RecordError::Append(_)))
    }
}

/// A saga under way.
struct Running<'a> {
    shared: &'a Shared,
    id: SagaId,
    trigger: Recorded,
    sender: Sender,
    record: Arc<Mutex<Record>>,
    resumed: bool,
    faults: u32,
}

/// Runs a saga until it has ended or parked, and that is on disk.
pub(super) async fn run(shared: &Shared, open: &Open) -> Result<SagaState, RunError> {
    let trigger = shared.log.read_all(open.trigger - 1, 1).await.map_err(RecordError::from)?;
    let trigger = trigger.into_iter().find(|event| event.position == open.trigger);
    let trigger = trigger.ok_or(RunError::NoTrigger)?;
    let record = Record::open(shared.log.clone(), shared.clock.clone(), &open.id, &trigger).await?;
    let mut running = Running {
        shared,
        id: open.id.clone(),
        sender: Sender {
            dispatch: shared.dispatch.clone(),
            saga: open.id.clone(),
            origin: Sender::origin(&open.id, &trigger),
            stopping: shared.stopping.subscribe(),
        },
        trigger,
        resumed: record.saga().is_some(),
        record: Arc::new(Mutex::new(record)),
        faults: 0,
    };
    if !running.resumed {
        running.start(open)?;
    }
    loop {
        match running.saga(|saga| saga.state) {
            Some(SagaState::Running) => running.run_code().await?,
            Some(SagaState::Unwinding) => running.unwind().await?,
            Some(state) => {
                let appending = running.with_record(Record::take_appending);
                written(appending).await?;
                return Ok(state);
            }
            None => return Err(RunError::NoTrigger),
        }
    }
}

impl Running<'_> {
    fn with_record<T>(&self, work: impl FnOnce(&mut Record) -> T) -> T {
        work(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn saga<T>(&self, read: impl FnOnce(&Saga) -> T) -> Option<T> {
        self.with_record(|record| record.saga().map(read))
    }

    fn write(&self, entry: Entry) -> Result<(), RunError> {
        Ok(self.with_record(|record| record.write(&[entry]))?)
    }

    fn start(&self, open: &Open) -> Result<(), RunError> {
        let deployed = self.shared.registry.current();
        let component =
            deployed.service(&open.service).ok_or_else(|| RunError::NoService(open.service.clone()))?;
        self.write(Entry::Started {
            service: open.service.clone(),
            saga: open.name.clone(),
            digest: component.digest(),
            trigger: Trigger {
                stream: self.trigger.stream.as_str().to_owned(),
                version: self.trigger.version,
            },
        })
    }

    /// Runs the component's code once, from its first line.
    async fn run_code(&mut self) -> Result<(), RunError> {
        let (service, name) = self.saga(|saga| (saga.service.clone(), saga.name.clone())).unwrap_or_default();
        let component = self.shared.registry.current().service(&service).cloned();
        let component = component.ok_or_else(|| RunError::NoService(service))?;
        let verdict = Arc::new(Mutex::new(None));
        let driver = Driver {
            sender: self.sender.clone(),
            ask: self.shared.ask.clone(),
            record: self.record.clone(),
            verdict: verdict.clone(),
            resumed: self.resumed,
        };
        let (end, _) = component.run_saga(&name, &self.id, &self.trigger, Box::new(driver)).await;
        self.resumed = true;
        let verdict = verdict.lock().unwrap_or_else(PoisonError::into_inner).take();
        let pivoted = self.saga(|saga| saga.pivoted).unwrap_or_default();
        match (end, verdict) {
            (SagaEnd::Returned(Ok(())), _) => self.write(Entry::Completed {}),
            (SagaEnd::Returned(Err(rejection)), _) if pivoted => self.write(Entry::Parked {
                why: format!("the run returned a rejection after its pivot: {rejection}"),
            }),
            (SagaEnd::Returned(Err(reason)), _) => self.write(Entry::Unwinding { reason }),
            (SagaEnd::Halted, Some(Verdict::Unwind(reason))) => self.write(Entry::Unwinding { reason }),
            (SagaEnd::Halted, Some(Verdict::Park(why))) => self.write(Entry::Parked { why }),
            (SagaEnd::Halted, Some(Verdict::Record(error))) => Err(error.into()),
            (SagaEnd::Halted, Some(Verdict::Stopping) | None) => Err(RunError::Stopping),
            (SagaEnd::Fault(fault), _) => {
                self.faults += 1;
                if self.faults < MAX_FAULTS {
                    return self
                        .sender
                        .pause(&CommandId::of_step(&self.id, &name), self.faults)
                        .await
                        .map_err(|_| RunError::Stopping);
                }
                match pivoted {
                    true => self.write(Entry::Parked { why: fault.to_string() }),
                    false => self.write(Entry::Unwinding {
                        reason: Rejection {
                            code: "saga-failed".to_owned(),
                            message: format!("The saga {name} failed: {fault}."),
                            details: None,
                        },
                    }),
                }
            }
        }
    }

    /// Undoes what was done, the last step first and step zero last. A step that cannot be undone does not keep the others.
    async fn unwind(&self) -> Result<(), RunError> {
        let steps =
            self.saga(|saga| saga.to_undo().map(str::to_owned).collect::<Vec<_>>()).unwrap_or_default();
        for name in steps {
            let Some(command) = self.undo_of(&name) else {
                continue;
            };
            match self.sender.send(command, true).await {
                Ok(_) => self.write(Entry::Undone { name })?,
                Err(GaveUp::Stopping) => return Err(RunError::Stopping),
                Err(GaveUp::Failed(error)) => self.write(Entry::UndoFailed { name, error })?,
            }
        }
        let failed =
            self.saga(|saga| saga.failed_undos.iter().cloned().collect::<Vec<_>>()).unwrap_or_default();
        match failed.is_empty() {
            true => self.write(Entry::Compensated {}),
            false => self.write(Entry::Parked { why: format!("not undone: {}", failed.join(", ")) }),
        }
    }

    fn undo_of(&self, name: &str) -> Option<crate::model::Command> {
        let reason = self.saga(|saga| saga.reason.clone())??;
        if name == STEP_ZERO {
            let meta = &self.trigger.meta;
            let (stream, undone) = (self.trigger.stream.clone(), meta.command_id.clone());
            return Some(undo(&self.sender, name, stream, meta.command.clone(), undone, reason));
        }
        let action = self.saga(|saga| saga.action(name).cloned())??;
        let undone = CommandId::of_step(&self.id, name);
        Some(undo(&self.sender, name, action.stream()?, action.command.into(), undone, reason))
    }
}
