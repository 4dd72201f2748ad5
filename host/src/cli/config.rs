//! `kontor config`: the configuration of a host, checked without a host.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use kontor::config::{Config as HostConfig, Overrides, Place};
use kontor::contract::{Finding, Findings, Manifest};
use kontor::deploy::read_directory;
use kontor::deployed::Store;
use kontor::error::with_causes;
use serde_json::json;

use super::describe::Describer;
use super::exit::Unusable;
use super::output::counted;

const EXAMPLES: &str = "\
Examples:
  kontor config check
  kontor config check --config shop.toml --plugins target/plugins --json";

const CHECK_EXAMPLES: &str = "\
Examples:
  kontor config check
  kontor config check --config shop.toml --plugins target/plugins
  kontor config check --config shop.toml --data /var/lib/kontor

Reads the file as `kontor serve` does, has the components describe themselves, and prints what does not fit.
An error keeps a host from starting: an unknown key of the host, a value out of its range, a name that is
nearly that of a service, a saga or a setting, a value that does not fit its schema, a certificate, a key or
another file or secret that cannot be used. A name that is far from all of them is a warning, because its
service may be deployed later. A sentence begins with the file, the line and the column, if the key is in the
file. The signatures of components are not read: a host checks them when it starts. The exit code is 2 with an
error.";

/// Check the configuration of a host
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Config {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(Check),
}

/// Print what does not fit in a configuration
#[derive(Debug, clap::Args)]
#[command(after_help = CHECK_EXAMPLES)]
struct Check {
    /// The configuration file [default: kontor.toml, if there is one]
    #[arg(long, env = "KONTOR_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory of the components [default: that of the configuration]
    #[arg(long, env = "KONTOR_PLUGINS", value_name = "DIRECTORY")]
    plugins: Option<PathBuf>,
    /// The data directory of a host, which may be running: the services that were deployed there are known
    /// too [default: none is read]
    #[arg(long, value_name = "DIRECTORY")]
    data: Option<PathBuf>,
}

/// The sentences about what does not fit, each with its place in the file.
#[derive(Default)]
struct Found {
    errors: Vec<String>,
    warnings: Vec<String>,
}

impl Config {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let Command::Check(check) = self.command;
        let Found { errors, warnings } = &check.findings()?;
        if json {
            writeln!(out, "{}", json!({"errors": errors, "warnings": warnings}))?;
        } else {
            errors.iter().try_for_each(|error| writeln!(out, "error: {error}"))?;
            warnings.iter().try_for_each(|warning| writeln!(out, "warning: {warning}"))?;
        }
        match errors.len() {
            0 if json => Ok(()),
            0 => Ok(writeln!(out, "nothing is wrong in this configuration")?),
            number => {
                let errors = counted(number as u64, "error");
                Err(Unusable(format!("a host cannot start with this configuration: {errors}")).into())
            }
        }
    }
}

impl Check {
    fn findings(&self) -> anyhow::Result<Found> {
        let place = Place { config: self.config.clone(), ..Place::default() };
        let overrides = Overrides { place, plugins: self.plugins.clone(), ..Overrides::default() };
        let config = match HostConfig::load(overrides) {
            Ok(config) => config,
            Err(error) => return Ok(Found { errors: vec![with_causes(&error)], ..Found::default() }),
        };
        let unusable: Vec<_> = config.file_errors().iter().map(|error| with_causes(error)).collect();
        let Ok(values) = config.service_configuration() else {
            // Among the errors already. Without its secrets no component can be compared.
            return Ok(Found { errors: unusable, ..Found::default() });
        };
        let describer = Describer::start(values.clone())?;
        let (services, unloaded) = manifests(&config.plugins, &describer)?;
        let deployed = match &self.data {
            Some(data) => manifests(&Store::directory(data), &describer)?.0,
            None => Vec::new(),
        };
        let [services, deployed] = [&services, &deployed].map(|all| all.iter().map(|one| &**one).collect());
        let (services, deployed): (Vec<&Manifest>, Vec<&Manifest>) = (services, deployed);
        let Findings { errors, warnings } = config.findings(&services, &deployed, &values);
        let locate = |finding: &Finding| config.places.locate(finding);
        let errors = unusable.into_iter().chain(errors.iter().map(locate)).chain(unloaded).collect();
        Ok(Found { errors, warnings: warnings.iter().map(locate).collect() })
    }
}

/// Returns the manifests of the components in a directory, and a sentence for each that does not load.
fn manifests(directory: &Path, describer: &Describer) -> anyhow::Result<(Vec<Arc<Manifest>>, Vec<String>)> {
    let (mut manifests, mut unloaded) = (Vec::new(), Vec::new());
    // A host that has its services from `kontor deploy` needs no directory.
    for (file, wasm) in read_directory(directory, false)? {
        match describer.manifest(wasm) {
            Ok(manifest) => manifests.push(manifest),
            Err(error) => unloaded.push(format!("{}: {}", file.display(), with_causes(&error))),
        }
    }
    Ok((manifests, unloaded))
}
