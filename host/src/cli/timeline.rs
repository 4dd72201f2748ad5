//! The text of `kontor saga show`: how a saga stands, what it did, and what it needs.

use std::fmt::Write as _;

use kontor::clock::{Time, rfc3339};
use kontor::model::{Json, Rejection};
use kontor::saga::SagaState;
use kontor::saga::timeline::{
    ActName, Acted, Asked, Course, Divergence, Outcome, Step, Timeline, UndoOutcome,
};
use serde_json::Value;

use super::style::{Colour, Style, span};
use super::table::{Columns, table};

/// What stands before a line that tells more about the line above it.
const INDENT: &str = "    ";

/// `flag`: what further commands must say to ask the same host.
pub(super) fn text(saga: &Timeline, now: Time, style: Style, flag: &str) -> String {
    let mut parts = vec![head(saga, now, style), steps(saga, style)];
    parts.extend(saga.divergence.as_ref().map(|divergence| side_by_side(divergence, style)));
    if !saga.acts.is_empty() {
        parts.push(acts(&saga.acts));
    }
    if saga.state == SagaState::Parked {
        parts.push(what_to_do(saga, flag));
    }
    parts.join("\n")
}

fn head(saga: &Timeline, now: Time, style: Style) -> String {
    let trigger = &saga.trigger;
    let since = |from: Time, to: Time| span(to.0.saturating_sub(from.0));
    let digest = saga.digest.map_or_else(|| "none yet".to_owned(), |digest| digest.short());
    let ended = saga.ended.map(|ended| format!("{}, after {}", rfc3339(ended.0), since(saga.started, ended)));
    let started = match saga.ended {
        Some(_) => rfc3339(saga.started.0),
        None => format!("{}, {} ago", rfc3339(saga.started.0), since(saga.started, now)),
    };
    let rows = [
        ("saga", Some(format!("{} {}", saga.name, saga.id))),
        ("state", Some(style.state(saga.state))),
        ("parked", saga.why.as_ref().map(|why| style.paint(Colour::Red, why))),
        ("unwinds", saga.reason.as_ref().map(rejection)),
        ("trigger", Some(format!("{}, version {} of {}", trigger.event, trigger.version, trigger.stream))),
        ("started", Some(started)),
        ("ended", ended),
        ("service", Some(format!("{}, component {digest}", saga.service))),
    ];
    let rows: Vec<_> = rows.into_iter().filter_map(|(label, text)| Some([label.to_owned(), text?])).collect();
    aligned(&rows)
}

/// One line a step. Below it stands why something went wrong.
fn steps(saga: &Timeline, style: Style) -> String {
    let heading = ["STEP", "DOES", "ON", "OUTCOME", "TRIES", "TOOK", "AT", "UNDO"].map(str::to_owned);
    let row = |step: &Step| {
        let (does, on) = asked(&step.asked);
        let at = step.course.time.0.saturating_sub(saga.started.0);
        let tries = step.course.attempts.map(|attempts| attempts.to_string()).unwrap_or_default();
        let took = step.course.took_ms.map(span).unwrap_or_default();
        [
            step.name.clone(),
            does,
            on,
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

/// What a step does, and on what.
fn asked(asked: &Asked) -> (String, String) {
    match asked {
        Asked::Step { stream, command } => (command.to_string(), stream.to_string()),
        Asked::Pivot { stream, command } => (format!("{command} (pivot)"), stream.to_string()),
        Asked::Query { service, query } => (format!("ask {query}"), service.to_string()),
        Asked::Sleep { .. } => ("sleep".to_owned(), String::new()),
        Asked::Wait { stream, events, .. } => {
            (format!("wait for {}", events.join(" or ")), stream.to_string())
        }
    }
}

fn outcome(outcome: Outcome, style: Style) -> String {
    match outcome {
        Outcome::Done => "done".to_owned(),
        Outcome::Answered => "answered".to_owned(),
        Outcome::Waiting => "waiting".to_owned(),
        Outcome::TimedOut => "timed out".to_owned(),
        Outcome::Refused => style.paint(Colour::Yellow, "refused"),
        Outcome::Skipped => style.paint(Colour::Yellow, "skipped"),
        Outcome::Failed => style.paint(Colour::Red, "failed"),
    }
}

fn undo(step: &Step, style: Style) -> String {
    let Some(undo) = &step.undo else {
        return String::new();
    };
    let outcome = match undo.outcome {
        UndoOutcome::Done => "done".to_owned(),
        UndoOutcome::Failed => style.paint(Colour::Red, "failed"),
        UndoOutcome::Skipped => style.paint(Colour::Yellow, "skipped"),
    };
    match (undo.course.attempts, undo.course.took_ms) {
        (Some(1), Some(took_ms)) => format!("{outcome}, {}", span(took_ms)),
        (Some(attempts), Some(took_ms)) => format!("{outcome}, {attempts} tries, {}", span(took_ms)),
        _ => outcome,
    }
}

fn notes(step: &Step) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(step.rejection.as_ref().map(|refused| format!("refused: {}", rejection(refused))));
    let mut course = |what: &str, Course { error, skipped_because, .. }: &Course| {
        notes.extend(error.as_ref().map(|error| format!("{what}failed: {error}")));
        notes.extend(skipped_because.as_ref().map(|reason| format!("{what}skipped: {reason}")));
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

fn rejection(rejection: &Rejection) -> String {
    let details = rejection.details.as_ref().map(|details| format!(" {}", details.as_str()));
    format!("{rejection}{}", details.unwrap_or_default())
}

/// Both sides of a divergence, line by line. What differs is marked.
fn side_by_side(Divergence { journaled, asked }: &Divergence, style: Style) -> String {
    let (journaled, asked) = (lines(journaled), lines(asked));
    let line = |lines: &[String], index: usize| lines.get(index).cloned().unwrap_or_default();
    let row = |index| {
        let (left, right) = (line(&journaled, index), line(&asked, index));
        match left == right {
            true => [left, String::new(), right],
            false => [left, "≠".to_owned(), style.paint(Colour::Red, &right)],
        }
    };
    table(["journaled", "", "asked now"], (0..journaled.len().max(asked.len())).map(row).collect())
}

/// JSON with one member a line; null is that the run does not come to the step any more.
fn lines(json: &Json) -> Vec<String> {
    match json.read::<Value>() {
        Ok(Value::Null) => vec!["nothing".to_owned()],
        Ok(value) => format!("{value:#}").lines().map(str::to_owned).collect(),
        Err(_) => vec![json.as_str().to_owned()],
    }
}

fn acts(acts: &[Acted]) -> String {
    let row = |act: &Acted| {
        let did = match (act.act, &act.step) {
            (ActName::Retry, _) => "retry".to_owned(),
            (ActName::Skip, step) => format!("skip {}", step.as_deref().unwrap_or_default()),
            (ActName::Resolve, _) => "resolve".to_owned(),
        };
        [rfc3339(act.time.0), act.actor.to_string(), did, act.reason.clone().unwrap_or_default()]
    };
    table(["when", "who", "did", "because"], acts.iter().map(row).collect())
}

fn what_to_do(saga: &Timeline, flag: &str) -> String {
    let id = &saga.id;
    let undone = if saga.reason.is_some() { "undo of " } else { "" };
    let mut text = format!("It needs a person. To have it try again:\n  kontor saga retry {id}{flag}\n");
    for step in &saga.failed {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "To leave out the {undone}{step}:\n  kontor saga skip {id} --step {step} --reason '…'{flag}\n"
        );
    }
    let _ = write!(text, "To end it, all seen to by hand:\n  kontor saga resolve {id} --reason '…'{flag}\n");
    text
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let mut columns = Columns::new();
    rows.iter().for_each(|row| columns.fit(row));
    rows.iter().map(|row| columns.line(row) + "\n").collect()
}
