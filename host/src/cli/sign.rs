//! `kontor sign`: signs a component, or makes a signing key.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use kontor::deploy::signature::{SigningKey, new_key};
use kontor::model::Digest;
use serde_json::json;

/// The file mode of a key: only its owner may read it.
const KEY_MODE: u32 = 0o600;

const EXAMPLES: &str = "\
Examples:
  kontor sign --new-key deploy.key
  kontor sign order.wasm --key deploy.key
  kontor deploy order.wasm --signature order.wasm.sig

The signature is Ed25519 over the SHA-256 digest of the component. A host with trusted_keys in the section
[deploy] of its configuration accepts only components that one of those keys has signed.";

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
    /// The file of the signature to write [default: FILE.sig]
    #[arg(long, value_name = "FILE", requires = "file")]
    out: Option<PathBuf>,
    /// Make a key, write it to this file, and print the configuration of a host that trusts it
    #[arg(long, value_name = "KEYFILE", conflicts_with = "file")]
    new_key: Option<PathBuf>,
}

impl Sign {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        match (self.new_key, self.file, self.key) {
            (Some(file), ..) => make_key(&file, json, out),
            (None, Some(component), Some(key)) => {
                let signature = self.out.unwrap_or_else(|| signature_file(&component));
                sign(&component, &key, &signature, json, out)
            }
            (None, ..) => bail!("name a component and a --key, or a --new-key to make"),
        }
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

/// Signs a component and writes the signature.
fn sign(
    component: &Path,
    key: &Path,
    signature: &Path,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<()> {
    let text = fs::read_to_string(key).with_context(|| format!("cannot read {}", key.display()))?;
    let key: SigningKey = text.parse().with_context(|| format!("cannot use {}", key.display()))?;
    let wasm = fs::read(component).with_context(|| format!("cannot read {}", component.display()))?;
    let digest = Digest::of(&wasm);
    fs::write(signature, key.sign(digest) + "\n")
        .with_context(|| format!("cannot write {}", signature.display()))?;
    if json {
        writeln!(out, "{}", json!({"digest": digest, "signature": signature, "public_key": key.public()}))?;
    } else {
        writeln!(
            out,
            "The signature of {} ({}) is in {}",
            component.display(),
            digest.short(),
            signature.display()
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use clap::Parser;
    use kontor::deploy::signature::{PublicKey, verify};

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
        let [key, component, elsewhere] = ["deploy.key", "order.wasm", "other.sig"]
            .map(|name| folder.path().join(name).display().to_string());
        fs::write(&component, "component").unwrap();

        let printed = run(&["--new-key", &key]).unwrap();
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let configuration = printed.split_once("\n\n").unwrap().1;
        let configuration: toml::Table = configuration.parse().unwrap();
        let trusted: Vec<PublicKey> = configuration["deploy"]["trusted_keys"].clone().try_into().unwrap();

        run(&[&component, "--key", &key]).unwrap();
        run(&[&component, "--key", &key, "--out", &elsewhere]).unwrap();
        for file in [&format!("{component}.sig"), &elsewhere] {
            let signature = BASE64.decode(fs::read_to_string(file).unwrap().trim()).unwrap();
            assert!(verify(&trusted, Digest::of(b"component"), &signature), "{file}");
        }
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
