//! An identity provider of another make, oidc-provider-mock for Python, and a user at a browser.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{built, python};

const BROWSER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/common/oidc_browser.py");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/common/page_browser.py");

/// The exit code of the scripts if there is no browser.
const NO_BROWSER: i32 = 77;

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

/// Has a user sign in at a host with a browser. Returns what it sees. `key`: the hash of the public key of
/// the host's certificate, if it has one. `None`: there is no browser.
#[track_caller]
pub(crate) fn sign_in(host: &str, user: &str, key: Option<&str>) -> Option<Value> {
    let arguments: Vec<_> = [BROWSER, host, user].into_iter().chain(key).collect();
    run_browser(&arguments)
}

/// Has a user try the page of a host, with an operator's token. Returns what it sees. `None`: there is
/// no browser.
#[track_caller]
pub(crate) fn try_page(host: &str, token: &str) -> Option<Value> {
    run_browser(&[PAGE, host, token])
}

/// Runs a script that drives a browser, and returns its output.
#[track_caller]
fn run_browser(arguments: &[&str]) -> Option<Value> {
    let output = Command::new("python3").args(arguments).stderr(Stdio::inherit()).output();
    let output = output.expect("python3 is needed: it drives the browser");
    if output.status.code() == Some(NO_BROWSER) {
        eprintln!("skipped: there is no chromium");
        return None;
    }
    assert!(output.status.success(), "the browser (Debian's package chromium) has not come to the end");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}
