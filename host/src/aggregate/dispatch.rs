//! The only writer of domain events. The whole story of a command is in this file: it waits for its
//! aggregate's turn, a repeated command is answered from the record, the component decides, the events are
//! appended with the version that they were decided on, and the reply goes out when they are on disk.
//!
//! Commands on one aggregate are decided one after another by a worker, which lives as long as there are
//! commands. It decides on the state that the pending appends will leave (it runs ahead of the disk), so a
//! hot aggregate is not bound to one disk write per command.
//!
//! *Invariant:* no reply, not even a rejection, goes out before everything it was decided on is on disk, nor,
//! if other hosts write to the log too, before the log has confirmed that it was decided on the newest state.
//!
//! *Invariant:* only the worker of a stream appends to it in this process.

mod answers;

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc, oneshot};
use tracing::{Instrument as _, Span};

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

/// Maximum number of pending appends of one aggregate. One group commit of the log takes as many and more.
const MAX_AHEAD: usize = 256;
/// Number of the last commands with keys that are remembered: the repetitions that clients send in a hurry.
const RECENT_KEYS: usize = 100_000;
/// Maximum number of times that a command is decided, if another writer keeps coming first.
const MAX_ATTEMPTS: u32 = 8;

type Answer = Result<Accepted, CommandError>;

/// A command in process, with its place in the host.
struct Job {
    command: Command,
    reply: oneshot::Sender<Answer>,
    attempts: u32,
    /// The component by whose schema the payload was checked.
    checked_by: Digest,
    /// The span of the command, below that of the request or of the saga's step that sent it.
    span: Span,
    _places: [OwnedSemaphorePermit; 2],
}

/// A decided job whose answer waits for the disk.
struct Pending {
    job: Job,
    effect: Effect,
    /// The log's answer to the append. None: nothing is appended, but the events it was decided on may still
    /// be pending.
    appending: Option<Appending>,
    /// The worker's chain when the job was decided.
    chain: AppendChain,
}

/// The effect of a decision.
enum Effect {
    /// Events are appended. The answer holds once they are on disk.
    Append { answer: Accepted, meta: Arc<Meta> },
    /// Nothing is appended.
    WithoutAppend(Answer),
}

/// A decision, and the log's answer to its append.
type Decided = (Effect, Option<Appending>);

/// The data that a worker keeps from job to job.
#[derive(Default)]
struct Work {
    /// The state that the pending appends will leave. None: it must be loaded.
    ahead: Option<AggregateState>,
    pending: VecDeque<Pending>,
    /// Jobs to be decided again, before those in the queue.
    retries: VecDeque<Job>,
    /// Changes when an append fails; decisions made under the old chain are discarded.
    chain: AppendChain,
}

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
    /// The queue of each aggregate that has a worker.
    queues: Mutex<HashMap<StreamId, mpsc::Sender<Job>>>,
    /// The last commands with keys.
    keys: Recent,
}

impl Dispatch {
    /// Creates a dispatcher without commands.
    pub fn new(deps: DispatchDeps, limits: DispatchLimits) -> Self {
        let places = Arc::new(Semaphore::new(limits.commands));
        let shares = Shares::of(limits.commands);
        let (queues, keys) = (Mutex::default(), Recent::new(RECENT_KEYS));
        Self { inner: Arc::new(Inner { deps, limits, places, shares, queues, keys }) }
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
        let (reply, answer) = oneshot::channel();
        let (id, stream, name) = (&command.id, &command.stream, &command.name);
        let span = tracing::info_span!("command", %id, %stream, %name);
        let checked_by = component.digest();
        self.enqueue(Job { command, reply, attempts: 0, checked_by, span, _places: places })?;
        answer.await.unwrap_or(Err(CommandError::ShuttingDown))
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

    fn enqueue(&self, job: Job) -> Result<(), CommandError> {
        let stream = job.command.stream.clone();
        let mut queues = self.inner.queues();
        if queues.get(&stream).is_some_and(mpsc::Sender::is_closed) {
            // Its worker has panicked. That is a defect, but it must not close the aggregate forever.
            queues.remove(&stream);
        }
        let queue = queues.entry(stream.clone()).or_insert_with(|| {
            let (queue, jobs) = mpsc::channel(self.inner.limits.aggregate);
            // In a box: tokio moves a future several times, from its start to its end.
            tokio::spawn(self.inner.clone().serve(stream, jobs).boxed());
            queue
        });
        queue.try_send(job).map_err(|_| CommandError::Busy { queue: "the aggregate's queue of commands" })
    }
}

impl Inner {
    fn queues(&self) -> std::sync::MutexGuard<'_, HashMap<StreamId, mpsc::Sender<Job>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Processes the jobs of one aggregate until there are none. This is the aggregate's worker.
    async fn serve(self: Arc<Self>, stream: StreamId, mut jobs: mpsc::Receiver<Job>) {
        let mut work = Work::default();
        while let Some(job) = self.next_job(&stream, &mut work, &mut jobs).await {
            let span = job.span.clone();
            self.process(&mut work, job).instrument(span).await;
        }
    }

    /// Returns the next job, and completes pending ones while it waits. Returns `None` when there is nothing
    /// left to do; the queue is gone then, and the worker must end.
    async fn next_job(
        &self,
        stream: &StreamId,
        work: &mut Work,
        jobs: &mut mpsc::Receiver<Job>,
    ) -> Option<Job> {
        loop {
            if work.pending.is_empty() {
                if let Some(job) = work.retries.pop_front() {
                    return Some(job);
                }
                let mut queues = self.queues();
                // No job can be added under the lock, so an empty queue stays empty until it is removed.
                let job = jobs.try_recv().ok();
                if job.is_none() {
                    queues.remove(stream);
                }
                return job;
            }
            let may_run_ahead = work.retries.is_empty() && work.pending.len() < MAX_AHEAD;
            tokio::select! {
                biased;
                result = wait_for_oldest(&mut work.pending) => self.complete_oldest(stream, work, result),
                Some(job) = jobs.recv(), if may_run_ahead => return Some(job),
            }
        }
    }

    /// Decides a job. Its answer waits behind those of the jobs before it.
    async fn process(&self, work: &mut Work, mut job: Job) {
        job.attempts += 1;
        let stream = job.command.stream.clone();
        let repeated = |pending: &Pending| pending.job.command.id == job.command.id;
        while work.pending.iter().any(repeated) {
            let result = wait_for_oldest(&mut work.pending).await;
            self.complete_oldest(&stream, work, result);
        }
        let component = match self.deps.states.owner(&stream) {
            Ok(component) => component,
            Err(error) => return job.answer(Err(error)),
        };
        if job.checked_by != component.digest() {
            // Another version has gone live since the command came in.
            if let Err(error) = check_payload(&component, &mut job.command) {
                return job.answer(Err(error));
            }
            job.checked_by = component.digest();
        }
        let states = &self.deps.states;
        if work.ahead.as_ref().is_some_and(|state| !states.is_usable(state, &component)) {
            // A component that folds in another way must fold all events, so they must be on disk.
            while !work.pending.is_empty() {
                let result = wait_for_oldest(&mut work.pending).await;
                self.complete_oldest(&stream, work, result);
            }
            work.ahead = None;
        }
        let chain = work.chain;
        let mut ahead = work.ahead.take();
        let decided = {
            let first = job.attempts == 1;
            let mut deciding = pin!(self.decide(&component, chain, &mut ahead, &job.command, first));
            loop {
                tokio::select! {
                    biased;
                    result = wait_for_oldest(&mut work.pending), if !work.pending.is_empty() => {
                        self.complete_oldest(&stream, work, result);
                    }
                    decided = &mut deciding => break decided,
                }
            }
        };
        if work.chain != chain {
            return work.retries.push_back(job);
        }
        work.ahead = ahead;
        let (effect, appending) = match (decided, &work.ahead) {
            (Ok(decided), _) => decided,
            (
                Err(error @ (CommandError::Rejected(_) | CommandError::VersionMismatch { .. })),
                Some(state),
            ) => self.without_append(&job.command, chain, state, Err(error)),
            // Nothing was decided, so the answer does not depend on pending appends.
            (Err(error), _) => return job.answer(Err(error)),
        };
        work.pending.push_back(Pending { job, effect, appending, chain });
    }

    /// Decides a command on the state ahead of the disk, which it loads if necessary and advances. `first`:
    /// it has not been decided before by this job. Rare calls are in boxes, so that the future is small: each
    /// command moves it several times.
    async fn decide(
        &self,
        component: &Component,
        chain: AppendChain,
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
            && let Some(decided) = self.decide_new(component, chain, ahead, command).boxed().await?
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
                    return Ok(self.unchanged(command, chain, state));
                }
                let events = self.deps.log.find(&command.stream, undone).await?;
                component.compensate(target, &command.name, &events, reason, &context).boxed().await??
            }
        };
        if decision.events.is_empty() {
            return Ok(self.unchanged(command, chain, state));
        }
        Ok(self.append(command, component, chain, state, decision, context.time_ms))
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
        chain: AppendChain,
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
        let decided = self.append(command, component, chain, &mut state, decision, context.time_ms);
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

    /// Answers the oldest pending job, or keeps it to be decided again.
    fn complete_oldest(
        &self,
        stream: &StreamId,
        work: &mut Work,
        result: Option<Result<Appended, AppendError>>,
    ) {
        let Some(Pending { mut job, effect, chain, .. }) = work.pending.pop_front() else {
            return;
        };
        match (effect, result) {
            (Effect::Append { answer, meta }, Some(Ok(Appended { position }))) => {
                let saga = self.saga_started((stream, position), &answer.events, &meta);
                job.answer(Ok(Accepted { position, saga, ..answer }));
            }
            (Effect::Append { .. }, None) => job.answer(Err(CommandError::ShuttingDown)),
            (Effect::WithoutAppend(_), _) if chain != work.chain => work.retries.push_back(job),
            (Effect::WithoutAppend(answer), None | Some(Ok(_))) => {
                job.answer(answer.map(|answer| self.with_position(answer)));
            }
            (_, Some(Err(error))) => {
                work.ahead = None;
                work.chain = AppendChain::new();
                self.deps.states.forget(stream);
                // A saga sends its step again, if it still runs here.
                let fenced_saga =
                    matches!(error, AppendError::Fenced { .. }) && job.command.journal.is_some();
                if error.is_overtaken() && !fenced_saga && job.attempts < MAX_ATTEMPTS {
                    job.command.repeatable = true;
                    work.retries.push_back(job);
                } else {
                    job.answer(Err(error.into()));
                }
            }
        }
    }
}

impl Job {
    fn answer(self, answer: Answer) {
        // Err: the caller has stopped waiting.
        let _ = self.reply.send(answer);
    }
}

/// Returns whether the aggregate's id was made for this command, so that the aggregate can exist only if the
/// command was executed before.
fn is_created(command: &Command) -> bool {
    command.stream.id() == command.id.as_str()
}

/// Waits for the append of the oldest pending job. Cancel-safe: the job stays in the queue.
async fn wait_for_oldest(pending: &mut VecDeque<Pending>) -> Option<Result<Appended, AppendError>> {
    match &mut pending.front_mut()?.appending {
        Some(appending) => Some(appending.await),
        None => None,
    }
}
