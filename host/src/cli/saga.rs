//! `kontor saga`: one saga of a running host, and the acts of an operator on it.

use std::io::Write;

use clap::Subcommand;
use kontor::api::{Page, ResolveRequest, RetryRequest, SkipRequest};
use kontor::clock::{Clock as _, SystemClock, Time};
use kontor::saga::{Overview, SagaState, SagaStatus};
use serde_json::{Value, json};

use super::client::{ActorArgument, Client, ClientError, HostArgument};
use super::exit::Unusable;
use super::output::{parse, print};
use super::sagas;
use super::style::Style;
use super::timeline;

/// The length of a whole id, a UUID.
const ID_LENGTH: usize = 36;

/// The wait for the outcome of an act, in seconds. A step that works again works at once; one that does not
/// is retried for longer than an operator watches.
const PREFER: (&str, &str) = ("prefer", "wait=5");

const EXAMPLES: &str = "\
Examples:
  kontor saga show 01997a2b-3c4d-7000-8000-00000000000a
  kontor saga show 01997a2b-3c4d
  kontor saga retry 01997a2b-3c4d
  kontor saga skip 01997a2b-3c4d --reason 'refunded by hand, ticket 4711'

An id may be shortened to a prefix that no other saga's id has.";

const SHOW_EXAMPLES: &str = "\
Examples:
  kontor saga show 01997a2b-3c4d
  kontor saga show 01997a2b-3c4d --json | jq '.steps[] | select(.outcome == \"failed\")'";

const RETRY_EXAMPLES: &str = "\
Examples:
  kontor saga retry 01997a2b-3c4d
  kontor saga retry 01997a2b-3c4d --actor ada --reason 'the carrier answers again'";

const SKIP_EXAMPLES: &str = "\
Examples:
  kontor saga skip 01997a2b-3c4d --reason 'refunded by hand, ticket 4711'
  kontor saga skip 01997a2b-3c4d --step pay --reason 'refunded by hand, ticket 4711'";

const RESOLVE_EXAMPLES: &str = "\
Examples:
  kontor saga resolve 01997a2b-3c4d --reason 'stock and payment set right by hand'";

/// Show one saga, or retry, skip or resolve a parked one
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Saga {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Show a saga's steps, their undos, and the commands for a parked one
    #[command(after_help = SHOW_EXAMPLES)]
    Show(One),
    /// Retry the failed steps or undos of a parked saga
    #[command(after_help = RETRY_EXAMPLES)]
    Retry {
        /// The reason. It stays in the saga's journal
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        operator: Operator,
    },
    /// Skip a failed step or undo of a parked saga, and continue
    #[command(after_help = SKIP_EXAMPLES)]
    Skip {
        /// The name of the step. Required if several failed
        #[arg(long, value_name = "NAME")]
        step: Option<String>,
        /// The reason. It stays in the saga's journal
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        operator: Operator,
    },
    /// End a parked saga that has been settled by hand
    #[command(after_help = RESOLVE_EXAMPLES)]
    Resolve {
        /// The reason. It stays in the saga's journal
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        operator: Operator,
    },
}

/// The saga, and its host.
#[derive(Debug, clap::Args)]
struct One {
    /// The saga's id, or a prefix that no other saga's id has
    #[arg(value_parser = id)]
    id: String,
    #[command(flatten)]
    host: HostArgument,
}

/// The saga, and the operator who acts on it.
#[derive(Debug, clap::Args)]
struct Operator {
    #[command(flatten)]
    saga: One,
    #[command(flatten)]
    actor: ActorArgument,
}

/// Parses an id or its beginning.
fn id(text: &str) -> Result<String, &'static str> {
    let text = text.to_ascii_lowercase();
    let is_id = (1..=ID_LENGTH).contains(&text.len())
        && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    if is_id { Ok(text) } else { Err("a saga's id has hexadecimal digits and dashes") }
}

impl Saga {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        match self.act {
            Act::Show(one) => one.show(json, out),
            Act::Retry { reason, operator } => {
                operator.act("retry", &json!(RetryRequest { reason }), json, out)
            }
            Act::Skip { step, reason, operator } => {
                operator.act("skip", &json!(SkipRequest { step, reason }), json, out)
            }
            Act::Resolve { reason, operator } => {
                operator.act("resolve", &json!(ResolveRequest { reason }), json, out)
            }
        }
    }
}

impl One {
    /// Prints the timeline.
    fn show(&self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let client = Client::new(&self.host)?;
        let body = client.get(&format!("/admin/sagas/{}", self.whole_id(&client)?), &[])?;
        print(&body, "timeline of a saga", json, out, |saga| {
            timeline::text(&saga, Time(SystemClock.now_ms()), Style::of_output(), &self.host.flag())
        })
    }

    /// Returns the only id that begins like the one given.
    fn whole_id(&self, client: &Client) -> anyhow::Result<String> {
        let start = &self.id;
        if start.len() == ID_LENGTH {
            return Ok(start.clone());
        }
        // The list is in descending order of ids, and `g` sorts behind every digit and dash.
        let parameters = [("after", format!("{start}g")), ("limit", "2".to_owned())];
        let page: Page<Overview, String> = parse(&client.get("/admin/sagas", &parameters)?, sagas::CONTENT)?;
        let mut ids =
            page.items.iter().map(|saga| saga.id.as_str()).filter(|id| id.starts_with(start.as_str()));
        match (ids.next(), ids.next()) {
            (Some(id), None) => Ok(id.to_owned()),
            (None, _) => {
                Err(ClientError::Missing(format!("there is no saga whose id begins with {start}")).into())
            }
            (Some(_), Some(_)) => {
                let message = format!("the ids of several sagas begin with {start}; give a longer prefix");
                Err(Unusable(message).into())
            }
        }
    }
}

impl Operator {
    /// Sends an act, and prints the state after it.
    fn act(&self, act: &str, body: &Value, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let client = Client::new(&self.saga.host)?;
        let id = self.saga.whole_id(&client)?;
        let headers = [self.actor.header(), PREFER];
        let answer = client.post(&format!("/admin/sagas/{id}/{act}"), &headers, body)?;
        print(&answer, "state of a saga", json, out, |SagaStatus { name, state, .. }| {
            let mut text = format!("{name} {id} is {}\n", Style::of_output().state(state));
            if !state.ended() {
                let content = if state == SagaState::Parked { "the reason" } else { "its progress" };
                text += &format!("See {content}: kontor saga show {id}{}\n", self.saga.host.flag());
            }
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripted_host::{Ran, accepts, kontor, ok};
    use super::*;

    const ID: &str = "01997a2b-0000-7000-8000-00000000000a";
    const OTHER: &str = "01997a2b-0000-7000-8000-000000000001";

    fn listed(ids: &[&str]) -> String {
        let item = |id: &&str| {
            json!({"id": id, "service": "order", "name": "place-order", "state": "parked",
                "stream": "order/1", "started": "2026-11-22T03:18:01.250Z"})
        };
        ok(&json!({"items": ids.iter().map(item).collect::<Vec<_>>(), "next": null}).to_string())
    }

    fn status(state: &str) -> String {
        let status =
            json!({"id": ID, "service": "order", "name": "place-order", "state": state, "reason": null});
        ok(&status.to_string())
    }

    #[test]
    fn an_act_prints_the_state_after_it() {
        for (arguments, state, request, expected) in [
            (
                &["retry", ID][..],
                "compensated",
                "retry HTTP/1.1 {}",
                format!("place-order {ID} is compensated\n"),
            ),
            (
                &["skip", ID, "--step", "pay", "--reason", "why"],
                "parked",
                r#"skip HTTP/1.1 {"reason":"why","step":"pay"}"#,
                format!("place-order {ID} is parked\nSee the reason: kontor saga show {ID} --host HOST\n"),
            ),
            (
                &["retry", ID],
                "waiting",
                "retry HTTP/1.1 {}",
                format!("place-order {ID} is waiting\nSee its progress: kontor saga show {ID} --host HOST\n"),
            ),
            (
                &["resolve", ID, "--reason", "why"],
                "resolved",
                r#"resolve HTTP/1.1 {"reason":"why"}"#,
                format!("place-order {ID} is resolved\n"),
            ),
        ] {
            let Ran { requests, printed, error, .. } =
                kontor(&[&["saga"], arguments].concat(), vec![status(state)]);
            assert_eq!(requests, [format!("POST /admin/sagas/{ID}/{request}")]);
            assert_eq!((printed, error), (expected, None));
        }
    }

    #[test]
    fn a_prefix_of_one_id_is_enough() {
        let upper_case = "01997A2B-0000-7000-8000-00000000000a";
        let ran = kontor(&["saga", "retry", upper_case], vec![status("completed")]);
        assert_eq!(ran.requests.len(), 1, "a whole id is not looked up");
        let short = "01997a2b";
        let ran = kontor(&["saga", "retry", short], vec![listed(&[ID]), status("completed")]);
        assert_eq!(ran.requests[0], "GET /admin/sagas?after=01997a2bg&limit=2 HTTP/1.1");
        assert_eq!(ran.printed, format!("place-order {ID} is completed\n"));
        let elsewhere = "01997a2a-0000-7000-8000-000000000001";
        for (ids, expected) in [
            (&[ID, OTHER][..], "the ids of several sagas begin with 01997a2b; give a longer prefix"),
            (&[elsewhere], "there is no saga whose id begins with 01997a2b"),
            (&[], "there is no saga whose id begins with 01997a2b"),
        ] {
            let ran = kontor(&["saga", "show", short], vec![listed(ids)]);
            assert_eq!(ran.error.as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_text_that_is_no_id_is_not_sent() {
        for rejected in ["", "../plugins", "order/1", "0199 7a"] {
            assert!(!accepts(&["saga", "show", rejected]), "{rejected}");
        }
    }
}
