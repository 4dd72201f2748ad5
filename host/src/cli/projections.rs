//! `kontor projections`: the read models of a running host, and the acts of an operator on them.

use std::io::Write;

use clap::Subcommand;
use kontor::api::{List, ProjectionDetails, RedriveRequest};
use kontor::projection::{Build, Overview, ParkedStream, Redrive};
use serde_json::json;

use super::client::{ActArguments, Client, HostArgument};
use super::output::{counted, print};
use super::style::{Color, Style, span};
use super::table::{fitted, table, terminal_width};

/// The largest number of parked streams that are shown: more than an operator reads.
const SHOWN: u64 = 100;

const EXAMPLES: &str = "\
Examples:
  kontor projections
  kontor projections show report
  kontor projections redrive report
  kontor projections --json | jq '.items[] | select(.parked > 0)'";

const SHOW_EXAMPLES: &str = "\
Examples:
  kontor projections show report
  kontor projections show report --json | jq -r '.parked_streams[].stream'";

const REDRIVE_EXAMPLES: &str = "\
Examples:
  kontor projections redrive report
  kontor projections redrive report --stream order/A-1 --reason 'the new version can apply it'

The events of a parked stream are applied again in order, from the one that failed, by the component that is
deployed now. Each takes effect once. A stream that fails again stays parked. Until the end the other
streams wait.";

/// List the read models, their progress and their parked streams
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Projections {
    #[command(subcommand)]
    act: Option<Act>,
    #[command(flatten)]
    host: HostArgument,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Show one read model with its parked streams
    #[command(after_help = SHOW_EXAMPLES)]
    Show(One),
    /// Apply the events of parked streams again
    #[command(after_help = REDRIVE_EXAMPLES)]
    Redrive {
        /// Only this stream, such as order/A-1
        #[arg(long, value_name = "STREAM")]
        stream: Option<String>,
        #[command(flatten)]
        why: ActArguments,
        #[command(flatten)]
        one: One,
    },
}

/// The read model, and its host.
#[derive(Debug, clap::Args)]
pub(super) struct One {
    /// The service of the read model
    pub(super) service: String,
    #[command(flatten)]
    pub(super) host: HostArgument,
}

impl Projections {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        match self.act {
            None => {
                let body = Client::new(&self.host)?.get("/admin/projections", &[])?;
                print(&body, "list of read models", json, out, |list: List<Overview>| {
                    projection_table(&list.items, Style::of_output())
                })
            }
            Some(Act::Show(One { service, host })) => {
                let limit = [("limit", SHOWN.to_string())];
                let body = Client::new(&host)?.get(&format!("/admin/projections/{service}"), &limit)?;
                print(&body, "read model", json, out, |details: ProjectionDetails| {
                    projection_text(&details, Style::of_output(), &host.flag(), terminal_width())
                })
            }
            Some(Act::Redrive {
                stream,
                why: ActArguments { reason, actor },
                one: One { service, host },
            }) => {
                let request = json!(RedriveRequest { stream, reason });
                let path = format!("/admin/projections/{service}/redrive");
                let body = Client::new(&host)?.post(&path, &[actor.header()], &request)?;
                print(&body, "redrive of a read model", json, out, |redrive: Redrive| {
                    redrive_text(redrive, &service, &host.flag())
                })
            }
        }
    }
}

/// Returns one line a read model, or a sentence if there is none.
fn projection_table(projections: &[Overview], style: Style) -> String {
    if projections.is_empty() {
        return "There is no read model.\n".to_owned();
    }
    let row = |projection: &Overview| {
        [
            projection.service.to_string(),
            projection.version.to_string(),
            projection.from.map_or_else(|| "-".to_owned(), String::from),
            projection.position.to_string(),
            lag(projection),
            match projection.parked {
                0 => "-".to_owned(),
                parked => style.paint(Color::Red, &parked.to_string()),
            },
            projection.building.as_ref().map_or_else(|| "-".to_owned(), |build| progress(build, projection)),
        ]
    };
    table(
        ["service", "version", "from", "position", "lag", "parked", "building"],
        projections.iter().map(row).collect(),
    )
}

/// Returns the progress of a build as `40000/123456, 51000 events/s`.
fn progress(build: &Build, live: &Overview) -> String {
    let Build { position, events_per_second, .. } = build;
    format!("{position}/{}, {events_per_second} events/s", live.position.after(live.lag_events as usize))
}

/// Returns the lag of a read model as `3 events (1.5s)`.
fn lag(projection: &Overview) -> String {
    match projection.lag_events {
        0 => "-".to_owned(),
        events => format!("{} ({})", counted(events, "event"), span(projection.lag_ms)),
    }
}

/// Returns a read model and its parked streams, one a line, no longer than `width`.
fn projection_text(details: &ProjectionDetails, style: Style, flag: &str, width: Option<usize>) -> String {
    let ProjectionDetails { overview, parked_streams, .. } = details;
    let mut text = projection_table(std::slice::from_ref(overview), style);
    if parked_streams.is_empty() {
        return text;
    }
    let row = |parked: &ParkedStream| {
        let ParkedStream { stream, position, error, skipped } = parked;
        [stream.clone(), position.to_string(), skipped.to_string(), error.clone()]
    };
    text.push('\n');
    text += &fitted(["parked", "since", "skipped", "error"], parked_streams.iter().map(row).collect(), width);
    if overview.parked > parked_streams.len() as u64 {
        text += &format!("The first {} of {} are shown.\n", parked_streams.len(), overview.parked);
    }
    text + &format!("\nOnce the cause is removed: kontor projections redrive {}{flag}\n", overview.service)
}

/// Returns the outcome of a redrive.
fn redrive_text(redrive: Redrive, service: &str, flag: &str) -> String {
    let Redrive { streams, events, parked } = redrive;
    let mut text = format!("{} applied, {} unparked\n", counted(events, "event"), counted(streams, "stream"));
    if parked > 0 {
        text += &format!(
            "{} failed again; see the reason: kontor projections show {service}{flag}\n",
            counted(parked, "stream")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::scripted_host::{kontor, ok};

    const BEHIND: &str = r#"{"service": "report", "version": 2, "from": "2026-11-01T00:00:00.000Z",
        "position": 40, "lag_events": 3, "lag_ms": 1500, "parked": 2}"#;
    const UP_TO_DATE: &str = r#"{"service": "inventory", "version": 1, "position": 43, "lag_events": 0,
        "lag_ms": 0, "parked": 0, "building": {"version": 1, "position": 20, "events_per_second": 7}}"#;

    #[test]
    fn snapshot_of_the_list_of_read_models() {
        let body = format!(r#"{{"items":[{UP_TO_DATE},{BEHIND}]}}"#);
        let ran = kontor(&["projections"], vec![ok(&body)]);
        assert_eq!(ran.requests, ["GET /admin/projections HTTP/1.1"]);
        expect![[r#"
            SERVICE    VERSION  FROM                      POSITION  LAG              PARKED  BUILDING
            inventory  1        -                         43        -                -       20/43, 7 events/s
            report     2        2026-11-01T00:00:00.000Z  40        3 events (1.5s)  2       -
        "#]]
        .assert_eq(&ran.printed);
    }

    #[test]
    fn an_empty_list_is_a_sentence() {
        let ran = kontor(&["projections"], vec![ok(r#"{"items":[]}"#)]);
        assert_eq!(ran.printed, "There is no read model.\n");
    }

    #[test]
    fn snapshot_of_a_read_model_with_parked_streams() {
        let parked = r#"[{"stream":"order/A-1","position":7,"error":"no such column","skipped":3}]"#;
        let overview = BEHIND.trim_end_matches('}');
        let body = format!(r#"{overview},"parked_streams":{parked},"next":null}}"#);
        let ran = kontor(&["projections", "show", "report"], vec![ok(&body)]);
        assert_eq!(ran.requests, ["GET /admin/projections/report?limit=100 HTTP/1.1"]);
        expect![[r#"
            SERVICE  VERSION  FROM                      POSITION  LAG              PARKED  BUILDING
            report   2        2026-11-01T00:00:00.000Z  40        3 events (1.5s)  2       -

            PARKED     SINCE  SKIPPED  ERROR
            order/A-1  7      3        no such column
            The first 1 of 2 are shown.

            Once the cause is removed: kontor projections redrive report --host HOST
        "#]]
        .assert_eq(&ran.printed);

        let ran = kontor(&["projections", "show", "report", "--json"], vec![ok(&body)]);
        assert_eq!(ran.printed, format!("{body}\n"));
    }

    #[test]
    fn snapshot_of_a_redrive() {
        let body = r#"{"streams":2,"events":1,"parked":0}"#;
        let ran = kontor(&["projections", "redrive", "report"], vec![ok(body)]);
        assert_eq!(ran.requests, ["POST /admin/projections/report/redrive HTTP/1.1 {}"]);
        expect![[r#"
            1 event applied, 2 streams unparked
        "#]]
        .assert_eq(&ran.printed);
    }

    #[test]
    fn snapshot_of_a_redrive_that_failed_again() {
        let line = ["projections", "redrive", "report", "--stream", "order/A-1"];
        let ran = kontor(&line, vec![ok(r#"{"streams":0,"events":0,"parked":1}"#)]);
        let request = r#"POST /admin/projections/report/redrive HTTP/1.1 {"stream":"order/A-1"}"#;
        assert_eq!(ran.requests, [request]);
        expect![[r#"
            0 events applied, 0 streams unparked
            1 stream failed again; see the reason: kontor projections show report --host HOST
        "#]]
        .assert_eq(&ran.printed);
    }
}
