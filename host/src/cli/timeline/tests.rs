//! Tests of the text of `kontor saga show`.

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
        "started": "2026-11-22T03:18:00.000Z", "started_by": {"actor": "ann"}, "steps": all,
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
        by       ann
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
        by       ann
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
        by       ann
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
        by       ann
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
        by       ann
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
        by       ann
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
        by       ann
        started  2026-11-22T03:18:00.000Z, 2m 5s ago
        service  order, component 0123456789ab

        STEP     ACTION                                            TARGET      OUTCOME  TRIES  TOOK  AT     UNDO
        trigger  create                                            order/o1    done                  +0ms   done, 3ms
        paid     wait for payment-authorized or payment-cancelled  payment/o1  waiting               +30ms
            until 2026-11-25T03:18:00.000Z
    "#]],
    );
}
