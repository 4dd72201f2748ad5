//! `kontor plugins`: what a running host has loaded.

use std::io::Write;

use anyhow::Context as _;
use kontor::manifest::Manifest;
use kontor::model::Digest;
use serde::{Deserialize, Serialize};

use super::client::{Client, HostArgument};
use super::table::table;

/// The digits of a digest that people get to see.
const SHORT_DIGEST: usize = 12;

const EXAMPLES: &str = "\
Examples:
  kontor plugins
  kontor plugins --json --host http://127.0.0.1:8080";

/// List the services that a running host has loaded
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Plugins {
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
    digest: String,
    aggregates: Vec<String>,
    sagas: Vec<String>,
    routes: Vec<Route>,
}

#[derive(Deserialize, Serialize)]
struct Route {
    method: String,
    path: String,
}

impl Plugins {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
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
}

impl Plugin {
    pub(super) fn new(manifest: &Manifest, digest: Digest) -> Self {
        let route = |route: &kontor::manifest::Route| Route {
            method: route.method.to_string(),
            path: route.path.clone(),
        };
        Self {
            service: manifest.service.to_string(),
            version: manifest.version.clone(),
            digest: digest.to_string(),
            aggregates: manifest.aggregates.iter().map(|aggregate| aggregate.name.to_string()).collect(),
            sagas: manifest.sagas.iter().map(|saga| saga.name.to_string()).collect(),
            routes: manifest.routes.iter().map(route).collect(),
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
                plugin.digest.chars().take(SHORT_DIGEST).collect(),
                names(&plugin.aggregates),
                names(&plugin.sagas),
                plugin.routes.len().to_string(),
            ]
        })
        .collect();
    table(["service", "version", "digest", "aggregates", "sagas", "routes"], rows)
}

fn names(names: &[String]) -> String {
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::super::scripted_host::scripted_host;
    use super::*;

    const ANSWER: &str = concat!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
        r#"{"items":[{"service":"order","version":"0.1.0","digest":"0123456789abcdef0123","aggregates":["order"],"#,
        r#""sagas":["place-order","delete-order"],"queries":[],"routes":[{"method":"POST","path":"/orders"}],"#,
        r#""read_model":null},{"service":"report","version":"0.1.0","digest":"fedcba98765432100000","aggregates":[],"#,
        r#""sagas":[],"queries":["sales"],"routes":[],"read_model":1}]}"#,
    );

    fn printed(json: bool) -> String {
        let (host, answering) = scripted_host(vec![ANSWER.to_owned()]);
        let mut out = Vec::new();
        Plugins { host: HostArgument { host } }.run(json, &mut out).unwrap();
        assert_eq!(answering.join().unwrap(), ["GET /admin/plugins HTTP/1.1"]);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn services_are_listed_one_a_line() {
        let expected = "\
SERVICE  VERSION  DIGEST        AGGREGATES  SAGAS                      ROUTES
order    0.1.0    0123456789ab  order       place-order, delete-order  1
report   0.1.0    fedcba987654  -           -                          0
";
        assert_eq!(printed(false), expected);
    }

    #[test]
    fn json_is_passed_on_as_it_came() {
        assert_eq!(format!("{}\n", ANSWER.split("\r\n\r\n").last().unwrap()), printed(true));
    }

    #[test]
    fn a_host_without_services_says_so() {
        assert_eq!(plugin_table(&[]), "no service is loaded\n");
    }
}
