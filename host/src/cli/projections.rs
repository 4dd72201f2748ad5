//! `kontor projections`: the read models of a running host, and what a person can do about them.

use std::io::Write;

use anyhow::Context as _;
use clap::Subcommand;
use kontor::projection::{Build, Overview, ParkedStream, Redrive};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::client::{Client, HostArgument};
use super::style::{Colour, Style, span};
use super::table::{fitted, table, terminal_width};

/// Parked streams that are shown at once: more than anybody reads.
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
  kontor projections redrive report --stream order/A-1

The events of a parked stream are applied again in order, from the one that failed, by the component that is deployed now.
Each takes effect once. A stream that fails again stays parked. Meanwhile the read model does not go on with the others.";

/// Show how far read models are, and what they could not go on with
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Projections {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    host: HostArgument,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show one read model with its parked streams
    #[command(after_help = SHOW_EXAMPLES)]
    Show(One),
    /// Have a read model go on with its parked streams
    #[command(after_help = REDRIVE_EXAMPLES)]
    Redrive {
        /// Only this stream, such as order/A-1
        #[arg(long, value_name = "STREAM")]
        stream: Option<String>,
        #[command(flatten)]
        one: One,
    },
}

/// Which read model.
#[derive(Debug, clap::Args)]
pub(super) struct One {
    /// The service whose read model it is
    pub(super) service: String,
    #[command(flatten)]
    pub(super) host: HostArgument,
}

/// What GET /admin/projections answers.
#[derive(Deserialize)]
struct Page {
    items: Vec<Overview>,
}

/// What GET /admin/projections/{service} answers.
#[derive(Deserialize)]
struct Shown {
    #[serde(flatten)]
    overview: Overview,
    parked_streams: Vec<ParkedStream>,
}

impl Projections {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        match self.what {
            None => {
                let body = Client::new(&self.host)?.get("/admin/projections", &[])?;
                tell(&body, json, out, |page: Page| projection_table(&page.items, Style::of_output()))
            }
            Some(What::Show(One { service, host })) => {
                let limit = [("limit", SHOWN.to_string())];
                let body = Client::new(&host)?.get(&format!("/admin/projections/{service}"), &limit)?;
                tell(&body, json, out, |shown: Shown| {
                    projection_text(&shown, Style::of_output(), &host.flag(), terminal_width())
                })
            }
            Some(What::Redrive { stream, one: One { service, host } }) => {
                let wanted = stream.map_or_else(|| json!({}), |stream| json!({ "stream": stream }));
                let path = format!("/admin/projections/{service}/redrive");
                let body = Client::new(&host)?.post(&path, &[], &wanted)?;
                tell(&body, json, out, |redrive: Redrive| redrive_text(redrive, &service, &host.flag()))
            }
        }
    }
}

/// Prints an answer as it came, or as a text for people.
pub(super) fn tell<T: DeserializeOwned>(
    body: &str,
    json: bool,
    out: &mut dyn Write,
    text: impl FnOnce(T) -> String,
) -> anyhow::Result<()> {
    if json {
        writeln!(out, "{}", body.trim_end())?;
        return Ok(());
    }
    let answer = serde_json::from_str(body).context("the host's answer has another shape")?;
    write!(out, "{}", text(answer))?;
    Ok(())
}

/// One line a read model.
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
                parked => style.paint(Colour::Red, &parked.to_string()),
            },
            projection.building.as_ref().map_or_else(|| "-".to_owned(), |build| progress(build, projection)),
        ]
    };
    table(
        ["service", "version", "from", "position", "lag", "parked", "building"],
        projections.iter().map(row).collect(),
    )
}

/// `40000/123456, 51000 events/s`
fn progress(build: &Build, live: &Overview) -> String {
    let Build { position, events_per_second, .. } = build;
    format!("{position}/{}, {events_per_second} events/s", live.position.after(live.lag_events as usize))
}

fn lag(projection: &Overview) -> String {
    match projection.lag_events {
        0 => "-".to_owned(),
        events => format!("{} ({})", counted(events, "event"), span(projection.lag_ms)),
    }
}

/// The read model and its parked streams, one a line, no longer than `width`.
fn projection_text(shown: &Shown, style: Style, flag: &str, width: Option<usize>) -> String {
    let Shown { overview, parked_streams } = shown;
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
        text += &format!("These are the first {} of {}.\n", parked_streams.len(), overview.parked);
    }
    text + &format!("\nWhen the cause is removed: kontor projections redrive {}{flag}\n", overview.service)
}

fn redrive_text(redrive: Redrive, service: &str, flag: &str) -> String {
    let Redrive { streams, events, parked } = redrive;
    let mut text =
        format!("{} applied, {} parked no more\n", counted(events, "event"), counted(streams, "stream"));
    if parked > 0 {
        text += &format!(
            "{} failed again; see why: kontor projections show {service}{flag}\n",
            counted(parked, "stream")
        );
    }
    text
}

pub(super) fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::scripted_host::scripted_host;
    use super::*;

    const BEHIND: &str = r#"{"service":"report","version":2,"from":"2026-11-01T00:00:00.000Z","position":40,"lag_events":3,"lag_ms":1500,"parked":2}"#;
    const UP_TO_DATE: &str = r#"{"service":"inventory","version":1,"position":43,"lag_events":0,"lag_ms":0,"parked":0,"building":{"version":1,"position":20,"events_per_second":7}}"#;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        projections: Projections,
    }

    /// The request and what is printed.
    fn run(json: bool, arguments: &[&str], body: &str) -> (String, String) {
        let (host, answering) =
            scripted_host(vec![format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}")]);
        let line = ["projections"].into_iter().chain(arguments.iter().copied()).chain(["--host", &host]);
        let mut out = Vec::new();
        Line::parse_from(line).projections.run(json, &mut out).unwrap();
        let printed = String::from_utf8(out).unwrap().replace(&host, "HOST");
        (answering.join().unwrap().remove(0), printed)
    }

    #[test]
    fn read_models_are_listed_one_a_line() {
        let expected = "\
SERVICE    VERSION  FROM                      POSITION  LAG              PARKED  BUILDING
inventory  1        -                         43        -                -       20/43, 7 events/s
report     2        2026-11-01T00:00:00.000Z  40        3 events (1.5s)  2       -
";
        let (asked, printed) = run(false, &[], &format!(r#"{{"items":[{UP_TO_DATE},{BEHIND}]}}"#));
        assert_eq!((asked.as_str(), printed.as_str()), ("GET /admin/projections HTTP/1.1", expected));
        assert_eq!(run(false, &[], r#"{"items":[]}"#).1, "There is no read model.\n");
    }

    #[test]
    fn parked_streams_are_shown_with_what_to_do() {
        let parked = r#"[{"stream":"order/A-1","position":7,"error":"no such column","skipped":3}]"#;
        let overview = BEHIND.trim_end_matches('}');
        let body = format!(r#"{overview},"parked_streams":{parked},"next":null}}"#);
        let (asked, printed) = run(false, &["show", "report"], &body);
        assert_eq!(asked, "GET /admin/projections/report?limit=100 HTTP/1.1");
        let expected = "\
SERVICE  VERSION  FROM                      POSITION  LAG              PARKED  BUILDING
report   2        2026-11-01T00:00:00.000Z  40        3 events (1.5s)  2       -

PARKED     SINCE  SKIPPED  ERROR
order/A-1  7      3        no such column
These are the first 1 of 2.

When the cause is removed: kontor projections redrive report --host HOST
";
        assert_eq!(printed, expected);
        assert_eq!(run(true, &["show", "report"], &body).1, format!("{body}\n"));
    }

    #[test]
    fn a_redrive_tells_what_came_of_it() {
        let table = [
            (
                vec!["redrive", "report"],
                r#"{"streams":2,"events":1,"parked":0}"#,
                "{}",
                "1 event applied, 2 streams parked no more\n",
            ),
            (
                vec!["redrive", "report", "--stream", "order/A-1"],
                r#"{"streams":0,"events":0,"parked":1}"#,
                r#"{"stream":"order/A-1"}"#,
                "0 events applied, 0 streams parked no more\n\
                 1 stream failed again; see why: kontor projections show report --host HOST\n",
            ),
        ];
        for (arguments, answer, sent, expected) in table {
            let (asked, printed) = run(false, &arguments, answer);
            assert_eq!(asked, format!("POST /admin/projections/report/redrive HTTP/1.1 {sent}"));
            assert_eq!(printed, expected);
        }
    }
}
