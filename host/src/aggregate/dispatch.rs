//! The only writer of domain events. The whole story of a command is in this file: it waits for its aggregate's turn, a
//! repeated one is answered from the record, the component decides, the events are appended with the version they were
//! decided on, and the reply goes out when they are on disk.
//!
//! Commands on one aggregate are decided one after another by a worker that lives as long as there are any. It decides on
//! the state that the appends under way will leave (it runs ahead of the disk), so a hot aggregate is not bound to one
//! disk write a command. *Invariant:* no reply, not even a rejection, goes out before everything it was decided on is on
//! disk, nor, if other hosts write to the log too, before the log has confirmed that it was decided on the newest state.
//! *Invariant:* only the worker of a stream appends to it in this process.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::error::CallError;
use super::states::{Live, States, Viewed, empty};
use crate::clock::SharedClock;
use crate::deployed::Registry;
use crate::log::{Append, AppendChain, AppendError, Appended, Appending, EventLog};
use crate::model::{Command, Intent, Json, Meta, NewEvent, Position, SagaId, StreamId, Version};
use crate::runtime::{Ask, Component, Context, Decision, Outgoing};
use crate::telemetry;

/// Appends of one aggregate under way at once. One group commit of the log takes as many and more.
const MAX_AHEAD: usize = 256;
/// How often a command is decided again because another writer came first.
const MAX_ATTEMPTS: u32 = 8;

/// How many commands may wait.
#[derive(Clone, Debug)]
pub struct DispatchLimits {
    /// In the whole host, those being carried out included.
    pub commands: usize,
    /// For one aggregate.
    pub aggregate: usize,
}

impl Default for DispatchLimits {
    fn default() -> Self {
        Self { commands: 4_096, aggregate: 1_024 }
    }
}

/// The answer to a command that took effect, now or when it was sent first.
#[derive(Clone, Debug)]
pub struct Accepted {
    pub stream: StreamId,
    /// The stream's version after the command.
    pub version: Version,
    /// The position of the command's last event; of the log's head if it caused none.
    pub position: Position,
    pub events: Vec<NewEvent>,
    /// The view of the aggregate after it.
    pub view: Option<Json>,
    /// The saga that its events started, if any.
    pub saga: Option<SagaId>,
}

type Answer = Result<Accepted, CallError>;

/// Carries out commands: dispatch, or a test that has something go wrong on the way to it.
#[async_trait]
pub trait Submit: Send + Sync {
    /// See [`Dispatch::submit`].
    async fn submit(&self, command: Command) -> Result<Accepted, CallError>;
}

#[async_trait]
impl Submit for Dispatch {
    async fn submit(&self, command: Command) -> Answer {
        Dispatch::submit(self, command).await
    }
}

/// A command on its way, with the place it takes in the host.
struct Job {
    command: Command,
    reply: oneshot::Sender<Answer>,
    attempts: u32,
    _place: OwnedSemaphorePermit,
}

/// A job whose answer waits for the disk.
struct Pending {
    job: Job,
    effect: Effect,
    /// What the log has to say to it. None: nothing is appended, but what it was decided on may still be under way.
    appending: Option<Appending>,
    /// The worker's chain when it was decided.
    chain: AppendChain,
}

enum Effect {
    /// The answer once the append is on disk, and the state then.
    Append { answer: Accepted, live: Live },
    /// Nothing is appended.
    Settled(Answer),
}

/// What was decided, and what the log has to say to it.
type Decided = (Effect, Option<Appending>);

/// What a worker keeps from job to job.
#[derive(Default)]
struct Work {
    /// The state that the appends under way will leave; none when it must be loaded.
    ahead: Option<Live>,
    pending: VecDeque<Pending>,
    /// Jobs to be decided again, before those that wait.
    again: VecDeque<Job>,
    /// Another one when an append has failed: what was decided before stands on what will never be.
    chain: AppendChain,
}

#[derive(Clone)]
pub struct Dispatch {
    shared: Arc<Shared>,
}

struct Shared {
    log: Arc<dyn EventLog>,
    states: Arc<States>,
    registry: Arc<Registry>,
    ask: Arc<dyn Ask>,
    http: Arc<dyn Outgoing>,
    clock: SharedClock,
    limits: DispatchLimits,
    /// One permit a command in the host. Closed at shutdown.
    places: Arc<Semaphore>,
    /// The queue of each aggregate that has a worker.
    queues: Mutex<HashMap<StreamId, mpsc::Sender<Job>>>,
}

impl Dispatch {
    pub fn new(
        log: Arc<dyn EventLog>,
        states: Arc<States>,
        registry: Arc<Registry>,
        ask: Arc<dyn Ask>,
        http: Arc<dyn Outgoing>,
        clock: SharedClock,
        limits: DispatchLimits,
    ) -> Self {
        let places = Arc::new(Semaphore::new(limits.commands));
        let queues = Mutex::default();
        Self { shared: Arc::new(Shared { log, states, registry, ask, http, clock, limits, places, queues }) }
    }

    /// Carries out a command; returns when its events are on disk. A caller who stops waiting stops nothing. While the log is
    /// away, nothing new is begun: what is under way would be waited for, and what became of it not be known.
    pub async fn submit(&self, command: Command) -> Answer {
        if !self.shared.log.state().takes_appends {
            metrics::counter!(telemetry::REFUSED_BY_LOG).increment(1);
            return Err(AppendError::Unavailable.into());
        }
        let place = self.shared.places.clone().try_acquire_owned().map_err(|error| match error {
            tokio::sync::TryAcquireError::NoPermits => {
                CallError::Busy { queue: "the host's queue of commands" }
            }
            tokio::sync::TryAcquireError::Closed => CallError::ShuttingDown,
        })?;
        let (reply, answer) = oneshot::channel();
        self.enqueue(Job { command, reply, attempts: 0, _place: place })?;
        answer.await.unwrap_or(Err(CallError::ShuttingDown))
    }

    /// The view of an aggregate now, or at a version of the past; none if it does not exist (then).
    pub async fn view(&self, stream: &StreamId, at: Option<Version>) -> Result<Option<Viewed>, CallError> {
        self.shared.states.view(stream, at).await
    }

    /// Takes no more commands, and returns when those it has taken are answered.
    pub async fn close(&self) {
        let all = u32::try_from(self.shared.limits.commands).unwrap_or(u32::MAX);
        // Err: somebody else has closed it, after the same wait.
        let _ = self.shared.places.acquire_many(all).await;
        self.shared.places.close();
    }

    fn enqueue(&self, job: Job) -> Result<(), CallError> {
        let stream = job.command.stream.clone();
        let mut queues = self.shared.queues();
        if queues.get(&stream).is_some_and(mpsc::Sender::is_closed) {
            // Its worker has panicked, which is a defect, but not one that may close the aggregate for ever.
            queues.remove(&stream);
        }
        let queue = queues.entry(stream.clone()).or_insert_with(|| {
            let (queue, jobs) = mpsc::channel(self.shared.limits.aggregate);
            tokio::spawn(self.shared.clone().serve(stream, jobs));
            queue
        });
        queue.try_send(job).map_err(|_| CallError::Busy { queue: "the aggregate's queue of commands" })
    }
}

impl Shared {
    fn queues(&self) -> std::sync::MutexGuard<'_, HashMap<StreamId, mpsc::Sender<Job>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker of one aggregate.
    async fn serve(self: Arc<Self>, stream: StreamId, mut jobs: mpsc::Receiver<Job>) {
        let mut work = Work::default();
        while let Some(job) = self.next_job(&stream, &mut work, &mut jobs).await {
            self.carry_out(&mut work, job).await;
        }
    }

    /// The next job; settles what comes back from the disk while there is none. None when there is nothing left to do, and
    /// then the worker is no longer known.
    async fn next_job(
        &self,
        stream: &StreamId,
        work: &mut Work,
        jobs: &mut mpsc::Receiver<Job>,
    ) -> Option<Job> {
        loop {
            if work.pending.is_empty() {
                if let Some(job) = work.again.pop_front() {
                    return Some(job);
                }
                let mut queues = self.queues();
                // Under the lock nobody can add a job, so an empty queue stays empty until it is removed.
                let job = jobs.try_recv().ok();
                if job.is_none() {
                    queues.remove(stream);
                }
                return job;
            }
            let may_run_ahead = work.again.is_empty() && work.pending.len() < MAX_AHEAD;
            tokio::select! {
                biased;
                result = front(&mut work.pending) => self.settle(stream, work, result),
                Some(job) = jobs.recv(), if may_run_ahead => return Some(job),
            }
        }
    }

    /// Decides a job; its answer waits behind those of the jobs before it.
    async fn carry_out(&self, work: &mut Work, mut job: Job) {
        job.attempts += 1;
        let stream = job.command.stream.clone();
        let repeated = |pending: &Pending| pending.job.command.id == job.command.id;
        while work.pending.iter().any(repeated) {
            let result = front(&mut work.pending).await;
            self.settle(&stream, work, result);
        }
        let component = match self.states.owner(&stream) {
            Ok(component) => component,
            Err(error) => return job.answer(Err(error)),
        };
        let state_version = empty(&component, &stream).state_version;
        if work.ahead.as_ref().is_some_and(|live| live.state_version != state_version) {
            // A component whose states have another shape folds the events, and those are to be on disk.
            while !work.pending.is_empty() {
                let result = front(&mut work.pending).await;
                self.settle(&stream, work, result);
            }
            work.ahead = None;
        }
        let chain = work.chain;
        let mut ahead = work.ahead.take();
        let decided = {
            let mut deciding = pin!(self.decide(&component, chain, &mut ahead, &job.command));
            loop {
                tokio::select! {
                    biased;
                    result = front(&mut work.pending), if !work.pending.is_empty() => {
                        self.settle(&stream, work, result);
                    }
                    decided = &mut deciding => break decided,
                }
            }
        };
        if work.chain != chain {
            return work.again.push_back(job);
        }
        work.ahead = ahead;
        let (effect, appending) = match (decided, &work.ahead) {
            (Ok(decided), _) => decided,
            (Err(error @ (CallError::Rejected(_) | CallError::VersionMismatch { .. })), Some(live)) => {
                self.settled(&stream, chain, live, Err(error))
            }
            // Nothing was decided, so the answer depends on nothing that is under way.
            (Err(error), _) => return job.answer(Err(error)),
        };
        work.pending.push_back(Pending { job, effect, appending, chain });
    }

    /// Decides a command on the state ahead of the disk, which it loads if need be and moves on.
    async fn decide(
        &self,
        component: &Component,
        chain: AppendChain,
        ahead: &mut Option<Live>,
        command: &Command,
    ) -> Result<Decided, CallError> {
        let known =
            component.manifest().command(command.stream.aggregate(), command.name.as_str()).ok_or_else(
                || CallError::Unknown(format!("command {}.{}", command.stream.aggregate(), command.name)),
            )?;
        let live = match ahead.take() {
            Some(live) if live.digest == component.digest() => ahead.insert(live),
            // Appends of another component may be under way, so its state is the newest there is.
            Some(live) => ahead.insert(live.seen_by(component, &command.stream).await?),
            // The id was made for this command, so the stream cannot exist.
            None if !command.repeatable && command.stream.id() == command.id.as_str() => {
                ahead.insert(empty(component, &command.stream))
            }
            None => ahead.insert(self.states.load(&command.stream, component).await?),
        };
        if command.repeatable
            && live.version > Version::START
            && let Some(answer) = self.recorded(command, component, live).await?
        {
            return Ok((Effect::Settled(Ok(answer)), None));
        }
        if let Some(expected) = command.expected_version.filter(|expected| *expected != live.version) {
            let (stream, actual) = (command.stream.clone(), live.version);
            return Err(CallError::VersionMismatch { stream, expected, actual });
        }
        let context = Context {
            command_id: command.id.shared(),
            correlation_id: command.origin.correlation_id.clone(),
            time_ms: self.clock.now_ms(),
            actor: command.origin.actor.clone(),
            ask: self.ask.clone(),
            http: self.http.clone(),
        };
        let target = live.target(&command.stream);
        let decision = match &command.intent {
            Intent::Decide => component.decide(target, &command.name, &command.payload, &context).await??,
            Intent::Compensate { undone, reason } => {
                if !known.compensable {
                    return Ok(self.unchanged(command, chain, live));
                }
                let events = self.log.find(&command.stream, undone).await?;
                component.compensate(target, &command.name, &events, reason, &context).await??
            }
        };
        if decision.events.is_empty() {
            return Ok(self.unchanged(command, chain, live));
        }
        Ok(self.append(command, component, chain, live, decision, context.time_ms))
    }

    /// Starts the append of a decision and moves the state ahead.
    fn append(
        &self,
        command: &Command,
        component: &Component,
        chain: AppendChain,
        live: &mut Live,
        Decision { events, after }: Decision,
        time_ms: u64,
    ) -> Decided {
        let meta = Arc::new(Meta {
            command_id: command.id.clone(),
            command: match command.intent {
                Intent::Decide => command.name.clone(),
                Intent::Compensate { .. } => format!("{}/undo", command.name).into(),
            },
            fingerprint: command.fingerprint(),
            correlation_id: command.origin.correlation_id.clone(),
            causation_id: command.origin.causation_id.clone(),
            digest: Some(component.digest()),
            time_ms,
            actor: command.origin.actor.clone(),
        });
        let stream = command.stream.clone();
        let expected = live.version;
        let append = Append { stream: stream.clone(), expected, events: events.clone(), meta: meta.clone() };
        let appending = self.log.append_in(chain, vec![append]);
        live.version = live.version.after(events.len());
        live.folded = after;
        let answer = Accepted {
            saga: self.saga_started(&stream, &events, &meta),
            stream,
            version: live.version,
            position: Position::START,
            events,
            view: live.view().cloned(),
        };
        (Effect::Append { answer, live: live.clone() }, Some(appending))
    }

    /// Nothing is appended. Where others append too, the log is asked whether that was decided on the newest state.
    fn settled(&self, stream: &StreamId, chain: AppendChain, live: &Live, answer: Answer) -> Decided {
        let question = || self.log.append_in(chain, vec![Append::nothing(stream.clone(), live.version)]);
        (Effect::Settled(answer), self.log.is_shared().then(question))
    }

    /// The id of the saga that a command's events start.
    fn saga_started(&self, stream: &StreamId, events: &[NewEvent], meta: &Meta) -> Option<SagaId> {
        let deployed = self.registry.current();
        events.iter().zip(0..).find_map(|(event, index)| {
            deployed.started_by(stream, event.name.as_str(), index, meta).map(|(id, _)| id).next()
        })
    }

    /// The answer to a command that changes nothing.
    fn unchanged(&self, command: &Command, chain: AppendChain, live: &Live) -> Decided {
        let answer = Accepted {
            stream: command.stream.clone(),
            version: live.version,
            position: *self.log.head().borrow(),
            events: Vec::new(),
            view: live.view().cloned(),
            saga: None,
        };
        self.settled(&command.stream, chain, live, Ok(answer))
    }

    /// The answer to a command that has been recorded before: the same as then.
    async fn recorded(
        &self,
        command: &Command,
        component: &Component,
        live: &Live,
    ) -> Result<Option<Accepted>, CallError> {
        let events = self.log.find(&command.stream, &command.id).await?;
        let Some(last) = events.last() else {
            return Ok(None);
        };
        if last.meta.fingerprint != command.fingerprint() {
            return Err(CallError::KeyReused { stream: command.stream.clone() });
        }
        let view = match last.version == live.version {
            true => live.view().cloned(),
            false => self.states.at(&command.stream, component, last.version).await?.view().cloned(),
        };
        let (version, position, meta) = (last.version, last.position, last.meta.clone());
        let events = events.into_iter().map(|event| NewEvent { name: event.name, payload: event.payload });
        let events = events.collect::<Vec<_>>();
        let saga = self.saga_started(&command.stream, &events, &meta);
        Ok(Some(Accepted { stream: command.stream.clone(), version, position, events, view, saga }))
    }

    /// Answers the job at the front, or keeps it to be decided again.
    fn settle(&self, stream: &StreamId, work: &mut Work, result: Option<Result<Appended, AppendError>>) {
        let Some(Pending { mut job, effect, chain, .. }) = work.pending.pop_front() else {
            return;
        };
        match (effect, result) {
            (Effect::Append { answer, live }, Some(Ok(appended))) => {
                self.states.keep(stream, live);
                job.answer(Ok(Accepted { position: appended.position, ..answer }));
            }
            (Effect::Append { .. }, None) => job.answer(Err(CallError::ShuttingDown)),
            (Effect::Settled(_), _) if chain != work.chain => work.again.push_back(job),
            (Effect::Settled(answer), None | Some(Ok(_))) => job.answer(answer),
            (_, Some(Err(error))) => {
                work.ahead = None;
                work.chain = AppendChain::new();
                self.states.forget(stream);
                let overtaken = matches!(error, AppendError::Conflict { .. } | AppendError::Duplicate { .. });
                if overtaken && job.attempts < MAX_ATTEMPTS {
                    job.command.repeatable = true;
                    work.again.push_back(job);
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

/// Waits for the job at the front. Cancel-safe: the job stays there.
async fn front(pending: &mut VecDeque<Pending>) -> Option<Result<Appended, AppendError>> {
    match &mut pending.front_mut()?.appending {
        Some(appending) => Some(appending.await),
        None => None,
    }
}
