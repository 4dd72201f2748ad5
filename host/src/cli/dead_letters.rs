//! `kontor dead-letters`: the messages that could not become commands, and to have them carried out after all or removed.

use std::io::Write;

use clap::Subcommand;
use kontor::messaging::{DeadLetter, Redriven};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{ActorArgument, Client, HostArgument};
use super::projections::{counted, tell};
use super::table::{fitted, terminal_width};

/// Dead letters that are shown at once: more than anybody reads.
const SHOWN: u64 = 100;

const EXAMPLES: &str = "\
Examples:
  kontor dead-letters
  kontor dead-letters --service delivery
  kontor dead-letters --json | jq '.items[] | select(.problem.code == \"not-found\")'
  kontor dead-letters redrive 7
  kontor dead-letters discard 8";

const REDRIVE_EXAMPLES: &str = "\
Examples:
  kontor dead-letters redrive 7
  kontor dead-letters redrive --service delivery
  kontor dead-letters redrive --all

Each is carried out as the message that it was, under the same id: one that had taken effect does not again. Those that fail
again stay.";

const DISCARD_EXAMPLES: &str = "\
Examples:
  kontor dead-letters discard 8
  kontor dead-letters discard --service delivery

They are gone then, with what they said; kontor dead-letters --json shows all of it before. The host's own log keeps their ids and who
discarded them.";

/// Show the messages of NATS that could not become commands
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct DeadLetters {
    #[command(subcommand)]
    what: Option<What>,
    /// Only those for this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    host: HostArgument,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Have dead letters carried out after all
    #[command(after_help = REDRIVE_EXAMPLES)]
    Redrive {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        host: HostArgument,
    },
    /// Remove dead letters that are never to be carried out
    #[command(after_help = DISCARD_EXAMPLES)]
    Discard {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        actor: ActorArgument,
        #[command(flatten)]
        host: HostArgument,
    },
}

/// Exactly one of these.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// The dead letter with this id
    id: Option<u64>,
    /// All for this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// All there are
    #[arg(long)]
    all: bool,
}

impl Which {
    /// As the host wants it.
    fn body(&self) -> Value {
        match (self.id, &self.service) {
            (Some(id), _) => json!({ "id": id }),
            (None, Some(service)) => json!({ "service": service }),
            (None, None) => json!({}),
        }
    }
}

/// What POST /admin/dead-letters/discard answers.
#[derive(Deserialize)]
struct Discarded {
    discarded: u64,
}

/// What GET /admin/dead-letters answers.
#[derive(Deserialize)]
struct Page {
    items: Vec<DeadLetter>,
    next: Option<u64>,
}

impl DeadLetters {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        match self.what {
            None => {
                let mut parameters = vec![("limit", SHOWN.to_string())];
                parameters.extend(self.service.map(|service| ("service", service)));
                let body = Client::new(&self.host)?.get("/admin/dead-letters", &parameters)?;
                tell(&body, json, out, |page: Page| page_text(&page, &self.host.flag(), terminal_width()))
            }
            Some(What::Redrive { which, host }) => {
                let body = Client::new(&host)?.post("/admin/dead-letters/redrive", &[], &which.body())?;
                tell(&body, json, out, |redriven: Redriven| redriven_text(&redriven, terminal_width()))
            }
            Some(What::Discard { which, actor, host }) => {
                let client = Client::new(&host)?;
                let body = client.post("/admin/dead-letters/discard", &[actor.header()], &which.body())?;
                tell(&body, json, out, |Discarded { discarded }| {
                    format!("{} discarded\n", counted(discarded, "dead letter"))
                })
            }
        }
    }
}

/// One line a dead letter, and what to do about them.
fn page_text(page: &Page, flag: &str, width: Option<usize>) -> String {
    if page.items.is_empty() {
        return "There is no dead letter.\n".to_owned();
    }
    let mut text = letters_table(&page.items, width);
    if page.next.is_some() {
        text += &format!("These are the first {}.\n", page.items.len());
    }
    text + &format!(
        "\nWhen the cause is removed: kontor dead-letters redrive ID{flag}\n\
         If it never can be:        kontor dead-letters discard ID{flag}\n"
    )
}

fn redriven_text(redriven: &Redriven, width: Option<usize>) -> String {
    let mut text = format!("{} carried out\n", counted(redriven.done, "dead letter"));
    if !redriven.failed.is_empty() {
        text += &format!("{} failed again:\n\n", counted(redriven.failed.len() as u64, "dead letter"));
        text += &letters_table(&redriven.failed, width);
    }
    text
}

/// No line is longer than `width`.
fn letters_table(letters: &[DeadLetter], width: Option<usize>) -> String {
    let row = |letter: &DeadLetter| {
        let about = &letter.about;
        let told = |member: &str| about.problem[member].as_str().unwrap_or_default().to_owned();
        [
            letter.id.to_string(),
            about.subject.clone(),
            format!("{}.{}", about.aggregate, about.command),
            about.deliveries.to_string(),
            format!("{}: {}", told("code"), told("detail")),
        ]
    };
    fitted(["id", "subject", "command", "tried", "problem"], letters.iter().map(row).collect(), width)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::scripted_host::scripted_host;
    use super::*;

    const LETTER: &str = r#"{"id":7,"service":"parcels","aggregate":"parcel","command":"deliver","subscription":"carrier.delivered","subject":"carrier.delivered","message_id":"m1","deliveries":6,"problem":{"code":"not-found","detail":"There is no parcel with the id A-1."},"payload":{"parcel":"A-1"}}"#;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        dead_letters: DeadLetters,
    }

    /// The request and what is printed.
    fn run(arguments: &[&str], body: &str) -> (String, String) {
        let (host, answering) =
            scripted_host(vec![format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}")]);
        let line = ["dead-letters"].into_iter().chain(arguments.iter().copied()).chain(["--host", &host]);
        let mut out = Vec::new();
        Line::parse_from(line).dead_letters.run(false, &mut out).unwrap();
        let printed = String::from_utf8(out).unwrap().replace(&host, "HOST");
        (answering.join().unwrap().remove(0), printed)
    }

    #[test]
    fn dead_letters_are_listed_with_their_problem_and_what_to_do() {
        let expected = "\
ID  SUBJECT            COMMAND         TRIED  PROBLEM
7   carrier.delivered  parcel.deliver  6      not-found: There is no parcel with the id A-1.

When the cause is removed: kontor dead-letters redrive ID --host HOST
If it never can be:        kontor dead-letters discard ID --host HOST
";
        let (asked, printed) =
            run(&["--service", "parcels"], &format!(r#"{{"items":[{LETTER}],"next":null}}"#));
        assert_eq!(asked, "GET /admin/dead-letters?limit=100&service=parcels HTTP/1.1");
        assert_eq!(printed, expected);
        assert_eq!(run(&[], r#"{"items":[],"next":null}"#).1, "There is no dead letter.\n");
    }

    #[test]
    fn what_is_discarded_is_counted() {
        let (asked, printed) = run(&["discard", "7", "--actor", "ada"], r#"{"discarded":1}"#);
        assert_eq!(asked, r#"POST /admin/dead-letters/discard HTTP/1.1 {"id":7}"#);
        assert_eq!(printed, "1 dead letter discarded\n");
        assert!(Line::try_parse_from(["dead-letters", "discard"]).is_err(), "which?");
    }

    #[test]
    fn a_redrive_tells_what_came_of_it() {
        let again = format!(r#"{{"done":0,"failed":[{LETTER}]}}"#);
        let table = [
            (vec!["redrive", "7"], again.as_str(), r#"{"id":7}"#, "1 dead letter failed again"),
            (
                vec!["redrive", "--service", "parcels"],
                r#"{"done":2,"failed":[]}"#,
                r#"{"service":"parcels"}"#,
                "2 dead letters carried out\n",
            ),
            (vec!["redrive", "--all"], r#"{"done":1,"failed":[]}"#, "{}", "1 dead letter carried out\n"),
        ];
        for (arguments, answer, sent, told) in table {
            let (asked, printed) = run(&arguments, answer);
            assert_eq!(asked, format!("POST /admin/dead-letters/redrive HTTP/1.1 {sent}"));
            assert!(printed.contains(told), "{printed}");
        }
        assert!(Line::try_parse_from(["dead-letters", "redrive"]).is_err(), "of which?");
    }
}
