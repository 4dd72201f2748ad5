//! The text of `kontor saga show`: a saga's state, its steps, and the commands for a parked one.

use std::fmt::Write as _;

use kontor::clock::{Time, rfc3339};
use kontor::model::{Json, Rejection};
use kontor::saga::SagaState;
use kontor::saga::timeline::{
    ActName, Acted, Asked, Course, Divergence, Outcome, Step, Timeline, UndoOutcome,
};
use serde_json::Value;

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
        (why, saga.why.as_ref().map(|why| style.paint(Color::Red, why))),
        (if saga.ended.is_some() { "unwound" } else { "unwinds" }, saga.reason.as_ref().map(rejection)),
        ("trigger", Some(format!("{}, version {} of {}", trigger.event, trigger.version, trigger.stream))),
        ("started", Some(started)),
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
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    const ID: &str = "01997a2b-0000-7000-8000-00000000000a";

    /// Returns a saga of the order o1, started at 03:18, with these members, step zero and these steps.
    fn saga(members: Value, steps: Vec<Value>) -> Timeline {
        let mut all = vec![json!({
            "name": "trigger", "kind": "step", "stream": "order/o1", "command": "create", "outcome": "done",
            "time": "2026-11-22T03:18:00.000Z",
            "undo": {"outcome": "done", "time": "2026-11-22T03:18:02.000Z", "attempts": 1, "took_ms": 3},
        })];
        all.extend(steps);
        let mut saga = json!({
            "id": ID, "service": "order", "name": "place-order", "acts": [],
            "digest": "0123456789ab".repeat(6)[..64],
            "trigger": {"stream": "order/o1", "version": 1, "event": "order-created"}, "failed": [],
            "started": "2026-11-22T03:18:00.000Z", "steps": all,
        });
        saga.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        serde_json::from_value(saga).unwrap()
    }

    /// Checks the text two minutes after the saga has started.
    #[track_caller]
    fn check(saga: &Timeline, flag: &str, expected: Expect) {
        expected.assert_eq(&text(saga, Time(saga.started.0 + 125_000), Style::PLAIN, flag));
    }

    #[test]
    fn snapshot_of_a_parked_saga_with_its_undos_and_the_next_commands() {
        let pay = json!({
            "name": "pay all", "kind": "step", "stream": "payment/o1", "command": "authorize",
            "outcome": "failed", "error": "payment took too long", "time": "2026-11-22T03:18:01.600Z",
            "attempts": 6, "took_ms": 1_580,
            "undo": {"outcome": "failed", "time": "2026-11-22T03:18:02.000Z", "attempts": 12,
            "took_ms": 130_000, "error": "payment trapped"},
        });
        let rejected = json!({
            "name": "ask", "kind": "query", "service": "inventory", "query": "product", "outcome": "refused",
            "rejection": {"code": "not-found", "message": "None.", "details": {"id": 7}},
            "time": "2026-11-22T03:18:00.020Z", "attempts": 1, "took_ms": 4,
        });
        let members = json!({
            "state": "parked", "why": "not undone: pay all", "failed": ["pay all"],
            "reason": {"code": "step-failed", "message": "The step pay all failed."},
            "acts": [{"time": "2026-11-22T03:19:00.000Z", "actor": "ada", "act": "retry"}],
        });
        check(
            &saga(members, vec![rejected, pay]),
            " --host H",
            expect![[r#"
            saga     place-order 01997a2b-0000-7000-8000-00000000000a
            state    parked
            parked   not undone: pay all
            unwinds  step-failed: The step pay all failed.
            trigger  order-created, version 1 of order/o1
            started  2026-11-22T03:18:00.000Z, 2m 5s ago
            service  order, component 0123456789ab

            STEP     ACTION         TARGET      OUTCOME   TRIES  TOOK  AT     UNDO
            trigger  create         order/o1    done                   +0ms   done, 3ms
            ask      query product  inventory   rejected  1      4ms   +20ms
                rejected: not-found: None. {"id":7}
            pay all  authorize      payment/o1  failed    6      1.5s  +1.6s  failed, 12 tries, 2m 10s
                failed: payment took too long
                undo failed: payment trapped

            TIME                      ACTOR  ACT    REASON
            2026-11-22T03:19:00.000Z  ada    retry

            It needs an operator. To retry it:
              kontor saga retry 01997a2b-0000-7000-8000-00000000000a --host H
            To skip the undo of pay all:
              kontor saga skip 01997a2b-0000-7000-8000-00000000000a --step 'pay all' --reason '…' --host H
            To end it once it is settled by hand:
              kontor saga resolve 01997a2b-0000-7000-8000-00000000000a --reason '…' --host H
        "#]],
        );
    }

    #[test]
    fn snapshot_of_a_saga_that_was_parked_and_resolved() {
        let skipped = json!({
            "name": "pay", "kind": "step", "stream": "payment/o1", "command": "authorize",
            "outcome": "skipped", "skipped_because": "paid in cash", "time": "2026-11-22T03:18:01.600Z",
        });
        let acts = json!([
            {"time": "2026-11-22T03:19:00.000Z", "actor": "ada", "act": "skip", "step": "pay",
                "reason": "paid in cash"},
            {"time": "2026-11-22T03:20:00.000Z", "actor": "ada", "act": "resolve", "reason": "delivered"},
        ]);
        let members = json!({
            "state": "resolved", "why": "no answer: ship", "acts": acts, "ended": "2026-11-22T03:20:00.000Z",
        });
        check(
            &saga(members, vec![skipped]),
            "",
            expect![[r#"
            saga     place-order 01997a2b-0000-7000-8000-00000000000a
            state    resolved
            parked   no answer: ship
            trigger  order-created, version 1 of order/o1
            started  2026-11-22T03:18:00.000Z
            ended    2026-11-22T03:20:00.000Z, after 2m 0s
            service  order, component 0123456789ab

            STEP     ACTION     TARGET      OUTCOME  TRIES  TOOK  AT     UNDO
            trigger  create     order/o1    done                  +0ms   done, 3ms
            pay      authorize  payment/o1  skipped               +1.6s
                skipped: paid in cash

            TIME                      ACTOR  ACT       REASON
            2026-11-22T03:19:00.000Z  ada    skip pay  paid in cash
            2026-11-22T03:20:00.000Z  ada    resolve   delivered
        "#]],
        );
    }

    #[test]
    fn snapshot_of_a_saga_whose_code_is_at_fault() {
        let members = json!({
            "state": "parked", "by_fault": true, "why": "order trapped in run place-order: no price",
        });
        check(
            &saga(members, vec![]),
            "",
            expect![[r#"
            saga     place-order 01997a2b-0000-7000-8000-00000000000a
            state    parked
            parked   order trapped in run place-order: no price
            trigger  order-created, version 1 of order/o1
            started  2026-11-22T03:18:00.000Z, 2m 5s ago
            service  order, component 0123456789ab

            STEP     ACTION  TARGET    OUTCOME  TRIES  TOOK  AT    UNDO
            trigger  create  order/o1  done                  +0ms  done, 3ms

            Its code is at fault. It continues once a version that mends it is deployed. To retry it:
              kontor saga retry 01997a2b-0000-7000-8000-00000000000a
            To end it once it is settled by hand:
              kontor saga resolve 01997a2b-0000-7000-8000-00000000000a --reason '…'
        "#]],
        );
    }

    #[test]
    fn snapshot_of_a_step_without_a_compensation() {
        let shown = json!({
            "name": "log", "kind": "step", "stream": "audit/o1", "command": "add", "outcome": "done",
            "time": "2026-11-22T03:18:00.020Z", "attempts": 1, "took_ms": 4,
            "undo": {"outcome": "not-compensable", "time": "2026-11-22T03:18:02.000Z"},
        });
        let members = json!({"state": "compensated", "reason": {"code": "no", "message": "No."}});
        check(
            &saga(members, vec![shown]),
            "",
            expect![[r#"
            saga     place-order 01997a2b-0000-7000-8000-00000000000a
            state    compensated
            unwinds  no: No.
            trigger  order-created, version 1 of order/o1
            started  2026-11-22T03:18:00.000Z, 2m 5s ago
            service  order, component 0123456789ab

            STEP     ACTION  TARGET    OUTCOME  TRIES  TOOK  AT     UNDO
            trigger  create  order/o1  done                  +0ms   done, 3ms
            log      add     audit/o1  done     1      4ms   +20ms  no compensation
        "#]],
        );
    }

    #[test]
    fn snapshot_of_a_divergence_whose_lines_differ() {
        let journaled = json!({"command": "reserve", "payload": {"quantity": 2}});
        let asked = json!({"command": "reserve", "payload": {"quantity": 3}});
        let both = json!({"state": "parked", "divergence": {"journaled": journaled, "asked": asked}});
        check(
            &saga(both, vec![]),
            "",
            expect![[r#"
            saga     place-order 01997a2b-0000-7000-8000-00000000000a
            state    parked
            trigger  order-created, version 1 of order/o1
            started  2026-11-22T03:18:00.000Z, 2m 5s ago
            service  order, component 0123456789ab

            STEP     ACTION  TARGET    OUTCOME  TRIES  TOOK  AT    UNDO
            trigger  create  order/o1  done                  +0ms  done, 3ms

            IN THE JOURNAL              ON REPLAY
            {                           {
              "command": "reserve",       "command": "reserve",
              "payload": {                "payload": {
                "quantity": 2        ≠      "quantity": 3
              }                           }
            }                           }

            It needs an operator. To retry it:
              kontor saga retry 01997a2b-0000-7000-8000-00000000000a
            To end it once it is settled by hand:
              kontor saga resolve 01997a2b-0000-7000-8000-00000000000a --reason '…'
        "#]],
        );
    }

    #[test]
    fn snapshot_of_a_divergence_whose_step_is_not_reached() {
        let left_out = json!({"state": "parked", "divergence": {"journaled": {"a": 1}, "asked": null}});
        check(
            &saga(left_out, vec![]),
            "",
            expect![[r#"
            saga     place-order 01997a2b-0000-7000-8000-00000000000a
            state    parked
            trigger  order-created, version 1 of order/o1
            started  2026-11-22T03:18:00.000Z, 2m 5s ago
            service  order, component 0123456789ab

            STEP     ACTION  TARGET    OUTCOME  TRIES  TOOK  AT    UNDO
            trigger  create  order/o1  done                  +0ms  done, 3ms

            IN THE JOURNAL     ON REPLAY
            {               ≠  not reached
              "a": 1        ≠
            }               ≠

            It needs an operator. To retry it:
              kontor saga retry 01997a2b-0000-7000-8000-00000000000a
            To end it once it is settled by hand:
              kontor saga resolve 01997a2b-0000-7000-8000-00000000000a --reason '…'
        "#]],
        );
    }

    #[test]
    fn snapshot_of_a_saga_that_waits_for_an_event() {
        let wait = json!({
            "name": "paid", "kind": "wait", "stream": "payment/o1",
            "events": ["payment-authorized", "payment-cancelled"], "until": "2026-11-25T03:18:00.000Z",
            "outcome": "waiting", "time": "2026-11-22T03:18:00.030Z",
        });
        check(
            &saga(json!({"state": "waiting"}), vec![wait]),
            "",
            expect![[r#"
            saga     place-order 01997a2b-0000-7000-8000-00000000000a
            state    waiting
            trigger  order-created, version 1 of order/o1
            started  2026-11-22T03:18:00.000Z, 2m 5s ago
            service  order, component 0123456789ab

            STEP     ACTION                                            TARGET      OUTCOME  TRIES  TOOK  AT     UNDO
            trigger  create                                            order/o1    done                  +0ms   done, 3ms
            paid     wait for payment-authorized or payment-cancelled  payment/o1  waiting               +30ms
                until 2026-11-25T03:18:00.000Z
        "#]],
        );
    }
}
