//! `kontor undeploy`: undeploys a service of a running host.

use std::io::Write;

use kontor::api::UndeployedPlugin;

use super::client::{ActorArgument, Client, ClientError, HostArgument};
use super::gates;
use super::output::print;

const EXAMPLES: &str = "\
Examples:
  kontor undeploy report
  kontor undeploy report --note 'replaced by statistics'

Its commands, queries and routes are removed at once. Its events stay in the log; a later `kontor deploy`
continues with them. It is refused while another service needs it: queries it, sends it commands, follows its
events or takes its messages. --allow-breaking service:NAME undeploys it all the same. Its open sagas continue
on their version.";

/// Undeploy a service of a running host; its events stay in the log
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Undeploy {
    /// The name of the service
    service: String,
    /// The reason. It stays in the log
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// A breaking change to allow: service:payment, if another service needs it
    #[arg(long, value_name = "CHANGE")]
    allow_breaking: Vec<String>,
    #[command(flatten)]
    actor: ActorArgument,
    #[command(flatten)]
    host: HostArgument,
}

impl Undeploy {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut parameters: Vec<_> = self.note.iter().map(|note| ("note", note.clone())).collect();
        parameters.extend(self.allow_breaking.iter().map(|change| ("allow-breaking", change.clone())));
        let path = format!("/admin/plugins/{}", self.service);
        let client = Client::of_deployments(&self.host)?;
        let body = match client.delete(&path, &parameters, &[self.actor.header()]) {
            refused @ Err(ClientError::Refused { report: Some(_), .. }) => {
                return gates::print(refused, None, json, out);
            }
            response => response?,
        };
        print(&body, "undeployed service", json, out, |UndeployedPlugin { service, digest }| {
            format!("{service} ({}) is undeployed; its events stay in the log\n", digest.short())
        })
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::super::scripted_host::{Ran, kontor, ok};

    const LINE: [&str; 6] = ["undeploy", "report", "--note", "why", "--allow-breaking", "query:sales"];

    #[test]
    fn an_undeployed_service_is_named_with_its_digest() {
        let response = json!({"service": "report", "digest": "01".repeat(32)}).to_string();
        let Ran { requests, printed, error, .. } = kontor(&LINE, vec![ok(&response)]);
        let expected = "DELETE /admin/plugins/report?note=why&allow-breaking=query%3Asales HTTP/1.1";
        assert_eq!(requests, [expected]);
        assert_eq!(printed, "report (010101010101) is undeployed; its events stay in the log\n");
        assert_eq!(error, None);
    }

    #[test]
    fn snapshot_of_a_refusal() {
        let gate = json!({
            "gate": "side-by-side", "outcome": "refused", "took_ms": 0, "says": "the service order asks it",
        });
        let report = json!({"dry_run": false, "live": false, "services": [], "gates": [gate]});
        let problem = json!({"title": "Unprocessable", "code": "gate-refused", "report": report});
        let response = format!("HTTP/1.1 422 Unprocessable Entity\r\nconnection: close\r\n\r\n{problem}");
        let Ran { printed, error, .. } = kontor(&LINE, vec![response]);
        expect![[r#"
            all services together
            GATE          OUTCOME  TOOK  RESULT
            side-by-side  refused  0ms   the service order asks it

            error: nothing was changed: the gate side-by-side refuses the services together: the service order asks it
        "#]].assert_eq(&format!("{printed}error: {}\n", error.unwrap()));
    }
}
