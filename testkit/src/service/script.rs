//! Scripted answers of other services.

use std::collections::BTreeSet;
use std::sync::Mutex;

use async_trait::async_trait;
use kontor::model::{Caller, Json, Rejection};
use kontor::runtime::{Ask, AskFailure, Request};
use serde_json::Value;

#[derive(Clone, Default)]
pub(super) struct Script {
    answers: Vec<Scripted>,
    silent: BTreeSet<String>,
}

#[derive(Clone)]
struct Scripted {
    service: String,
    query: String,
    arguments: Value,
    answer: Result<Json, Rejection>,
}

impl Script {
    pub(super) fn add(
        &mut self,
        service: &str,
        query: &str,
        arguments: Value,
        answer: Result<Json, Rejection>,
    ) {
        let (service, query) = (service.to_owned(), query.to_owned());
        self.answers.push(Scripted { service, query, arguments, answer });
    }

    pub(super) fn silence(&mut self, service: &str) {
        self.silent.insert(service.to_owned());
    }

    fn answer(&self, request: &Request) -> Option<&Result<Json, Rejection>> {
        let arguments: Value = request.arguments.read().ok()?;
        let scripted = self.answers.iter().find(|scripted| {
            scripted.service == request.service
                && scripted.query == request.query
                && scripted.arguments == arguments
        });
        scripted.map(|scripted| &scripted.answer)
    }
}

/// The queries of one trial.
pub(super) struct Conversation {
    script: Script,
    /// The first query without a scripted answer.
    unanswered: Mutex<Option<Request>>,
}

impl Conversation {
    pub(super) fn new(script: &Script) -> Self {
        Self { script: script.clone(), unanswered: Mutex::new(None) }
    }

    /// Fails if a query had no scripted answer.
    pub(super) fn check(&self) -> Result<(), String> {
        match &*self.unanswered.lock().unwrap() {
            None => Ok(()),
            Some(Request { service, query, arguments, .. }) => Err(format!(
                "{service} was asked for {query} {arguments:?}, and the test has no answer to that:\n  \
                 add .answers({service:?}, {query:?}, json!({arguments:?}), json!(…))"
            )),
        }
    }
}

#[async_trait]
impl Ask for Conversation {
    async fn ask(&self, _: &Caller, request: Request, _depth: usize) -> Result<Json, AskFailure> {
        if self.script.silent.contains(&request.service) {
            return Err(AskFailure::Unavailable(format!("{} is silent in this test", request.service)));
        }
        match self.script.answer(&request) {
            Some(answer) => answer.clone().map_err(AskFailure::Rejected),
            None => {
                self.unanswered.lock().unwrap().get_or_insert(request);
                Err(AskFailure::Unavailable("the test has no answer".to_owned()))
            }
        }
    }
}
