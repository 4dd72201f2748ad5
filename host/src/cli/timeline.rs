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
    let why = match saga.state {
        SagaState::Parked | SagaState::Resolved => "parked",
        _ => "stuck",
    };
    let rows = [
        ("saga", Some(format!("{} {}", saga.name, saga.id))),
        ("state", Some(style.state(saga.state))),
        (why, saga.why.as_ref().map(|why| style.paint(Colour::Red, why))),
        (if saga.ended.is_some() { "unwound" } else { "unwinds" }, saga.reason.as_ref().map(rejection)),
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
        let named = quoted(step);
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "To leave out the {undone}{step}:\n  kontor saga skip {id} --step {named} --reason '…'{flag}\n"
        );
    }
    let _ = write!(text, "To end it, all seen to by hand:\n  kontor saga resolve {id} --reason '…'{flag}\n");
    text
}

/// A word of a command line of the common shells.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:".contains(letter);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let mut columns = Columns::new();
    rows.iter().for_each(|row| columns.fit(row));
    rows.iter().map(|row| columns.line(row) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ID: &str = "01997a2b-0000-7000-8000-00000000000a";

    /// A saga of the order o1, started at 03:18, with these members and steps beside step zero.
    fn saga(members: Value, steps: Vec<Value>) -> Timeline {
        let mut all = vec![json!({
            "name": "trigger", "kind": "step", "stream": "order/o1", "command": "create", "outcome": "done",
            "time": "2026-11-22T03:18:00.000Z", "undo": {"outcome": "done", "time": "2026-11-22T03:18:02.000Z",
            "attempts": 1, "took_ms": 3},
        })];
        all.extend(steps);
        let mut saga = json!({
            "id": ID, "service": "order", "name": "place-order", "digest": "0123456789ab".repeat(6)[..64], "acts": [],
            "trigger": {"stream": "order/o1", "version": 1, "event": "order-created"}, "failed": [],
            "started": "2026-11-22T03:18:00.000Z", "steps": all,
        });
        saga.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        serde_json::from_value(saga).unwrap()
    }

    fn shown(saga: &Timeline, flag: &str) -> String {
        text(saga, Time(saga.started.0 + 125_000), Style::PLAIN, flag)
    }

    #[test]
    fn a_parked_saga_shows_each_undo_beside_its_step_and_what_to_do() {
        let pay = json!({
            "name": "pay all", "kind": "step", "stream": "payment/o1", "command": "authorize", "outcome": "failed",
            "error": "payment took too long", "time": "2026-11-22T03:18:01.600Z", "attempts": 6, "took_ms": 1_580,
            "undo": {"outcome": "failed", "time": "2026-11-22T03:18:02.000Z", "attempts": 12, "took_ms": 130_000,
            "error": "payment trapped"},
        });
        let refused = json!({
            "name": "ask", "kind": "query", "service": "inventory", "query": "product", "outcome": "refused",
            "rejection": {"code": "not-found", "message": "None.", "details": {"id": 7}},
            "time": "2026-11-22T03:18:00.020Z", "attempts": 1, "took_ms": 4,
        });
        let members = json!({
            "state": "parked", "why": "not undone: pay all", "failed": ["pay all"],
            "reason": {"code": "step-failed", "message": "The step pay all failed."},
            "acts": [{"time": "2026-11-22T03:19:00.000Z", "actor": "ada", "act": "retry"}],
        });
        let expected = "\
saga     place-order 01997a2b-0000-7000-8000-00000000000a
state    parked
parked   not undone: pay all
unwinds  step-failed: The step pay all failed.
trigger  order-created, version 1 of order/o1
started  2026-11-22T03:18:00.000Z, 2m 5s ago
service  order, component 0123456789ab

STEP     DOES         ON          OUTCOME  TRIES  TOOK  AT     UNDO
trigger  create       order/o1    done                  +0ms   done, 3ms
ask      ask product  inventory   refused  1      4ms   +20ms
    refused: not-found: None. {\"id\":7}
pay all  authorize    payment/o1  failed   6      1.5s  +1.6s  failed, 12 tries, 2m 10s
    failed: payment took too long
    undo failed: payment trapped

WHEN                      WHO  DID    BECAUSE
2026-11-22T03:19:00.000Z  ada  retry

It needs a person. To have it try again:
  kontor saga retry 01997a2b-0000-7000-8000-00000000000a --host H
To leave out the undo of pay all:
  kontor saga skip 01997a2b-0000-7000-8000-00000000000a --step 'pay all' --reason '…' --host H
To end it, all seen to by hand:
  kontor saga resolve 01997a2b-0000-7000-8000-00000000000a --reason '…' --host H
";
        assert_eq!(shown(&saga(members, vec![refused, pay]), " --host H"), expected);
    }

    #[test]
    fn a_divergence_is_shown_side_by_side_and_what_differs_is_marked() {
        let journaled = json!({"command": "reserve", "payload": {"quantity": 2}});
        let asked = json!({"command": "reserve", "payload": {"quantity": 3}});
        let both = json!({"state": "parked", "divergence": {"journaled": journaled, "asked": asked}});
        let expected = "\
JOURNALED                   ASKED NOW
{                           {
  \"command\": \"reserve\",       \"command\": \"reserve\",
  \"payload\": {                \"payload\": {
    \"quantity\": 2        ≠      \"quantity\": 3
  }                           }
}                           }
";
        let text = shown(&saga(both, vec![]), "");
        assert!(text.contains(expected), "{text}");

        let left_out = json!({"state": "parked", "divergence": {"journaled": {"a": 1}, "asked": null}});
        let text = shown(&saga(left_out, vec![]), "");
        assert!(text.contains("{          ≠  nothing\n  \"a\": 1   ≠\n}          ≠\n"), "{text}");
    }

    #[test]
    fn a_saga_that_waits_says_for_what_and_until_when() {
        let wait = json!({
            "name": "paid", "kind": "wait", "stream": "payment/o1", "events": ["payment-authorized", "payment-cancelled"],
            "until": "2026-11-25T03:18:00.000Z", "outcome": "waiting", "time": "2026-11-22T03:18:00.030Z",
        });
        let text = shown(&saga(json!({"state": "waiting"}), vec![wait]), "");
        let row = "paid     wait for payment-authorized or payment-cancelled  payment/o1  waiting";
        assert!(text.contains(row), "{text}");
        assert!(text.ends_with("    until 2026-11-25T03:18:00.000Z\n"), "{text}");
    }
}
