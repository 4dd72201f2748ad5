//! `kontor audit`: the acts of operators and deployers on a running host, or on any other of its log.

use std::io::Write;

use kontor::api::Page;
use kontor::audit::AuditEntry;
use kontor::clock::Time;
use kontor::model::{Json, Position};

use super::client::{Client, HostArgument};
use super::output::parse;
use super::replay::time;
use super::table::{fitted, terminal_width};

/// The page size: the largest that a host returns.
const PAGE_SIZE: u64 = 1_000;
/// The largest number of permissions that a line of the table names. With `--json` all are there.
const MAX_GRANTS: usize = 3;

const EXAMPLES: &str = "\
Examples:
  kontor audit
  kontor audit --by ada --since 2026-11-01T00:00:00Z
  kontor audit --json | jq 'select(.act == \"discard-dead-letters\")'

The acts are events of the log, so the list is the same on every host and outlives all of them. An act that is
refused before it begins is not in it; one whose outcome is unknown is in progress, or its host has stopped.
With --json the list has one act a line, with the position of its event: `kontor events --after 6 --limit 1`
prints the one at 7.";

/// List the acts of operators and deployers, oldest first: who did what, when and why
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Audit {
    /// Only acts of this operator or deployer
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Only acts at this time or later, such as 2026-11-01T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Time>,
    #[command(flatten)]
    host: HostArgument,
}

impl Audit {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let client = Client::new(&self.host)?;
        let (mut after, mut entries) = (Position::START, Vec::new());
        loop {
            let mut parameters = vec![("after", after.to_string()), ("limit", PAGE_SIZE.to_string())];
            parameters.extend(self.by.clone().map(|by| ("by", by)));
            parameters.extend(self.since.map(|since| ("since", since.into())));
            let body = client.get("/admin/audit", &parameters)?;
            let page: Page<Json, Position> = parse(&body, "page of acts")?;
            for item in page.items {
                match json {
                    true => writeln!(out, "{}", item.as_str())?,
                    false => entries.push(parse::<AuditEntry>(item.as_str(), "act")?),
                }
            }
            match page.next {
                Some(next) => after = next,
                None => break,
            }
        }
        if !json {
            write!(out, "{}", audit_table(&entries, terminal_width()))?;
        }
        Ok(())
    }
}

/// Returns one line an act, no longer than `width`, or a sentence if there is none.
fn audit_table(entries: &[AuditEntry], width: Option<usize>) -> String {
    if entries.is_empty() {
        return "There is no such act.\n".to_owned();
    }
    let row = |entry: &AuditEntry| {
        let granted = match entry.grants.len() {
            many if many > MAX_GRANTS => vec![format!("granted {many} permissions")],
            _ => entry.grants.iter().map(|grant| format!("granted {grant}")).collect(),
        };
        let failure = entry.failure.iter().map(|why| format!("failed: {why}"));
        let details: Vec<_> = entry.detail.iter().cloned().chain(granted).chain(failure).collect();
        [
            String::from(entry.time),
            entry.by.to_string(),
            entry.act.to_string(),
            entry.outcome.to_string(),
            entry.target.clone(),
            if details.is_empty() { "-".to_owned() } else { details.join(", ") },
            entry.reason.clone().unwrap_or_default(),
        ]
    };
    let heading = ["time", "by", "act", "outcome", "target", "detail", "why"];
    fitted(heading, entries.iter().map(row).collect(), width)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::scripted_host::{accepts, kontor, ok};

    const DEPLOY: &str = r#"{"position": 7, "time": "2026-11-22T03:18:01.250Z", "by": "ada",
        "act": "deploy", "outcome": "done", "target": "order 0.2.0", "grants": ["order: service:payment"],
        "reason": "spring sale"}"#;
    const SKIP: &str = r#"{"position":40,"time":"2026-11-22T03:20:00.000Z","by":"bob","act":"skip-step","outcome":"done","target":"01997a2b","detail":"pay","reason":"ticket 4711"}"#;

    const REDRIVE: &str = r#"{"position":41,"time":"2026-11-22T03:21:00.000Z","by":"bob",
        "act":"redrive-projection","outcome":"failed","failure":"1 of 2 streams failed again and stay parked",
        "target":"report"}"#;

    #[test]
    fn snapshot_of_the_list_of_acts_on_two_pages() {
        let first = format!(r#"{{"items":[{DEPLOY}],"next":7}}"#);
        let second = format!(r#"{{"items":[{SKIP},{REDRIVE}],"next":null}}"#);
        let line = ["audit", "--since", "2026-11-22T00:00:00Z"];
        let ran = kontor(&line, vec![ok(&first), ok(&second)]);
        let request = |after| {
            format!("GET /admin/audit?after={after}&limit=1000&since=2026-11-22T00%3A00%3A00.000Z HTTP/1.1")
        };
        assert_eq!(ran.requests, [request(0), request(7)]);
        expect![[r#"
            TIME                      BY   ACT                 OUTCOME  TARGET       DETAIL                                               WHY
            2026-11-22T03:18:01.250Z  ada  deploy              done     order 0.2.0  granted order: service:payment                       spring sale
            2026-11-22T03:20:00.000Z  bob  skip-step           done     01997a2b     pay                                                  ticket 4711
            2026-11-22T03:21:00.000Z  bob  redrive-projection  failed   report       failed: 1 of 2 streams failed again and stay parked
        "#]]
        .assert_eq(&ran.printed);
    }

    #[test]
    fn an_act_is_a_line_of_json_as_the_host_sent_it() {
        let page = format!(r#"{{"items":[{SKIP}],"next":null}}"#);
        let ran = kontor(&["audit", "--by", "bob", "--json"], vec![ok(&page)]);
        assert_eq!(ran.requests, ["GET /admin/audit?after=0&limit=1000&by=bob HTTP/1.1"]);
        assert_eq!(ran.printed, format!("{SKIP}\n"));
    }

    #[test]
    fn an_empty_list_is_a_sentence() {
        let ran = kontor(&["audit"], vec![ok(r#"{"items":[],"next":null}"#)]);
        assert_eq!(ran.printed, "There is no such act.\n");
        assert!(!accepts(&["audit", "--since", "yesterday"]));
    }
}
