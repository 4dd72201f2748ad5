//! One call of a component: its kind, the imports that its kind may use, and the view that imports get of it.

use std::sync::Arc;

use wasmtime::component::HasData;

use super::bindings::NotJson;
use super::host::{Ask, HttpCall, ReadSession, STEP_ZERO, Steps};
use super::instance_data::{Identity, InstanceData};
use super::step_watch::StepWatch;
use crate::contract::Grant;
use crate::model::{Caller, InvalidId, ServiceName};

/// The kind of a call, with the imports that only some kinds may use. `logging` is open to all of them,
/// `config` to all but `describe`.
#[derive(Default)]
pub(crate) enum Call {
    #[default]
    Describe,
    Decide {
        ask: Arc<dyn Ask>,
        http: HttpCall,
    },
    Compensate {
        ask: Arc<dyn Ask>,
        http: HttpCall,
    },
    Evolve,
    Answer {
        ask: Arc<dyn Ask>,
        /// None: the query does not read the service's read model.
        read_model: Option<ReadSession>,
    },
    Project {
        read_model: ReadSession,
    },
    Saga {
        steps: Box<dyn Steps>,
    },
}

impl Call {
    /// Returns the name of the export that is called.
    pub(crate) fn operation(&self) -> &'static str {
        match self {
            Self::Describe => "describe",
            Self::Decide { .. } => "decide",
            Self::Compensate { .. } => "compensate",
            Self::Evolve => "evolve",
            Self::Answer { .. } => "answer",
            Self::Project { .. } => "project",
            Self::Saga { .. } => "run",
        }
    }

    /// Returns the answerer of queries to other services.
    pub(super) fn ask(&self) -> Result<&Arc<dyn Ask>, Denied> {
        match self {
            Self::Decide { ask, .. } | Self::Compensate { ask, .. } | Self::Answer { ask, .. } => Ok(ask),
            Self::Describe | Self::Evolve | Self::Project { .. } | Self::Saga { .. } => {
                Err(self.denied("services.query"))
            }
        }
    }

    /// Returns the sender of HTTP requests, or `None` if the call may not use HTTP.
    pub(super) fn http(&self) -> Option<&HttpCall> {
        match self {
            Self::Decide { http, .. } | Self::Compensate { http, .. } => Some(http),
            Self::Describe
            | Self::Evolve
            | Self::Answer { .. }
            | Self::Project { .. }
            | Self::Saga { .. } => None,
        }
    }

    /// Fails if the call may not ask for its caller.
    pub(super) fn may_see_caller(&self) -> Result<(), Denied> {
        match self {
            Self::Answer { .. } => Ok(()),
            Self::Describe
            | Self::Decide { .. }
            | Self::Compensate { .. }
            | Self::Evolve
            | Self::Project { .. }
            | Self::Saga { .. } => Err(self.denied("callers.current")),
        }
    }

    /// Returns the read model of a call that may read it.
    pub(super) fn readable(&self) -> Result<&ReadSession, Denied> {
        match self {
            Self::Project { read_model } | Self::Answer { read_model: Some(read_model), .. } => {
                Ok(read_model)
            }
            Self::Describe
            | Self::Decide { .. }
            | Self::Compensate { .. }
            | Self::Evolve
            | Self::Answer { read_model: None, .. }
            | Self::Saga { .. } => Err(self.denied("read-model.query")),
        }
    }

    /// Returns the read model of a call that may change it.
    pub(super) fn writable(&self) -> Result<&ReadSession, Denied> {
        match self {
            Self::Project { read_model } => Ok(read_model),
            Self::Describe
            | Self::Decide { .. }
            | Self::Compensate { .. }
            | Self::Evolve
            | Self::Answer { .. }
            | Self::Saga { .. } => Err(self.denied("read-model.execute")),
        }
    }

    /// Returns the driver of a saga's steps.
    pub(super) fn steps(&mut self) -> Result<&mut dyn Steps, Denied> {
        match self {
            Self::Saga { steps } => Ok(&mut **steps),
            Self::Describe
            | Self::Decide { .. }
            | Self::Compensate { .. }
            | Self::Evolve
            | Self::Answer { .. }
            | Self::Project { .. } => Err(self.denied("steps")),
        }
    }

    /// Returns the read model that was lent to the call.
    pub(super) fn into_read_model(self) -> Option<ReadSession> {
        match self {
            Self::Project { read_model } => Some(read_model),
            Self::Answer { read_model, .. } => read_model,
            _ => None,
        }
    }

    pub(super) fn denied(&self, import: &'static str) -> Denied {
        Denied::Import { import, operation: self.operation() }
    }
}

/// The circumstances of one call. The default is a description: it stands in an instance between two calls
/// and while the instance is created.
#[derive(Default)]
pub(crate) struct Scope {
    pub(crate) call: Call,
    /// The command, query, saga or event that the call is about: `create`.
    pub(crate) subject: Arc<str>,
    /// Seeds the random generator, and identifies the call in the log.
    pub(crate) id: Arc<str>,
    /// The time that the clocks show.
    pub(crate) time_ms: u64,
    /// The sender of the command or the query.
    pub(crate) caller: Caller,
    /// The number of calls of other services that this one serves: 0 for a request from outside.
    pub(crate) depth: usize,
    /// True if the component asked the clocks or the random generator. Set when the call has ended.
    pub(crate) used_moment: bool,
    /// True if the component asked for the caller.
    pub(crate) used_caller: bool,
    /// The watch over a saga's run.
    pub(crate) watch: Arc<StepWatch>,
    /// True if another party has not answered: a service, or an HTTP server. For a server it is set when the
    /// call has failed.
    pub(crate) unanswered: bool,
}

/// The view that the contract's imports get of an instance: the calling component, and its call.
pub(crate) struct Guest<'a> {
    /// None before the manifest is known.
    pub(super) identity: Option<&'a Arc<Identity>>,
    pub(super) scope: &'a mut Scope,
}

/// Selects [`Guest`] as the data of the contract's imports.
pub(super) struct ContractImports;

impl HasData for ContractImports {
    type Data<'a> = Guest<'a>;
}

impl InstanceData {
    pub(super) fn caller(&mut self) -> Guest<'_> {
        Guest { identity: self.identity.as_ref(), scope: &mut self.scope }
    }
}

impl<'a> Guest<'a> {
    /// Returns the calling component. `import`: the function that it calls.
    pub(super) fn identity(&self, import: &'static str) -> Result<&'a Arc<Identity>, Denied> {
        self.identity.ok_or_else(|| self.scope.call.denied(import))
    }
}

/// The reason why the host ends a call of an import, and with it the call of the component: the component has
/// broken the contract. The text is for the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denied {
    #[error("{import} must not be called in {operation}")]
    Import { import: &'static str, operation: &'static str },
    #[error("config.get: the manifest has no setting {0:?}")]
    Key(String),
    #[error("the manifest does not ask for the permission {0}")]
    NotRequested(Grant),
    #[error(
        "the permission {grant} is not granted: add it to [grants.{service}] in kontor.toml, or deploy the \
         service with --grant {grant}"
    )]
    NotGranted { grant: Grant, service: ServiceName },
    #[error("{import}: {count} {items} at once, the limit is {limit}")]
    TooMany { import: &'static str, items: &'static str, count: usize, limit: usize },
    #[error(
        "{name:?} is no name for a step: 1 to {max_bytes} bytes without a slash or a control character, and \
         not {STEP_ZERO}"
    )]
    StepName { name: String, max_bytes: usize },
    #[error("{item}: {bytes} bytes, the limit is {limit}")]
    TooLarge { item: &'static str, bytes: usize, limit: usize },
    #[error(transparent)]
    NotJson(#[from] NotJson),
    #[error(transparent)]
    Id(#[from] InvalidId),
}

/// The error that ends a call at the component's own wish, with its sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failed(pub(crate) String);

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::model::{Json, Recorded, Rejection};
    use crate::runtime::HttpClient;
    use crate::runtime::host::{AskFailure, Awaited, Guarded, Halt, Outcome, Request, Step};

    struct Nobody;

    #[async_trait]
    impl Ask for Nobody {
        async fn ask(&self, _: &Caller, request: Request, _: usize) -> Result<Json, AskFailure> {
            Err(AskFailure::Unavailable(request.service))
        }
    }

    #[async_trait]
    impl Steps for Nobody {
        async fn steps(&mut self, _: Vec<Step>) -> Result<Vec<Result<Outcome, Rejection>>, Halt> {
            Err(Halt)
        }

        async fn pivot(&mut self, _: Step) -> Result<Result<Outcome, Rejection>, Halt> {
            Err(Halt)
        }

        async fn query(&mut self, _: String, _: Request) -> Result<Result<Json, Rejection>, Halt> {
            Err(Halt)
        }

        async fn sleep(&mut self, _: String, _: u64) -> Result<(), Halt> {
            Err(Halt)
        }

        async fn wait_for(&mut self, _: String, _: Awaited, _: u64) -> Result<Option<Recorded>, Halt> {
            Err(Halt)
        }

        async fn continue_as_new(&mut self, _: Json) -> Halt {
            Halt
        }

        fn progress(&self) -> Option<Json> {
            None
        }
    }

    fn ask() -> Arc<dyn Ask> {
        Arc::new(Nobody)
    }

    fn http() -> HttpCall {
        HttpCall { outgoing: Arc::new(HttpClient::default()), correlation_id: "r1".into() }
    }

    fn read_model() -> ReadSession {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        ReadSession { connection: Guarded::new(connection).unwrap() }
    }

    #[test]
    fn each_kind_of_call_may_use_its_imports_and_no_others() {
        let table: [(Call, &[&str]); 8] = [
            (Call::Describe, &[]),
            (Call::Decide { ask: ask(), http: http() }, &["services.query", "http"]),
            (Call::Compensate { ask: ask(), http: http() }, &["services.query", "http"]),
            (Call::Evolve, &[]),
            (Call::Answer { ask: ask(), read_model: None }, &["services.query", "callers.current"]),
            (
                Call::Answer { ask: ask(), read_model: Some(read_model()) },
                &["services.query", "callers.current", "read-model.query"],
            ),
            (Call::Project { read_model: read_model() }, &["read-model.query", "read-model.execute"]),
            (Call::Saga { steps: Box::new(Nobody) }, &["steps"]),
        ];
        for (mut call, allowed) in table {
            let operation = call.operation();
            let found = [
                ("services.query", call.ask().err()),
                ("callers.current", call.may_see_caller().err()),
                ("http", call.http().is_none().then(|| call.denied("http"))),
                ("read-model.query", call.readable().err()),
                ("read-model.execute", call.writable().err()),
                ("steps", call.steps().err()),
            ];
            for (import, denied) in found {
                let sentence = format!("{import} must not be called in {operation}");
                let expected = (!allowed.contains(&import)).then_some(sentence);
                assert_eq!(denied.map(|denied| denied.to_string()), expected, "{import} in {operation}");
            }
        }
    }
}
