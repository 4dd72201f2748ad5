//! `kontor saga`: one saga of a running host, and what a person can do about it.

use std::io::Write;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use kontor::clock::{Clock as _, SystemClock, Time};
use kontor::saga::SagaState;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{ActorArgument, Client, HostArgument};
use super::sagas::Page;
use super::style::Style;
use super::timeline;

/// The characters of a whole id: those of a UUID.
const ID_LENGTH: usize = 36;

/// How long to wait for what comes of an act: what works again works at once, and what does not is tried for longer than
/// anybody watches.
const PREFER: (&str, &str) = ("prefer", "wait=5");

const EXAMPLES: &str = "\
Examples:
  kontor saga show 01997a2b-3c4d-7000-8000-00000000000a
  kontor saga show 01997a2b-3c4d
  kontor saga retry 01997a2b-3c4d
  kontor saga skip 01997a2b-3c4d --reason 'refunded by hand, ticket 4711'

An id may be shortened as long as no other saga's begins so.";

const SHOW_EXAMPLES: &str = "\
Examples:
  kontor saga show 01997a2b-3c4d
  kontor saga show 01997a2b-3c4d --json | jq '.steps[] | select(.outcome == \"failed\")'";

const RETRY_EXAMPLES: &str = "\
Examples:
  kontor saga retry 01997a2b-3c4d
  kontor saga retry 01997a2b-3c4d --actor ada";

const SKIP_EXAMPLES: &str = "\
Examples:
  kontor saga skip 01997a2b-3c4d --reason 'refunded by hand, ticket 4711'
  kontor saga skip 01997a2b-3c4d --step pay --reason 'refunded by hand, ticket 4711'";

const RESOLVE_EXAMPLES: &str = "\
Examples:
  kontor saga resolve 01997a2b-3c4d --reason 'stock and payment set right by hand'";

/// Show one saga, or do something about one that is parked
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Saga {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show what a saga did, step by step, and what it needs
    #[command(after_help = SHOW_EXAMPLES)]
    Show(One),
    /// Have a parked saga try again what failed
    #[command(after_help = RETRY_EXAMPLES)]
    Retry {
        #[command(flatten)]
        person: Person,
    },
    /// Leave out the step, or the undo, that failed in a parked saga, and have it go on
    #[command(after_help = SKIP_EXAMPLES)]
    Skip {
        /// The step; needed if more than one failed
        #[arg(long, value_name = "NAME")]
        step: Option<String>,
        /// Why; it stays in the saga's journal
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        person: Person,
    },
    /// End a parked saga: everything has been seen to by hand
    #[command(after_help = RESOLVE_EXAMPLES)]
    Resolve {
        /// Why; it stays in the saga's journal
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        person: Person,
    },
}

/// Which saga.
#[derive(Debug, clap::Args)]
struct One {
    /// The saga's id, or as much of its beginning as no other has
    #[arg(value_parser = id)]
    id: String,
    #[command(flatten)]
    host: HostArgument,
}

/// Who acts on which saga.
#[derive(Debug, clap::Args)]
struct Person {
    #[command(flatten)]
    saga: One,
    #[command(flatten)]
    actor: ActorArgument,
}

/// What an act answers, as far as it is told.
#[derive(Deserialize)]
struct Status {
    name: String,
    state: SagaState,
}

fn id(text: &str) -> Result<String, &'static str> {
    let text = text.to_ascii_lowercase();
    let is_id = (1..=ID_LENGTH).contains(&text.len())
        && text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit());
    if is_id { Ok(text) } else { Err("a saga's id has hexadecimal digits and dashes") }
}

impl Saga {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        match self.what {
            What::Show(one) => one.show(json, out),
            What::Retry { person } => person.act("retry", &json!({}), json, out),
            What::Skip { step: Some(step), reason, person } => {
                person.act("skip", &json!({"step": step, "reason": reason}), json, out)
            }
            What::Skip { step: None, reason, person } => {
                person.act("skip", &json!({"reason": reason}), json, out)
            }
            What::Resolve { reason, person } => person.act("resolve", &json!({"reason": reason}), json, out),
        }
    }
}

impl One {
    fn show(&self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let client = Client::new(&self.host)?;
        let body = client.get(&format!("/admin/sagas/{}", self.whole_id(&client)?), &[])?;
        if json {
            writeln!(out, "{}", body.trim_end())?;
            return Ok(());
        }
        let saga = serde_json::from_str(&body).context("the host's timeline of a saga has another shape")?;
        let now = Time(SystemClock.now_ms());
        write!(out, "{}", timeline::text(&saga, now, Style::of_output(), &self.host.flag()))?;
        Ok(())
    }

    /// The id that begins as the one given does.
    fn whole_id(&self, client: &Client) -> anyhow::Result<String> {
        let start = &self.id;
        if start.len() == ID_LENGTH {
            return Ok(start.clone());
        }
        // The list goes from greater ids to smaller ones, and no digit or dash is greater than a g.
        let parameters = [("after", format!("{start}g")), ("limit", "2".to_owned())];
        let page = Page::read(&client.get("/admin/sagas", &parameters)?)?;
        let mut ids =
            page.items.iter().map(|saga| saga.id.as_str()).filter(|id| id.starts_with(start.as_str()));
        match (ids.next(), ids.next()) {
            (Some(id), None) => Ok(id.to_owned()),
            (None, _) => bail!("there is no saga whose id begins with {start}"),
            (Some(_), Some(_)) => bail!("the ids of several sagas begin with {start}; give more of it"),
        }
    }
}

impl Person {
    fn act(&self, act: &str, body: &Value, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let client = Client::new(&self.saga.host)?;
        let id = self.saga.whole_id(&client)?;
        let headers = [self.actor.header(), PREFER];
        let answer = client.post(&format!("/admin/sagas/{id}/{act}"), &headers, body)?;
        if json {
            writeln!(out, "{}", answer.trim_end())?;
            return Ok(());
        }
        let status: Status =
            serde_json::from_str(&answer).context("the host's answer to an act has another shape")?;
        let state = Style::of_output().state(status.state);
        writeln!(out, "{} {id} is {state}", status.name)?;
        if !status.state.ended() {
            let what = if status.state == SagaState::Parked { "why" } else { "how it goes on" };
            writeln!(out, "See {what}: kontor saga show {id}{}", self.saga.host.flag())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::scripted_host::scripted_host;
    use super::*;

    const ID: &str = "01997a2b-0000-7000-8000-00000000000a";
    const OTHER: &str = "01997a2b-0000-7000-8000-000000000001";

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        saga: Saga,
    }

    /// The requests, what is printed, and the error.
    fn run(arguments: &[&str], answers: &[String]) -> (Vec<String>, String, Option<String>) {
        let answer = |body: &String| format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}");
        let (host, answering) = scripted_host(answers.iter().map(answer).collect());
        let line = ["saga"].into_iter().chain(arguments.iter().copied()).chain(["--host", &host]);
        let mut out = Vec::new();
        let outcome = Line::parse_from(line).saga.run(false, &mut out);
        let printed = String::from_utf8(out).unwrap().replace(&host, "HOST");
        (answering.join().unwrap(), printed, outcome.err().map(|error| error.to_string()))
    }

    fn listed(ids: &[&str]) -> String {
        let item = |id: &&str| {
            json!({"id": id, "service": "order", "name": "place-order", "state": "parked", "stream": "order/1",
                "started": "2026-11-22T03:18:01.250Z"})
        };
        json!({"items": ids.iter().map(item).collect::<Vec<_>>(), "next": null}).to_string()
    }

    fn status(state: &str) -> String {
        json!({"id": ID, "service": "order", "name": "place-order", "state": state, "reason": null})
            .to_string()
    }

    #[test]
    fn an_act_tells_the_state_after_it() {
        for (arguments, state, asked, told) in [
            (
                vec!["retry", ID],
                "compensated",
                "retry HTTP/1.1 {}",
                format!("place-order {ID} is compensated\n"),
            ),
            (
                vec!["skip", ID, "--step", "pay", "--reason", "why"],
                "parked",
                r#"skip HTTP/1.1 {"reason":"why","step":"pay"}"#,
                format!("place-order {ID} is parked\nSee why: kontor saga show {ID} --host HOST\n"),
            ),
            (
                vec!["resolve", ID, "--reason", "why"],
                "resolved",
                r#"resolve HTTP/1.1 {"reason":"why"}"#,
                format!("place-order {ID} is resolved\n"),
            ),
        ] {
            let (requests, printed, error) = run(&arguments, &[status(state)]);
            assert_eq!(requests, [format!("POST /admin/sagas/{ID}/{asked}")]);
            assert_eq!((printed, error), (told, None));
        }
    }

    #[test]
    fn an_id_may_be_shortened_as_long_as_it_is_one_sagas() {
        let (requests, ..) = run(&["retry", "01997A2B-0000-7000-8000-00000000000a"], &[status("completed")]);
        assert_eq!(requests.len(), 1, "a whole id is not looked up");
        let short = "01997a2b";
        let (requests, printed, _) = run(&["retry", short], &[listed(&[ID]), status("completed")]);
        assert_eq!(requests[0], "GET /admin/sagas?after=01997a2bg&limit=2 HTTP/1.1");
        assert_eq!(printed, format!("place-order {ID} is completed\n"));
        let elsewhere = "01997a2a-0000-7000-8000-000000000001";
        for (ids, expected) in [
            (vec![ID, OTHER], Some("the ids of several sagas begin with 01997a2b; give more of it")),
            (vec![elsewhere], Some("there is no saga whose id begins with 01997a2b")),
            (vec![], Some("there is no saga whose id begins with 01997a2b")),
        ] {
            let (_, _, error) = run(&["show", short], &[listed(&ids)]);
            assert_eq!(error.as_deref(), expected);
        }
    }

    #[test]
    fn what_is_no_id_is_not_sent() {
        for refused in ["", "../plugins", "order/1", "0199 7a"] {
            assert!(Line::try_parse_from(["saga", "show", refused]).is_err(), "{refused}");
        }
    }
}
