//! An identity provider of another make, oidc-provider-mock for Python, and a user at a browser.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::built;

const BROWSER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/common/oidc_browser.py");

/// A running provider. It is killed when dropped.
pub(crate) struct Provider {
    process: Child,
    url: String,
}

impl Provider {
    /// Starts a provider that knows a user with these claims.
    pub(crate) fn start(user: &Value) -> Self {
        let mut process = python(&built("oidc"))
            .args(["-m", "oidc_provider_mock", "--port", "0", "--require-nonce", "true"])
            .args(["--user-claims", &user.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python3 is needed: the identity provider is written in it");
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut before = Vec::new();
        let url = lines.by_ref().find_map(|line| {
            let (_, url) = line.split_once("running on ").or_else(|| {
                before.push(line.clone());
                None
            })?;
            Some(url.split(' ').next()?.to_owned())
        });
        let url = url.unwrap_or_else(|| panic!("the identity provider does not start: {before:#?}"));
        // Its later lines must go somewhere, or it stops.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, url }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // Err: it has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Has a user sign in at a host with a browser. Returns what it sees.
#[track_caller]
pub(crate) fn sign_in(host: &str, user: &str) -> Value {
    let mut browser = Command::new("python3");
    let output = browser.args([BROWSER, host, user]).stderr(Stdio::inherit()).output();
    let output = output.expect("python3 is needed: it drives the browser");
    assert!(output.status.success(), "the browser (Debian's package chromium) has not signed in");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn python(packages: &Path) -> Command {
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", packages);
    python
}
