//! `kontor plugins`: the services of a running host, and what became of them.

use std::io::Write;

use anyhow::Context as _;
use kontor::clock::{Time, rfc3339};
use kontor::contract::Manifest;
use kontor::deployed::Running;
use kontor::model::{Digest, Version};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::client::{Client, HostArgument};
use super::table::table;

/// The entries that are asked for at once: as many as a host gives.
const PAGE: usize = 1_000;

const EXAMPLES: &str = "\
Examples:
  kontor plugins
  kontor plugins --history
  kontor plugins --history --json | jq '.items[] | select(.service == \"order\")'
  kontor plugins --json --host http://127.0.0.1:8080";

/// List the services of a running host, or what was deployed, rolled back and taken out
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Plugins {
    /// Show everything that was deployed, rolled back and taken out, newest last
    #[arg(long)]
    history: bool,
    #[command(flatten)]
    host: HostArgument,
}

/// What GET /admin/plugins answers, as far as the table shows it.
#[derive(Deserialize)]
struct Page {
    items: Vec<Plugin>,
}

/// A service as a table shows it.
#[derive(Deserialize, Serialize)]
pub(super) struct Plugin {
    service: String,
    version: String,
    digest: Digest,
    aggregates: Vec<String>,
    sagas: Vec<String>,
    routes: Vec<Route>,
    /// Since when it runs as it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Time>,
    /// Who deployed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct Route {
    method: String,
    path: String,
}

/// What GET /admin/plugins/history answers.
#[derive(Deserialize)]
struct HistoryPage {
    items: Vec<Value>,
    next: Option<Version>,
}

/// What happened to a service, as a table shows it.
#[derive(Deserialize)]
struct Entry {
    time: Time,
    actor: String,
    act: String,
    service: String,
    release: Option<Released>,
    replaced: Option<Digest>,
    reason: Option<String>,
    note: Option<String>,
}

#[derive(Deserialize)]
struct Released {
    version: String,
    digest: Digest,
}

impl Plugins {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        if self.history {
            return self.history(json, out);
        }
        let body = Client::new(&self.host)?.get("/admin/plugins", &[])?;
        if json {
            writeln!(out, "{}", body.trim_end())?;
            return Ok(());
        }
        let page: Page =
            serde_json::from_str(&body).context("the host's list of plugins has another shape")?;
        write!(out, "{}", plugin_table(&page.items))?;
        Ok(())
    }

    fn history(&self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let client = Client::new(&self.host)?;
        let other_shape = "the host's history of plugins has another shape";
        let (mut items, mut next) = (Vec::new(), Some(Version::START));
        while let Some(after) = next {
            let parameters = [("after", after.to_string()), ("limit", PAGE.to_string())];
            let page: HistoryPage = serde_json::from_str(&client.get("/admin/plugins/history", &parameters)?)
                .context(other_shape)?;
            items.extend(page.items);
            next = page.next;
        }
        let items = json!(items);
        if json {
            writeln!(out, "{}", json!({ "items": items }))?;
        } else {
            let entries: Vec<Entry> = serde_json::from_value(items).context(other_shape)?;
            write!(out, "{}", history_table(&entries))?;
        }
        Ok(())
    }
}

impl Plugin {
    /// `running`: since when it runs and by whom.
    pub(super) fn new(manifest: &Manifest, digest: Digest, running: Option<&Running>) -> Self {
        let route = |route: &kontor::contract::Route| Route {
            method: route.method.to_string(),
            path: route.path.clone(),
        };
        Self {
            service: manifest.service.to_string(),
            version: manifest.version.clone(),
            digest,
            aggregates: manifest.aggregates.iter().map(|aggregate| aggregate.name.to_string()).collect(),
            sagas: manifest.sagas.iter().map(|saga| saga.name.to_string()).collect(),
            routes: manifest.routes.iter().map(route).collect(),
            since: running.map(|running| running.since),
            by: running.map(|running| running.by.to_string()),
        }
    }
}

/// One line a service; a sentence if there is none.
pub(super) fn plugin_table(plugins: &[Plugin]) -> String {
    if plugins.is_empty() {
        return "no service is loaded\n".to_owned();
    }
    let rows = plugins
        .iter()
        .map(|plugin| {
            [
                plugin.service.clone(),
                plugin.version.clone(),
                plugin.digest.short(),
                names(&plugin.aggregates),
                names(&plugin.sagas),
                plugin.routes.len().to_string(),
                plugin.since.map_or_else(nothing, |since| rfc3339(since.0)),
                plugin.by.clone().unwrap_or_else(nothing),
            ]
        })
        .collect();
    table(["service", "version", "digest", "aggregates", "sagas", "routes", "since", "by"], rows)
}

/// One line an entry; a sentence if there is none.
fn history_table(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "nothing was ever deployed\n".to_owned();
    }
    let row = |entry: &Entry| {
        let release = entry.release.as_ref();
        [
            rfc3339(entry.time.0),
            entry.act.clone(),
            entry.service.clone(),
            release.map_or_else(nothing, |release| release.version.clone()),
            release.map_or_else(nothing, |release| release.digest.short()),
            entry.replaced.map_or_else(nothing, |digest| digest.short()),
            entry.actor.clone(),
            [&entry.reason, &entry.note].into_iter().flatten().cloned().collect::<Vec<_>>().join("; "),
        ]
    };
    let heading = ["time", "act", "service", "version", "digest", "replaced", "by", "why"];
    table(heading, entries.iter().map(row).collect())
}

fn names(names: &[String]) -> String {
    if names.is_empty() { nothing() } else { names.join(", ") }
}

/// What stands in a cell that has nothing to say.
fn nothing() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::scripted_host::scripted_host;
    use super::*;

    const ORDER: &str = "0123456789ab0000000000000000000000000000000000000000000000000000";
    const REPORT: &str = "fedcba9876540000000000000000000000000000000000000000000000000000";

    /// The requests and what is printed.
    fn printed(history: bool, json: bool, bodies: &[String]) -> (Vec<String>, String) {
        let answer = |body: &String| format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}");
        let (host, answering) = scripted_host(bodies.iter().map(answer).collect());
        let mut out = Vec::new();
        Plugins { history, host: HostArgument { host } }.run(json, &mut out).unwrap();
        (answering.join().unwrap(), String::from_utf8(out).unwrap())
    }

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

    #[test]
    fn services_are_listed_one_a_line() {
        let expected = "\
SERVICE  VERSION  DIGEST        AGGREGATES  SAGAS                      ROUTES  SINCE                     BY
order    0.1.0    0123456789ab  order       place-order, delete-order  1       2026-11-22T03:18:01.250Z  ada
report   0.1.0    fedcba987654  -           -                          0       -                         -
";
        let (asked, text) = printed(false, false, &[services()]);
        assert_eq!((asked[0].as_str(), text.as_str()), ("GET /admin/plugins HTTP/1.1", expected));
    }

    #[test]
    fn json_is_passed_on_as_it_came() {
        assert_eq!(printed(false, true, &[services()]).1, services() + "\n");
    }

    #[test]
    fn a_host_without_services_says_so() {
        assert_eq!(plugin_table(&[]), "no service is loaded\n");
        assert_eq!(history_table(&[]), "nothing was ever deployed\n");
    }

    #[test]
    fn the_history_is_read_to_its_end() {
        let time = "2026-11-22T03:18:01.250Z";
        let deployed = json!({
            "version": 1, "time": time, "actor": "ada", "act": "deployed", "service": "order",
            "release": {"version": "0.2.0", "digest": ORDER}, "replaced": REPORT, "note": "spring sale",
        });
        let back = json!({
            "version": 2, "time": time, "actor": "kontor", "act": "rolled-back", "service": "order",
            "release": {"version": "0.1.0", "digest": REPORT}, "replaced": ORDER, "reason": "3 of 9 calls failed",
        });
        let out = json!({
            "version": 3, "time": time, "actor": "bo", "act": "undeployed", "service": "report", "replaced": REPORT,
        });
        let pages = [
            json!({"items": [deployed, back], "next": 2}).to_string(),
            json!({"items": [out], "next": null}).to_string(),
        ];
        let (asked, text) = printed(true, false, &pages);
        let pages_asked =
            [0, 2].map(|after| format!("GET /admin/plugins/history?after={after}&limit=1000 HTTP/1.1"));
        assert_eq!(asked, pages_asked);
        let expected = "\
TIME                      ACT          SERVICE  VERSION  DIGEST        REPLACED      BY      WHY
2026-11-22T03:18:01.250Z  deployed     order    0.2.0    0123456789ab  fedcba987654  ada     spring sale
2026-11-22T03:18:01.250Z  rolled-back  order    0.1.0    fedcba987654  0123456789ab  kontor  3 of 9 calls failed
2026-11-22T03:18:01.250Z  undeployed   report   -        -             fedcba987654  bo
";
        assert_eq!(text, expected);
        let all: Value = serde_json::from_str(&printed(true, true, &pages).1).unwrap();
        assert_eq!(all, json!({"items": [deployed, back, out]}));
    }
}
