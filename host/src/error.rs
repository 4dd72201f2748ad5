//! Why a call into a service gave no answer, or a "no".

use crate::log::{AppendError, ReadError};
use crate::model::{Position, Rejection, ServiceName, StreamId, Version};

/// A technical failure of a component: the instance is thrown away, the call may be tried again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{service} {kind} in {call}")]
pub struct Fault {
    pub service: ServiceName,
    /// What was asked of it: `decide order.create`.
    pub call: String,
    pub kind: FaultKind,
    /// For the log, never for the caller: the trap's message and the component's backtrace.
    pub detail: String,
}

impl Fault {
    /// The line of the detail that says most: the message of a Rust panic, else the last cause.
    pub fn cause(&self) -> &str {
        let mut lines = self.detail.lines();
        match lines.next() {
            Some(panic) if panic.starts_with("thread '") => lines.next().unwrap_or(panic),
            first => lines.next_back().or(first).unwrap_or_default(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    #[error("trapped")]
    Trap,
    #[error("took too long")]
    Timeout,
    #[error("asked for more memory than it may have")]
    Memory,
    /// It answered with something that the contract does not allow: an unknown event, text that is no JSON.
    #[error("broke the contract")]
    Contract,
}

/// Why a command or a query was not carried out.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The service's answer is no.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Nobody here knows what was asked for. The text names it: "the command order.creat".
    #[error("there is no {0}")]
    Unknown(String),
    #[error("{stream} is at version {actual}, not {expected}")]
    VersionMismatch { stream: StreamId, expected: Version, actual: Version },
    /// The same command id came before with another command or payload.
    #[error("the idempotency key has been used for another command on {stream}")]
    KeyReused { stream: StreamId },
    /// A bounded queue is full. Nothing was done.
    #[error("{queue} is full")]
    Busy { queue: &'static str },
    #[error("the host is shutting down")]
    ShuttingDown,
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A read model could not be used: not there yet, broken, or past a limit.
    #[error("the read model of {service} cannot be used: {reason}")]
    ReadModel { service: ServiceName, reason: String },
    /// The log did not reach the position that the query was to see: it is that of another log, or this one was put back.
    #[error("the log is at position {reached}, not yet at {at_least}")]
    Ahead { at_least: Position, reached: Position },
    /// The read model did not reach the position that the query was to see, in the time a query waits for that.
    #[error("the read model of {service} is at position {reached}, not yet at {at_least}")]
    NotCaughtUp { service: ServiceName, at_least: Position, reached: Position },
}

/// An error and its causes, outermost first. Errors of libraries often repeat the text of their cause; it stands here once.
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let mut texts: Vec<_> = chain.map(ToString::to_string).collect();
    texts.dedup();
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_a_fault_is_one_line() {
        let panic =
            "thread 'main' panicked at src/gateway.rs:82:37:\nnobody answers\nnote: run with …\nwasm trap";
        for (detail, cause) in [
            (panic, "nobody answers"),
            ("error while executing\n    0: decide\nwasm trap: unreachable", "wasm trap: unreachable"),
            ("a state of more than 8388608 bytes", "a state of more than 8388608 bytes"),
            ("", ""),
        ] {
            let (service, call) = ("payment".into(), "decide authorize".to_owned());
            let fault = Fault { service, call, kind: FaultKind::Trap, detail: detail.to_owned() };
            assert_eq!(fault.cause(), cause);
        }
    }
}
