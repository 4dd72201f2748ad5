use kontor::error::Fault;
use kontor::runtime::Decision;
use serde_json::{Value, json};

use super::difference::difference;
use super::trial::{Answer, Tried};
use super::{Event, Sent, passed};

/// The outcome of a command.
pub struct Outcome {
    /// A description of the action, for failure messages.
    action: String,
    answer: Answer,
    sent: Vec<Sent>,
}

impl Outcome {
    pub(super) fn new(action: String, Tried { answer, sent }: Tried) -> Self {
        Self { action, answer, sent }
    }

    /// Returns the command's HTTP requests, in order.
    pub fn sent(&self) -> &[Sent] {
        &self.sent
    }

    /// Checks that the command was accepted with these events, in this order.
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

    /// Checks that the command was accepted without events.
    #[track_caller]
    pub fn then_nothing(&self) -> &Self {
        self.then_events([])
    }

    /// Checks the view that clients get of the aggregate after the command.
    #[track_caller]
    pub fn then_view(&self, expected: Value) -> &Self {
        passed(self.decision().and_then(|decision| {
            let got = decision.after.as_ref().map_or(Value::Null, |after| json!(after.view));
            self.equal("the view is", &expected, &got)
        }));
        self
    }

    /// Checks that the command was rejected with this code.
    #[track_caller]
    pub fn then_rejected(&self, code: &str) -> &Self {
        match &self.answer {
            Ok(Err(rejection)) if rejection.code == code => self,
            _ => panic!("{}: expected the rejection {code}, got {}", self.action, self.summary()),
        }
    }

    /// Checks the details of the rejection.
    #[track_caller]
    pub fn with_details(&self, expected: Value) -> &Self {
        let Ok(Err(rejection)) = &self.answer else {
            panic!("{}: expected a rejection, got {}", self.action, self.summary());
        };
        passed(self.equal("the rejection's details are", &expected, &json!(rejection.details)));
        self
    }

    /// Checks that the component failed: it trapped, or broke a limit or the contract. Returns the fault.
    #[track_caller]
    pub fn then_fault(&self) -> &Fault {
        match &self.answer {
            Err(fault) => fault,
            Ok(_) => panic!("{}: expected a fault, got {}", self.action, self.summary()),
        }
    }

    fn decision(&self) -> Result<&Decision, String> {
        match &self.answer {
            Ok(Ok(decision)) => Ok(decision),
            _ => Err(format!("{}: expected that it is accepted, got {}", self.action, self.summary())),
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

    /// Returns a short description of the answer.
    fn summary(&self) -> String {
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
