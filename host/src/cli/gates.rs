//! The report of a deployment's gates, as text.

use std::io::Write;

use kontor::deploy::{HostReport, Report, ServiceReport};
use kontor::deployed::{GateOutcome, GateResult};

use super::client::{ClientError, HostArgument};
use super::output::parse;
use super::style::{Color, Style, span};
use super::table::Columns;

/// The indentation of a finding below its gate.
pub(super) const INDENT: &str = "    ";

/// Prints the report that a host answered with, and the versions that run now. Fails if a gate refused.
/// `host` is the host for a rollback; none if the deployment is one itself.
pub(super) fn print(
    response: Result<String, ClientError>,
    host: Option<&HostArgument>,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let report: Report = match response {
        Ok(body) => parse(&body, "report of a deployment")?,
        Err(ClientError::Refused { report: Some(report), .. }) => *report,
        Err(error) => return Err(error.into()),
    };
    if json {
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
    } else {
        write!(out, "{}", report_text(&report, Style::of_output()))?;
    }
    if let Some(reason) = report.why_refused() {
        return Err(ClientError::GateRefused(reason).into());
    }
    if !json {
        writeln!(out, "{}", conclusion(&report, host))?;
    }
    Ok(())
}

/// Returns a table for each service, one for all of them together, and one for the hosts of a cluster.
fn report_text(report: &Report, style: Style) -> String {
    let service = |service: &ServiceReport| {
        let replaced = service.replaces.map(|digest| format!(", replaces {}", digest.short()));
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
        text += &format!("all members of the cluster\n{}\n", host_table(&report.hosts, style));
    }
    text
}

/// Returns a version as `order 0.2.0 (0123456789ab)`.
pub(super) fn release(service: &ServiceReport) -> String {
    format!("{} {} ({})", service.service, service.version, service.digest.short())
}

fn gate_table(gates: &[GateResult], style: Style) -> String {
    let row = |gate: &GateResult| {
        [gate.gate.to_string(), outcome(gate.outcome, style), span(gate.took_ms), gate.says.clone()]
    };
    let rows = gates.iter().map(|gate| (row(gate), &*gate.findings)).collect();
    table_with_findings(["GATE", "OUTCOME", "TOOK", "RESULT"], rows)
}

fn host_table(hosts: &[HostReport], style: Style) -> String {
    let runs = |runs| match runs {
        true => style.paint(Color::Green, "runs it"),
        false => style.paint(Color::Red, "does not run it yet"),
    };
    let row = |host: &HostReport| [host.name.to_string(), host.address.to_string(), runs(host.runs)];
    let rows = hosts.iter().map(|host| (row(host), &*host.warnings)).collect();
    table_with_findings(["HOST", "ADDRESS", "STATE"], rows)
}

/// Returns a table with a line for each finding below its row.
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

/// Returns the versions that run now, or would after a dry run, and the command for a rollback.
fn conclusion(report: &Report, host: Option<&HostArgument>) -> String {
    let releases = report.services.iter().map(release).collect::<Vec<_>>().join(", ");
    if !report.live {
        return format!("Nothing was changed. Without --dry-run, this would run: {releases}");
    }
    let replaces = |service: &&ServiceReport| service.replaces.is_some_and(|old| old != service.digest);
    match (report.services.iter().find(replaces), host) {
        (Some(one), Some(host)) => {
            format!("Live: {releases}. To roll back: kontor rollback {}{}", one.service, host.flag())
        }
        _ => format!("Live: {releases}"),
    }
}

fn outcome(outcome: GateOutcome, style: Style) -> String {
    match outcome {
        GateOutcome::Passed => style.paint(Color::Green, "passed"),
        GateOutcome::Refused => style.paint(Color::Red, "refused"),
        GateOutcome::Skipped => "skipped".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn gate(gate: &str, outcome: &str, says: &str, findings: &[&str]) -> Value {
        json!({"gate": gate, "outcome": outcome, "took_ms": 12, "says": says, "findings": findings})
    }

    /// Returns the report of an order that replaces another and of a new report.
    fn report(live: bool) -> Report {
        let breaks = ["command:order/create is gone", "route:GET /orders is gone"];
        let (outcome, says) = match live {
            true => ("passed", "the breaking changes are allowed"),
            false => ("refused", "allow the breaking changes with --allow-breaking"),
        };
        let order = json!({
            "service": "order", "version": "0.2.0", "digest": "01".repeat(32), "replaces": "fe".repeat(32),
            "gates": [
                gate("component", "passed", "it is a component", &[]),
                gate("compatible", outcome, says, &breaks),
            ],
        });
        let report = json!({
            "service": "report", "version": "0.1.0", "digest": "02".repeat(32),
            "gates": [gate("history", "skipped", "it has no aggregates", &[])],
        });
        let together = [gate("side-by-side", "passed", "the services fit together", &[])];
        let report = json!({"dry_run": false, "live": live, "services": [order, report], "gates": together});
        serde_json::from_value(report).unwrap()
    }

    fn host() -> HostArgument {
        let mut host = HostArgument::default();
        host.reach.host = Some("http://HOST".to_owned());
        host
    }

    /// Returns the output and the error.
    fn printed(response: Result<String, ClientError>, json: bool) -> (String, Option<String>) {
        let (mut out, host) = (Vec::new(), host());
        let outcome = print(response, Some(&host), json, &mut out);
        (String::from_utf8(out).unwrap(), outcome.err().map(|error| error.to_string()))
    }

    /// Checks the output, with the error below it.
    #[track_caller]
    fn check(response: Result<String, ClientError>, expected: Expect) {
        let (text, error) = printed(response, false);
        expected.assert_eq(&error.map_or(text.clone(), |error| format!("{text}error: {error}\n")));
    }

    fn refused(report: Report) -> ClientError {
        ClientError::Refused { message: String::new(), report: Some(Box::new(report)) }
    }

    #[test]
    fn snapshot_of_a_deployment() {
        check(
            Ok(json!(report(true)).to_string()),
            expect![[r#"
            order 0.2.0 (010101010101), replaces fefefefefefe
            GATE        OUTCOME  TOOK  RESULT
            component   passed   12ms  it is a component
            compatible  passed   12ms  the breaking changes are allowed
                command:order/create is gone
                route:GET /orders is gone

            report 0.1.0 (020202020202)
            GATE     OUTCOME  TOOK  RESULT
            history  skipped  12ms  it has no aggregates

            all services together
            GATE          OUTCOME  TOOK  RESULT
            side-by-side  passed   12ms  the services fit together

            Live: order 0.2.0 (010101010101), report 0.1.0 (020202020202). To roll back: kontor rollback order --host http://HOST
        "#]],
        );
    }

    #[test]
    fn snapshot_of_a_refused_deployment() {
        check(
            Err(refused(report(false))),
            expect![[r#"
            order 0.2.0 (010101010101), replaces fefefefefefe
            GATE        OUTCOME  TOOK  RESULT
            component   passed   12ms  it is a component
            compatible  refused  12ms  allow the breaking changes with --allow-breaking
                command:order/create is gone
                route:GET /orders is gone

            report 0.1.0 (020202020202)
            GATE     OUTCOME  TOOK  RESULT
            history  skipped  12ms  it has no aggregates

            all services together
            GATE          OUTCOME  TOOK  RESULT
            side-by-side  passed   12ms  the services fit together

            error: nothing was changed: the gate compatible refuses order: allow the breaking changes with --allow-breaking
        "#]],
        );
    }

    #[test]
    fn snapshot_of_a_dry_run() {
        let report = Report { dry_run: true, live: false, ..report(true) };
        check(
            Ok(json!(report).to_string()),
            expect![[r#"
            order 0.2.0 (010101010101), replaces fefefefefefe
            GATE        OUTCOME  TOOK  RESULT
            component   passed   12ms  it is a component
            compatible  passed   12ms  the breaking changes are allowed
                command:order/create is gone
                route:GET /orders is gone

            report 0.1.0 (020202020202)
            GATE     OUTCOME  TOOK  RESULT
            history  skipped  12ms  it has no aggregates

            all services together
            GATE          OUTCOME  TOOK  RESULT
            side-by-side  passed   12ms  the services fit together

            Nothing was changed. Without --dry-run, this would run: order 0.2.0 (010101010101), report 0.1.0 (020202020202)
        "#]],
        );
    }

    #[test]
    fn snapshot_of_a_deployment_in_a_cluster() {
        let mut report = json!(report(true));
        report["hosts"] = json!([
            {"name": "a", "address": "127.0.0.1:7071", "runs": true, "warnings": []},
            {"name": "b", "address": "127.0.0.1:7072", "runs": false,
                "warnings": ["the component cannot be fetched"]},
        ]);
        check(
            Ok(report.to_string()),
            expect![[r#"
            order 0.2.0 (010101010101), replaces fefefefefefe
            GATE        OUTCOME  TOOK  RESULT
            component   passed   12ms  it is a component
            compatible  passed   12ms  the breaking changes are allowed
                command:order/create is gone
                route:GET /orders is gone

            report 0.1.0 (020202020202)
            GATE     OUTCOME  TOOK  RESULT
            history  skipped  12ms  it has no aggregates

            all services together
            GATE          OUTCOME  TOOK  RESULT
            side-by-side  passed   12ms  the services fit together

            all members of the cluster
            HOST  ADDRESS         STATE
            a     127.0.0.1:7071  runs it
            b     127.0.0.1:7072  does not run it yet
                the component cannot be fetched

            Live: order 0.2.0 (010101010101), report 0.1.0 (020202020202). To roll back: kontor rollback order --host http://HOST
        "#]],
        );
    }

    #[test]
    fn the_json_of_a_refusal_is_its_report() {
        let (text, error) = printed(Err(refused(report(false))), true);
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report(false));
        let expected = "nothing was changed: the gate compatible refuses order: allow the breaking changes \
                        with --allow-breaking";
        assert_eq!(error.as_deref(), Some(expected));
    }

    #[test]
    fn a_rollback_does_not_offer_a_rollback() {
        assert!(!conclusion(&report(true), None).contains("rollback"));
    }

    #[test]
    fn a_problem_without_a_report_is_an_error_like_any_other() {
        let message = "Another deployment is in progress.".to_owned();
        let (text, error) = printed(Err(ClientError::Refused { message, report: None }), false);
        let expected = Some("the host refused: Another deployment is in progress.");
        assert_eq!((text.as_str(), error.as_deref()), ("", expected));
    }

    #[test]
    fn a_gate_that_refuses_is_red_if_the_output_has_colors() {
        assert_eq!(outcome(GateOutcome::Refused, Style::COLORED), "\x1b[31mrefused\x1b[0m");
        assert_eq!(outcome(GateOutcome::Skipped, Style::COLORED), "skipped");
    }
}
