//! Sagas: business transactions over several aggregates.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::exports::kontor::service::manifest;
use crate::bindings::kontor::service::steps;
use crate::services::Request;
use crate::{Command, Error, RecordedEvent, Rejection, json};

/// A business transaction over several aggregates, as straight-line code.
///
/// A run sends commands and returns. When it returns a rejection, the host undoes the steps that were done,
/// newest first, and last the command that started the saga.
///
/// A run that panics, or returns [`Error::Fault`] because it cannot read its trigger or an answer, is a
/// mistake of its code and undoes nothing: the saga parks with the message, and continues once a version of
/// the service is deployed that gets past it.
///
/// ```
/// use kontor_sdk::prelude::*;
///
/// /// Reserves a seat and pays for it.
/// struct BookSeat;
///
/// /// The part of the event that the saga needs.
/// #[derive(Deserialize)]
/// struct BookingRequested {
///     seat: String,
///     price: u64,
/// }
///
/// impl Trigger for BookingRequested {
///     const AGGREGATE: &str = "booking";
///     const EVENT: &str = "booking-requested";
/// }
///
/// impl Saga for BookSeat {
///     const NAME: &str = "book-seat";
///     const DESCRIPTION: &str = "Reserves a seat and pays for it, or does neither.";
///     type Trigger = BookingRequested;
///     const COMMANDS: &[&str] = &["seat.reserve", "payment.take"];
///
///     fn run(saga: &Run, booking: BookingRequested) -> Result<(), Error> {
///         let id = &saga.trigger.aggregate_id;
///         saga.step("reserve", Command::to("seat", &booking.seat, "reserve", json!({ "booking": id })))?;
///         saga.pivot("pay", Command::to("payment", id, "take", json!({ "amount": booking.price })))?;
///         Ok(())
///     }
/// }
/// ```
pub trait Saga {
    /// The name of the saga, unique in its service: `place-order`.
    const NAME: &'static str;

    /// One sentence for the API page.
    const DESCRIPTION: &'static str;

    /// The event that starts a run. An event of another service is a permission that the operator grants.
    type Trigger: Trigger;

    /// The commands of other services that a run sends: `payment.authorize`. Each is a permission that the
    /// operator grants.
    const COMMANDS: &'static [&'static str] = &[];

    /// The events of other services that a run waits for: `payment.payment-settled`. Each is a permission
    /// that the operator grants.
    const AWAITED: &'static [&'static str] = &[];

    /// Runs the saga once.
    ///
    /// The host journals the answers under the steps' names. After a crash it runs the code again from the
    /// first line and answers from the journal, so a run must take the same steps given the same answers.
    fn run(saga: &Run, trigger: Self::Trigger) -> Result<(), Error>;
}

/// The payload of the event that starts a saga, or the part of it that the saga needs.
pub trait Trigger: DeserializeOwned {
    /// The kind of aggregate that the event happens to, of this service or another.
    const AGGREGATE: &'static str;

    /// The name of the event.
    const EVENT: &'static str;
}

/// A run of a saga: the event that started it, and the steps that it takes.
#[derive(Debug)]
pub struct Run {
    /// The event that started the run.
    pub trigger: RecordedEvent,
}

/// The result of an accepted command.
#[derive(Clone, Debug)]
pub struct Outcome(steps::Outcome);

impl Outcome {
    /// The version of the aggregate's stream after the command.
    pub fn version(&self) -> u64 {
        self.0.version
    }

    /// Reads the view of the aggregate after the command: `None` if the aggregate does not exist, or if its
    /// view has more than 64 KiB, which is too much for a journal.
    pub fn view<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        self.0.view.as_deref().map(|view| json::read(view, "the view after a step")).transpose()
    }
}

impl Run {
    /// Sends one command and waits until its events are on disk. The name is unique within the run.
    pub fn step(&self, name: impl Into<String>, command: Command) -> Result<Outcome, Rejection> {
        steps::step(&command.into_action(name)).map(Outcome).map_err(Into::into)
    }

    /// Sends several commands at once, each under its own name.
    ///
    /// Fails with the first rejection in the order of the commands. The host then undoes those that were
    /// accepted.
    pub fn steps<N: Into<String>>(
        &self,
        commands: impl IntoIterator<Item = (N, Command)>,
    ) -> Result<Vec<Outcome>, Rejection> {
        let actions: Vec<_> = commands.into_iter().map(|(name, command)| command.into_action(name)).collect();
        steps::steps(&actions).into_iter().map(|answer| answer.map(Outcome).map_err(Into::into)).collect()
    }

    /// Sends the command that decides. Once it is accepted nothing is undone any more, and every later step
    /// is retried until it is accepted.
    pub fn pivot(&self, name: impl Into<String>, command: Command) -> Result<Outcome, Rejection> {
        steps::pivot(&command.into_action(name)).map(Outcome).map_err(Into::into)
    }

    /// Asks a service once, under a step's name. The answer is the same on every replay.
    pub fn query<T: DeserializeOwned>(&self, name: &str, request: Request) -> Result<T, Error> {
        let answer = steps::query(name, &request.0).map_err(Rejection::from)?;
        let subject = format_args!("the answer of {} to {}", request.0.service, request.0.query);
        json::read(&answer, subject)
    }

    /// Continues after some time, restarts of the host included.
    pub fn sleep(&self, name: &str, duration: Duration) {
        steps::sleep(name, milliseconds(duration));
    }

    /// Waits for the first of these events on an aggregate after the run's trigger. Returns `None` if the
    /// time is up first. A second wait for the same events gets the same one: see
    /// [`wait_for_next`](Self::wait_for_next).
    pub fn wait_for(
        &self,
        name: &str,
        aggregate: &str,
        id: &str,
        events: &[&str],
        at_most: Duration,
    ) -> Option<RecordedEvent> {
        wait(name, (aggregate, id, None), events, at_most)
    }

    /// Waits for the first of these events on the aggregate of an earlier event, after that event. Returns
    /// `None` if the time is up first.
    pub fn wait_for_next(
        &self,
        name: &str,
        earlier: &RecordedEvent,
        events: &[&str],
        at_most: Duration,
    ) -> Option<RecordedEvent> {
        wait(name, (&earlier.aggregate, &earlier.aggregate_id, Some(earlier.version)), events, at_most)
    }

    /// Ends the run and begins the saga anew with the same trigger, so that a saga that goes on for long has
    /// a short journal. Step names may be used again. The steps so far are final and never undone, and so is
    /// the trigger's command. The run must have taken a step. Never returns `Ok`.
    ///
    /// ```
    /// # use kontor_sdk::prelude::*;
    /// # use std::time::Duration;
    /// # const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);
    /// /// Bills a subscription each month, for ten years at most.
    /// fn bill(saga: &Run) -> Result<(), Error> {
    ///     let month = saga.progress()?.unwrap_or(1);
    ///     let id = &saga.trigger.aggregate_id;
    ///     saga.step("bill", Command::to("subscription", id, "bill", json!({ "month": month })))?;
    ///     if month == 120 {
    ///         return Ok(());
    ///     }
    ///     saga.sleep("month", MONTH);
    ///     saga.continue_as_new(&(month + 1))
    /// }
    /// ```
    pub fn continue_as_new(&self, progress: &impl Serialize) -> Result<(), Error> {
        steps::continue_as_new(&json::text(progress));
        Err(Error::Fault("a run that continues as new does not go on".to_owned()))
    }

    /// Reads the value with which the saga continued as new last. `None`: this is its first run.
    pub fn progress<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        steps::progress().map(|progress| json::read(progress, "the progress of the saga")).transpose()
    }
}

/// `of`: the kind and the id of the aggregate, and the version of the event before the awaited one.
fn wait(
    name: &str,
    of: (&str, &str, Option<u64>),
    events: &[&str],
    at_most: Duration,
) -> Option<RecordedEvent> {
    let (aggregate, id, after) = of;
    let awaited = steps::Awaited {
        aggregate: aggregate.to_owned(),
        id: id.to_owned(),
        events: events.iter().map(|event| (*event).to_owned()).collect(),
        after,
    };
    steps::wait_for(name, &awaited, milliseconds(at_most))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A [`Saga`] with its types erased.
pub(crate) struct Handler {
    pub(crate) name: &'static str,
    pub(crate) commands: &'static [&'static str],
    pub(crate) awaited: &'static [&'static str],
    pub(crate) run: fn(RecordedEvent) -> Result<(), Error>,
    pub(crate) describe: fn() -> manifest::Saga,
}

impl Handler {
    pub(crate) fn of<S: Saga>() -> Self {
        Self {
            name: S::NAME,
            commands: S::COMMANDS,
            awaited: S::AWAITED,
            run: |trigger| {
                let payload = trigger.payload()?;
                S::run(&Run { trigger }, payload)
            },
            describe: || manifest::Saga {
                name: S::NAME.to_owned(),
                description: S::DESCRIPTION.to_owned(),
                starts_on: manifest::EventRef {
                    aggregate: S::Trigger::AGGREGATE.to_owned(),
                    event: S::Trigger::EVENT.to_owned(),
                },
            },
        }
    }
}
