//! `kontor undeploy`: takes a service out of a running host.

use std::io::Write;

use anyhow::Context as _;
use kontor::model::Digest;
use serde::Deserialize;

use super::client::{ActorArgument, Client, ClientError, HostArgument};
use super::gates;

const EXAMPLES: &str = "\
Examples:
  kontor undeploy report
  kontor undeploy report --note 'replaced by statistics'

Its commands, queries and routes are gone at once; its events stay in the log, and a later `kontor deploy` goes on with them.
It is refused as long as another service asks it. Sagas of it that are open go on, on the version that they are on.";

/// Take a service out of a running host
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Undeploy {
    /// The service
    service: String,
    /// Why; it stays in the log
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// What may break, as the refusal names it
    #[arg(long, value_name = "WHAT")]
    allow_breaking: Vec<String>,
    #[command(flatten)]
    actor: ActorArgument,
    #[command(flatten)]
    host: HostArgument,
}

/// What DELETE /admin/plugins/{service} answers.
#[derive(Deserialize)]
struct Undeployed {
    service: String,
    digest: Digest,
}

impl Undeploy {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut parameters: Vec<_> = self.note.iter().map(|note| ("note", note.clone())).collect();
        parameters.extend(self.allow_breaking.iter().map(|what| ("allow-breaking", what.clone())));
        let path = format!("/admin/plugins/{}", self.service);
        let client = Client::of_deployments(&self.host)?;
        let body = match client.delete(&path, &parameters, &[self.actor.header()]) {
            refused @ Err(ClientError::Refused { report: Some(_), .. }) => {
                return gates::tell(refused, None, json, out);
            }
            answer => answer?,
        };
        if json {
            writeln!(out, "{}", body.trim_end())?;
            return Ok(());
        }
        let Undeployed { service, digest } =
            serde_json::from_str(&body).context("the host's answer has another shape")?;
        writeln!(out, "{service} ({}) runs no more; its events stay in the log", digest.short())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::super::scripted_host::scripted_host;
    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        undeploy: Undeploy,
    }

    /// The request, what is printed, and the error.
    fn run(status: &str, body: &str) -> (String, String, Option<String>) {
        let (host, answering) =
            scripted_host(vec![format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n{body}")]);
        let line =
            ["undeploy", "report", "--note", "why", "--allow-breaking", "query:sales", "--host", &host];
        let mut out = Vec::new();
        let outcome = Line::parse_from(line).undeploy.run(false, &mut out);
        let printed = String::from_utf8(out).unwrap();
        (answering.join().unwrap().remove(0), printed, outcome.err().map(|error| error.to_string()))
    }

    #[test]
    fn a_service_that_is_taken_out_is_named_with_its_digest() {
        let answer = json!({"service": "report", "digest": "01".repeat(32)}).to_string();
        let (asked, printed, error) = run("200 OK", &answer);
        assert_eq!(asked, "DELETE /admin/plugins/report?note=why&allow-breaking=query%3Asales HTTP/1.1");
        assert_eq!(printed, "report (010101010101) runs no more; its events stay in the log\n");
        assert_eq!(error, None);
    }

    #[test]
    fn a_refusal_says_who_still_needs_it() {
        let gate = json!({
            "gate": "side-by-side", "outcome": "refused", "took_ms": 0, "says": "the service order asks it",
        });
        let report = json!({"dry_run": false, "live": false, "services": [], "gates": [gate]});
        let problem = json!({"title": "Unprocessable", "code": "gate-refused", "report": report}).to_string();
        let (_, printed, error) = run("422 Unprocessable Entity", &problem);
        assert!(printed.contains("side-by-side  refused"), "{printed}");
        let told = "nothing was changed: the gate side-by-side refuses the services together: the service order asks it";
        assert_eq!(error.unwrap(), told);
    }
}
