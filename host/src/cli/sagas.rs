//! `kontor sagas`: the sagas of a running host.

use std::io::Write;

use anyhow::Context as _;
use kontor::clock::{Clock as _, SystemClock, Time};
use kontor::saga::{Overview, SagaState};
use serde::Deserialize;

use super::client::{Client, HostArgument};
use super::style::{Style, span};
use super::table::{fitted, terminal_width};

const EXAMPLES: &str = "\
Examples:
  kontor sagas
  kontor sagas --state parked
  kontor sagas --saga place-order --limit 10
  kontor sagas --state parked --json | jq -r '.items[].id'";

/// List the sagas of a running host, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Sagas {
    /// Only those in this state
    #[arg(long)]
    state: Option<SagaState>,
    /// Only those of this name, such as place-order
    #[arg(long, value_name = "NAME")]
    saga: Option<String>,
    /// At most so many
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    limit: u64,
    #[command(flatten)]
    host: HostArgument,
}

/// What GET /admin/sagas answers.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) items: Vec<Overview>,
    next: Option<String>,
}

impl Sagas {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let state = self.state.map(|state| ("state", state.as_str().to_owned()));
        let saga = self.saga.clone().map(|saga| ("saga", saga));
        let limit = ("limit", self.limit.to_string());
        let parameters: Vec<_> = [state, saga, Some(limit)].into_iter().flatten().collect();
        let body = Client::new(&self.host)?.get("/admin/sagas", &parameters)?;
        if json {
            writeln!(out, "{}", body.trim_end())?;
            return Ok(());
        }
        let page = Page::read(&body)?;
        if page.items.is_empty() {
            writeln!(out, "{}", self.none())?;
            return Ok(());
        }
        let now = Time(SystemClock.now_ms());
        write!(out, "{}", saga_table(&page.items, now, Style::of_output(), terminal_width()))?;
        if page.next.is_some() {
            writeln!(out, "There may be more: see --limit.")?;
        }
        Ok(())
    }

    fn none(&self) -> String {
        let name = self.saga.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        let state = self.state.map(|state| format!(" that is {}", state.as_str())).unwrap_or_default();
        format!("There is no saga{name}{state}.")
    }
}

impl Page {
    pub(super) fn read(body: &str) -> anyhow::Result<Self> {
        serde_json::from_str(body).context("the host's list of sagas has another shape")
    }
}

/// One line a saga, no longer than `width`.
fn saga_table(sagas: &[Overview], now: Time, style: Style, width: Option<usize>) -> String {
    let row = |saga: &Overview| {
        [
            saga.id.to_string(),
            saga.name.to_string(),
            saga.stream.clone(),
            style.state(saga.state),
            span(now.0.saturating_sub(saga.started.0)),
            saga.why.clone().unwrap_or_default(),
        ]
    };
    let heading = ["id", "saga", "aggregate", "state", "age", "why"];
    fitted(heading, sagas.iter().map(row).collect(), width)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::scripted_host::scripted_host;
    use super::*;

    const ITEMS: &str = concat!(
        r#"[{"id":"01997a2b-0000-7000-8000-000000000002","service":"order","name":"place-order","state":"parked","#,
        r#""stream":"order/A-2","started":"2026-11-22T03:18:01.250Z","why":"not undone: pay"},"#,
        r#"{"id":"01997a2b-0000-7000-8000-000000000001","service":"order","name":"delete-order","state":"completed","#,
        r#""stream":"order/A-1","started":"2026-11-22T03:17:56.250Z"}]"#
    );

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sagas: Sagas,
    }

    /// The request and what is printed.
    fn run(json: bool, arguments: &[&str], body: &str) -> (String, String) {
        let (host, answering) =
            scripted_host(vec![format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}")]);
        let line = ["sagas", "--host", &host].into_iter().chain(arguments.iter().copied());
        let mut out = Vec::new();
        Line::parse_from(line).sagas.run(json, &mut out).unwrap();
        (answering.join().unwrap().remove(0), String::from_utf8(out).unwrap())
    }

    #[test]
    fn sagas_are_listed_one_a_line() {
        let items: Vec<Overview> = serde_json::from_str(ITEMS).unwrap();
        let now = Time(items[0].started.0 + 2_000);
        let expected = "\
ID                                    SAGA          AGGREGATE  STATE      AGE   WHY
01997a2b-0000-7000-8000-000000000002  place-order   order/A-2  parked     2.0s  not undone: pay
01997a2b-0000-7000-8000-000000000001  delete-order  order/A-1  completed  7.0s
";
        assert_eq!(saga_table(&items, now, Style::PLAIN, None), expected);
        let narrow = saga_table(&items, now, Style::COLOURED, Some(90));
        let line = narrow.lines().nth(1).unwrap();
        assert!(line.contains("\x1b[31mparked\x1b[0m") && line.ends_with("not undon…"), "{line}");
    }

    #[test]
    fn what_was_asked_for_goes_to_the_host() {
        let arguments = ["--state", "parked", "--saga", "place-order", "--limit", "2"];
        let (asked, printed) = run(false, &arguments, &format!(r#"{{"items":{ITEMS},"next":"x"}}"#));
        assert_eq!(asked, "GET /admin/sagas?state=parked&saga=place-order&limit=2 HTTP/1.1");
        assert!(printed.ends_with("There may be more: see --limit.\n"), "{printed}");
    }

    #[test]
    fn an_empty_list_is_a_sentence() {
        let empty = r#"{"items":[],"next":null}"#;
        for (arguments, expected) in [
            (vec![], "There is no saga.\n"),
            (vec!["--state", "parked"], "There is no saga that is parked.\n"),
            (vec!["--saga", "ship-order"], "There is no saga ship-order.\n"),
        ] {
            assert_eq!(run(false, &arguments, empty).1, expected);
        }
    }

    #[test]
    fn json_is_passed_on_as_it_came() {
        let body = format!(r#"{{"items":{ITEMS},"next":null}}"#);
        assert_eq!(run(true, &[], &body).1, format!("{body}\n"));
    }
}
