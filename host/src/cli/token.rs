//! `kontor token`: makes, lists and revokes the tokens of callers.

use std::io::Write;
use std::time::Duration;

use clap::Subcommand;
use kontor::api::{List, MadeToken, TokenRequest};
use kontor::clock::{Clock as _, SystemClock, Time, millis};
use kontor::identity::TokenInfo;
use kontor::model::Role;
use serde_json::json;

use super::client::{ActorArgument, Client, HostArgument};
use super::output::print;
use super::table::{fitted, terminal_width};

const EXAMPLES: &str = "\
Examples:
  kontor token new --subject ann --role clerk --expires 90d
  kontor token list
  kontor token revoke 5f0c9a3b7e21d846 --reason 'laptop stolen'

A token says who sends a request, in the header `Authorization: Bearer TOKEN`, on a host with the section
[auth] in its configuration. The host keeps its SHA-256 only.";

const NEW_EXAMPLES: &str = "\
Examples:
  kontor token new --subject ann --role clerk --expires 90d
  kontor token new --subject prometheus --role monitor --note 'scrapes /metrics'
  kontor token new --subject ci --role deployer --json | jq -r .token

The token is printed once, and cannot be shown again.";

const LIST_EXAMPLES: &str = "\
Examples:
  kontor token list
  kontor token list --json | jq '.items[] | select(.last_used == null)'";

const REVOKE_EXAMPLES: &str = "\
Examples:
  kontor token revoke 5f0c9a3b7e21d846
  kontor token revoke 5f0c9a3b7e21d846 --reason 'ann has left'";

/// Make, list and revoke the tokens of callers
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Token {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Make a token and print it
    #[command(after_help = NEW_EXAMPLES)]
    New {
        /// The user or program that is to use it. It stays in the log with all that it does
        #[arg(long, value_name = "NAME")]
        subject: String,
        /// A role of the subject: operator, deployer, auditor, monitor, or one that a service knows
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// The time for which it is valid, such as 90d or 12h [default: until it is revoked]
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
        /// Its purpose. It stays in the log
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        #[command(flatten)]
        actor: ActorArgument,
        #[command(flatten)]
        host: HostArgument,
    },
    /// List the tokens, without their secrets
    #[command(after_help = LIST_EXAMPLES)]
    List {
        #[command(flatten)]
        host: HostArgument,
    },
    /// Revoke a token
    #[command(after_help = REVOKE_EXAMPLES)]
    Revoke {
        /// The id of the token: the part between `kontor_` and the next `_`
        id: String,
        /// The reason. It stays in the log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        actor: ActorArgument,
        #[command(flatten)]
        host: HostArgument,
    },
}

impl Token {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        match self.act {
            Act::New { subject, roles, expires, note, actor, host } => {
                let expires = expires.map(|time| Time(SystemClock.now_ms().saturating_add(millis(time))));
                let request = TokenRequest { subject, roles, expires, note };
                let body = Client::new(&host)?.post("/admin/tokens", &[actor.header()], &json!(request))?;
                print(&body, "new token", json, out, |made: MadeToken| made_text(&made))
            }
            Act::List { host } => {
                let body = Client::new(&host)?.get("/admin/tokens", &[])?;
                print(&body, "list of tokens", json, out, |list: List<TokenInfo>| {
                    list_text(&list.items, SystemClock.now_ms(), terminal_width())
                })
            }
            Act::Revoke { id, reason, actor, host } => {
                let parameters: Vec<_> = reason.into_iter().map(|reason| ("reason", reason)).collect();
                let path = format!("/admin/tokens/{id}");
                let body = Client::new(&host)?.delete(&path, &parameters, &[actor.header()])?;
                print(&body, "revoked token", json, out, |TokenInfo { id, subject, .. }| {
                    format!("the token {id} of {subject} is revoked\n")
                })
            }
        }
    }
}

/// Returns a new token on a line of its own, then what to know about it.
fn made_text(MadeToken { token, info }: &MadeToken) -> String {
    let end = match info.expires {
        Some(expires) => format!("is valid until {}", String::from(expires)),
        None => "is valid until it is revoked".to_owned(),
    };
    format!(
        "{token}\n\nIt is for {}{}, and {end}. It is not shown again.\n\
         To revoke it: kontor token revoke {}\n",
        info.subject,
        with_roles(&info.roles),
        info.id
    )
}

fn with_roles(roles: &[Role]) -> String {
    match roles {
        [] => " without a role".to_owned(),
        [role] => format!(" with the role {role}"),
        roles => format!(" with the roles {}", joined(roles)),
    }
}

fn joined(roles: &[Role]) -> String {
    roles.iter().map(Role::as_str).collect::<Vec<_>>().join(", ")
}

/// Returns one line a token.
fn list_text(tokens: &[TokenInfo], now_ms: u64, width: Option<usize>) -> String {
    if tokens.is_empty() {
        return "There is no token. To make one: kontor token new --subject NAME --role ROLE\n".to_owned();
    }
    let row = |token: &TokenInfo| {
        [
            token.id.clone(),
            token.subject.to_string(),
            joined(&token.roles),
            state(token, now_ms),
            token.last_used.map_or_else(|| "never".to_owned(), String::from),
            token.made_by.to_string(),
            token.note.clone().unwrap_or_default(),
        ]
    };
    let heading = ["id", "subject", "roles", "valid", "last used", "made by", "note"];
    fitted(heading, tokens.iter().map(row).collect(), width)
}

fn state(token: &TokenInfo, now_ms: u64) -> String {
    match (&token.revoked, token.expires) {
        (Some(_), _) => "no: revoked".to_owned(),
        (None, Some(expires)) if expires.0 <= now_ms => "no: expired".to_owned(),
        (None, Some(expires)) => format!("until {}", String::from(expires)),
        (None, None) => "until revoked".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::Value;

    use super::super::scripted_host::{accepts, kontor, ok};
    use super::*;

    fn token(more: Value) -> Value {
        let mut token = json!({
            "id": "5f0c9a3b7e21d846", "subject": "ann", "roles": ["clerk"],
            "made": "2026-11-28T12:00:00.000Z", "made_by": "ada",
        });
        token.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        token
    }

    #[test]
    fn a_new_token_is_the_first_line() {
        let made =
            token(json!({"token": "kontor_5f0c9a3b7e21d846_x", "expires": "2027-02-26T12:00:00.000Z"}));
        let line =
            ["token", "new", "--subject", "ann", "--role", "clerk", "--note", "till", "--actor", "ada"];
        let ran = kontor(&line, vec![ok(&made.to_string())]);
        let request = r#"{"note":"till","roles":["clerk"],"subject":"ann"}"#;
        assert_eq!(ran.requests, [format!("POST /admin/tokens HTTP/1.1 {request}")]);
        expect![[r#"
            kontor_5f0c9a3b7e21d846_x

            It is for ann with the role clerk, and is valid until 2027-02-26T12:00:00.000Z. It is not shown again.
            To revoke it: kontor token revoke 5f0c9a3b7e21d846
        "#]]
        .assert_eq(&ran.printed);
    }

    #[test]
    fn snapshot_of_the_list_of_tokens() {
        let revoked = json!({"at": "2026-11-28T13:00:00.000Z", "by": "eve"});
        let tokens = [
            token(json!({"last_used": "2026-11-28T14:00:00.000Z", "note": "till"})),
            token(json!({"revoked": revoked, "roles": []})),
            token(json!({"expires": "2001-01-01T00:00:00.000Z", "roles": ["a", "b"]})),
            token(json!({"expires": "9999-01-01T00:00:00.000Z"})),
        ];
        let ran = kontor(&["token", "list"], vec![ok(&json!({"items": tokens}).to_string())]);
        assert_eq!(ran.requests, ["GET /admin/tokens HTTP/1.1"]);
        expect![[r#"
            ID                SUBJECT  ROLES  VALID                           LAST USED                 MADE BY  NOTE
            5f0c9a3b7e21d846  ann      clerk  until revoked                   2026-11-28T14:00:00.000Z  ada      till
            5f0c9a3b7e21d846  ann             no: revoked                     never                     ada
            5f0c9a3b7e21d846  ann      a, b   no: expired                     never                     ada
            5f0c9a3b7e21d846  ann      clerk  until 9999-01-01T00:00:00.000Z  never                     ada
        "#]]
        .assert_eq(&ran.printed);
        let none = kontor(&["token", "list"], vec![ok(r#"{"items":[]}"#)]);
        assert!(none.printed.starts_with("There is no token."), "{}", none.printed);
    }

    #[test]
    fn a_revoked_token_is_named_with_its_subject() {
        let line = ["token", "revoke", "5f0c9a3b7e21d846", "--reason", "lost it", "--actor", "ada"];
        let ran = kontor(&line, vec![ok(&token(json!({})).to_string())]);
        let request = "DELETE /admin/tokens/5f0c9a3b7e21d846?reason=lost%20it HTTP/1.1";
        assert_eq!(ran.requests, [request]);
        assert_eq!(ran.printed, "the token 5f0c9a3b7e21d846 of ann is revoked\n");
    }

    #[test]
    fn a_token_is_for_somebody_and_for_a_time() {
        assert!(!accepts(&["token", "new", "--role", "clerk"]));
        assert!(!accepts(&["token", "new", "--subject", "ann", "--expires", "soon"]));
        assert!(accepts(&["token", "new", "--subject", "ann", "--expires", "90d"]));
        assert!(!accepts(&["token", "revoke"]) && !accepts(&["token"]));
    }
}
