//! `kontor plugins`: the services of a running host, and their history.

use std::io::Write;

use kontor::api::{List, Page, Plugin, PluginChange, PluginList};
use kontor::clock::rfc3339;
use kontor::model::Version;
use serde_json::{Value, json};

use super::client::{Client, HostArgument};
use super::output::{parse, print};
use super::table::table;

/// The page size of the history: the largest that a host gives.
const PAGE_SIZE: usize = 1_000;

const EXAMPLES: &str = "\
Examples:
  kontor plugins
  kontor plugins --history
  kontor plugins --history --json | jq '.items[] | select(.service == \"order\")'
  kontor plugins --json --host http://127.0.0.1:8080";

/// List the services of a running host, or the history of their deployments
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Plugins {
    /// List all deployments, rollbacks and undeployments, oldest first
    #[arg(long)]
    history: bool,
    #[command(flatten)]
    host: HostArgument,
}

impl Plugins {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        if self.history {
            return self.history(json, out);
        }
        let body = Client::new(&self.host)?.get("/admin/plugins", &[])?;
        print(&body, "list of services", json, out, |PluginList { items, warnings }| {
            let warnings = warnings.iter().map(|warning| format!("warning: {warning}\n"));
            plugin_table(&items) + &warnings.collect::<String>()
        })
    }

    /// Reads all pages of the history, and prints them as one.
    fn history(&self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let client = Client::new(&self.host)?;
        let content = "history of deployments";
        let (mut items, mut next) = (Vec::new(), Some(Version::START));
        while let Some(after) = next {
            let parameters = [("after", after.to_string()), ("limit", PAGE_SIZE.to_string())];
            let page: Page<Value, Version> =
                parse(&client.get("/admin/plugins/history", &parameters)?, content)?;
            items.extend(page.items);
            next = page.next;
        }
        let all = json!({ "items": items }).to_string();
        print(&all, content, json, out, |list: List<PluginChange>| history_table(&list.items))
    }
}

/// Returns one line a service, or a sentence if there is none.
pub(super) fn plugin_table(plugins: &[Plugin]) -> String {
    if plugins.is_empty() {
        return "no service is deployed\n".to_owned();
    }
    let rows = plugins
        .iter()
        .map(|plugin| {
            [
                plugin.service.to_string(),
                plugin.version.clone(),
                plugin.digest.short(),
                names(&plugin.aggregates),
                names(&plugin.sagas),
                plugin.routes.len().to_string(),
                plugin.since.map_or_else(nothing, |since| rfc3339(since.0)),
                plugin.by.as_ref().map_or_else(nothing, ToString::to_string),
            ]
        })
        .collect();
    let table = table(["service", "version", "digest", "aggregates", "sagas", "routes", "since", "by"], rows);
    let kept = plugins.iter().filter_map(|plugin| Some((&plugin.service, plugin.kept.as_ref()?)));
    kept.fold(table, |text, (service, kept)| {
        let sentence = stays(kept.streams.len(), &kept.digest.short());
        format!("{text}{service}: {sentence}, which a rollback has replaced elsewhere\n")
    })
}

/// Returns one line a change, or a sentence if there is none.
fn history_table(changes: &[PluginChange]) -> String {
    if changes.is_empty() {
        return "no service was ever deployed\n".to_owned();
    }
    let row = |change: &PluginChange| {
        let release = change.release.as_ref();
        [
            rfc3339(change.time.0),
            change.act.to_string(),
            change.service.to_string(),
            release.map_or_else(nothing, |release| release.version.clone()),
            release.map_or_else(nothing, |release| release.digest.short()),
            change.replaced.map_or_else(nothing, |digest| digest.short()),
            change.actor.to_string(),
            [change.reason.clone(), kept(change), change.note.clone()]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("; "),
        ]
    };
    let heading = ["time", "act", "service", "version", "digest", "replaced", "by", "reason"];
    table(heading, changes.iter().map(row).collect())
}

/// Returns a part of a sentence about the streams that stay with a component after a rollback.
fn kept(change: &PluginChange) -> Option<String> {
    let digest = change.replaced?.short();
    (!change.kept.is_empty()).then(|| stays(change.kept.len(), &digest))
}

/// Returns a sentence about streams that stay with a component.
fn stays(streams: usize, digest: &str) -> String {
    match streams {
        1 => format!("1 stream stays on {digest}"),
        _ => format!("{streams} streams stay on {digest}"),
    }
}

/// Returns names in one cell.
fn names(names: &[impl ToString]) -> String {
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    if names.is_empty() { nothing() } else { names.join(", ") }
}

/// Returns the mark of an empty cell.
fn nothing() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::super::scripted_host::{kontor, ok};
    use super::*;

    const ORDER: &str = "0123456789ab0000000000000000000000000000000000000000000000000000";
    const REPORT: &str = "fedcba9876540000000000000000000000000000000000000000000000000000";

    fn services() -> String {
        let order = json!({
            "service": "order", "version": "0.1.0", "digest": ORDER, "aggregates": ["order"],
            "sagas": ["place-order", "delete-order"], "queries": [],
            "routes": [{"method": "POST", "path": "/orders"}], "read_model": null,
            "since": "2026-11-22T03:18:01.250Z", "by": "ada",
        });
        let report = json!({
            "service": "report", "version": "0.1.0", "digest": REPORT, "aggregates": [], "sagas": [],
            "queries": ["sales"], "routes": [], "read_model": 1,
        });
        json!({"items": [order, report]}).to_string()
    }

    /// Returns two pages of the history, and their entries.
    fn history() -> ([String; 2], [Value; 3]) {
        let time = "2026-11-22T03:18:01.250Z";
        let deployed = json!({
            "version": 1, "time": time, "actor": "ada", "act": "deployed", "service": "order",
            "release": {"version": "0.2.0", "digest": ORDER, "grants": ["service:payment"]},
            "replaced": REPORT, "note": "spring sale",
        });
        let back = json!({
            "version": 2, "time": time, "actor": "kontor", "act": "rolled-back", "service": "order",
            "release": {"version": "0.1.0", "digest": REPORT}, "replaced": ORDER,
            "reason": "3 of 9 calls failed",
        });
        let out = json!({
            "version": 3, "time": time, "actor": "bo", "act": "undeployed", "service": "report",
            "replaced": REPORT,
        });
        let pages = [json!({"items": [deployed, back], "next": 2}), json!({"items": [out], "next": null})];
        (pages.map(|page| ok(&page.to_string())), [deployed, back, out])
    }

    #[test]
    fn snapshot_of_the_list_of_services() {
        let ran = kontor(&["plugins"], vec![ok(&services())]);
        assert_eq!(ran.requests, ["GET /admin/plugins HTTP/1.1"]);
        expect![[r#"
            SERVICE  VERSION  DIGEST        AGGREGATES  SAGAS                      ROUTES  SINCE                     BY
            order    0.1.0    0123456789ab  order       place-order, delete-order  1       2026-11-22T03:18:01.250Z  ada
            report   0.1.0    fedcba987654  -           -                          0       -                         -
        "#]].assert_eq(&ran.printed);
    }

    #[test]
    fn a_host_that_runs_another_deployment_than_its_cluster_says_so_below_the_list() {
        let body = r#"{"items":[],"warnings":["this host does not run the last deployment: why"]}"#;
        let ran = kontor(&["plugins"], vec![ok(body)]);
        let warning = "warning: this host does not run the last deployment: why\n";
        assert_eq!(ran.printed, format!("no service is deployed\n{warning}"));
    }

    #[test]
    fn json_is_printed_as_the_host_sent_it() {
        let ran = kontor(&["plugins", "--json"], vec![ok(&services())]);
        assert_eq!(ran.printed, services() + "\n");
    }

    #[test]
    fn an_empty_list_is_a_sentence() {
        assert_eq!(plugin_table(&[]), "no service is deployed\n");
        assert_eq!(history_table(&[]), "no service was ever deployed\n");
    }

    #[test]
    fn snapshot_of_the_history() {
        let (pages, _) = history();
        let ran = kontor(&["plugins", "--history"], pages.into());
        let requests =
            [0, 2].map(|after| format!("GET /admin/plugins/history?after={after}&limit=1000 HTTP/1.1"));
        assert_eq!(ran.requests, requests);
        expect![[r#"
            TIME                      ACT          SERVICE  VERSION  DIGEST        REPLACED      BY      REASON
            2026-11-22T03:18:01.250Z  deployed     order    0.2.0    0123456789ab  fedcba987654  ada     spring sale
            2026-11-22T03:18:01.250Z  rolled-back  order    0.1.0    fedcba987654  0123456789ab  kontor  3 of 9 calls failed
            2026-11-22T03:18:01.250Z  undeployed   report   -        -             fedcba987654  bo
        "#]].assert_eq(&ran.printed);
    }

    #[test]
    fn the_json_of_the_history_is_one_list_of_all_pages() {
        let (pages, entries) = history();
        let ran = kontor(&["plugins", "--history", "--json"], pages.into());
        assert_eq!(serde_json::from_str::<Value>(&ran.printed).unwrap(), json!({"items": entries}));
    }
}
