//! `kontor sign`: signs a component, or makes a signing key.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use kontor::clock::{Clock as _, SystemClock, Time, millis};
use kontor::contract::Manifest;
use kontor::deploy::signature::{Envelope, SigningKey, Statement, new_key};
use kontor::model::Digest;
use serde_json::json;

use super::describe::Describer;
use super::exit::Unusable;

/// The file mode of a key: only its owner may read it.
const KEY_MODE: u32 = 0o600;

const EXAMPLES: &str = "\
Examples:
  kontor sign --new-key deploy.key
  kontor sign order.wasm --key deploy.key --expires 90d
  kontor sign order.wasm --key deploy.key --permission service:payment
  kontor deploy order.wasm --signature order.wasm.sig

The signature is a DSSE envelope with a statement: the service and its version, the digest of the component,
the permissions that it may request, and the time until which it may be deployed. A host with trusted_keys in
the section [deploy] of its configuration deploys, rolls back to and starts only components that one of those
keys has signed, and no older version than was deployed before.";

/// Sign a component, or make a signing key
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Sign {
    /// The component (*.wasm)
    #[arg(required_unless_present = "new_key", requires = "key", value_name = "FILE")]
    file: Option<PathBuf>,
    /// The signing key
    #[arg(long, value_name = "KEYFILE", requires = "file")]
    key: Option<PathBuf>,
    /// The time from now until which the component may be deployed and rolled back to
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = humantime::parse_duration)]
    expires: Duration,
    /// A permission that the component may request: command:payment.authorize, event:order.order-created,
    /// service:payment, subject:orders.>, http:https://payments.example or http:config:gateway-url. Nothing is
    /// signed if it requests another [default: all it requests]
    #[arg(long = "permission", value_name = "PERMISSION", requires = "file")]
    permissions: Vec<String>,
    /// The file of the signature to write [default: FILE.sig]
    #[arg(long, value_name = "FILE", requires = "file")]
    out: Option<PathBuf>,
    /// Make a key, write it to this file, and print the configuration of a host that trusts it
    #[arg(long, value_name = "KEYFILE", conflicts_with = "file")]
    new_key: Option<PathBuf>,
}

impl Sign {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        match (&self.new_key, &self.file, &self.key) {
            (Some(file), ..) => make_key(file, json, out),
            (None, Some(component), Some(key)) => self.sign(component, key, json, out),
            (None, ..) => {
                Err(Unusable("name a component and a --key, or a --new-key to make".to_owned()).into())
            }
        }
    }

    /// Signs a component and writes the signature.
    fn sign(&self, component: &Path, key: &Path, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let text = fs::read_to_string(key).with_context(|| format!("cannot read {}", key.display()))?;
        let key: SigningKey = text.parse().with_context(|| format!("cannot use {}", key.display()))?;
        let wasm = fs::read(component).with_context(|| format!("cannot read {}", component.display()))?;
        let digest = Digest::of(&wasm);
        let manifest = Describer::start(HashMap::new())?.manifest(wasm);
        let manifest = manifest.with_context(|| format!("cannot sign {}", component.display()))?;
        let statement = self.statement(&manifest, digest, SystemClock.now_ms())?;
        let file = self.out.clone().unwrap_or_else(|| signature_file(component));
        let envelope = Envelope::seal(&statement, &key)?.text()?;
        fs::write(&file, envelope + "\n").with_context(|| format!("cannot write {}", file.display()))?;
        if json {
            let signed = json!({"statement": statement, "signature": file, "public_key": key.public()});
            writeln!(out, "{signed}")?;
            return Ok(());
        }
        let Statement { service, version, permissions, expires, .. } = statement;
        let permissions = match permissions.is_empty() {
            true => "no permissions".to_owned(),
            false => permissions.join(", "),
        };
        writeln!(
            out,
            "The signature of {service} {version} ({}) with {permissions}, until {}, is in {}",
            digest.short(),
            String::from(expires),
            file.display()
        )?;
        Ok(())
    }

    /// Returns the statement to sign.
    fn statement(&self, manifest: &Manifest, digest: Digest, now_ms: u64) -> Result<Statement, Unusable> {
        let requested: Vec<String> = manifest.permissions.requests().collect();
        let permissions = match self.permissions.is_empty() {
            true => requested,
            false => {
                let left_out: Vec<_> =
                    requested.into_iter().filter(|request| !self.permissions.contains(request)).collect();
                if !left_out.is_empty() {
                    let left_out = left_out.join(", ");
                    return Err(Unusable(format!(
                        "the component requests {left_out}, which no --permission names"
                    )));
                }
                self.permissions.clone()
            }
        };
        Ok(Statement {
            service: manifest.service.clone(),
            version: manifest.version.clone(),
            digest,
            permissions,
            expires: Time(now_ms.saturating_add(millis(self.expires))),
        })
    }
}

/// Returns the default file of a signature: `order.wasm.sig`.
fn signature_file(component: &Path) -> PathBuf {
    let mut name = component.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

/// Makes a key and prints its public key.
fn make_key(file: &Path, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
    let key = new_key()?;
    let created = File::options().write(true).create_new(true).mode(KEY_MODE).open(file);
    let written = created.and_then(|mut file| writeln!(file, "{}", key.reveal()));
    // An existing key is never overwritten: there is no other copy of it.
    written.with_context(|| format!("cannot write {}", file.display()))?;
    if json {
        writeln!(out, "{}", json!({"key": file, "public_key": key.public()}))?;
    } else {
        writeln!(
            out,
            "The key is in {}; keep it secret. The configuration of hosts that trust it:\n",
            file.display()
        )?;
        writeln!(out, "[deploy]\ntrusted_keys = [\"{}\"]", key.public())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use clap::Parser;
    use kontor::contract::Permissions;
    use kontor::deploy::signature::PublicKey;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        sign: Sign,
    }

    /// Returns the output, or the error with its causes.
    fn run(arguments: &[&str]) -> Result<String, String> {
        let mut out = Vec::new();
        let line = ["sign"].iter().chain(arguments);
        Line::parse_from(line).sign.run(false, &mut out).map_err(|error| format!("{error:#}"))?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_printed_configuration_trusts_the_signatures_of_a_new_key() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("deploy.key").display().to_string();
        let printed = run(&["--new-key", &key]).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let configuration = printed.split_once("\n\n").unwrap().1;
        let configuration: toml::Table = configuration.parse().unwrap();
        let trusted: Vec<PublicKey> = configuration["deploy"]["trusted_keys"].clone().try_into().unwrap();

        let signed = statement(&["order.wasm", "--key", "k"]).unwrap();
        let key: SigningKey = fs::read_to_string(&key).unwrap().parse().unwrap();
        assert_eq!(Envelope::seal(&signed, &key).unwrap().open(&trusted).unwrap(), signed);
    }

    /// Returns the statement about an order that requests two permissions, signed at the time 0.
    fn statement(line: &[&str]) -> Result<Statement, String> {
        let permissions = Permissions {
            services: vec!["payment".to_owned()],
            subjects: vec!["orders.>".to_owned()],
            ..Permissions::default()
        };
        let manifest = Manifest {
            service: "order".into(),
            version: "1.2.0".to_owned(),
            description: String::new(),
            aggregates: Vec::new(),
            sagas: Vec::new(),
            queries: Vec::new(),
            routes: Vec::new(),
            read_model: None,
            subscriptions: Vec::new(),
            publications: Vec::new(),
            settings: Vec::new(),
            permissions,
        };
        let line = ["sign"].iter().chain(line);
        let sign = Line::parse_from(line).sign;
        sign.statement(&manifest, Digest::of(b"component"), 0).map_err(|error| error.to_string())
    }

    #[test]
    fn the_statement_has_what_the_component_requests_and_until_when_it_may_be_deployed() {
        let line = ["order.wasm", "--key", "k"];
        let both = ["--permission", "service:payment", "--permission", "subject:orders.>"];
        let signed = statement(&line).unwrap();
        assert_eq!(signed.permissions, ["service:payment", "subject:orders.>"]);
        assert_eq!(signed.expires, Time(90 * 24 * 60 * 60 * 1_000));
        assert_eq!(statement(&[&line[..], &both].concat()).unwrap(), signed);
        assert_eq!(statement(&[&line[..], &["--expires", "1h"]].concat()).unwrap().expires, Time(3_600_000));
        let error = statement(&[&line[..], &both[..2]].concat()).unwrap_err();
        assert_eq!(error, "the component requests subject:orders.>, which no --permission names");
        let error = statement(&[&line[..], &["--permission", "service:report"]].concat()).unwrap_err();
        assert_eq!(
            error,
            "the component requests service:payment, subject:orders.>, which no --permission names"
        );
    }

    #[test]
    fn a_key_is_never_overwritten_and_a_file_without_a_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mine = folder.path().join("mine").display().to_string();
        fs::write(&mine, "mine").unwrap();
        let error = run(&["--new-key", &mine]).unwrap_err();
        assert!(error.contains("cannot write") && error.contains("exists"), "{error}");
        assert_eq!(fs::read_to_string(&mine).unwrap(), "mine");
        let error = run(&[&mine, "--key", &mine]).unwrap_err();
        assert!(error.contains("`kontor sign --new-key` makes one"), "{error}");
    }

    #[test]
    fn either_a_component_is_signed_or_a_key_is_made() {
        for rejected in [
            &["sign"][..],
            &["sign", "order.wasm"],
            &["sign", "--key", "k"],
            &["sign", "a", "--new-key", "k"],
        ] {
            assert!(Line::try_parse_from(rejected).is_err(), "{rejected:?}");
        }
    }
}
