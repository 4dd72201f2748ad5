//! Failures between a saga and the rest of the host.

use std::future::pending;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kontor::aggregate::{Accepted, CommandError, Submit};
use kontor::error::{Fault, FaultKind};
use kontor::log::AppendError;
use kontor::model::{Caller, Command, Json, Rejection};
use kontor::runtime::{Ask, AskFailure, Request};

use crate::host::Life;

/// The point of the command that starts the saga.
pub(super) const TRIGGER: &str = "trigger";

/// The code of the drill's rejections.
const REJECTED: &str = "rejected-by-the-drill";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mishap {
    Rejected,
    FailsOnce,
    FailsForGood,
    /// The command is executed, and its answer is lost.
    AnswerLost,
    SentTwice,
    KilledBefore,
    KilledAfter,
}

/// A layer between a saga and dispatch, and between it and the services it queries.
pub(super) struct Meddler {
    commands: Arc<dyn Submit>,
    ask: Arc<dyn Ask>,
    life: Arc<Life>,
    plan: Arc<Plan>,
}

/// The mishaps still to come.
#[derive(Default)]
pub(super) struct Plan {
    to_come: Mutex<Vec<(String, Mishap)>>,
    for_good: Mutex<Vec<String>>,
}

impl Plan {
    /// `mishaps`: each with its point, see [`point_of_command`] and [`point_of_query`].
    pub(super) fn new(mishaps: Vec<(String, Mishap)>) -> Arc<Self> {
        Arc::new(Self { to_come: Mutex::new(mishaps), for_good: Mutex::default() })
    }

    /// Returns the mishap of this call, if any.
    fn next(&self, point: &str) -> Option<Mishap> {
        let mut for_good = self.for_good.lock().unwrap();
        if for_good.iter().any(|failing| failing == point) {
            return Some(Mishap::FailsForGood);
        }
        let mut to_come = self.to_come.lock().unwrap();
        let index = to_come.iter().position(|(at, _)| at == point)?;
        let (at, mishap) = to_come.remove(index);
        if mishap == Mishap::FailsForGood {
            for_good.push(at);
        }
        Some(mishap)
    }

    /// Ends all lasting failures.
    pub(super) fn mend(&self) {
        self.for_good.lock().unwrap().clear();
    }

    /// Returns the mishaps that have not occurred.
    pub(super) fn left(&self) -> Vec<(String, Mishap)> {
        self.to_come.lock().unwrap().clone()
    }
}

impl Meddler {
    pub(super) fn new(
        (commands, ask): (Arc<dyn Submit>, Arc<dyn Ask>),
        life: Arc<Life>,
        plan: Arc<Plan>,
    ) -> Arc<Self> {
        Arc::new(Self { commands, ask, life, plan })
    }

    async fn die<T>(&self) -> T {
        self.life.end();
        pending().await
    }
}

/// Returns the point of a command: `<step>`, `<step>/undo`, or [`TRIGGER`].
fn point_of_command(command: &Command) -> &str {
    command.id.as_str().split_once('/').map_or(TRIGGER, |(_, step)| step)
}

/// Returns the point of a query, which does not carry its step's name.
pub(super) fn point_of_query(service: &str, query: &str) -> String {
    format!("{query} of {service}")
}

fn rejection() -> Rejection {
    Rejection { code: REJECTED.to_owned(), message: "The drill rejects it.".to_owned(), details: None }
}

#[async_trait]
impl Submit for Meddler {
    async fn submit(&self, command: Command) -> Result<Accepted, CommandError> {
        match self.plan.next(point_of_command(&command)) {
            None => self.commands.submit(command).await,
            Some(Mishap::Rejected) => Err(rejection().into()),
            Some(Mishap::FailsOnce | Mishap::FailsForGood) => Err(Fault {
                service: "drill".into(),
                call: command.name.to_string(),
                kind: FaultKind::Trap,
                detail: String::new(),
            }
            .into()),
            Some(Mishap::AnswerLost) => {
                self.commands.submit(command).await?;
                let error: Box<dyn std::error::Error + Send + Sync> = "the drill has lost the answer".into();
                Err(AppendError::Failed(error.into()).into())
            }
            Some(Mishap::SentTwice) => {
                self.commands.submit(command.clone()).await?;
                self.commands.submit(Command { repeatable: true, ..command }).await
            }
            Some(Mishap::KilledBefore) => self.die().await,
            Some(Mishap::KilledAfter) => {
                // Err: no answer reaches a host that is dead.
                let _ = self.commands.submit(command).await;
                self.die().await
            }
        }
    }
}

#[async_trait]
impl Ask for Meddler {
    async fn ask(&self, caller: &Caller, request: Request, depth: usize) -> Result<Json, AskFailure> {
        match self.plan.next(&point_of_query(&request.service, &request.query)) {
            None => self.ask.ask(caller, request, depth).await,
            Some(Mishap::Rejected) => Err(AskFailure::Rejected(rejection())),
            Some(Mishap::FailsOnce | Mishap::FailsForGood | Mishap::AnswerLost) => {
                Err(AskFailure::Unavailable("the drill lets no service answer".to_owned()))
            }
            Some(Mishap::SentTwice) => {
                self.ask.ask(caller, request.clone(), depth).await?;
                self.ask.ask(caller, request, depth).await
            }
            Some(Mishap::KilledBefore) => self.die().await,
            Some(Mishap::KilledAfter) => {
                let _ = self.ask.ask(caller, request, depth).await;
                self.die().await
            }
        }
    }
}
