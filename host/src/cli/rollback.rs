//! `kontor rollback`: has a service of a running host go back to a component that ran before.

use std::io::Write;

use serde_json::{Map, Value, json};

use super::client::{ActorArgument, Client, HostArgument};
use super::gates;

/// The hexadecimal digits of a whole digest.
const DIGEST_LENGTH: usize = 64;

const EXAMPLES: &str = "\
Examples:
  kontor rollback order
  kontor rollback order --to 0123456789ab --note 'orders without lines came through'

Without --to it goes back to what ran before; `kontor plugins --history` shows all there was. The component passes the gates
again, since there are newer events now. A restart of the host does not undo it.";

/// Have a service go back to a component that ran before
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Rollback {
    /// The service
    service: String,
    /// The digest of the component, or as much of its beginning as no other has
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    to: Option<String>,
    /// Why; it stays in the log
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// What may break, as the gate `compatible` names it
    #[arg(long, value_name = "WHAT")]
    allow_breaking: Vec<String>,
    #[command(flatten)]
    actor: ActorArgument,
    #[command(flatten)]
    host: HostArgument,
}

fn digest(text: &str) -> Result<String, &'static str> {
    let text = text.to_ascii_lowercase();
    let is_digest =
        (1..=DIGEST_LENGTH).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { Ok(text) } else { Err("a digest has hexadecimal digits, 64 at most") }
}

impl Rollback {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let path = format!("/admin/plugins/{}/rollback", self.service);
        let client = Client::of_deployments(&self.host)?;
        let answer = client.post(&path, &[self.actor.header()], &self.body());
        gates::tell(answer, None, json, out)
    }

    /// What is not given is left out.
    fn body(&self) -> Value {
        let breaking = (!self.allow_breaking.is_empty()).then(|| json!(self.allow_breaking));
        let members = [
            ("to", self.to.as_ref().map(|to| json!(to))),
            ("note", self.note.as_ref().map(|note| json!(note))),
            ("allow_breaking", breaking),
        ];
        let given = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(given.collect::<Map<_, _>>())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::scripted_host::scripted_host;
    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        rollback: Rollback,
    }

    #[test]
    fn what_is_asked_for_is_sent() {
        for (arguments, sent) in [
            (&[][..], "{}"),
            (
                &["--to", "0123456789AB", "--note", "why", "--allow-breaking", "read-model"],
                r#"{"allow_breaking":["read-model"],"note":"why","to":"0123456789ab"}"#,
            ),
        ] {
            let live = r#"{"dry_run":false,"live":true,"services":[],"gates":[]}"#;
            let (host, answering) =
                scripted_host(vec![format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{live}")]);
            let line = ["rollback", "order", "--host", &host].into_iter().chain(arguments.iter().copied());
            let mut out = Vec::new();
            Line::parse_from(line).rollback.run(true, &mut out).unwrap();
            let asked = format!("POST /admin/plugins/order/rollback HTTP/1.1 {sent}");
            assert_eq!(answering.join().unwrap(), [asked]);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{live}\n"));
        }
    }

    #[test]
    fn what_is_no_digest_is_not_sent() {
        for refused in ["", "latest", &"0".repeat(65)] {
            assert!(Line::try_parse_from(["rollback", "order", "--to", refused]).is_err(), "{refused}");
        }
    }
}
