//! Tests of services: errors that a test finds without asking for them, and the messages of failures.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::LazyLock;

use kontor::error::FaultKind;
use kontor_testkit::{Aggregate, Service, command, event, json};
use serde_json::Value;

fn unruly() -> Service {
    Service::from_file(Path::new(env!("CARGO_TARGET_TMPDIR")).join("../fixtures/unruly.wasm"))
}

/// Returns a beast that has waited once.
fn beast() -> Aggregate<'static> {
    static UNRULY: LazyLock<Service> = LazyLock::new(unruly);
    UNRULY.aggregate("beast", "b1").given([event("waited", json!({}))])
}

/// Returns the message of a test that must fail.
fn failure(test: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(test)).expect_err("the test must fail");
    *panic.downcast::<String>().expect("a panic with a formatted message")
}

fn check_failure(parts: &[&str], test: impl FnOnce()) {
    let failure = failure(test);
    for part in parts {
        assert!(failure.contains(part), "expected {part:?} in:\n{failure}");
    }
}

#[test]
fn what_is_as_expected_passes() {
    beast()
        .when("wait", json!({}))
        .then_events([event("waited", json!({}))])
        .then_view(json!({"id": "b1", "waits": 2}));
    beast().when_undone("wait", [event("waited", json!({}))], "changed-my-mind").then_nothing();
    beast().when("wait", json!({"long": true})).then_rejected("invalid-payload");
    assert_eq!(beast().when("trap", json!({"message": "ouch"})).then_fault().kind, FaultKind::Trap);
    assert_eq!(beast().when("lie", json!({})).then_fault().kind, FaultKind::Contract);
}

#[test]
fn what_no_test_asks_for_is_checked_all_the_same() {
    let table: [(&str, &[&str]); 5] = [
        ("bristle", &["no later version could extend its events", "unknown field `later`"]),
        ("hide", &["decided again", "/events/0/calls-counted/calls"]),
        (
            "forget",
            &[
                "the state does not hold everything",
                r#"at "/events/0/waits-remembered/waits": expected 1, got 0"#,
            ],
        ),
        ("exceed", &["the event exceeded is not as its schema says", "/by"]),
        ("pose", &["the view is not as its schema says", "/waits"]),
    ];
    for (command, parts) in table {
        check_failure(parts, || {
            drop(beast().when(command, json!({})));
        });
    }
    check_failure(&["another state or view than its events make", "/view/waits"], || {
        drop(beast().when("sway", json!({})));
    });
}

#[test]
fn a_failure_says_what_was_done_and_what_came_of_it() {
    let wait = || beast().when("wait", json!({}));
    check_failure(
        &["wait {} on beast/b1: the events are not", r#"at "/0": expected nothing, got {"waited":{}}"#],
        || {
            wait().then_nothing();
        },
    );
    check_failure(&["the view is not as expected", r#"at "/waits": expected 3, got 2"#], || {
        wait().then_view(json!({"id": "b1", "waits": 3}));
    });
    check_failure(&["expected the rejection too-late, got the events waited {}"], || {
        wait().then_rejected("too-late");
    });
    check_failure(&["expected a fault, got the events waited {}"], || {
        wait().then_fault();
    });
    check_failure(&["got the rejection invalid-payload", r#"at "/message": 7 is not of type"#], || {
        beast().when("trap", json!({"message": 7})).then_nothing();
    });
    check_failure(&["got a fault: unruly trapped in decide trap", "ouch"], || {
        beast().when("trap", json!({"message": "ouch"})).then_nothing();
    });
}

#[test]
fn other_services_answer_what_the_test_says() {
    let id = json!({"id": "x"});
    let ask = |service: Service| service.aggregate("beast", "b1").when("ask", json!({"id": "x"}));
    ask(unruly().answers("oracle", "saying", id.clone(), json!({"text": "know thyself"})))
        .then_events([event("answered", json!({"answer": {"text": "know thyself"}}))]);
    ask(unruly().refuses("oracle", "saying", id, "closed")).then_rejected("closed").with_details(Value::Null);
    assert!(ask(unruly().is_silent("oracle")).then_fault().detail.contains("oracle is silent in this test"));
    check_failure(&[r#"add .answers("oracle", "saying", json!({"id":"x"}), json!(…))"#], || {
        drop(ask(unruly().answers("oracle", "saying", json!({"id": "y"}), json!({}))));
    });
}

#[test]
fn the_world_outside_answers_what_the_test_says() {
    const URL: &str = "https://abroad.test/a?b=c";
    let call = |service: Service| {
        let payload = json!({"method": "POST", "url": URL, "headers": {"x-own": "1"}, "bytes": 2});
        service.config("abroad", json!("https://abroad.test")).aggregate("beast", "b1").when("call", payload)
    };
    let outcome = call(unruly().answers_http("POST", URL, 201, json!({"text": "welcome"})));
    let answer = json!({"status": 201, "body": r#"{"text":"welcome"}"#});
    outcome.then_events([event("answered", json!({ "answer": answer }))]);
    let [sent] = outcome.sent() else { panic!("one request, not {:?}", outcome.sent()) };
    assert_eq!((&*sent.method, &*sent.url, &sent.body), ("POST", URL, &json!("xx")));
    assert_eq!((&*sent.headers["x-own"], &*sent.headers["x-request-id"]), ("1", "test"));

    let failed = |code: &str| {
        event("answered", json!({"answer": {"error": format!("POST {URL} has no answer: {code}")}}))
    };
    call(unruly().is_silent_http("POST", URL)).then_events([failed("ErrorCode::DestinationUnavailable")]);
    let hint = format!(r#"add .answers_http("POST", "{URL}", 200, json!(…))"#);
    check_failure(&["was sent with the body \"xx\"", &hint], || {
        drop(call(unruly().answers_http("GET", URL, 200, json!({}))));
    });
    // A request to an origin that the manifest does not name is denied, as the host does.
    let elsewhere = json!({"method": "GET", "url": "https://other.test/", "headers": {}, "bytes": 0});
    let refused = unruly().aggregate("beast", "b1").when("call", elsewhere);
    assert_eq!(refused.sent(), []);
    refused.then_events([event(
        "answered",
        json!({"answer": {"error": "GET https://other.test/ has no answer: ErrorCode::HttpRequestDenied"}}),
    )]);
}

#[test]
fn a_test_that_cannot_run_says_why() {
    check_failure(&[r#"the manifest has no command "weep" of beast"#], || {
        drop(beast().when("weep", json!({})));
    });
    check_failure(&["the manifest does not say that pose can be compensated"], || {
        drop(beast().when_undone("pose", [], "changed-my-mind"));
    });
    check_failure(&["no-such.wasm", "cargo xtask build"], || drop(Service::load("no-such")));
    check_failure(&[r#"does not ask for the configuration "color""#], || {
        drop(unruly().config("color", json!("red")).aggregate("beast", "b1").when("wait", json!({})));
    });
    check_failure(&[r#"the service unruly has no aggregate "lamb""#], || {
        drop(unruly().aggregate("lamb", "l1").when("wait", json!({})));
    });
    check_failure(&["waited is to be undone, but it was not given"], || {
        drop(unruly().aggregate("beast", "b1").when_undone("wait", [event("waited", json!({}))], "no"));
    });
}

#[test]
fn a_saga_goes_the_way_that_the_test_says() {
    let unruly = unruly();
    let hibernate = || event("hibernation-begun", json!({"days": 30}));
    unruly
        .saga("hibernate")
        .on("beast", "b1", hibernate())
        .then_steps(["lie-down", "winter", "wake-up"])
        .then_sends("wake-up", &command("beast", "b1-den", "wait", json!({})))
        .then_undoes([])
        .then_completed();
    unruly
        .saga("hibernate")
        .when_step("wake-up")
        .rejects("too-cold")
        .when_step("trigger/undo")
        .fails()
        .on("beast", "b1", hibernate())
        .then_undoes(["lie-down", "trigger"])
        .then_parked("not undone: trigger");

    let listen = || event("listening-begun", json!({"deaf_days": 1, "days": 7}));
    let listening = unruly.saga("listen");
    listening.on("beast", "b1", listen()).then_steps(["deaf", "call", "miss"]).then_completed();
    listening
        .clone()
        .when_step("call")
        .happens(event("babbled", json!({})))
        .on("beast", "b1", listen())
        .then_steps(["deaf", "call", "hear"])
        .then_sends("hear", &command("beast", "b1-heard-2", "wait", json!({})))
        .then_completed();
}

#[test]
fn a_saga_parks_that_gets_more_than_a_journal_keeps() {
    let stumbled = || event("stumbled", json!({"over": "answer"}));
    let saying = |bytes: usize| unruly().answers("oracle", "saying", json!({}), json!("x".repeat(bytes)));
    saying(250 << 10).saga("stumble").on("beast", "b1", stumbled()).then_completed();
    let why = "the answer of oracle to saying has 307202 bytes, and a journal keeps 262144 at most";
    saying(300 << 10).saga("stumble").on("beast", "b1", stumbled()).then_parked(why);
}

#[test]
fn a_saga_that_cannot_be_performed_so_says_why() {
    let unruly = unruly();
    let leap = || event("leap-begun", json!({}));
    let table: [(&[&str], &dyn Fn()); 9] = [
        (
            &["stumble: it is not completed", "unruly trapped in run stumble: a stone lies in the way"],
            &|| {
                let stumbled = event("stumbled", json!({"over": "panic"}));
                unruly.saga("stumble").on("beast", "b1", stumbled).then_completed();
            },
        ),
        (&["mumble: it is not completed", "missing field `words`"], &|| {
            unruly.saga("mumble").on("beast", "b1", event("mumbling-begun", json!({}))).then_completed();
        }),
        (&[r#"the manifest of unruly does not name the saga "fly""#], &|| {
            drop(unruly.saga("fly").on("beast", "b1", leap()));
        }),
        (&["the saga retreat starts on the event retreat-begun of an aggregate beast"], &|| {
            drop(unruly.saga("retreat").on("beast", "b1", leap()));
        }),
        (&["the saga never comes to crash, of which the test says something", "pivoted"], &|| {
            drop(unruly.saga("leap").when_step("crash").fails().on("beast", "b1", leap()));
        }),
        (&["call does not wait for posed, but for"], &|| {
            let listening = unruly.saga("listen").when_step("call").happens(event("posed", json!({})));
            drop(listening.on("beast", "b1", event("listening-begun", json!({"deaf_days": 0, "days": 1}))));
        }),
        (&["leap: the steps are not as expected", r#"at "/1": expected "fall", got "land""#], &|| {
            unruly.saga("leap").on("beast", "b1", leap()).then_steps(["leap", "fall"]);
        }),
        (&["leap: it is not parked", "step-done"], &|| {
            unruly.saga("leap").on("beast", "b1", leap()).then_parked("land");
        }),
        (&["leap: the reason is not as expected", r#"got "cold""#], &|| {
            let leap = unruly.saga("leap").when_step("leap").rejects("cold").on("beast", "b1", leap());
            leap.then_compensated("warm");
        }),
    ];
    for (parts, test) in table {
        check_failure(parts, test);
    }
}
