//! `kontor serve`: runs a host.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use futures::future::select_all;
use kontor::api::Plugin;
use kontor::config::{Config, Overrides};
use kontor::deploy::Follower;
use kontor::error::Chain;
use kontor::host::{self, Started};
use kontor::runtime::Component;
use kontor::telemetry;
use serde_json::json;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

use super::exit::Exit;
use super::plugins::plugin_table;
use super::style::Style;
use super::watch;

const EXAMPLES: &str = "\
Examples:
  kontor serve
  kontor serve --plugins target/plugins --data /var/lib/kontor
  kontor serve --plugins target/plugins --watch
  kontor serve --config shop.toml --listen 127.0.0.1:0 --json

A flag overrides its environment variable, which overrides the configuration file, which overrides the
default. With --watch, a component built into the directory is deployed as by `kontor deploy`; if a gate
refuses it, nothing changes. SIGINT, SIGTERM or SIGHUP ends the host once everything in progress is done; a
second one ends it at once.";

/// Run a host: load the services and answer HTTP
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Serve {
    #[command(flatten)]
    pub(super) overrides: Overrides,
    /// Deploy the components of the directory that do not run, then each one that changes: for development
    #[arg(long)]
    watch: bool,
}

impl Serve {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let config = Config::load(self.overrides)?;
        telemetry::init_logging(config.log_format)?;
        host::keep_files_private();
        let watched = self.watch.then(|| config.plugins.clone());
        let runtime = runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the threads of the host")?;
        runtime.block_on(async {
            let shutdown = shutdown_signal().context("cannot listen to signals")?;
            let (announced, started) = oneshot::channel();
            let host = host::run(config, shutdown, |started| {
                // The receiver lives as long as the host runs.
                let _ = announced.send(started);
            });
            tokio::select! {
                ended = host => Ok(ended?),
                never = show(started, watched, json, out) => match never {},
            }
        })
    }
}

/// Prints the services once the host answers, then the outcome of each changed file of a watched directory.
async fn show(
    started: oneshot::Receiver<Started>,
    watched: Option<PathBuf>,
    json: bool,
    out: &mut dyn Write,
) -> Infallible {
    // Err: the host has not started; its own error says why.
    let Ok(started) = started.await else { return pending().await };
    let by_service = |service: &Component| {
        let running = started.running.iter().find(|running| running.release.digest == service.digest());
        Plugin::new(service.digest(), service.manifest(), running)
    };
    let plugins: Vec<Plugin> = started.deployed.services().map(by_service).collect();
    let scheme = if started.is_secure { "https" } else { "http" };
    let addresses = Addresses {
        public: format!("{scheme}://{}", started.address),
        admin: started.admin.map(|address| address.to_string()),
    };
    if watched.is_none() {
        // Before the host says that it listens, so that a program that waits for that finds all warnings.
        started.differing.iter().for_each(|file| tracing::warn!("{file}"));
    }
    warn_if_failed(announce(&addresses, &plugins, json, out));
    let Some(dir) = watched else { return pending().await };
    let follower = Follower::new(started.deployer, dir);
    let print = |file: &Path, outcome| {
        warn_if_failed(watch::print(file, outcome, json, Style::of_output(), out));
    };
    follower.run(print).await
}

/// Logs that standard output has failed. The host itself continues.
fn warn_if_failed(written: io::Result<()>) {
    if let Err(error) = written {
        tracing::warn!(error = %Chain(&error), "failed to write to standard output; the host runs on");
    }
}

/// The addresses of a host.
struct Addresses {
    /// The URL for clients.
    public: String,
    /// The address of the operators' listener, if there is one.
    admin: Option<String>,
}

/// Prints the host's address (always the first line), its services, and the address of its page.
fn announce(
    Addresses { public: address, admin }: &Addresses,
    plugins: &[Plugin],
    json: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    if json {
        writeln!(out, "{}", json!({ "listening": address }))?;
        for plugin in plugins {
            writeln!(out, "{}", json!(plugin))?;
        }
        if let Some(admin) = admin {
            writeln!(out, "{}", json!({ "admin": admin }))?;
        }
        writeln!(out, "{}", json!({ "page": format!("{address}/") }))?;
    } else {
        writeln!(out, "listening on {address}\n\n{}", plugin_table(plugins))?;
        if let Some(admin) = admin {
            writeln!(out, "the routes of operators: {admin}")?;
        }
        writeln!(out, "the API to read and to try: {address}/")?;
    }
    out.flush()
}

/// Returns a future that resolves at the first SIGINT, SIGTERM or SIGHUP: Ctrl-C, a supervisor, a terminal
/// that is closed. The second one ends the process.
fn shutdown_signal() -> io::Result<impl Future<Output = ()> + Send> {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut signals = kinds.into_iter().map(signal).collect::<io::Result<Vec<_>>>()?;
    let (first, shutdown) = oneshot::channel();
    tokio::spawn(async move {
        any(&mut signals).await;
        tracing::info!("shutting down; a second signal ends the host at once");
        // Err: the host has failed in the meantime; there is nothing to shut down.
        let _ = first.send(());
        any(&mut signals).await;
        std::process::exit(Exit::Interrupted as i32);
    });
    Ok(async {
        // Err: the runtime has ended, and the sender with it.
        let _ = shutdown.await;
    })
}

/// Waits for one of some signals.
async fn any(signals: &mut [Signal]) {
    select_all(signals.iter_mut().map(|signal| Box::pin(signal.recv()))).await;
}

#[cfg(test)]
mod tests {
    use kontor::clock::Time;
    use kontor::contract::{Manifest, Permissions};
    use kontor::deployed::{Release, Running};
    use kontor::model::Digest;

    use super::*;

    fn plugin() -> Plugin {
        let manifest = Manifest {
            service: "order".into(),
            version: "0.1.0".to_owned(),
            description: String::new(),
            aggregates: Vec::new(),
            sagas: Vec::new(),
            queries: Vec::new(),
            routes: Vec::new(),
            read_model: None,
            subscriptions: Vec::new(),
            publications: Vec::new(),
            settings: Vec::new(),
            permissions: Permissions::default(),
        };
        let digest = Digest::of(b"component");
        let release = Release {
            service: "order".into(),
            version: String::new(),
            digest,
            grants: Vec::new(),
            sagas: None,
            folds_like: Vec::new(),
            envelope: None,
        };
        let running = Running {
            release,
            since: Time(0),
            by: "ada".into(),
            note: None,
            before: Vec::new(),
            kept: None,
            trial: None,
            returned: None,
        };
        Plugin::new(digest, &manifest, Some(&running))
    }

    fn announced(json: bool) -> Vec<String> {
        let mut out = Vec::new();
        let addresses = Addresses { public: "http://127.0.0.1:7070".to_owned(), admin: None };
        announce(&addresses, &[plugin()], json, &mut out).unwrap();
        String::from_utf8(out).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_first_line_has_the_address_and_the_last_one_the_page() {
        let lines = announced(false);
        assert_eq!(lines.first().unwrap(), "listening on http://127.0.0.1:7070");
        let is_order = |line: &String| {
            line.starts_with("order    0.1.0") && line.ends_with("1970-01-01T00:00:00.000Z  ada")
        };
        assert!(lines.iter().any(is_order), "{lines:?}");
        assert!(lines.last().unwrap().ends_with("http://127.0.0.1:7070/"), "{lines:?}");
    }

    #[test]
    fn every_line_of_the_json_is_an_object() {
        let keys = ["listening", "service", "page"];
        for (line, key) in announced(true).iter().zip(keys) {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(object.get(key).is_some(), "{key} is missing in {line}");
        }
    }
}
