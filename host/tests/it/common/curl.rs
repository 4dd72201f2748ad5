//! The program curl: a client that speaks TLS, HTTP/2 and over Unix sockets, and that is not of this project.

use std::path::Path;
use std::process::Command;

/// An answer, or the reason why there was none.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The version of HTTP: `1.1` or `2`.
    pub(crate) version: String,
    pub(crate) body: String,
    /// The messages of curl. Empty if there was an answer.
    pub(crate) error: String,
}

/// Calls a URL with further arguments.
pub(crate) fn curl(url: &str, arguments: &[&str]) -> Answer {
    run(Command::new("curl"), url, arguments)
}

/// Calls a URL from another network namespace.
pub(crate) fn curl_in(namespace: &str, url: &str, arguments: &[&str]) -> Answer {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "curl"]);
    run(command, url, arguments)
}

fn run(mut command: Command, url: &str, arguments: &[&str]) -> Answer {
    let summary = "\n%{http_code} %{http_version}";
    command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "30", "--write-out", summary]);
    let output =
        command.args(arguments).arg(url).env_remove("SSLKEYLOGFILE").output().expect("curl is installed");
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, summary) = text.rsplit_once('\n').unwrap_or_else(|| panic!("curl is not installed"));
    let (status, version) = summary.split_once(' ').unwrap();
    let error =
        if output.status.success() { String::new() } else { String::from_utf8(output.stderr).unwrap() };
    Answer {
        status: status.parse().unwrap(),
        version: version.to_owned(),
        body: body.to_owned(),
        error: error.trim().to_owned(),
    }
}

/// Returns the text of a path, which must be UTF-8.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
