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

/// Calls URLs from another network namespace, one after another. The arguments of a call have its URL.
pub(crate) fn curl_each_in(namespace: &str, calls: &[Vec<String>]) -> Vec<Answer> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, "curl"]);
    answers(command, calls)
}

fn run(command: Command, url: &str, arguments: &[&str]) -> Answer {
    let call = arguments.iter().chain([&url]).map(|argument| (*argument).to_owned()).collect();
    answers(command, &[call]).remove(0)
}

/// The character behind each answer, which no body has.
const END: char = '\u{1e}';

fn answers(mut command: Command, calls: &[Vec<String>]) -> Vec<Answer> {
    let summary = format!("\n%{{http_code}} %{{http_version}}{END}");
    for (place, call) in calls.iter().enumerate() {
        command.args((place > 0).then_some("--next"));
        command.args(["--silent", "--show-error", "--noproxy", "*", "--max-time", "30"]);
        command.args(["--write-out", &summary]).args(call);
    }
    let output = command.env_remove("SSLKEYLOGFILE").output().expect("curl is installed");
    let text = String::from_utf8(output.stdout).unwrap();
    let error =
        if output.status.success() { String::new() } else { String::from_utf8(output.stderr).unwrap() };
    let answers = text.split_terminator(END).map(|answer| {
        let (body, summary) = answer.rsplit_once('\n').unwrap();
        let (status, version) = summary.split_once(' ').unwrap();
        Answer {
            status: status.parse().unwrap(),
            version: version.to_owned(),
            body: body.to_owned(),
            error: error.trim().to_owned(),
        }
    });
    let answers: Vec<_> = answers.collect();
    assert_eq!(answers.len(), calls.len(), "{error}");
    answers
}

/// Returns the text of a path, which must be UTF-8.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
