//! Faults of components, and the display of errors with their causes.

use std::fmt;

use crate::model::ServiceName;

/// A technical failure of a component. The instance is discarded; the call may be retried.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{service} {kind} in {call}")]
pub struct Fault {
    /// The service's name.
    pub service: ServiceName,
    /// The export that was called, and its subject: `decide create`.
    pub call: String,
    /// The kind of failure.
    pub kind: FaultKind,
    /// The message of the trap, the component's backtrace and all causes. For the log, never for the caller.
    pub detail: String,
}

impl Fault {
    /// Returns the most informative line of the detail: the message of a Rust panic, or else the last cause.
    pub fn cause(&self) -> &str {
        let mut lines = self.detail.lines();
        // The component may have printed something before it panicked.
        match lines.find(|line| line.starts_with("thread '") && line.contains("panicked")) {
            Some(panic) => lines.next().unwrap_or(panic),
            None => self.detail.lines().next_back().unwrap_or_default(),
        }
    }
}

/// The kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// It trapped: a panic, or an illegal instruction.
    #[error("trapped")]
    Trap,
    /// It exceeded its time limit.
    #[error("took too long")]
    Timeout,
    /// It exceeded its memory limit.
    #[error("asked for more memory than it may have")]
    Memory,
    /// It answered with something that the contract does not allow, such as an unknown event or text that is
    /// not JSON, or it called an import that is not allowed there.
    #[error("broke the contract")]
    Contract,
    /// It was not called: too many calls of its service are there already, and wait for others.
    #[error("has too many calls in progress")]
    Busy,
}

/// Displays an error with all its causes, outermost first: `tracing::error!(error = %Chain(&error), …)`. A
/// cause that repeats the text of the error above it, as errors of libraries often do, is shown once. The
/// text has no control characters but line feeds.
pub struct Chain<'e>(pub &'e (dyn std::error::Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chain = std::iter::successors(Some(self.0), |error| error.source());
        let mut texts: Vec<_> = chain.map(ToString::to_string).collect();
        texts.dedup();
        f.write_str(&printable(texts.join(": ")))
    }
}

/// Returns a sentence with its control characters escaped, apart from line feeds. It may quote what came from
/// outside, and must not change the looks of a terminal or of a file of lines.
pub(crate) fn printable(sentence: String) -> String {
    match sentence.contains(char::is_control) {
        true => escape_controls(&sentence, |rest| rest.starts_with('\n')),
        false => sentence,
    }
}

/// Returns a text with its control characters escaped. `keeps`: whether the one stays with which the rest of
/// the text begins.
pub fn escape_controls(text: &str, keeps: impl Fn(&str) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (at, character) in text.char_indices() {
        match character.is_control() && !keeps(&text[at..]) {
            true => escaped.extend(character.escape_default()),
            false => escaped.push(character),
        }
    }
    escaped
}

/// Returns the text of an error with all its causes; see [`Chain`].
pub fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    Chain(error).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_has_no_control_characters_but_line_feeds() {
        for (sentence, printed) in [
            ("the name \u{7f}a\u{1b}[2J\r is wrong", "the name \\u{7f}a\\u{1b}[2J\\r is wrong"),
            ("one\ntwo: „drei“ \"4\"", "one\ntwo: „drei“ \"4\""),
        ] {
            assert_eq!(printable(sentence.to_owned()), printed);
            assert_eq!(with_causes(&std::io::Error::other(sentence)), printed);
        }
    }

    #[test]
    fn the_cause_of_a_fault_is_one_line() {
        let panic = "thread 'main' panicked at src/gateway.rs:82:37:\nno answer\nnote: run with …\nwasm trap";
        for (detail, cause) in [
            (panic, "no answer"),
            (&*format!("asking\nthe gateway\n{panic}"), "no answer"),
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
