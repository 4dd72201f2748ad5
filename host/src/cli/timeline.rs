//! The text of `kontor saga show`: a saga's state, its steps, and the commands for a parked one.

use std::fmt::Write as _;

use kontor::clock::{Time, rfc3339};
use kontor::model::{Json, Rejection};
use kontor::saga::SagaState;
use kontor::saga::timeline::{
    ActName, Acted, Asked, Course, Divergence, Outcome, Step, Timeline, UndoOutcome,
};
use serde_json::Value;

use super::actor::caller;
use super::output::counted;
use super::style::{Color, Style, span};
use super::table::{Columns, table};

/// The indentation of a line with details of the line above it.
const INDENT: &str = "    ";

/// Returns the whole text. `flag` is the flag of further commands for the same host.
pub(super) fn text(saga: &Timeline, now: Time, style: Style, flag: &str) -> String {
    let mut parts = vec![head(saga, now, style), steps(saga, style)];
    parts.extend(saga.divergence.as_ref().map(|divergence| side_by_side(divergence, style)));
    if !saga.acts.is_empty() {
        parts.push(acts(&saga.acts));
    }
    if saga.state == SagaState::Parked {
        parts.push(next_commands(saga, flag));
    }
    parts.join("\n")
}

/// Returns the lines above the steps: state, reasons, trigger and times.
fn head(saga: &Timeline, now: Time, style: Style) -> String {
    let (trigger, by) = (&saga.trigger, &saga.started_by);
    let since = |from: Time, to: Time| span(to.0.saturating_sub(from.0));
    let digest = saga.digest.map_or_else(|| "none yet".to_owned(), |digest| digest.short());
    let ended = saga.ended.map(|ended| format!("{}, after {}", rfc3339(ended.0), since(saga.started, ended)));
    let started = match saga.ended {
        Some(_) => rfc3339(saga.started.0),
        None => format!("{}, {} ago", rfc3339(saga.started.0), since(saga.started, now)),
    };
    let why = match saga.state {
        SagaState::Parked | SagaState::Resolved => "parked",
        _ => "stuck",
    };
    let rows = [
        ("saga", Some(format!("{} {}", saga.name, saga.id))),
        ("state", Some(style.state(saga.state))),
        (why, saga.why.as_ref().map(|why| style.paint(Color::Red, why))),
        (if saga.ended.is_some() { "unwound" } else { "unwinds" }, saga.reason.as_ref().map(rejection)),
        ("trigger", Some(format!("{}, version {} of {}", trigger.event, trigger.version, trigger.stream))),
        ("by", Some(caller(&by.actor, by.on_behalf_of.as_ref(), by.via.as_ref()))),
        ("started", Some(started)),
        ("as new", (saga.continued > 0).then(|| counted(saga.continued.into(), "time"))),
        ("ended", ended),
        ("service", Some(format!("{}, component {digest}", saga.service))),
    ];
    let rows: Vec<_> = rows.into_iter().filter_map(|(label, text)| Some([label.to_owned(), text?])).collect();
    aligned(&rows)
}

/// Returns a table with one line a step, and its failures below it.
fn steps(saga: &Timeline, style: Style) -> String {
    let heading = ["STEP", "ACTION", "TARGET", "OUTCOME", "TRIES", "TOOK", "AT", "UNDO"].map(str::to_owned);
    let row = |step: &Step| {
        let (action, target) = asked(&step.asked);
        let at = step.course.time.0.saturating_sub(saga.started.0);
        let tries = step.course.attempts.map(|attempts| attempts.to_string()).unwrap_or_default();
        let took = step.course.took_ms.map(span).unwrap_or_default();
        [
            step.name.clone(),
            action,
            target,
            outcome(step.outcome, style),
            tries,
            took,
            format!("+{}", span(at)),
            undo(step, style),
        ]
    };
    let rows: Vec<_> = saga.steps.iter().map(row).collect();
    let mut columns = Columns::new();
    [&heading].into_iter().chain(&rows).for_each(|row| columns.fit(row));
    let mut text = columns.line(&heading) + "\n";
    for (step, row) in saga.steps.iter().zip(&rows) {
        text += &(columns.line(row) + "\n");
        for note in notes(step) {
            text += &format!("{INDENT}{note}\n");
        }
    }
    text
}

/// Returns a step's action and its target.
fn asked(asked: &Asked) -> (String, String) {
    match asked {
        Asked::Step { stream, command } => (command.to_string(), stream.to_string()),
        Asked::Pivot { stream, command } => (format!("{command} (pivot)"), stream.to_string()),
        Asked::Query { service, query } => (format!("query {query}"), service.to_string()),
        Asked::Sleep { .. } => ("sleep".to_owned(), String::new()),
        Asked::Wait { stream, events, .. } => {
            (format!("wait for {}", events.join(" or ")), stream.to_string())
        }
    }
}

/// Returns an outcome as a word. A step that was refused is shown as rejected: its command said no.
fn outcome(outcome: Outcome, style: Style) -> String {
    match outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Answered => "answered".to_owned(),
        Outcome::Waiting => "waiting".to_owned(),
        Outcome::TimedOut => "timed out".to_owned(),
        Outcome::Refused => style.paint(Color::Yellow, "rejected"),
        Outcome::Skipped => style.paint(Color::Yellow, "skipped"),
        Outcome::Failed => style.paint(Color::Red, "failed"),
    }
}

/// Returns the outcome of a step's undo, with its attempts and duration.
fn undo(step: &Step, style: Style) -> String {
    let Some(undo) = &step.undo else {
        return String::new();
    };
    let outcome = match undo.outcome {
        UndoOutcome::Done => "done".to_owned(),
        UndoOutcome::Failed => style.paint(Color::Red, "failed"),
        UndoOutcome::Skipped => style.paint(Color::Yellow, "skipped"),
        UndoOutcome::NotCompensable => style.paint(Color::Yellow, "no compensation"),
    };
    match (undo.course.attempts, undo.course.took_ms) {
        (Some(1), Some(took_ms)) => format!("{outcome}, {}", span(took_ms)),
        (Some(attempts), Some(took_ms)) => format!("{outcome}, {attempts} tries, {}", span(took_ms)),
        _ => outcome,
    }
}

/// Returns the details of a step: its rejection, its errors, the end of its wait.
fn notes(step: &Step) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(step.rejection.as_ref().map(|reason| format!("rejected: {}", rejection(reason))));
    let mut course = |prefix: &str, Course { error, skipped_because, .. }: &Course| {
        notes.extend(error.as_ref().map(|error| format!("{prefix}failed: {error}")));
        notes.extend(skipped_because.as_ref().map(|reason| format!("{prefix}skipped: {reason}")));
    };
    course("", &step.course);
    if let Some(undo) = &step.undo {
        course("undo ", &undo.course);
    }
    if let (Outcome::Waiting, Asked::Sleep { until } | Asked::Wait { until, .. }) =
        (step.outcome, &step.asked)
    {
        notes.push(format!("until {}", rfc3339(until.0)));
    }
    notes
}

/// Returns a rejection with its code, message and details.
fn rejection(rejection: &Rejection) -> String {
    let details = rejection.details.as_ref().map(|details| format!(" {}", details.as_str()));
    format!("{rejection}{}", details.unwrap_or_default())
}

/// Returns both sides of a divergence, line by line. Lines that differ are marked.
fn side_by_side(Divergence { journaled, asked }: &Divergence, style: Style) -> String {
    let (journaled, asked) = (lines(journaled), lines(asked));
    let line = |lines: &[String], index: usize| lines.get(index).cloned().unwrap_or_default();
    let row = |index| {
        let (left, right) = (line(&journaled, index), line(&asked, index));
        match left == right {
            true => [left, String::new(), right],
            false => [left, "≠".to_owned(), style.paint(Color::Red, &right)],
        }
    };
    table(["in the journal", "", "on replay"], (0..journaled.len().max(asked.len())).map(row).collect())
}

/// Returns JSON with one member a line. Null means that the replay does not reach the step.
fn lines(json: &Json) -> Vec<String> {
    match json.read::<Value>() {
        Ok(Value::Null) => vec!["not reached".to_owned()],
        Ok(value) => format!("{value:#}").lines().map(str::to_owned).collect(),
        Err(_) => vec![json.as_str().to_owned()],
    }
}

/// Returns a table of the operators' acts.
fn acts(acts: &[Acted]) -> String {
    let row = |act: &Acted| {
        let did = match (act.act, &act.step) {
            (ActName::Retry, _) => "retry".to_owned(),
            (ActName::Skip, step) => format!("skip {}", step.as_deref().unwrap_or_default()),
            (ActName::Resolve, _) => "resolve".to_owned(),
        };
        [rfc3339(act.time.0), act.actor.to_string(), did, act.reason.clone().unwrap_or_default()]
    };
    table(["time", "actor", "act", "reason"], acts.iter().map(row).collect())
}

/// Returns the commands for a parked saga, to copy.
fn next_commands(saga: &Timeline, flag: &str) -> String {
    let id = &saga.id;
    let subject = if saga.reason.is_some() { "undo of" } else { "step" };
    let needs = match saga.by_fault {
        true => "Its code is at fault. It continues once a version that mends it is deployed.",
        false => "It needs an operator.",
    };
    let mut text = format!("{needs} To retry it:\n  kontor saga retry {id}{flag}\n");
    for step in &saga.failed {
        let named = quoted(step);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "To skip the {subject} {step}:\n  kontor saga skip {id} --step {named} --reason '…'{flag}\n"
        );
    }
    let _ = write!(
        text,
        "To end it once it is settled by hand:\n  kontor saga resolve {id} --reason '…'{flag}\n"
    );
    text
}

/// Returns a word quoted for the common shells, if it must be.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:".contains(letter);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

/// Returns rows as lines, aligned, without a heading.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let mut columns = Columns::new();
    rows.iter().for_each(|row| columns.fit(row));
    rows.iter().map(|row| columns.line(row) + "\n").collect()
}

#[cfg(test)]
mod tests;
