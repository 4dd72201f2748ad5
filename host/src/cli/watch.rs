//! The output of `kontor serve --watch` for each file: deployed, or the reason why not.

use std::io::{self, Write};
use std::path::Path;

use kontor::deploy::{DeployError, FollowError, Report};
use kontor::deployed::GateResult;
use kontor::error::with_causes;
use serde_json::json;

use super::gates::{INDENT, release};
use super::style::{Color, Style, span};

/// Prints one line, and below it the findings of a gate that refused. As JSON, prints one object in one line.
pub(super) fn print(
    file: &Path,
    outcome: Result<Report, FollowError>,
    json: bool,
    style: Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    let refused = match &outcome {
        Err(FollowError::Deploy(DeployError::Refused(report))) => Some(&**report),
        _ => None,
    };
    let error = outcome.as_ref().err().map(|error| with_causes(error));
    if json {
        let report = outcome.as_ref().ok().or(refused);
        writeln!(out, "{}", json!({"file": file, "report": report, "error": error}))?;
        return out.flush();
    }
    let name = file.file_name().unwrap_or_default().display();
    match &outcome {
        Ok(report) => writeln!(out, "{name}: {} {}", style.paint(Color::Green, "live"), went_live(report))?,
        Err(_) => {
            writeln!(
                out,
                "{name}: {}: {}",
                style.paint(Color::Red, "not deployed"),
                error.unwrap_or_default()
            )?;
        }
    }
    let findings = refused.and_then(Report::refusal).map_or(&[][..], |(_, gate)| &gate.findings);
    findings.iter().try_for_each(|finding| writeln!(out, "{INDENT}{finding}"))?;
    out.flush()
}

/// Returns `order 0.2.0 (0123456789ab), replaces ba9876543210; the gates took 33ms`.
fn went_live(report: &Report) -> String {
    let replaced = report.services.iter().find_map(|service| service.replaces);
    let releases = report.services.iter().map(release).collect::<Vec<_>>().join(", ");
    let replaced = replaced.map_or_else(String::new, |digest| format!(", replaces {}", digest.short()));
    let gates = report.services.iter().flat_map(|service| &service.gates).chain(&report.gates);
    let took_ms = gates.map(|gate: &GateResult| gate.took_ms).sum();
    format!("{releases}{replaced}; the gates took {}", span(took_ms))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::Value;

    use super::*;

    fn report(outcome: &str, findings: &[&str]) -> Report {
        let gate = json!({
            "gate": "compatible", "outcome": outcome, "took_ms": 12, "says": "it breaks",
            "findings": findings,
        });
        let service = json!({
            "service": "order", "version": "0.2.0", "digest": "01".repeat(32), "replaces": "fe".repeat(32),
            "gates": [gate],
        });
        let live = outcome == "passed";
        let report = json!({"dry_run": false, "live": live, "services": [service], "gates": []});
        serde_json::from_value(report).unwrap()
    }

    fn printed(outcome: Result<Report, DeployError>, json: bool) -> String {
        let (mut out, outcome) = (Vec::new(), outcome.map_err(FollowError::from));
        print(Path::new("plugins/order.wasm"), outcome, json, Style::PLAIN, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    fn refused() -> DeployError {
        DeployError::Refused(Box::new(report("refused", &["query:sales: it is gone"])))
    }

    #[test]
    fn snapshot_of_a_deployed_file() {
        expect![[r#"
            order.wasm: live order 0.2.0 (010101010101), replaces fefefefefefe; the gates took 12ms
        "#]]
        .assert_eq(&printed(Ok(report("passed", &[])), false));
    }

    #[test]
    fn snapshot_of_a_refused_file() {
        expect![[r#"
            order.wasm: not deployed: the gate compatible refuses order: it breaks
                query:sales: it is gone
        "#]]
        .assert_eq(&printed(Err(refused()), false));
    }

    #[test]
    fn the_json_is_one_object() {
        let read = |text: String| serde_json::from_str::<Value>(&text).unwrap();
        let live = read(printed(Ok(report("passed", &[])), true));
        assert_eq!((&live["report"]["live"], &live["error"]), (&json!(true), &Value::Null));
        let refused = read(printed(Err(refused()), true));
        assert_eq!(refused["report"]["services"][0]["gates"][0]["findings"][0], "query:sales: it is gone");
        assert!(refused["error"].as_str().unwrap().ends_with("it breaks"), "{refused}");
    }
}
