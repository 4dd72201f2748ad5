//! Sagas that sleep and wait, on a clock that the test moves, across restarts of the host.

use std::time::{Duration, Instant};

use kontor::model::SagaId;
use kontor_testkit::host::{Host, Services, Site};
use serde_json::json;

use crate::beasts::{beast, beasts, begin, end, entries, state, until, waits};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The limit for "soon" on a busy machine, in a build that is not optimized.
const SOON: Duration = Duration::from_secs(10);

fn unruly() -> Services {
    beasts(&json!({}))
}

/// Lets some days pass, until every saga due by then is woken. (Sagas wake in the order of their times, so
/// once the one with the last time is awake, all others are woken; they may not have run yet.)
#[track_caller]
fn pass(site: &Site, host: &Host, days: u32) {
    let id = format!("alarm-{}", host.events().len());
    let alarm = begin(host, &id, "hibernate", json!({ "days": days }));
    until(host, &alarm, "waiting");
    site.clock().advance(days * DAY);
    assert_eq!(end(host, &alarm), "completed");
}

#[test]
fn a_saga_that_sleeps_for_thirty_days_wakes_once_however_often_its_host_ends() {
    let (site, unruly) = (Site::new(), unruly());
    let host = site.start(&unruly);
    let bear = begin(&host, "bear", "hibernate", json!({"days": 30}));
    until(&host, &bear, "waiting");
    host.stop();

    let host = site.start(&unruly);
    pass(&site, &host, 29);
    assert_eq!((state(&host, &bear), waits(&host, "bear-den")), ("waiting", 1));
    host.kill();

    let host = site.start(&unruly);
    pass(&site, &host, 1);
    assert_eq!(end(&host, &bear), "completed");
    assert_eq!(waits(&host, "bear-den"), 2);
    let journal = ["started", "step-done", "waiting", "awoken", "step-done", "completed"];
    assert_eq!(entries(&host, &bear), journal);

    host.kill();
    let host = site.start(&unruly);
    pass(&site, &host, 30);
    assert_eq!((waits(&host, "bear-den"), entries(&host, &bear).len()), (2, journal.len()));
}

#[test]
fn a_saga_that_is_overdue_when_the_host_starts_wakes_at_once() {
    let (site, unruly) = (Site::new(), unruly());
    let host = site.start(&unruly);
    let sleepers = [("mole", 3), ("bear", 30), ("bat", 29)];
    let sleepers = sleepers.map(|(id, days)| begin(&host, id, "hibernate", json!({ "days": days })));
    sleepers.iter().for_each(|sleeper| until(&host, sleeper, "waiting"));
    host.kill();
    site.clock().advance(31 * DAY);

    let host = site.start(&unruly);
    for sleeper in sleepers {
        assert_eq!(end(&host, &sleeper), "completed");
    }
}

#[test]
fn a_saga_that_waits_gets_the_first_event_after_its_trigger_or_learns_of_none() {
    type Act = fn(&Site, &Host, &SagaId);
    let wait: Act = |_, host, _| drop(host.send(&beast("owl", "wait", json!({}))).unwrap());
    let babble: Act = |_, host, _| drop(host.send(&beast("owl", "babble", json!({}))).unwrap());
    let pose: Act = |_, host, _| drop(host.send(&beast("owl", "pose", json!({}))).unwrap());
    let other: Act = |_, host, _| drop(host.send(&beast("hare", "wait", json!({}))).unwrap());
    let day: Act = |site, host, owl| {
        pass(site, host, 1);
        // Its last time begins with its second wait, the fourth entry.
        host.until(4, |event| *owl == event.stream.id());
    };
    let week: Act = |site, host, _| pass(site, host, 7);
    let missed: Act = |_, host, _| host.until(1, |event| event.stream.as_str() == "beast/owl-missed");
    // The beast's first event precedes the saga, and its second is the saga's trigger.
    let table: [(&str, &[Act], &str); 8] = [
        ("nothing", &[day, week], "owl-missed"),
        ("an event before it waits", &[wait, day], "owl-heard-3"),
        ("several before it waits", &[pose, babble, wait, day], "owl-heard-4"),
        ("an event while it waits", &[day, babble], "owl-heard-3"),
        ("another event of the beast", &[day, pose, week], "owl-missed"),
        ("another beast's event", &[day, other, week], "owl-missed"),
        ("another event and then one", &[day, pose, wait], "owl-heard-4"),
        ("an event that comes too late", &[day, week, missed, wait], "owl-missed"),
    ];
    let unruly = unruly();
    for restarts in [false, true] {
        for (what, acts, effect) in &table {
            let site = Site::new();
            let mut host = site.start(&unruly);
            host.send(&beast("owl", "wait", json!({}))).unwrap();
            let owl = begin(&host, "owl", "listen", json!({"deaf_days": 1, "days": 7}));
            until(&host, &owl, "waiting");
            for act in *acts {
                if restarts {
                    host.kill();
                    host = site.start(&unruly);
                }
                act(&site, &host, &owl);
            }
            assert_eq!(end(&host, &owl), "completed", "{what}");
            assert_eq!(waits(&host, effect), 1, "{what}, restarts: {restarts}");
        }
    }
}

#[test]
fn an_event_recorded_just_before_a_kill_is_delivered_by_the_next_host() {
    let (site, unruly) = (Site::new(), unruly());
    let host = site.start(&unruly);
    let owl = begin(&host, "owl", "listen", json!({"deaf_days": 0, "days": 7}));
    host.until(2, |event| owl == event.stream.id() && event.name == "waiting");
    host.send(&beast("owl", "wait", json!({}))).unwrap();
    // The host is killed with the event in its log, and may or may not have delivered it.
    host.kill();
    let host = site.start(&unruly);
    assert_eq!((end(&host, &owl), waits(&host, "owl-heard-2")), ("completed", 1));
}

#[test]
fn ten_thousand_sleepers_cost_no_run_and_no_time_at_the_start() {
    /// Far more than concurrent runs, see [`RUNS`](crate::beasts::RUNS).
    const SLEEPERS: usize = 10_000;
    /// As many commands as easily fit into the queue of dispatch.
    const AT_ONCE: usize = 1_000;
    let (site, unruly) = (Site::new(), unruly());
    let host = site.start(&unruly);
    for batch in 0..SLEEPERS / AT_ONCE {
        let commands = (0..AT_ONCE).map(|number| {
            beast(&format!("b{batch}-{number}"), "listen", json!({"deaf_days": 30, "days": 1}))
        });
        host.send_all(&commands.collect::<Vec<_>>()).unwrap();
    }
    host.until(SLEEPERS, |event| event.name == "waiting");
    host.stop();

    let started = Instant::now();
    let host = site.start(&unruly);
    let bear = begin(&host, "bear", "hibernate", json!({"days": 1}));
    until(&host, &bear, "waiting");
    site.clock().advance(DAY);
    assert_eq!(end(&host, &bear), "completed");
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    let census = host.run(host.sagas().counts()).unwrap();
    let counted = census.iter().map(|census| (census.state.as_str(), census.sagas));
    let counted = counted.filter(|(_, sagas)| *sagas > 0).collect::<Vec<_>>();
    assert_eq!(counted, [("waiting", SLEEPERS as u64)]);
}

#[test]
fn a_saga_that_continues_as_new_has_a_journal_of_its_last_run_and_what_was_before_is_final() {
    let (site, unruly) = (Site::new(), unruly());
    let mut host = site.start(&unruly);
    let wolf = begin(&host, "wolf", "circle", json!({"rounds": 2}));
    for round in 1..=2 {
        host.until(round, |event| wolf == event.stream.id() && event.name == "waiting");
        // The progress outlives the host.
        host.kill();
        site.clock().advance(DAY);
        host = site.start(&unruly);
        host.until(round, |event| wolf == event.stream.id() && event.name == "continued-as-new");
    }
    host.until(3, |event| wolf == event.stream.id() && event.name == "waiting");
    assert_eq!(waits(&host, "wolf-lap"), 3, "a name that is used again is another command");
    site.clock().advance(DAY);
    assert_eq!(end(&host, &wolf), "compensated");
    let journal = entries(&host, &wolf);
    let undone: Vec<_> = journal.iter().filter(|entry| entry.contains("undone")).collect();
    assert_eq!(undone, ["undone"], "only the last run is undone, and not its trigger: {journal:?}");
    let timeline = json!(host.run(host.sagas().timeline(&wolf)).unwrap());
    assert_eq!(timeline["continued"], 2);
    let steps: Vec<_> = timeline["steps"].as_array().unwrap().iter().map(|step| &step["name"]).collect();
    assert_eq!(steps, ["trigger", "lap", "rest"]);
}

#[test]
fn a_run_that_continues_as_new_without_a_step_parks() {
    let host = Site::new().start(&unruly());
    let wolf = begin(&host, "wolf", "circle", json!({"rounds": 0}));
    assert_eq!(end(&host, &wolf), "parked");
    assert_eq!(entries(&host, &wolf), ["started", "parked"]);
}
