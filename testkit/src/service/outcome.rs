use kontor::error::Fault;
use kontor::runtime::Decision;
use serde_json::{Value, json};

use super::difference::difference;
use super::trial::{Answer, Tried};
use super::{Event, Sent, passed};

/// What a command led to.
pub struct Outcome {
    /// What was done, for the message of a failure.
    action: String,
    answer: Answer,
    sent: Vec<Sent>,
}

impl Outcome {
    pub(super) fn new(action: String, Tried { answer, sent }: Tried) -> Self {
        Self { action, answer, sent }
    }

    /// What the command sent over HTTP, in its order.
    pub fn sent(&self) -> &[Sent] {
        &self.sent
    }

    /// That the command was accepted with these events, in their order.
    #[track_caller]
    pub fn then_events(&self, expected: impl IntoIterator<Item = Event>) -> &Self {
        let expected = expected.into_iter().map(|Event { name, payload }| json!({ name: payload })).collect();
        passed(self.decision().and_then(|decision| {
            let got =
                decision.events.iter().map(|event| json!({ event.name.as_str(): event.payload })).collect();
            self.equal("the events are", &expected, &got)
        }));
        self
    }

    /// That the command was accepted and nothing was to be done.
    #[track_caller]
    pub fn then_nothing(&self) -> &Self {
        self.then_events([])
    }

    /// What clients see of the aggregate after the command.
    #[track_caller]
    pub fn then_view(&self, expected: Value) -> &Self {
        passed(self.decision().and_then(|decision| {
            let got = decision.after.as_ref().map_or(Value::Null, |after| json!(after.view));
            self.equal("the view is", &expected, &got)
        }));
        self
    }

    /// That the command was refused, and with which code.
    #[track_caller]
    pub fn then_rejected(&self, code: &str) -> &Self {
        match &self.answer {
            Ok(Err(rejection)) if rejection.code == code => self,
            _ => panic!("{}: expected the rejection {code}, got {}", self.action, self.told()),
        }
    }

    /// The details of the rejection.
    #[track_caller]
    pub fn with_details(&self, expected: Value) -> &Self {
        let Ok(Err(rejection)) = &self.answer else {
            panic!("{}: expected a rejection, got {}", self.action, self.told());
        };
        passed(self.equal("the rejection's details are", &expected, &json!(rejection.details)));
        self
    }

    /// That the component failed: it trapped, broke a limit or the contract.
    #[track_caller]
    pub fn then_fault(&self) -> &Fault {
        match &self.answer {
            Err(fault) => fault,
            Ok(_) => panic!("{}: expected a fault, got {}", self.action, self.told()),
        }
    }

    fn decision(&self) -> Result<&Decision, String> {
        match &self.answer {
            Ok(Ok(decision)) => Ok(decision),
            _ => Err(format!("{}: expected that it is accepted, got {}", self.action, self.told())),
        }
    }

    fn equal(&self, what: &str, expected: &Value, got: &Value) -> Result<(), String> {
        match difference(expected, got).as_slice() {
            [] => Ok(()),
            lines => Err(format!(
                "{}: {what} not as expected\n  {}\nexpected {expected:#}\ngot {got:#}",
                self.action,
                lines.join("\n  ")
            )),
        }
    }

    /// The answer in a few words.
    fn told(&self) -> String {
        match &self.answer {
            Ok(Ok(decision)) if decision.events.is_empty() => "no events".to_owned(),
            Ok(Ok(decision)) => {
                let events: Vec<_> = decision
                    .events
                    .iter()
                    .map(|event| format!("{} {:?}", event.name, event.payload))
                    .collect();
                format!("the events {}", events.join(", "))
            }
            Ok(Err(rejection)) => match &rejection.details {
                Some(details) => format!("the rejection {rejection} {details:?}"),
                None => format!("the rejection {rejection}"),
            },
            Err(fault) => format!("a fault: {fault}\n{}", fault.detail),
        }
    }
}
