//! One saga, run once for each mishap.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::thread;

use kontor::model::{CommandId, SagaId};
use kontor::saga::{Act, SagaState};
use serde_json::Value;

use super::mishap::{Meddler, Mishap, Plan, TRIGGER, point_of_query};
use crate::Command;
use crate::host::{Host, Life, Order, Services, Site};

use Mishap::*;

/// The concurrent runs, each on its own copy of the site. A run mostly waits, for the disk and for its host
/// to end; a component has twice as many instances.
const AT_ONCE: usize = 4;

const AT_A_STEP: [Mishap; 7] =
    [Rejected, FailsOnce, FailsForGood, AnswerLost, SentTwice, KilledBefore, KilledAfter];

/// The state before the saga starts.
pub struct Drill<'a> {
    services: &'a Services,
    given: Vec<Command>,
    order: Order,
}

/// A drill with the command that starts the saga.
pub struct Started<'a> {
    services: &'a Services,
    site: Site,
    start: Command,
}

/// A step of an undisturbed run.
struct Step {
    /// The point at which mishaps meet it.
    point: String,
    /// `true` after the pivot.
    after_pivot: bool,
    /// `true` for the pivot: once it is accepted, nothing is undone.
    pivot: bool,
}

/// One run with its mishaps.
struct Trial {
    mishaps: Vec<(String, Mishap)>,
    /// The saga's final state.
    end: SagaState,
    /// `true` if the saga parks first.
    parks: bool,
}

impl<'a> Drill<'a> {
    /// A drill of these services on an empty log.
    pub fn new(services: &'a Services) -> Self {
        Self { services, given: Vec::new(), order: Order::default() }
    }

    /// Runs the drill on a log that several hosts may share: a host that is killed leaves only the journal
    /// entries that it has waited for.
    pub fn on_shared_log(self) -> Self {
        Self { order: Order::Any, ..self }
    }

    /// Adds commands that are sent before the saga starts, each followed by the end of the saga that it
    /// starts.
    pub fn given(mut self, commands: impl IntoIterator<Item = Command>) -> Self {
        self.given.extend(commands);
        self
    }

    /// Sets the command that starts the saga.
    #[track_caller]
    #[must_use = "say what holds then, with `then`"]
    pub fn when(self, start: Command) -> Started<'a> {
        let site = Site::with(self.order);
        let host = site.start(self.services);
        for command in &self.given {
            let accepted = host.send(command).unwrap_or_else(|error| panic!("{command}: {error}"));
            if let Some(saga) = accepted.saga {
                assert_eq!(host.settled(&saga).state, SagaState::Completed, "the saga of {command}");
            }
        }
        host.stop();
        Started { services: self.services, site, start }
    }
}

impl Started<'_> {
    /// Runs the saga with all mishaps. `laws` is called whenever no saga runs, and panics if a law is broken.
    /// Returns the number of runs.
    #[track_caller]
    pub fn then(&self, laws: impl Fn(&Host) + Sync) -> usize {
        let steps = steps(&self.journal_of(&[], SagaState::Completed, &laws));
        let last = steps.iter().find(|step| step.pivot).or(steps.last()).expect("a saga with steps");
        let rejection = (last.point.clone(), Rejected);
        let undoes =
            undoes(&self.journal_of(std::slice::from_ref(&rejection), SagaState::Compensated, &laws));

        let at_start = [SentTwice, KilledAfter].map(|mishap| {
            let mishaps = vec![(TRIGGER.to_owned(), mishap)];
            Trial { mishaps, end: SagaState::Completed, parks: false }
        });
        let at_steps = steps.iter().flat_map(|step| AT_A_STEP.map(|mishap| at_step(step, mishap)));
        let at_undoes = undoes.iter().flat_map(|undo| {
            AT_A_STEP.map(|mishap| Trial {
                mishaps: vec![rejection.clone(), (format!("{undo}/undo"), mishap)],
                end: SagaState::Compensated,
                // An undo that is rejected once or fails once is retried.
                parks: mishap == FailsForGood,
            })
        });
        let trials: Vec<Trial> = at_start.into_iter().chain(at_steps).chain(at_undoes).collect();
        let queue = Mutex::new(trials.iter());
        let next = || queue.lock().unwrap().next();
        let work = || {
            while let Some(trial) = next() {
                let label = Label(format!("{}, with {:?}", self.start, trial.mishaps));
                self.try_out(trial, &undoes, &laws);
                drop(label);
            }
        };
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(work);
            }
        });
        trials.len()
    }

    /// Returns the journal of a run whose mishaps neither park the saga nor kill the host.
    fn journal_of(
        &self,
        mishaps: &[(String, Mishap)],
        end: SagaState,
        laws: &impl Fn(&Host),
    ) -> Vec<(String, Value)> {
        let site = self.site.copy();
        let (host, id) = self.run(&site, &Plan::new(mishaps.to_vec()));
        let id = id.expect("a saga on a host that was not killed");
        assert_eq!(host.settled(&id).state, end, "{}, with {mishaps:?}", self.start);
        laws(&host);
        host.journal(&id)
    }

    fn try_out(&self, trial: &Trial, undoes: &[String], laws: &impl Fn(&Host)) {
        let site = self.site.copy();
        let plan = Plan::new(trial.mishaps.clone());
        let (host, id) = self.run(&site, &plan);
        assert_eq!(plan.left(), [], "the saga never comes to this");
        let (host, id) = match id {
            Some(id) => (host, id),
            None => {
                host.kill();
                let (host, id) = self.run(&site, &Plan::new(Vec::new()));
                (host, id.expect("a saga on a host that was not killed"))
            }
        };
        let mut state = host.settled(&id).state;
        if trial.parks {
            assert_eq!(state, SagaState::Parked);
            check_others_undone(&host.journal(&id), &trial.mishaps, undoes);
            plan.mend();
            host.act(&id, Act::Retry { reason: None }).expect("a saga that is tried again");
            state = host.settled(&id).state;
        }
        assert_eq!(state, trial.end);
        laws(&host);
    }

    /// Sends the command that starts the saga, as a client does that may have sent it before, and waits until
    /// the saga has ended or parked. Returns the saga's id, or `None` if the host was killed before.
    fn run(&self, site: &Site, plan: &Arc<Plan>) -> (Host, Option<SagaId>) {
        let life = Arc::new(Life::default());
        let host = site.start_with(self.services, &life, |between| {
            let meddler = Meddler::new(between, life.clone(), plan.clone());
            (meddler.clone(), meddler)
        });
        let key = CommandId::from_key("the drill");
        let started = host.run(async {
            tokio::select! {
                () = life.over() => None,
                accepted = host.submit(key, &self.start) => Some(accepted),
            }
        });
        let accepted =
            started.map(|accepted| accepted.unwrap_or_else(|error| panic!("{}: {error}", self.start)));
        let saga = accepted.map(|accepted| accepted.saga.expect("a command that starts a saga"));
        let saga = saga.filter(|saga| {
            host.run(async {
                tokio::select! {
                    () = life.over() => false,
                    _ = host.sagas().wait(saga, crate::host::LIMIT) => true,
                }
            })
        });
        (host, saga)
    }
}

/// Returns the expected end of a run with a mishap at a step.
fn at_step(step: &Step, mishap: Mishap) -> Trial {
    let undone = !step.after_pivot && matches!(mishap, Rejected | FailsForGood);
    Trial {
        mishaps: vec![(step.point.clone(), mishap)],
        end: if undone { SagaState::Compensated } else { SagaState::Completed },
        parks: step.after_pivot && mishap == FailsForGood,
    }
}

/// Returns the steps that send a command or a query, in order.
fn steps(journal: &[(String, Value)]) -> Vec<Step> {
    let mut pivoted = false;
    let mut steps = Vec::new();
    for (entry, payload) in journal {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let point = match entry.as_str() {
            "step-done" | "pivoted" => text(&payload["name"]),
            "query-answered" => {
                let request = &payload["request"];
                point_of_query(&text(&request["service"]), &text(&request["query"]))
            }
            _ => continue,
        };
        let pivot = entry == "pivoted";
        steps.push(Step { point, after_pivot: pivoted, pivot });
        pivoted |= pivot;
    }
    steps
}

/// Returns the names of the steps that were undone.
fn undoes(journal: &[(String, Value)]) -> Vec<String> {
    let undone = journal.iter().filter(|(entry, _)| entry == "undone");
    undone.filter_map(|(_, payload)| payload["name"].as_str().map(str::to_owned)).collect()
}

/// Checks that a failed undo has not kept the others from running.
fn check_others_undone(journal: &[(String, Value)], mishaps: &[(String, Mishap)], undoes: &[String]) {
    let failing = mishaps.iter().filter(|(_, mishap)| *mishap == FailsForGood);
    let failing: Vec<&str> = failing.filter_map(|(point, _)| point.strip_suffix("/undo")).collect();
    if failing.is_empty() {
        return;
    }
    let others: BTreeSet<&str> =
        undoes.iter().map(String::as_str).filter(|undo| !failing.contains(undo)).collect();
    let undone = self::undoes(journal);
    assert_eq!(undone.iter().map(String::as_str).collect::<BTreeSet<_>>(), others, "what is undone");
}

/// The description of a run, printed if the test fails in it.
struct Label(String);

impl Drop for Label {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("in the run of {}", self.0);
        }
    }
}
