//! `kontor sagas`: the sagas of a running host.

use std::io::Write;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use kontor::api::Page;
use kontor::clock::{Clock as _, SystemClock, Time};
use kontor::saga::{Overview, SagaState};

use super::client::{Client, HostArgument};
use super::output::print;
use super::style::{Style, span};
use super::table::{fitted, terminal_width};

const EXAMPLES: &str = "\
Examples:
  kontor sagas
  kontor sagas --state parked
  kontor sagas --saga place-order --limit 10
  kontor sagas --state parked --json | jq -r '.items[].id'";

/// The content of a response, as an error names it.
pub(super) const CONTENT: &str = "list of sagas";

/// List the sagas of a running host, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Sagas {
    /// Only sagas in this state
    #[arg(long, value_parser = states())]
    state: Option<SagaState>,
    /// Only sagas of this name, such as place-order
    #[arg(long, value_name = "NAME")]
    saga: Option<String>,
    /// Maximum number of sagas to list, up to 1000
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1_000))]
    limit: u64,
    #[command(flatten)]
    host: HostArgument,
}

impl Sagas {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let state = self.state.map(|state| ("state", state.as_str().to_owned()));
        let saga = self.saga.clone().map(|saga| ("saga", saga));
        let limit = ("limit", self.limit.to_string());
        let parameters: Vec<_> = [state, saga, Some(limit)].into_iter().flatten().collect();
        let body = Client::new(&self.host)?.get("/admin/sagas", &parameters)?;
        print(&body, CONTENT, json, out, |page: Page<Overview, String>| {
            if page.items.is_empty() {
                return self.none();
            }
            let now = Time(SystemClock.now_ms());
            let table = saga_table(&page.items, now, Style::of_output(), terminal_width());
            let more = page.next.map_or("", |_| "There may be more; see --limit.\n");
            table + more
        })
    }

    /// Returns the sentence for an empty list.
    fn none(&self) -> String {
        let name = self.saga.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        let state = self.state.map(|state| format!(" in the state {}", state.as_str())).unwrap_or_default();
        format!("There is no saga{name}{state}.\n")
    }
}

/// Returns the parser of a state. Its help describes each one.
fn states() -> impl TypedValueParser<Value = SagaState> {
    let help = |state| match state {
        SagaState::Running => "Its code runs, or is queued to run",
        SagaState::Waiting => "It sleeps, or waits for an event",
        SagaState::Unwinding => "Its steps are being undone",
        SagaState::Parked => "It needs an operator",
        SagaState::Completed => "All its steps are done",
        SagaState::Compensated => "All its steps are undone",
        SagaState::Resolved => "An operator has ended it",
    };
    let value = |state: SagaState| PossibleValue::new(state.as_str()).help(help(state));
    PossibleValuesParser::new(SagaState::ALL.iter().copied().map(value))
        .try_map(|name| SagaState::parse(&name).ok_or("it is no state of a saga"))
}

/// Returns one line a saga, no longer than `width`.
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
    use expect_test::{Expect, expect};

    use super::super::scripted_host::{accepts, kontor, ok};
    use super::*;

    const ITEMS: &str = r#"[
        {"id": "01997a2b-0000-7000-8000-000000000002", "service": "order", "name": "place-order",
         "state": "parked", "stream": "order/A-2", "started": "2026-11-22T03:18:01.250Z",
         "why": "not undone: pay"},
        {"id": "01997a2b-0000-7000-8000-000000000001", "service": "order", "name": "delete-order",
         "state": "completed", "stream": "order/A-1", "started": "2026-11-22T03:17:56.250Z"}
    ]"#;

    /// Checks the table of the sagas, two seconds after the newest one has started.
    #[track_caller]
    fn check(style: Style, width: Option<usize>, expected: Expect) {
        let items: Vec<Overview> = serde_json::from_str(ITEMS).unwrap();
        let now = Time(items[0].started.0 + 2_000);
        expected.assert_eq(&saga_table(&items, now, style, width).replace('\x1b', "ESC"));
    }

    #[test]
    fn snapshot_of_the_list_of_sagas() {
        check(
            Style::PLAIN,
            None,
            expect![[r#"
            ID                                    SAGA          AGGREGATE  STATE      AGE   WHY
            01997a2b-0000-7000-8000-000000000002  place-order   order/A-2  parked     2.0s  not undone: pay
            01997a2b-0000-7000-8000-000000000001  delete-order  order/A-1  completed  7.0s
        "#]],
        );
    }

    #[test]
    fn snapshot_of_the_list_of_sagas_in_a_narrow_terminal_with_colors() {
        check(
            Style::COLORED,
            Some(90),
            expect![[r#"
            ID                                    SAGA          AGGREGATE  STATE      AGE   WHY
            01997a2b-0000-7000-8000-000000000002  place-order   order/A-2  ESC[31mparkedESC[0m     2.0s  not undon…
            01997a2b-0000-7000-8000-000000000001  delete-order  order/A-1  ESC[32mcompletedESC[0m  7.0s
        "#]],
        );
    }

    #[test]
    fn the_filters_are_sent_to_the_host() {
        let arguments = ["sagas", "--state", "parked", "--saga", "place-order", "--limit", "2"];
        let ran = kontor(&arguments, vec![ok(&format!(r#"{{"items":{ITEMS},"next":"x"}}"#))]);
        assert_eq!(ran.requests, ["GET /admin/sagas?state=parked&saga=place-order&limit=2 HTTP/1.1"]);
        assert_eq!(ran.printed.lines().last(), Some("There may be more; see --limit."));
        for rejected in [["--state", "lost"], ["--limit", "0"], ["--limit", "1001"]] {
            assert!(!accepts(&["sagas", rejected[0], rejected[1]]), "{rejected:?}");
        }
    }

    #[test]
    fn an_empty_list_is_a_sentence() {
        for (arguments, expected) in [
            (&["sagas"][..], "There is no saga.\n"),
            (&["sagas", "--state", "parked"], "There is no saga in the state parked.\n"),
            (&["sagas", "--saga", "ship-order"], "There is no saga ship-order.\n"),
        ] {
            let ran = kontor(arguments, vec![ok(r#"{"items":[],"next":null}"#)]);
            assert_eq!(ran.printed, expected);
        }
    }

    #[test]
    fn json_is_printed_as_the_host_sent_it() {
        let body = format!(r#"{{"items":{ITEMS},"next":null}}"#);
        assert_eq!(kontor(&["sagas", "--json"], vec![ok(&body)]).printed, format!("{body}\n"));
    }
}
