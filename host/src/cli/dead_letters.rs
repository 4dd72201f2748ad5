//! `kontor dead-letters`: the messages that could not become commands, to redrive or to discard.

use std::io::Write;

use clap::Subcommand;
use kontor::api::{DiscardDeadLetters, Page, RedriveDeadLetters};
use kontor::messaging::{DeadLetter, DeadLetterCaller, Discarded, Redriven};
use kontor::model::{ANONYMOUS, Role};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::actor::caller;
use super::client::{ActArguments, ActorArgument, Client, HostArgument};
use super::output::{counted, parse, print};
use super::table::{fitted, terminal_width};

/// The contents of the replies.
const REDRIVE: &str = "redrive of dead letters";
const DISCARD: &str = "number of discarded dead letters";
/// The largest number of dead letters that are shown: more than an operator reads.
const SHOWN: u64 = 100;

const EXAMPLES: &str = "\
Examples:
  kontor dead-letters
  kontor dead-letters --service delivery
  kontor dead-letters --json | jq '.items[] | select(.problem.code == \"not-found\")'
  kontor dead-letters redrive 7
  kontor dead-letters discard 8 --reason 'sent twice, ticket 4711'";

const REDRIVE_EXAMPLES: &str = "\
Examples:
  kontor dead-letters redrive 7
  kontor dead-letters redrive --service delivery
  kontor dead-letters redrive --all

Each is processed like the original message, under the same id, so that it takes effect at most once. Those
that fail again stay.";

const DISCARD_EXAMPLES: &str = "\
Examples:
  kontor dead-letters discard 8 --reason 'sent twice, ticket 4711'
  kontor dead-letters discard --service delivery --reason 'the carrier starts anew'

Their content is gone; `kontor dead-letters --json` prints it before. The log keeps their subjects and ids,
the operator's name and the reason: `kontor audit` lists them.";

/// List the messages of NATS that could not become commands
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct DeadLetters {
    #[command(subcommand)]
    act: Option<Act>,
    /// Only dead letters for this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    host: HostArgument,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Process dead letters again
    #[command(after_help = REDRIVE_EXAMPLES)]
    Redrive {
        #[command(flatten)]
        selection: Selection,
        #[command(flatten)]
        why: ActArguments,
        #[command(flatten)]
        host: HostArgument,
    },
    /// Remove dead letters without processing them
    #[command(after_help = DISCARD_EXAMPLES)]
    Discard {
        #[command(flatten)]
        selection: Selection,
        /// The reason. It stays in the log
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        actor: ActorArgument,
        #[command(flatten)]
        host: HostArgument,
    },
}

/// The dead letters of an act: exactly one of these.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Selection {
    /// The id of a dead letter
    id: Option<u64>,
    /// All dead letters for this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// All dead letters
    #[arg(long)]
    all: bool,
}

impl DeadLetters {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        match self.act {
            None => {
                let mut parameters = vec![("limit", SHOWN.to_string())];
                parameters.extend(self.service.map(|service| ("service", service)));
                let body = Client::new(&self.host)?.get("/admin/dead-letters", &parameters)?;
                print(&body, "list of dead letters", json, out, |page: Page<DeadLetter, u64>| {
                    page_text(&page, &self.host.flag(), terminal_width())
                })
            }
            Some(Act::Redrive { selection, why: ActArguments { reason, actor }, host }) => {
                let client = Client::new(&host)?;
                let Selection { id, service, .. } = selection;
                let redriven = all_pages(REDRIVE, |after| {
                    let (service, reason) = (service.clone(), reason.clone());
                    let request = json!(RedriveDeadLetters { id, service, after, reason });
                    Ok(client.post("/admin/dead-letters/redrive", &[actor.header()], &request)?)
                })?;
                let text = |redriven: Redriven| redriven_text(&redriven, terminal_width());
                finish(redriven, REDRIVE, json, out, text)
            }
            Some(Act::Discard { selection, reason, actor, host }) => {
                let client = Client::new(&host)?;
                let Selection { id, service, .. } = selection;
                let discarded = all_pages(DISCARD, |after| {
                    let (service, reason) = (service.clone(), reason.clone());
                    let request = json!(DiscardDeadLetters { id, service, after, reason });
                    Ok(client.post("/admin/dead-letters/discard", &[actor.header()], &request)?)
                })?;
                finish(discarded, DISCARD, json, out, |discarded: Discarded| {
                    format!("{} discarded\n", counted(discarded.discarded, "dead letter"))
                })
            }
        }
    }
}

/// The reply to an act on a page of dead letters.
trait PageOfAct: Default + Serialize + DeserializeOwned {
    /// Adds the reply to the act on the next page.
    fn add(&mut self, page: Self);
    /// Returns the start of the next page, and the reason why the host stopped before the end of this one.
    fn end(&self) -> (Option<u64>, Option<String>);
}

impl PageOfAct for Redriven {
    fn add(&mut self, page: Self) {
        let Self { done, failed, next, stopped } = page;
        self.done += done;
        self.failed.extend(failed);
        (self.next, self.stopped) = (next, stopped);
    }

    fn end(&self) -> (Option<u64>, Option<String>) {
        (self.next, self.stopped.clone())
    }
}

impl PageOfAct for Discarded {
    fn add(&mut self, page: Self) {
        let Self { discarded, next, stopped } = page;
        self.discarded += discarded;
        (self.next, self.stopped) = (next, stopped);
    }

    fn end(&self) -> (Option<u64>, Option<String>) {
        (self.next, self.stopped.clone())
    }
}

/// The outcome of an act, and the error that ended it early.
struct Acted<P>(P, Option<anyhow::Error>);

/// Acts on one page after another. An error after the first page does not lose the report of those before.
fn all_pages<P: PageOfAct>(
    what: &'static str,
    mut act: impl FnMut(Option<u64>) -> anyhow::Result<String>,
) -> anyhow::Result<Acted<P>> {
    let mut all = P::default();
    let mut after = None;
    loop {
        match act(after).and_then(|body| parse::<P>(&body, what)) {
            Ok(page) => all.add(page),
            Err(error) if after.is_none() => return Err(error),
            Err(error) => return Ok(Acted(all, Some(error))),
        }
        let (next, stopped) = all.end();
        if next.is_none() || stopped.is_some() {
            return Ok(Acted(all, stopped.map(anyhow::Error::msg)));
        }
        after = next;
    }
}

/// Prints the report of an act, and returns the error that ended it early.
fn finish<P: PageOfAct>(
    Acted(report, error): Acted<P>,
    what: &'static str,
    json: bool,
    out: &mut dyn Write,
    text: impl FnOnce(P) -> String,
) -> anyhow::Result<()> {
    print(&serde_json::to_string(&report)?, what, json, out, text)?;
    error.map_or(Ok(()), Err)
}

/// Returns one line a dead letter, and the next commands.
fn page_text(page: &Page<DeadLetter, u64>, flag: &str, width: Option<usize>) -> String {
    if page.items.is_empty() {
        return "There is no dead letter.\n".to_owned();
    }
    let mut text = letters_table(&page.items, width);
    if page.next.is_some() {
        text += &format!("The first {} are shown.\n", page.items.len());
    }
    text + &format!(
        "\nOnce the cause is removed: kontor dead-letters redrive ID{flag}\n\
         To remove one instead:     kontor dead-letters discard ID --reason TEXT{flag}\n"
    )
}

/// Returns the outcome of a redrive.
fn redriven_text(redriven: &Redriven, width: Option<usize>) -> String {
    let mut text = format!("{} processed\n", counted(redriven.done, "dead letter"));
    if !redriven.failed.is_empty() {
        text += &format!("{} failed again:\n\n", counted(redriven.failed.len() as u64, "dead letter"));
        text += &letters_table(&redriven.failed, width);
    }
    text
}

/// Returns one line a dead letter, no longer than `width`.
fn letters_table(letters: &[DeadLetter], width: Option<usize>) -> String {
    let row = |letter: &DeadLetter| {
        let about = &letter.about;
        let problem = |member: &str| about.problem[member].as_str().unwrap_or_default().to_owned();
        [
            letter.id.to_string(),
            about.subject.clone(),
            format!("{}.{}", about.aggregate, about.command),
            about.caller.as_ref().map_or_else(|| "-".to_owned(), sender),
            about.deliveries.to_string(),
            format!("{}: {}", problem("code"), problem("detail")),
        ]
    };
    let heading = ["id", "subject", "command", "caller", "tries", "problem"];
    fitted(heading, letters.iter().map(row).collect(), width)
}

/// Returns the caller for whom a redrive sends the command, with its roles.
fn sender(DeadLetterCaller { subject, roles, on_behalf_of }: &DeadLetterCaller) -> String {
    let subject = subject.clone().unwrap_or_else(|| ANONYMOUS.into());
    let roles: Vec<_> = roles.iter().map(Role::as_str).collect();
    format!("{} [{}]", caller(&subject, on_behalf_of.as_ref(), None), roles.join(", "))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::scripted_host::{accepts, kontor, ok};

    const LETTER: &str = r#"{"id": 7, "service": "parcels", "aggregate": "parcel", "command": "deliver",
        "subscription": "carrier.delivered", "subject": "carrier.delivered", "message_id": "m1",
        "caller": {"subject": "ann", "roles": ["clerk"]}, "deliveries": 6, "payload": {"parcel": "A-1"},
        "problem": {"code": "not-found", "detail": "There is no parcel with the id A-1."}}"#;

    #[test]
    fn snapshot_of_the_list_of_dead_letters() {
        let body = format!(r#"{{"items":[{LETTER}],"next":7}}"#);
        let ran = kontor(&["dead-letters", "--service", "parcels"], vec![ok(&body)]);
        assert_eq!(ran.requests, ["GET /admin/dead-letters?limit=100&service=parcels HTTP/1.1"]);
        expect![[r#"
            ID  SUBJECT            COMMAND         CALLER       TRIES  PROBLEM
            7   carrier.delivered  parcel.deliver  ann [clerk]  6      not-found: There is no parcel with the id A-1.
            The first 1 are shown.

            Once the cause is removed: kontor dead-letters redrive ID --host HOST
            To remove one instead:     kontor dead-letters discard ID --reason TEXT --host HOST
        "#]]
        .assert_eq(&ran.printed);
    }

    #[test]
    fn an_empty_list_is_a_sentence() {
        let ran = kontor(&["dead-letters"], vec![ok(r#"{"items":[],"next":null}"#)]);
        assert_eq!(ran.printed, "There is no dead letter.\n");
    }

    #[test]
    fn discarded_dead_letters_are_counted() {
        let line = ["dead-letters", "discard", "7", "--actor", "ada", "--reason", "twice"];
        let ran = kontor(&line, vec![ok(r#"{"discarded":1}"#)]);
        assert_eq!(ran.requests, [r#"POST /admin/dead-letters/discard HTTP/1.1 {"id":7,"reason":"twice"}"#]);
        assert_eq!(ran.printed, "1 dead letter discarded\n");
    }

    #[test]
    fn an_act_must_select_dead_letters() {
        for act in ["redrive", "discard"] {
            assert!(!accepts(&["dead-letters", act, "--reason", "why"]), "{act}");
            assert!(!accepts(&["dead-letters", act, "7", "--all", "--reason", "why"]), "{act}");
        }
        assert!(accepts(&["dead-letters", "redrive", "7"]));
        assert!(!accepts(&["dead-letters", "discard", "7"]), "what is gone for good has a reason");
    }

    #[test]
    fn the_processed_dead_letters_are_counted() {
        for (selection, body, request, expected) in [
            (
                &["--service", "parcels"][..],
                r#"{"done":2,"failed":[]}"#,
                r#"{"service":"parcels"}"#,
                "2 dead letters processed\n",
            ),
            (&["--all"], r#"{"done":1,"failed":[]}"#, "{}", "1 dead letter processed\n"),
        ] {
            let ran = kontor(&[&["dead-letters", "redrive"], selection].concat(), vec![ok(body)]);
            assert_eq!(ran.requests, [format!("POST /admin/dead-letters/redrive HTTP/1.1 {request}")]);
            assert_eq!(ran.printed, expected);
        }
    }

    #[test]
    fn snapshot_of_a_redrive_that_failed_again() {
        let body = format!(r#"{{"done":0,"failed":[{LETTER}]}}"#);
        let ran = kontor(&["dead-letters", "redrive", "7"], vec![ok(&body)]);
        assert_eq!(ran.requests, [r#"POST /admin/dead-letters/redrive HTTP/1.1 {"id":7}"#]);
        expect![[r#"
            0 dead letters processed
            1 dead letter failed again:

            ID  SUBJECT            COMMAND         CALLER       TRIES  PROBLEM
            7   carrier.delivered  parcel.deliver  ann [clerk]  6      not-found: There is no parcel with the id A-1.
        "#]]
        .assert_eq(&ran.printed);
    }

    #[test]
    fn an_act_goes_through_all_pages_and_reports_what_was_done_before_an_error() {
        let pages = || vec![ok(r#"{"discarded":1000,"next":1000}"#), ok(r#"{"discarded":2}"#)];
        let line = ["dead-letters", "discard", "--all", "--reason", "why"];
        let ran = kontor(&line, pages());
        let last = r#"POST /admin/dead-letters/discard HTTP/1.1 {"after":1000,"reason":"why"}"#;
        assert_eq!(ran.requests.last().map(String::as_str), Some(last));
        assert_eq!(ran.printed, "1002 dead letters discarded\n");
        let stopped =
            r#"{"done":3,"failed":[],"next":1003,"stopped":"The dead letter 1004 cannot be removed."}"#;
        let ran = kontor(
            &["dead-letters", "redrive", "--all"],
            vec![ok(r#"{"done":4,"failed":[],"next":1000}"#), ok(stopped)],
        );
        assert_eq!(ran.printed, "7 dead letters processed\n");
        assert_eq!(ran.error.as_deref(), Some("The dead letter 1004 cannot be removed."));
    }
}
