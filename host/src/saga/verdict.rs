//! The consequences of errors for a saga. Pure.
//!
//! | error | of a command | of the journal |
//! |---|---|---|
//! | the log or the host is busy or away | passes, and does not count | passes |
//! | no answer: a fault, an unknown command | an attempt of a limited number | - |
//! | it would be the same again: too large, damaged, a key used before | the step failed | parks |
//! | an entry cannot follow or has no form | - | parks |
//! | another host wrote first | passes | the journal is read again |
//! | the component cannot be read or fetched now | - | passes |
//! | the saga cannot begin: its trigger is missing | - | stuck, with the reason shown |
//! | the component may not run on this host | - | stuck, with the reason shown |
//!
//! A saga whose journal cannot even take the entry that parks it is stuck, too.

use super::record::RecordError;
use super::runner::RunError;
use crate::aggregate::CommandError;
use crate::deployed::PastError;
use crate::error::FaultKind;
use crate::log::{AppendError, ReadError};

/// The consequence of a command without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// It passes: the host, and not the step, failed. It does not count as an attempt.
    Passing,
    /// Another attempt may succeed. Their number is limited.
    Attempt,
    /// Another attempt would fail as well.
    Final,
    /// The host is stopping.
    Stopping,
}

impl Failure {
    /// Returns the consequence of a command's error. A rejection is here because of the phases in which it
    /// is retried.
    pub(super) fn of(error: &CommandError) -> Self {
        match error {
            CommandError::ShuttingDown => Self::Stopping,
            CommandError::Busy { .. } => Self::Passing,
            CommandError::Append(AppendError::TooLarge(_)) | CommandError::KeyReused { .. } => Self::Final,
            // The saga sends the same again.
            CommandError::InvalidPayload(_) => Self::Final,
            CommandError::Append(_) => Self::Passing,
            CommandError::Fault(fault) if fault.kind == FaultKind::Busy => Self::Passing,
            CommandError::Read(error) => {
                if error.is_damage() {
                    Self::Final
                } else {
                    Self::Passing
                }
            }
            CommandError::Rejected(_)
            | CommandError::Unknown(_)
            | CommandError::VersionMismatch { .. }
            | CommandError::Fault(_) => Self::Attempt,
        }
    }
}

/// The consequence of an error that ends a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The saga continues on another host, or when this one starts again.
    Relinquish,
    /// Another host wrote to the journal first: it is read again.
    ReadAgain,
    /// It passes: the saga tries again after a pause.
    Passing,
    /// The saga parks with the error's sentence.
    Park,
    /// The saga cannot begin, or its journal takes no entry. The index shows the reason.
    Stuck,
}

impl Verdict {
    /// Returns the consequence of a run's error.
    pub(super) fn of(error: &RunError) -> Self {
        match error {
            RunError::Relinquished(_) => Self::Relinquish,
            RunError::NoTrigger | RunError::Component(PastError::Untrusted { .. }) => Self::Stuck,
            RunError::Component(_) => Self::Passing,
            RunError::Record(error) => match error {
                RecordError::Read(error) => Self::of_read(error),
                RecordError::Append(AppendError::Conflict { .. }) => Self::ReadAgain,
                RecordError::Append(AppendError::TooLarge(_)) => Self::Park,
                RecordError::Append(_) => Self::Passing,
                RecordError::NoEntries
                | RecordError::Illegal(_)
                | RecordError::Format(_)
                | RecordError::Id(_) => Self::Park,
            },
        }
    }

    /// Returns the consequence of an error of the entry that parks a saga.
    pub(super) fn of_parking(error: &RunError) -> Self {
        match Self::of(error) {
            Self::Park => Self::Stuck,
            verdict => verdict,
        }
    }

    fn of_read(error: &ReadError) -> Self {
        if error.is_damage() { Self::Park } else { Self::Passing }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::sync::Arc;

    use super::super::journal::next_state;
    use super::super::sender::Relinquished;
    use super::*;
    use crate::error::Fault;
    use crate::model::{CommandId, Digest, Rejection, StreamId, Version};

    fn stream() -> StreamId {
        StreamId::new("order", "o1").unwrap()
    }

    fn cause() -> Arc<dyn Error + Send + Sync> {
        Arc::new(std::io::Error::other("disk is gone"))
    }

    fn damage() -> ReadError {
        ReadError::damage("the event 7")
    }

    fn conflict() -> AppendError {
        AppendError::Conflict { stream: stream(), expected: Version::new(1), actual: Version::new(2) }
    }

    fn duplicate() -> AppendError {
        AppendError::Duplicate { stream: stream(), command: CommandId::from_key("k") }
    }

    fn fault(kind: FaultKind) -> CommandError {
        let (service, call) = ("order".into(), "decide order.create".to_owned());
        Fault { service, call, kind, detail: String::new() }.into()
    }

    #[test]
    fn every_error_of_a_command_passes_counts_or_is_final() {
        let mismatch = CommandError::VersionMismatch {
            stream: stream(),
            expected: Some(Version::new(1)),
            actual: Version::new(2),
        };
        let table: [(CommandError, Failure); 18] = [
            (CommandError::ShuttingDown, Failure::Stopping),
            (CommandError::Busy { queue: "the log" }, Failure::Passing),
            (AppendError::Busy.into(), Failure::Passing),
            (AppendError::Unavailable.into(), Failure::Passing),
            (AppendError::Failed(cause()).into(), Failure::Passing),
            (conflict().into(), Failure::Passing),
            (duplicate().into(), Failure::Passing),
            (ReadError(cause()).into(), Failure::Passing),
            (Rejection::new("no", "No.").into(), Failure::Attempt),
            (CommandError::Unknown("command a.b".to_owned()), Failure::Attempt),
            (mismatch, Failure::Attempt),
            (fault(FaultKind::Trap), Failure::Attempt),
            (fault(FaultKind::Timeout), Failure::Attempt),
            (fault(FaultKind::Contract), Failure::Attempt),
            (fault(FaultKind::Busy), Failure::Passing),
            (AppendError::TooLarge(cause()).into(), Failure::Final),
            (CommandError::KeyReused { stream: stream() }, Failure::Final),
            (damage().into(), Failure::Final),
        ];
        for (error, expected) in table {
            assert_eq!(Failure::of(&error), expected, "{error:?}");
        }
    }

    #[test]
    fn every_error_of_a_run_has_one_consequence() {
        let broken = serde_json::from_str::<u8>("x").unwrap_err();
        let illegal = next_state(None, &super::super::entry::Entry::Completed {}).unwrap_err();
        let digest = Digest::of(b"component");
        let untrusted = PastError::Untrusted { digest, source: Box::new(std::io::Error::other("unsigned")) };
        let table: [(RunError, Verdict, Verdict); 15] = [
            (Relinquished.into(), Verdict::Relinquish, Verdict::Relinquish),
            (PastError::Gone(digest).into(), Verdict::Passing, Verdict::Passing),
            (untrusted.into(), Verdict::Stuck, Verdict::Stuck),
            (RunError::NoTrigger, Verdict::Stuck, Verdict::Stuck),
            (RecordError::Append(conflict()).into(), Verdict::ReadAgain, Verdict::ReadAgain),
            (RecordError::Append(duplicate()).into(), Verdict::Passing, Verdict::Passing),
            (RecordError::Append(AppendError::Busy).into(), Verdict::Passing, Verdict::Passing),
            (RecordError::Append(AppendError::Unavailable).into(), Verdict::Passing, Verdict::Passing),
            (RecordError::Append(AppendError::Failed(cause())).into(), Verdict::Passing, Verdict::Passing),
            (RecordError::Read(ReadError(cause())).into(), Verdict::Passing, Verdict::Passing),
            (RecordError::Append(AppendError::TooLarge(cause())).into(), Verdict::Park, Verdict::Stuck),
            (RecordError::Read(damage()).into(), Verdict::Park, Verdict::Stuck),
            (RecordError::NoEntries.into(), Verdict::Park, Verdict::Stuck),
            (RecordError::Illegal(illegal).into(), Verdict::Park, Verdict::Stuck),
            (RecordError::Format(broken).into(), Verdict::Park, Verdict::Stuck),
        ];
        for (error, of_run, of_parking) in table {
            assert_eq!((Verdict::of(&error), Verdict::of_parking(&error)), (of_run, of_parking), "{error:?}");
        }
    }
}
