//! Why a call into a service gave no answer, or a "no".

use std::sync::Arc;

/// A technical failure of a component: the instance is thrown away, the call may be tried again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{service} {kind} in {call}")]
pub struct Fault {
    pub service: Arc<str>,
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
