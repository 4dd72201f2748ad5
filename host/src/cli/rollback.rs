//! `kontor rollback`: rolls a service of a running host back to an earlier component.

use std::io::Write;

use kontor::api::RollbackRequest;
use serde_json::json;

use super::client::{ActorArgument, Client, HostArgument};
use super::{gates, progress};

/// The number of hexadecimal digits of a whole digest.
const DIGEST_LENGTH: usize = 64;

const EXAMPLES: &str = "\
Examples:
  kontor rollback order
  kontor rollback order --to 0123456789ab --note 'orders without lines came through'

The default of --to is the component that ran before; `kontor plugins --history` lists all of them. The
component passes the gates again, because the log has newer events now. A restart of the host does not undo
the rollback.";

/// Roll a service back to an earlier component
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Rollback {
    /// The name of the service
    service: String,
    /// The digest of the component, or a prefix that no other one has
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
    to: Option<String>,
    /// The reason. It stays in the log
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// A breaking change to allow, as the gate `history` names it: state:order
    #[arg(long, value_name = "CHANGE")]
    allow_breaking: Vec<String>,
    #[command(flatten)]
    actor: ActorArgument,
    #[command(flatten)]
    host: HostArgument,
}

/// Parses a digest or its beginning.
fn digest(text: &str) -> Result<String, &'static str> {
    let text = text.to_ascii_lowercase();
    let is_digest =
        (1..=DIGEST_LENGTH).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { Ok(text) } else { Err("a digest has hexadecimal digits, 64 at most") }
}

impl Rollback {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let path = format!("/admin/plugins/{}/rollback", self.service);
        let Self { to, note, allow_breaking, .. } = self;
        let request = json!(RollbackRequest { to, note, allow_breaking });
        let client = Client::of_deployments(&self.host)?;
        let roll_back = || client.post(&path, &[self.actor.header()], &request);
        let response = progress::of_deployment(&client, roll_back);
        gates::print(response, None, json, out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::scripted_host::{Ran, accepts, kontor, ok};

    #[test]
    fn the_options_are_sent() {
        for (arguments, body) in [
            (&[][..], "{}"),
            (
                &["--to", "0123456789AB", "--note", "why", "--allow-breaking", "read-model"],
                r#"{"allow_breaking":["read-model"],"note":"why","to":"0123456789ab"}"#,
            ),
        ] {
            let live = r#"{"dry_run":false,"live":true,"services":[],"gates":[]}"#;
            let line = [&["rollback", "order", "--json"], arguments].concat();
            let Ran { requests, printed, error, .. } = kontor(&line, vec![ok(live)]);
            assert_eq!(requests, [format!("POST /admin/plugins/order/rollback HTTP/1.1 {body}")]);
            assert_eq!((printed, error), (format!("{live}\n"), None));
        }
    }

    #[test]
    fn a_text_that_is_no_digest_is_not_sent() {
        for rejected in ["", "latest", &"0".repeat(65)] {
            assert!(!accepts(&["rollback", "order", "--to", rejected]), "{rejected}");
        }
    }
}
