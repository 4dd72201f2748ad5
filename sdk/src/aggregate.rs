use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::exports::kontor::service::aggregates as wit;
use crate::bindings::exports::kontor::service::manifest;
use crate::bindings::kontor::service::types;
use crate::{Event, Rejection, json, schema};

/// The state of an aggregate and its rules.
///
/// The rules are three pure functions: [`decide`](Self::decide) says what a command changes,
/// [`evolve`](Self::evolve) changes it, [`compensate`](Self::compensate) says what takes a change back. The state is
/// never stored by the aggregate: the host keeps the events and hands in the state that they make.
///
/// Commands and events are enums with serde's usual (external) tagging. One variant is one command or event; its doc
/// comment becomes the description in the API, and a payload without fields is written `Confirm {}`.
pub trait Aggregate: Default + Serialize + DeserializeOwned {
    /// The kind of the aggregate, unique in a host: `product`.
    const NAME: &'static str;

    /// Raise it when the state's fields change: the host then folds the events anew instead of reading a state that
    /// another version has written.
    const STATE_VERSION: u32 = 1;

    /// The names of the commands that [`compensate`](Self::compensate) can undo: these may be steps of a saga.
    const COMPENSABLE: &'static [&'static str] = &[];

    /// What can be asked of it.
    type Command: DeserializeOwned + JsonSchema;

    /// What can happen to it, in the past tense.
    type Event: Serialize + DeserializeOwned + JsonSchema;

    /// What clients see of its state. Its doc comment describes the aggregate in the API.
    type View: Serialize + JsonSchema;

    /// The events that a command leads to, or why it is refused. No events: accepted, and nothing was to be done. The
    /// state is none before the first event.
    fn decide(
        state: Option<&Self>,
        command: Self::Command,
        context: &Context,
    ) -> Result<Vec<Self::Event>, Rejection>;

    /// The state after one more event. Must take every event ever stored; the first one finds the default state.
    fn evolve(&mut self, event: Self::Event);

    /// The event that takes back one event of an accepted command, because a later step of its saga was refused. None:
    /// there is nothing left to take back. The events of a command are taken back one by one, the newest first.
    ///
    /// The world may have moved on since: look at the state, not only at the event. A rejection means that a person
    /// has to see to it.
    fn compensate(
        &self,
        event: Self::Event,
        reason: &Rejection,
        context: &Context,
    ) -> Result<Option<Self::Event>, Rejection> {
        let _ = (event, reason);
        Err(context.not_compensable())
    }

    /// A command failed in all its attempts, and its saga unwinds: nothing of it was recorded, but it may have had an
    /// effect outside, which is to be taken back here. Called again until it is accepted.
    fn abandon(state: Option<&Self>, command: &str, context: &Context) -> Result<(), Rejection> {
        let _ = (state, command, context);
        Ok(())
    }

    /// What clients see of the state of the aggregate `id`.
    fn view(&self, id: &str) -> Self::View;
}

/// The circumstances of a command. The same on every replay, so take time and ids from here.
#[derive(Clone, Debug)]
pub struct Context {
    /// The kind of the aggregate: `product`.
    pub aggregate: &'static str,
    /// Which one.
    pub aggregate_id: String,
    /// Unique among all commands ever; an idempotency key for calls to the outside.
    pub command_id: String,
    /// Shared by everything that follows from one request, across sagas and services.
    pub correlation_id: String,
    /// Milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// Who sent the command: a user's name, or `saga` and its id.
    pub actor: String,
}

impl Context {
    /// The rejection of a command for an aggregate that does not exist: `not-found`.
    pub fn not_found(&self) -> Rejection {
        let Self { aggregate, aggregate_id, .. } = self;
        Rejection::new("not-found", format!("There is no {aggregate} with the id {aggregate_id}."))
    }

    /// The rejection of a command that would create what exists: `already-exists`.
    pub fn already_exists(&self) -> Rejection {
        let Self { aggregate, aggregate_id, .. } = self;
        Rejection::new(
            "already-exists",
            format!("There is already a {aggregate} with the id {aggregate_id}."),
        )
    }

    /// The rejection of an undo that the rules do not provide for: `not-compensable`.
    pub fn not_compensable(&self) -> Rejection {
        let Self { aggregate, aggregate_id, .. } = self;
        Rejection::new(
            "not-compensable",
            format!("What was done to {aggregate} {aggregate_id} cannot be undone."),
        )
    }
}

/// An [`Aggregate`] with its types erased: what the service keeps of it.
pub(crate) struct Handler {
    pub(crate) name: &'static str,
    pub(crate) decide: fn(wit::Target, wit::Command) -> Result<wit::Decision, types::Rejection>,
    pub(crate) compensate: fn(wit::Target, wit::Compensation) -> Result<wit::Decision, types::Rejection>,
    pub(crate) evolve: fn(wit::Target) -> Option<wit::Folded>,
    pub(crate) describe: fn() -> manifest::Aggregate,
}

impl Handler {
    pub(crate) fn of<A: Aggregate>() -> Self {
        Self {
            name: A::NAME,
            decide: |target, command| decide::<A>(target, command).map_err(Into::into),
            compensate: |target, compensation| compensate::<A>(target, compensation).map_err(Into::into),
            evolve: |target| fold::<A>(&target).map(|state| folded(&state, &target.id)),
            describe: describe::<A>,
        }
    }
}

fn decide<A: Aggregate>(target: wit::Target, command: wit::Command) -> Result<wit::Decision, Rejection> {
    let mut state = fold::<A>(&target);
    let context = context::<A>(&target, command.context);
    let command = json::read_variant(&command.name, &command.payload).map_err(|error| {
        Rejection::new("invalid-payload", format!("The payload cannot be read: {error}."))
    })?;
    let mut events = Vec::new();
    for event in A::decide(state.as_ref(), command, &context)? {
        events.push(json::write_variant(&event));
        state.get_or_insert_default().evolve(event);
    }
    Ok(wit::Decision { events, after: state.map(|state| folded(&state, &target.id)) })
}

fn compensate<A: Aggregate>(
    target: wit::Target,
    compensation: wit::Compensation,
) -> Result<wit::Decision, Rejection> {
    let state = fold::<A>(&target);
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
        if let Some(event) = state.compensate(stored::<A>(&target.id, undone), &reason, &context)? {
            events.push(json::write_variant(&event));
            state.evolve(event);
        }
    }
    Ok(wit::Decision { events, after: Some(folded(&state, &target.id)) })
}

/// The state with all events in it; none if there is neither a state nor an event.
fn fold<A: Aggregate>(target: &wit::Target) -> Option<A> {
    let mut state = target.state.as_deref().map(|state| match serde_json::from_str::<A>(state) {
        Ok(state) => state,
        Err(error) => panic!("the state of {} {} cannot be read: {error}", A::NAME, target.id),
    });
    for event in &target.since {
        state.get_or_insert_default().evolve(stored::<A>(&target.id, event));
    }
    state
}

/// An event of the log. One that cannot be read is a fault: leaving it out would make a wrong state.
fn stored<A: Aggregate>(id: &str, event: &Event) -> A::Event {
    json::read_variant(&event.name, &event.payload).unwrap_or_else(|error| {
        panic!("the stored event {} of {} {id} cannot be read: {error}", event.name, A::NAME)
    })
}

fn folded<A: Aggregate>(state: &A, id: &str) -> wit::Folded {
    wit::Folded { state: json::text(state), view: json::text(&state.view(id)) }
}

fn context<A: Aggregate>(target: &wit::Target, context: types::Context) -> Context {
    Context {
        aggregate: A::NAME,
        aggregate_id: target.id.clone(),
        command_id: context.command_id,
        correlation_id: context.correlation_id,
        time_ms: context.time_ms,
        actor: context.actor,
    }
}

fn describe<A: Aggregate>() -> manifest::Aggregate {
    let view = schema::of_output::<A::View>();
    let commands: Vec<_> = schema::variants::<A::Command>()
        .into_iter()
        .map(|command| manifest::Command {
            compensable: A::COMPENSABLE.contains(&command.name.as_str()),
            name: command.name,
            description: command.description,
            payload: command.payload,
        })
        .collect();
    for name in A::COMPENSABLE {
        assert!(commands.iter().any(|command| command.name == *name), "{} has no command {name}", A::NAME);
    }
    let events = schema::variants::<A::Event>().into_iter().map(|event| manifest::Event {
        name: event.name,
        description: event.description,
        payload: event.payload,
    });
    manifest::Aggregate {
        name: A::NAME.to_owned(),
        description: schema::description(&view),
        state_version: A::STATE_VERSION,
        view: json::text(&view),
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

    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    enum Command {
        /// Puts things on the shelf.
        PutAll {
            things: Vec<String>,
        },
        Clear {},
    }

    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
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
        type Command = Command;
        type Event = ShelfEvent;
        type View = View;

        fn decide(
            shelf: Option<&Self>,
            command: Command,
            context: &Context,
        ) -> Result<Vec<ShelfEvent>, Rejection> {
            match (command, shelf) {
                (Command::PutAll { things }, _) => {
                    Ok(things.into_iter().map(|thing| ShelfEvent::ThingPut { thing }).collect())
                }
                (Command::Clear {}, None) => Err(context.not_found()),
                (Command::Clear {}, Some(_)) => Ok(Vec::new()),
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
        ) -> Result<Option<ShelfEvent>, Rejection> {
            match event {
                ShelfEvent::ThingPut { thing } => Ok(self.things.contains(&thing).then(|| {
                    let because = reason.code.clone();
                    ShelfEvent::ThingTaken { thing, because }
                })),
                ShelfEvent::ThingTaken { .. } => Err(context.not_compensable()),
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
            state: state.map(str::to_owned),
            since,
        }
    }

    fn circumstances() -> types::Context {
        types::Context {
            command_id: "c1".to_owned(),
            correlation_id: "r1".to_owned(),
            time_ms: 0,
            actor: "somebody".to_owned(),
        }
    }

    fn decided(target: wit::Target, name: &str, payload: &str) -> Result<wit::Decision, Rejection> {
        let context = circumstances();
        decide::<Shelf>(target, wit::Command { name: name.to_owned(), payload: payload.to_owned(), context })
    }

    fn undone(target: wit::Target, events: Vec<Event>) -> Result<wit::Decision, Rejection> {
        let reason = Rejection::new("card-declined", "No.").into();
        let compensation =
            wit::Compensation { command: "put-all".to_owned(), events, reason, context: circumstances() };
        compensate::<Shelf>(target, compensation)
    }

    fn written(events: &[Event]) -> Vec<String> {
        events.iter().map(|event| format!("{} {}", event.name, event.payload)).collect()
    }

    #[test]
    fn a_command_finds_the_state_with_the_events_since_and_leaves_its_own_in_it() {
        let target = shelf(Some(r#"{"things":["cup"]}"#), vec![put("jar")]);
        let decision = decided(target, "put-all", r#"{"things":["pot","pan"]}"#).unwrap();
        assert_eq!(
            written(&decision.events),
            [r#"thing-put {"thing":"pot"}"#, r#"thing-put {"thing":"pan"}"#]
        );
        let after = decision.after.unwrap();
        assert_eq!(after.state, r#"{"things":["cup","jar","pot","pan"]}"#);
        assert_eq!(after.view, r#"{"id":"s1","things":4}"#);
    }

    #[test]
    fn without_events_the_aggregate_does_not_exist() {
        assert_eq!(decided(shelf(None, vec![]), "clear", "{}").unwrap_err().code, "not-found");
        assert!(decided(shelf(None, vec![]), "put-all", r#"{"things":[]}"#).unwrap().after.is_none());
        assert!(fold::<Shelf>(&shelf(None, vec![])).is_none());
        assert!(undone(shelf(None, vec![]), vec![put("pot")]).unwrap().after.is_none());
    }

    #[test]
    fn a_payload_that_cannot_be_read_is_a_rejection() {
        for payload in [r#"{"things":[1]}"#, r#"{"things":[],"more":1}"#, "{}"] {
            let rejection = decided(shelf(None, vec![]), "put-all", payload).unwrap_err();
            assert_eq!(rejection.code, "invalid-payload", "{payload}");
        }
    }

    #[test]
    #[should_panic(expected = "the stored event thing-lost of shelf s1 cannot be read")]
    fn a_stored_event_that_cannot_be_read_is_a_fault() {
        fold::<Shelf>(&shelf(None, vec![event("thing-lost", "{}")]));
    }

    #[test]
    fn events_are_taken_back_newest_first_each_on_the_state_that_the_one_before_left() {
        let target = shelf(None, vec![put("pot"), put("pan"), put("pan")]);
        let decision = undone(target, vec![put("pot"), put("pan"), put("pan")]).unwrap();
        assert_eq!(
            written(&decision.events),
            [
                r#"thing-taken {"thing":"pan","because":"card-declined"}"#,
                r#"thing-taken {"thing":"pot","because":"card-declined"}"#,
            ]
        );
        assert_eq!(decision.after.unwrap().state, r#"{"things":[]}"#);
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
