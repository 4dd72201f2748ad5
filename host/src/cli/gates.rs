//! What the gates of a deployment found, as text.

use std::io::Write;

use anyhow::{Context as _, bail};
use kontor::deploy::{HostReport, Report, ServiceReport};
use kontor::deployed::{GateOutcome, GateResult};

use super::client::{ClientError, HostArgument};
use super::style::{Colour, Style, span};
use super::table::Columns;

/// What stands before a finding, below its gate.
pub(super) const INDENT: &str = "    ";

/// Prints the report that a host answered with, and what runs now. A refusal is an error. `back`: the host on which it can be
/// rolled back; none if it has been rolled back just now.
pub(super) fn tell(
    answer: Result<String, ClientError>,
    back: Option<&HostArgument>,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let report: Report = match answer {
        Ok(body) => serde_json::from_str(&body).context("the host's report has another shape")?,
        Err(ClientError::Refused { report: Some(report), .. }) => *report,
        Err(error) => return Err(error.into()),
    };
    if json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(out, "{}", report_text(&report, Style::of_output()))?;
    }
    if let Some(why) = report.why_refused() {
        bail!("nothing was changed: {why}");
    }
    if !json {
        writeln!(out, "{}", conclusion(&report, back))?;
    }
    Ok(())
}

/// A table a service, and one for all of them together.
fn report_text(report: &Report, style: Style) -> String {
    let service = |service: &ServiceReport| {
        let replaced = service.replaces.map(|digest| format!(", in the place of {}", digest.short()));
        format!(
            "{}{}\n{}\n",
            release(service),
            replaced.unwrap_or_default(),
            gate_table(&service.gates, style)
        )
    };
    let mut text: String = report.services.iter().map(service).collect();
    if !report.gates.is_empty() {
        text += &format!("all services together\n{}\n", gate_table(&report.gates, style));
    }
    if !report.hosts.is_empty() {
        text += &format!("all hosts of the log\n{}\n", host_table(&report.hosts, style));
    }
    text
}

/// `order 0.2.0 (0123456789ab)`
pub(super) fn release(service: &ServiceReport) -> String {
    format!("{} {} ({})", service.service, service.version, service.digest.short())
}

fn gate_table(gates: &[GateResult], style: Style) -> String {
    let row = |gate: &GateResult| {
        [gate.gate.to_string(), outcome(gate.outcome, style), span(gate.took_ms), gate.says.clone()]
    };
    let rows = gates.iter().map(|gate| (row(gate), &*gate.findings)).collect();
    table_with_findings(["GATE", "OUTCOME", "TIME", "FOUND"], rows)
}

fn host_table(hosts: &[HostReport], style: Style) -> String {
    let runs = |runs| match runs {
        true => style.paint(Colour::Green, "runs it"),
        false => style.paint(Colour::Red, "does not run it yet"),
    };
    let row = |host: &HostReport| [host.name.to_string(), host.address.to_string(), runs(host.runs)];
    let rows = hosts.iter().map(|host| (row(host), &*host.warnings)).collect();
    table_with_findings(["HOST", "ADDRESS", "STATE"], rows)
}

/// A table, with a line for each finding below its row.
fn table_with_findings<const N: usize>(heading: [&str; N], rows: Vec<([String; N], &[String])>) -> String {
    let heading = heading.map(str::to_owned);
    let mut columns = Columns::new();
    columns.fit(&heading);
    rows.iter().for_each(|(row, _)| columns.fit(row));
    let mut text = columns.line(&heading) + "\n";
    for (row, findings) in &rows {
        text += &(columns.line(row) + "\n");
        text.extend(findings.iter().map(|finding| format!("{INDENT}{finding}\n")));
    }
    text
}

/// What runs now, or would, and how to go back.
fn conclusion(report: &Report, back: Option<&HostArgument>) -> String {
    let releases = report.services.iter().map(release).collect::<Vec<_>>().join(", ");
    if !report.live {
        return format!("Nothing was changed. Without --dry-run, this would run: {releases}");
    }
    let replaces = |service: &&ServiceReport| service.replaces.is_some_and(|old| old != service.digest);
    match (report.services.iter().find(replaces), back) {
        (Some(one), Some(host)) => {
            format!("Live: {releases}. To go back: kontor rollback {}{}", one.service, host.flag())
        }
        _ => format!("Live: {releases}"),
    }
}

fn outcome(outcome: GateOutcome, style: Style) -> String {
    match outcome {
        GateOutcome::Passed => style.paint(Colour::Green, "passed"),
        GateOutcome::Refused => style.paint(Colour::Red, "refused"),
        GateOutcome::Skipped => "skipped".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// An order that replaces another and a report that is new, as a host would answer.
    fn report(live: bool) -> Report {
        let gate = |gate: &str, outcome: &str, says: &str, findings: &[&str]| json!({"gate": gate, "outcome": outcome, "took_ms": 12, "says": says, "findings": findings});
        let breaks = ["command:order/create is gone", "route:GET /orders is gone"];
        let (outcome, says) = match live {
            true => ("passed", "it breaks what may break"),
            false => ("refused", "name what may break with --allow-breaking"),
        };
        let order = json!({
            "service": "order", "version": "0.2.0", "digest": "01".repeat(32), "replaces": "fe".repeat(32),
            "gates": [gate("component", "passed", "it is one", &[]), gate("compatible", outcome, says, &breaks)],
        });
        let report = json!({
            "service": "report", "version": "0.1.0", "digest": "02".repeat(32),
            "gates": [gate("history", "skipped", "it has no aggregates", &[])],
        });
        let together = [gate("side-by-side", "passed", "they go together", &[])];
        let report = json!({"dry_run": false, "live": live, "services": [order, report], "gates": together});
        serde_json::from_value(report).unwrap()
    }

    /// What is printed, and the error.
    fn told(answer: Result<String, ClientError>, json: bool) -> (String, Option<String>) {
        let (mut out, host) = (Vec::new(), HostArgument { host: "http://HOST".to_owned() });
        let outcome = tell(answer, Some(&host), json, &mut out);
        (String::from_utf8(out).unwrap(), outcome.err().map(|error| error.to_string()))
    }

    fn refused(report: Report) -> ClientError {
        ClientError::Refused { told: String::new(), report: Some(Box::new(report)) }
    }

    #[test]
    fn a_report_is_a_table_a_service_with_what_was_found_below_its_gate() {
        let expected = "\
order 0.2.0 (010101010101), in the place of fefefefefefe
GATE        OUTCOME  TIME  FOUND
component   passed   12ms  it is one
compatible  passed   12ms  it breaks what may break
    command:order/create is gone
    route:GET /orders is gone

report 0.1.0 (020202020202)
GATE     OUTCOME  TIME  FOUND
history  skipped  12ms  it has no aggregates

all services together
GATE          OUTCOME  TIME  FOUND
side-by-side  passed   12ms  they go together

Live: order 0.2.0 (010101010101), report 0.1.0 (020202020202). To go back: kontor rollback order --host http://HOST
";
        assert_eq!(told(Ok(json!(report(true)).to_string()), false), (expected.to_owned(), None));
    }

    #[test]
    fn a_refusal_is_the_report_and_an_error_that_says_what_to_do() {
        let (text, error) = told(Err(refused(report(false))), false);
        assert!(text.contains("compatible  refused  12ms"), "{text}");
        let expected = "nothing was changed: the gate compatible refuses order: name what may break with --allow-breaking";
        assert_eq!(error.unwrap(), expected);
        let (text, error) = told(Err(refused(report(false))), true);
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report(false));
        assert_eq!(error.unwrap(), expected);
    }

    #[test]
    fn a_dry_run_says_what_would_run() {
        let report = Report { dry_run: true, live: false, ..report(true) };
        let (text, error) = told(Ok(json!(report).to_string()), false);
        assert!(text.ends_with("\nNothing was changed. Without --dry-run, this would run: order 0.2.0 (010101010101), report 0.1.0 (020202020202)\n"), "{text}");
        assert_eq!(error, None);
    }

    #[test]
    fn who_has_just_gone_back_is_not_told_how() {
        assert!(!conclusion(&report(true), None).contains("rollback"));
    }

    #[test]
    fn what_is_no_refusal_of_a_gate_is_an_error_like_any_other() {
        let refused = ClientError::Refused { told: "Another one is under way.".to_owned(), report: None };
        let (text, error) = told(Err(refused), false);
        assert_eq!(
            (text.as_str(), error.as_deref()),
            ("", Some("the host refused: Another one is under way."))
        );
    }

    #[test]
    fn a_gate_that_refuses_is_red_if_there_are_colours() {
        assert_eq!(outcome(GateOutcome::Refused, Style::COLOURED), "\x1b[31mrefused\x1b[0m");
        assert_eq!(outcome(GateOutcome::Skipped, Style::COLOURED), "skipped");
    }
}
