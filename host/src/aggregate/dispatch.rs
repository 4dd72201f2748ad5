//! The only writer of domain events. The whole story of a command is in this file: it waits for its turn on
//! its aggregate, a repeated command is answered from the record, the component decides, the events are
//! appended with the version that they were decided on, and the reply goes out when they are on disk.
//!
//! All of that runs on the task of the caller, and goes on without it. Commands on one aggregate are decided
//! one after another, on the state that the pending appends will leave (they run ahead of the disk), so a hot
//! aggregate is not bound to one disk write per command.
//!
//! *Invariant:* no reply, not even a rejection, goes out before everything it was decided on is on disk, nor,
//! if other hosts write to the log too, before the log has confirmed that it was decided on the newest state.
//!
//! *Invariant:* only the command that has the turn appends to a stream in this process.

mod answers;
mod detachable;
mod turns;

use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tracing::Instrument as _;

use self::detachable::Detachable;
use self::turns::{Ground, Place, Turn, Turns};
use super::check::check_payload;
use super::error::CommandError;
use super::states::{AggregateState, Viewed, empty};
use super::{Accepted, DispatchDeps, DispatchLimits};
use crate::log::{Append, AppendError, Appended, Appending, Footing};
use crate::model::{AppendChain, Command, Digest, Intent, Meta, Position, StreamId, Version};
use crate::recent::Recent;
use crate::runtime::{Component, Context, Decision};
use crate::shares::Shares;
use crate::telemetry;

/// Number of the last commands with keys that are remembered: the repetitions that clients send in a hurry.
const RECENT_KEYS: usize = 100_000;
/// Maximum number of times that a command is decided, if another writer keeps coming first.
const MAX_ATTEMPTS: u32 = 8;

type Answer = Result<Accepted, CommandError>;

/// A command in process, with its places in the host.
struct Job {
    command: Command,
    attempts: u32,
    /// The component by whose schema the payload was checked.
    checked_by: Digest,
    _places: [OwnedSemaphorePermit; 2],
}

/// The effect of a decision.
enum Effect {
    /// Events are appended. The answer holds once they are on disk.
    Append { answer: Accepted, meta: Arc<Meta> },
    /// Nothing is appended.
    WithoutAppend(Answer),
}

/// A decision, and the log's answer to its append. None: nothing is appended, and all that it was decided on
/// is on disk.
type Decided = (Effect, Option<Appending>);

/// Executes commands, those of one aggregate one after another. Cheap to clone.
#[derive(Clone)]
pub struct Dispatch {
    inner: Arc<Inner>,
}

struct Inner {
    deps: DispatchDeps,
    limits: DispatchLimits,
    /// One permit per command in the host. Closed at shutdown.
    places: Arc<Semaphore>,
    /// The permits of the commands of each service.
    shares: Shares,
    turns: Arc<Turns>,
    /// The last commands with keys.
    keys: Recent,
}

impl Dispatch {
    /// Creates a dispatcher without commands.
    pub fn new(deps: DispatchDeps, limits: DispatchLimits) -> Self {
        let places = Arc::new(Semaphore::new(limits.commands));
        let shares = Shares::of(limits.commands);
        let (turns, keys) = (Arc::default(), Recent::new(RECENT_KEYS));
        Self { inner: Arc::new(Inner { deps, limits, places, shares, turns, keys }) }
    }

    /// Executes a command, and returns when its events are on disk. The command goes on if the caller stops
    /// waiting.
    ///
    /// Fails at once while the log is unavailable: the outcome of an append begun then would stay unknown.
    pub async fn submit(&self, mut command: Command) -> Answer {
        if !self.inner.deps.log.state().takes_appends {
            metrics::counter!(telemetry::REFUSED_BY_LOG).increment(1);
            return Err(AppendError::Unavailable.into());
        }
        let component = self.inner.deps.states.owner(&command.stream)?;
        check_payload(&component, &mut command)?;
        let take = |places: Arc<Semaphore>, queue| {
            places.try_acquire_owned().map_err(|error| match error {
                TryAcquireError::NoPermits => CommandError::Busy { queue },
                TryAcquireError::Closed => CommandError::ShuttingDown,
            })
        };
        let of_service = self.inner.shares.service(&component.manifest().service);
        let places = [
            take(self.inner.places.clone(), "the host's queue of commands")?,
            take(of_service, "the queue of the service's commands")?,
        ];
        let (id, stream, name) = (&command.id, &command.stream, &command.name);
        let place = self.inner.turns.enter(stream, id, self.inner.limits.aggregate);
        let place = place.ok_or(CommandError::Busy { queue: "the aggregate's queue of commands" })?;
        // Below that of the request, or of the saga's step that has sent the command.
        let span = tracing::info_span!("command", %id, %stream, %name);
        let job = Job { command, attempts: 0, checked_by: component.digest(), _places: places };
        let executed = Detachable::new(self.inner.clone().execute(place, job).instrument(span)).await;
        executed.unwrap_or(Err(CommandError::ShuttingDown))
    }

    /// Returns the view of an aggregate now, or at an earlier version; `None` if it does not exist (at that
    /// version).
    pub async fn view(&self, stream: &StreamId, at: Option<Version>) -> Result<Option<Viewed>, CommandError> {
        self.inner.deps.states.view(stream, at).await
    }

    /// Stops accepting commands, and returns when all accepted ones are answered.
    pub async fn close(&self) {
        let all = u32::try_from(self.inner.limits.commands).unwrap_or(u32::MAX);
        // Err: another call has closed it, after the same wait.
        let _ = self.inner.places.acquire_many(all).await;
        self.inner.places.close();
    }
}

impl Inner {
    /// Decides a job in its turn, and waits for the disk outside of it. Begins again if other appends came
    /// first or failed.
    async fn execute(self: Arc<Self>, place: Place, mut job: Job) -> Answer {
        loop {
            job.attempts += 1;
            let mut turn = place.turn().await;
            let chain = turn.chain();
            let error = match self.process(&mut turn, &mut job).await {
                Ok((effect, None)) => return self.answer(effect, Position::START),
                Ok((effect, Some(appending))) => {
                    drop(turn);
                    match appending.await {
                        Ok(Appended { position }) => {
                            place.end(chain, true);
                            return self.answer(effect, position);
                        }
                        Err(error) => error,
                    }
                }
                Err(CommandError::Append(error)) => error,
                // Nothing was decided, so the answer does not depend on pending appends.
                Err(error) => return Err(error),
            };
            place.end(chain, false);
            self.deps.states.forget(&job.command.stream);
            // A saga sends its step again, if it still runs here.
            let fenced_saga = matches!(error, AppendError::Fenced { .. }) && job.command.journal.is_some();
            if !error.is_overtaken() || fenced_saga || job.attempts == MAX_ATTEMPTS {
                return Err(error.into());
            }
            job.command.repeatable = true;
        }
    }

    /// Decides a job in its turn, and begins the append of the decision.
    async fn process(&self, turn: &mut Turn<'_>, job: &mut Job) -> Result<Decided, CommandError> {
        if turn.is_repeated() {
            self.reach_disk(turn, &job.command.stream).await?;
        }
        let component = self.deps.states.owner(&job.command.stream)?;
        if job.checked_by != component.digest() {
            // Another version has gone live since the command came in.
            check_payload(&component, &mut job.command)?;
            job.checked_by = component.digest();
        }
        let is_usable = |state: &AggregateState| self.deps.states.is_usable(state, &component);
        if !turn.state().as_ref().is_none_or(is_usable) {
            // A component that folds in another way must fold all events, so they must be on disk.
            self.reach_disk(turn, &job.command.stream).await?;
            *turn.state() = None;
        }
        let (ground, state, command) = (turn.ground(), turn.state(), &job.command);
        let decided = match (self.decide(&component, ground, state, command, job.attempts == 1).await, state)
        {
            (
                Err(error @ (CommandError::Rejected(_) | CommandError::VersionMismatch { .. })),
                Some(state),
            ) => self.without_append(command, ground, state, Err(error)),
            (decided, _) => decided?,
        };
        if decided.1.is_some() {
            turn.begin();
        }
        Ok(decided)
    }

    /// Waits until all pending appends of the turn's aggregate are on disk.
    async fn reach_disk(&self, turn: &mut Turn<'_>, stream: &StreamId) -> Result<(), AppendError> {
        let ground = turn.ground();
        if let Some(state) = turn.state()
            && !ground.is_on_disk
        {
            let nothing = Append::nothing(stream.clone(), state.version);
            self.deps.log.append_in(ground.chain, vec![nothing]).await?;
        }
        Ok(())
    }

    /// Decides a command on the state ahead of the disk, which it loads if necessary and advances. `first`:
    /// it has not been decided before by this job. Rare calls are in boxes, so that the future is small: each
    /// command moves it several times.
    async fn decide(
        &self,
        component: &Component,
        ground: Ground,
        ahead: &mut Option<AggregateState>,
        command: &Command,
        first: bool,
    ) -> Result<Decided, CommandError> {
        let known =
            component.manifest().command(command.stream.aggregate(), command.name.as_str()).ok_or_else(
                || CommandError::Unknown(format!("command {}.{}", command.stream.aggregate(), command.name)),
            )?;
        if first
            && self.seems_new(component, command)
            && let Some(decided) = self.decide_new(component, ground, ahead, command).boxed().await?
        {
            return Ok(decided);
        }
        let state = match ahead.take() {
            Some(state) if state.digest == component.digest() => ahead.insert(state),
            // Appends of another component may be pending, so its state is the newest.
            Some(state) => ahead.insert(state.with_view_of(component, &command.stream).boxed().await?),
            None if !command.repeatable && is_created(command) => ahead.insert(empty(component)),
            None => ahead.insert(self.deps.states.load(&command.stream, component).await?),
        };
        if command.repeatable
            && let Some(answer) = self.recorded(command, component, state).boxed().await?
        {
            return Ok((Effect::WithoutAppend(answer), None));
        }
        if !command.precondition.holds(state.version) {
            let (stream, actual) = (command.stream.clone(), state.version);
            let expected = command.precondition.expected();
            return Err(CommandError::VersionMismatch { stream, expected, actual });
        }
        let context = self.context(command);
        let target = state.target(&command.stream);
        let decision = match &command.intent {
            Intent::Decide => component.decide(target, &command.name, &command.payload, &context).await??,
            Intent::Compensate { undone, reason } => {
                if !known.compensable {
                    return Ok(self.unchanged(command, ground, state));
                }
                let events = self.deps.log.find(&command.stream, undone).await?;
                component.compensate(target, &command.name, &events, reason, &context).boxed().await??
            }
        };
        if decision.events.is_empty() {
            return Ok(self.unchanged(command, ground, state));
        }
        Ok(self.append(command, component, ground.chain, state, decision, context.time_ms))
    }

    /// Returns whether a command may be decided before the log is searched for it: it has a key that has not
    /// been used lately, no other host writes to the log, and the decision has no effects outside.
    fn seems_new(&self, component: &Component, command: &Command) -> bool {
        command.keyed
            && !self.deps.log.is_shared()
            && component.manifest().permissions.http.is_empty()
            && self.keys.add((&command.id, &command.stream))
    }

    /// Decides a command with a key that seems to be new. If it is not, the log refuses its events, and the
    /// job begins again. Returns `None`, and leaves the state as it is, if nothing is appended: such an
    /// answer is decided again, after a search.
    async fn decide_new(
        &self,
        component: &Component,
        ground: Ground,
        ahead: &mut Option<AggregateState>,
        command: &Command,
    ) -> Result<Option<Decided>, CommandError> {
        let mut state = match &*ahead {
            Some(state) if state.digest == component.digest() => state.clone(),
            Some(_) => return Ok(None),
            None if is_created(command) => empty(component),
            None => self.deps.states.load(&command.stream, component).await?,
        };
        let answered = self.deps.log.answer(&command.stream, &command.id).await?.is_some();
        if answered || !command.precondition.holds(state.version) {
            return Ok(None);
        }
        let (target, context) = (state.target(&command.stream), self.context(command));
        let decision = match component.decide(target, &command.name, &command.payload, &context).await {
            Ok(Ok(decision)) if !decision.events.is_empty() => decision,
            Ok(_) => return Ok(None),
            // The call may have taken all its time, so it is not made again.
            Err(fault) => {
                let answer = self.recorded_events(command, component, &state).await?;
                let answer = answer.ok_or(fault)?;
                return Ok(Some((Effect::WithoutAppend(Ok(answer)), None)));
            }
        };
        let decided = self.append(command, component, ground.chain, &mut state, decision, context.time_ms);
        *ahead = Some(state);
        Ok(Some(decided))
    }

    fn context(&self, command: &Command) -> Context {
        Context {
            command_id: command.id.shared(),
            correlation_id: command.origin.correlation_id.clone(),
            time_ms: self.deps.clock.now_ms(),
            caller: command.origin.caller.clone(),
            ask: self.deps.ask.clone(),
            http: self.deps.http.clone(),
        }
    }

    /// Starts the append of a decision and advances the state.
    fn append(
        &self,
        command: &Command,
        component: &Component,
        chain: AppendChain,
        state: &mut AggregateState,
        Decision { events, after }: Decision,
        time_ms: u64,
    ) -> Decided {
        let meta = Arc::new(Meta { digest: Some(component.digest()), ..self.meta(command, time_ms) });
        let stream = command.stream.clone();
        let append = Append {
            events: events.clone(),
            meta: meta.clone(),
            ..Append::nothing(stream.clone(), state.version)
        };
        let footing = Footing { chain, stands_on: command.journal };
        state.version = state.version.after(events.len());
        state.folded = after;
        let committed = {
            let (states, stream) = (self.deps.states.kept(), stream.clone());
            let (due, state) = (state.take_due(), state.clone());
            Box::new(move || states.committed(&stream, state, due))
        };
        let appending = self.deps.log.append_then(footing, vec![append], Some(committed));
        let answer = Accepted {
            saga: None,
            stream,
            version: state.version,
            position: Position::START,
            events,
            view: state.view().cloned(),
        };
        (Effect::Append { answer, meta }, Some(appending))
    }

    /// Returns the answer of an effect that is on disk. `position`: that of its last event.
    fn answer(&self, effect: Effect, position: Position) -> Answer {
        match effect {
            Effect::Append { answer, meta } => {
                let saga = self.saga_started((&answer.stream, position), &answer.events, &meta);
                Ok(Accepted { position, saga, ..answer })
            }
            Effect::WithoutAppend(answer) => answer.map(|answer| self.with_position(answer)),
        }
    }
}

/// Returns whether the aggregate's id was made for this command, so that the aggregate can exist only if the
/// command was executed before.
fn is_created(command: &Command) -> bool {
    command.stream.id() == command.id.as_str()
}
