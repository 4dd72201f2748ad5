//! Aggregates: a state and its rules.

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::exports::kontor::service::aggregates as wit;
use crate::bindings::exports::kontor::service::manifest;
use crate::bindings::kontor::service::types;
use crate::{Caller, Command, Error, Event, Readers, Rejection, json, schema};

/// The state of an aggregate and its rules.
///
/// The rules are three pure functions: [`decide`](Self::decide) returns the events that a command leads to,
/// [`evolve`](Self::evolve) applies an event to the state, and [`compensate`](Self::compensate) returns the
/// event that takes another one back. The aggregate never stores its state: the host keeps the events and
/// passes in the state that they make.
///
/// Commands and events are enums with serde's usual (external) tagging. Each variant is one command or event;
/// its doc comment becomes the description in the API. A payload without fields is written `Confirm {}`.
pub trait Aggregate: Default + Serialize + DeserializeOwned {
    /// The kind of the aggregate, unique in a host: `product`.
    const NAME: &'static str;

    /// The version of the state's shape. Raise it when the state's fields change. A deployment with the same
    /// version is refused if it folds a stream in the log to another state than the running version. The host
    /// never gives a component a state that it would not have folded itself.
    const STATE_VERSION: u32 = 1;

    /// The names of the commands that [`compensate`](Self::compensate) can undo. The steps that a saga takes
    /// before its pivot should be among them.
    const COMPENSABLE: &'static [&'static str] = &[];

    /// The callers that may see the view of one aggregate, if not all that its route lets in may.
    const READERS: Option<Readers> = None;

    /// The commands.
    ///
    /// With `#[serde(deny_unknown_fields)]`, a command that carries an unknown member is rejected before it
    /// is decided, so a misspelled one is never ignored. This holds at every depth of the payload.
    type Command: DeserializeOwned + JsonSchema;

    /// The events, in the past tense.
    ///
    /// Events never deny unknown fields: the version before this one must be able to read what this one
    /// writes.
    type Event: Serialize + DeserializeOwned + JsonSchema;

    /// The part of the state that clients see. Its doc comment describes the aggregate in the API.
    type View: Serialize + JsonSchema;

    /// Decides a command: returns its events, oldest first, or rejects it. No events means that the command
    /// is accepted and nothing was to be done. The state is `None` before the first event.
    fn decide(
        state: Option<&Self>,
        command: Self::Command,
        context: &Context,
    ) -> Result<Vec<Self::Event>, Error>;

    /// Applies one more event. Must take every event ever stored; the first one finds the default state.
    fn evolve(&mut self, event: Self::Event);

    /// Returns the event that takes back one event of an accepted command, because a later step of its saga
    /// was rejected. `None` if there is nothing left to take back. The events of a command are taken back one
    /// by one, newest first.
    ///
    /// The state may have changed since: decide by the state, not only by the event. After a rejection the
    /// saga waits for an operator.
    fn compensate(
        &self,
        event: Self::Event,
        reason: &Rejection,
        context: &Context,
    ) -> Result<Option<Self::Event>, Error> {
        let _ = (event, reason);
        Err(context.not_compensable().into())
    }

    /// Takes back the effects outside of a command that failed in all its attempts, while its saga unwinds.
    /// Nothing of the command is recorded. Called again until it succeeds.
    fn abandon(state: Option<&Self>, command: &str, context: &Context) -> Result<(), Error> {
        let _ = (state, command, context);
        Ok(())
    }

    /// Returns the part of the state that clients see of the aggregate `id`.
    fn view(&self, id: &str) -> Self::View;

    /// Makes a command for the aggregate `id`, to be sent by a saga.
    fn command(id: &str, command: &Self::Command) -> Command
    where
        Self::Command: Serialize,
    {
        let (name, payload) = json::write_variant(command);
        Command { aggregate: Self::NAME.to_owned(), id: id.to_owned(), name, payload }
    }
}

/// The circumstances of a command. They are the same on every replay, so take time and ids from here.
#[derive(Clone, Debug)]
pub struct Context {
    /// The kind of the aggregate: `product`.
    pub aggregate: &'static str,
    /// The id of the aggregate.
    pub aggregate_id: String,
    /// The id of the command, unique among all commands ever; also an idempotency key for calls to the
    /// outside.
    pub command_id: String,
    /// Shared by everything that follows from one request, across sagas and services.
    pub correlation_id: String,
    /// Milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// The sender of the command.
    pub caller: Caller,
}

impl Context {
    /// Makes the rejection of a command for an aggregate that does not exist: `not-found`.
    pub fn not_found(&self) -> Rejection {
        let Self { aggregate, aggregate_id, .. } = self;
        Rejection::new("not-found", format!("There is no {aggregate} with the id {aggregate_id}."))
    }

    /// Makes the rejection of a command that would create what exists: `already-exists`.
    pub fn already_exists(&self) -> Rejection {
        let Self { aggregate, aggregate_id, .. } = self;
        let message = format!("There is already a {aggregate} with the id {aggregate_id}.");
        Rejection::new("already-exists", message)
    }

    /// Makes the rejection of an undo that the rules do not provide for: `not-compensable`.
    pub fn not_compensable(&self) -> Rejection {
        let Self { aggregate, aggregate_id, .. } = self;
        let message = format!("What was done to {aggregate} {aggregate_id} cannot be undone.");
        Rejection::new("not-compensable", message)
    }
}

/// An [`Aggregate`] with its types erased.
pub(crate) struct Handler {
    pub(crate) name: &'static str,
    pub(crate) decide: fn(wit::Target, wit::Command) -> Result<wit::Decision, Error>,
    pub(crate) compensate: fn(wit::Target, wit::Compensation) -> Result<wit::Decision, Error>,
    pub(crate) evolve: fn(wit::Target) -> Result<Option<wit::Folded>, Error>,
    pub(crate) describe: fn() -> manifest::Aggregate,
}

impl Handler {
    pub(crate) fn of<A: Aggregate>() -> Self {
        Self {
            name: A::NAME,
            decide: decide::<A>,
            compensate: compensate::<A>,
            evolve: |target| Ok(fold::<A>(&target)?.map(|state| folded(&state, &target.id))),
            describe: describe::<A>,
        }
    }
}

fn decide<A: Aggregate>(target: wit::Target, command: wit::Command) -> Result<wit::Decision, Error> {
    let mut state = fold::<A>(&target)?;
    let context = context::<A>(&target, command.context);
    let command = json::read_variant(&command.name, &command.payload).map_err(|error| {
        Rejection::new("invalid-payload", format!("The payload cannot be read: {error}."))
    })?;
    let mut events = Vec::new();
    for event in A::decide(state.as_ref(), command, &context)? {
        events.push(written(&event));
        state.get_or_insert_default().evolve(event);
    }
    Ok(wit::Decision { events, after: state.map(|state| folded(&state, &target.id)) })
}

fn compensate<A: Aggregate>(
    target: wit::Target,
    compensation: wit::Compensation,
) -> Result<wit::Decision, Error> {
    let state = fold::<A>(&target)?;
    let context = context::<A>(&target, compensation.context);
    if compensation.events.is_empty() {
        A::abandon(state.as_ref(), &compensation.command, &context)?;
    }
    let Some(mut state) = state else {
        return Ok(wit::Decision { events: Vec::new(), after: None });
    };
    let reason = compensation.reason.into();
    let mut events = Vec::new();
    for undone in compensation.events.iter().rev() {
        if let Some(event) = state.compensate(stored::<A>(&target.id, undone)?, &reason, &context)? {
            events.push(written(&event));
            state.evolve(event);
        }
    }
    Ok(wit::Decision { events, after: Some(folded(&state, &target.id)) })
}

/// Returns the state with all events in it, or `None` if there is neither a state nor an event.
fn fold<A: Aggregate>(target: &wit::Target) -> Result<Option<A>, Error> {
    let id = &target.id;
    let read = |state: &Vec<u8>| json::read::<A>(state, format_args!("the state of {} {id}", A::NAME));
    let mut state = target.state.as_ref().map(read).transpose()?;
    for event in &target.since {
        state.get_or_insert_default().evolve(stored::<A>(id, event)?);
    }
    Ok(state)
}

/// Reads an event of the log. An event that cannot be read is a fault: leaving it out would make a wrong
/// state.
fn stored<A: Aggregate>(id: &str, Event { name, payload }: &Event) -> Result<A::Event, Error> {
    let event = json::read_variant(name, payload);
    event.map_err(|error| {
        json::unreadable(format_args!("the stored event {name} of {} {id}", A::NAME), &error)
    })
}

fn written(event: &impl Serialize) -> Event {
    let (name, payload) = json::write_variant(event);
    Event { name, payload }
}

fn folded<A: Aggregate>(state: &A, id: &str) -> wit::Folded {
    wit::Folded { state: json::bytes(state), view: json::text(&state.view(id)) }
}

fn context<A: Aggregate>(target: &wit::Target, context: types::Context) -> Context {
    Context {
        aggregate: A::NAME,
        aggregate_id: target.id.clone(),
        command_id: context.command_id,
        correlation_id: context.correlation_id,
        time_ms: context.time_ms,
        caller: context.caller.into(),
    }
}

fn describe<A: Aggregate>() -> manifest::Aggregate {
    let view = schema::of_output::<A::View>();
    let commands: Vec<_> = schema::commands::<A::Command>()
        .into_iter()
        .map(|command| manifest::Command {
            compensable: A::COMPENSABLE.contains(&command.name.as_str()),
            name: command.name,
            description: command.description,
            payload: command.payload.to_string(),
        })
        .collect();
    for name in A::COMPENSABLE {
        assert!(commands.iter().any(|command| command.name == *name), "{} has no command {name}", A::NAME);
    }
    let events = schema::variants::<A::Event>().into_iter().map(|event| manifest::Event {
        name: event.name,
        description: event.description,
        payload: event.payload.to_string(),
    });
    manifest::Aggregate {
        name: A::NAME.to_owned(),
        description: schema::description(&view),
        state_version: A::STATE_VERSION,
        view: json::text(&view),
        readers: A::READERS.map(Into::into),
        commands,
        events: events.collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// A shelf of things. Putting several on it is one event each, so that undoing has an order to keep.
    #[derive(Default, Serialize, Deserialize)]
    struct Shelf {
        things: Vec<String>,
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    enum ShelfCommand {
        /// Puts things on the shelf.
        PutAll {
            things: Vec<String>,
        },
        Clear {},
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case")]
    enum ShelfEvent {
        ThingPut { thing: String },
        ThingTaken { thing: String, because: String },
    }

    /// A shelf.
    #[derive(Serialize, JsonSchema)]
    struct View {
        id: String,
        things: usize,
    }

    impl Aggregate for Shelf {
        const NAME: &str = "shelf";
        const COMPENSABLE: &[&str] = &["put-all"];
        type Command = ShelfCommand;
        type Event = ShelfEvent;
        type View = View;

        fn decide(
            shelf: Option<&Self>,
            command: ShelfCommand,
            context: &Context,
        ) -> Result<Vec<ShelfEvent>, Error> {
            match (command, shelf) {
                (ShelfCommand::PutAll { things }, _) => {
                    Ok(things.into_iter().map(|thing| ShelfEvent::ThingPut { thing }).collect())
                }
                (ShelfCommand::Clear {}, None) => Err(context.not_found().into()),
                (ShelfCommand::Clear {}, Some(_)) => Ok(Vec::new()),
            }
        }

        fn evolve(&mut self, event: ShelfEvent) {
            match event {
                ShelfEvent::ThingPut { thing } => self.things.push(thing),
                ShelfEvent::ThingTaken { thing, .. } => self.things.retain(|other| *other != thing),
            }
        }

        fn compensate(
            &self,
            event: ShelfEvent,
            reason: &Rejection,
            context: &Context,
        ) -> Result<Option<ShelfEvent>, Error> {
            match event {
                ShelfEvent::ThingPut { thing } => Ok(self.things.contains(&thing).then(|| {
                    let because = reason.code.clone();
                    ShelfEvent::ThingTaken { thing, because }
                })),
                ShelfEvent::ThingTaken { .. } => Err(context.not_compensable().into()),
            }
        }

        fn view(&self, id: &str) -> View {
            View { id: id.to_owned(), things: self.things.len() }
        }
    }

    fn event(name: &str, payload: &str) -> Event {
        Event { name: name.to_owned(), payload: payload.to_owned() }
    }

    fn put(thing: &str) -> Event {
        event("thing-put", &format!(r#"{{"thing":"{thing}"}}"#))
    }

    fn shelf(state: Option<&str>, since: Vec<Event>) -> wit::Target {
        wit::Target {
            aggregate: "shelf".to_owned(),
            id: "s1".to_owned(),
            state: state.map(|state| state.as_bytes().to_owned()),
            since,
        }
    }

    fn circumstances() -> types::Context {
        types::Context {
            command_id: "c1".to_owned(),
            correlation_id: "r1".to_owned(),
            time_ms: 0,
            caller: types::Caller { subject: None, roles: Vec::new(), on_behalf_of: None, via: None },
        }
    }

    fn decided(target: wit::Target, name: &str, payload: &str) -> Result<wit::Decision, Error> {
        let context = circumstances();
        decide::<Shelf>(target, wit::Command { name: name.to_owned(), payload: payload.to_owned(), context })
    }

    fn undone(target: wit::Target, events: Vec<Event>) -> Result<wit::Decision, Error> {
        let reason = Rejection::new("card-declined", "No.").into();
        let compensation =
            wit::Compensation { command: "put-all".to_owned(), events, reason, context: circumstances() };
        compensate::<Shelf>(target, compensation)
    }

    /// The code of a call's rejection.
    fn code(answer: Result<wit::Decision, Error>) -> String {
        match answer {
            Err(Error::Rejected(rejection)) => rejection.code,
            other => panic!("not a rejection: {other:?}"),
        }
    }

    fn shown(events: &[Event]) -> Vec<String> {
        events.iter().map(|event| format!("{} {}", event.name, event.payload)).collect()
    }

    #[test]
    fn a_command_finds_the_state_with_the_events_since_and_leaves_its_own_in_it() {
        let target = shelf(Some(r#"{"things":["cup"]}"#), vec![put("jar")]);
        let decision = decided(target, "put-all", r#"{"things":["pot","pan"]}"#).unwrap();
        assert_eq!(shown(&decision.events), [r#"thing-put {"thing":"pot"}"#, r#"thing-put {"thing":"pan"}"#]);
        let after = decision.after.unwrap();
        assert_eq!(after.state, br#"{"things":["cup","jar","pot","pan"]}"#);
        assert_eq!(after.view, r#"{"id":"s1","things":4}"#);
    }

    #[test]
    fn without_events_the_aggregate_does_not_exist() {
        assert_eq!(code(decided(shelf(None, vec![]), "clear", "{}")), "not-found");
        assert!(decided(shelf(None, vec![]), "put-all", r#"{"things":[]}"#).unwrap().after.is_none());
        assert!(fold::<Shelf>(&shelf(None, vec![])).unwrap().is_none());
        assert!(undone(shelf(None, vec![]), vec![put("pot")]).unwrap().after.is_none());
    }

    #[test]
    fn a_payload_that_cannot_be_read_is_a_rejection() {
        for payload in [r#"{"things":[1]}"#, r#"{"things":[],"more":1}"#, "{}"] {
            assert_eq!(
                code(decided(shelf(None, vec![]), "put-all", payload)),
                "invalid-payload",
                "{payload}"
            );
        }
    }

    #[test]
    fn what_is_stored_and_cannot_be_read_is_a_fault() {
        let table = [
            (
                shelf(None, vec![event("thing-lost", "{}")]),
                "the stored event thing-lost of shelf s1 cannot be read",
            ),
            (shelf(Some("7"), vec![]), "the state of shelf s1 cannot be read"),
        ];
        for (target, expected) in table {
            match fold::<Shelf>(&target) {
                Err(Error::Fault(reason)) => assert!(reason.starts_with(expected), "{reason}"),
                _ => panic!("not a fault: {expected}"),
            }
        }
    }

    #[test]
    fn an_event_with_a_member_that_is_not_known_yet_is_read() {
        let newer = event("thing-put", r#"{"thing":"pot","color":"red"}"#);
        assert_eq!(fold::<Shelf>(&shelf(None, vec![newer])).unwrap().unwrap().things, ["pot"]);
    }

    #[test]
    fn a_command_is_made_from_its_variant() {
        let command = Shelf::command("s1", &ShelfCommand::PutAll { things: vec!["pot".to_owned()] });
        let Command { aggregate, id, name, payload } = command;
        let parts = [aggregate, id, name, payload];
        assert_eq!(parts, ["shelf", "s1", "put-all", r#"{"things":["pot"]}"#]);
    }

    #[test]
    fn events_are_taken_back_newest_first_each_on_the_state_that_the_one_before_left() {
        let target = shelf(None, vec![put("pot"), put("pan"), put("pan")]);
        let decision = undone(target, vec![put("pot"), put("pan"), put("pan")]).unwrap();
        assert_eq!(
            shown(&decision.events),
            [
                r#"thing-taken {"thing":"pan","because":"card-declined"}"#,
                r#"thing-taken {"thing":"pot","because":"card-declined"}"#,
            ]
        );
        assert_eq!(decision.after.unwrap().state, br#"{"things":[]}"#);
    }

    #[test]
    fn the_description_comes_from_the_types() {
        let shelf = describe::<Shelf>();
        assert_eq!(
            (shelf.name.as_str(), shelf.description.as_str(), shelf.state_version),
            ("shelf", "A shelf.", 1)
        );
        let commands: Vec<_> = shelf
            .commands
            .iter()
            .map(|command| (command.name.as_str(), command.description.as_str(), command.compensable))
            .collect();
        assert_eq!(commands, [("put-all", "Puts things on the shelf.", true), ("clear", "", false)]);
        let events: Vec<_> = shelf.events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(events, ["thing-put", "thing-taken"]);
    }
}
