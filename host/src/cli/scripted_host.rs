//! A host for the tests of the commands, with scripted responses.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use clap::Parser as _;
use kontor::error::with_causes;

use super::Cli;
use super::exit::Exit;

/// A request to a scripted host.
#[derive(Debug)]
pub(super) struct Recorded {
    /// The first line and the headers.
    pub(super) head: Vec<String>,
    pub(super) body: String,
}

/// Starts a host that gives each connection the next response. Returns its address, and a thread that ends
/// with the last response and returns the requests.
pub(super) fn recording_host(responses: Vec<String>) -> (String, JoinHandle<Vec<Recorded>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let respond = move |response: String| {
        let (mut connection, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(connection.try_clone().unwrap());
        let head: Vec<String> =
            reader.by_ref().lines().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
        let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body).unwrap();
        connection.write_all(response.as_bytes()).unwrap();
        Recorded { head, body: String::from_utf8(body).unwrap() }
    };
    (address, thread::spawn(|| responses.into_iter().map(respond).collect()))
}

/// Starts such a host. Its thread returns the first line of each request, with its body if it has one.
pub(super) fn scripted_host(responses: Vec<String>) -> (String, JoinHandle<Vec<String>>) {
    let (address, answering) = recording_host(responses);
    let line = |Recorded { head, body }| format!("{} {body}", head[0]).trim_end().to_owned();
    (address, thread::spawn(move || answering.join().unwrap().into_iter().map(line).collect()))
}

/// Returns a response with the status 200 and this body.
pub(super) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}")
}

/// The effects of a command. `HOST` stands for the address of the scripted host.
pub(super) struct Ran {
    /// The requests, as in [`scripted_host`].
    pub(super) requests: Vec<String>,
    /// The standard output.
    pub(super) printed: String,
    /// The error with its causes; none after a success.
    pub(super) error: Option<String>,
    /// The exit code.
    pub(super) exit: Exit,
}

/// Runs `kontor` with these arguments, and `--host`, against a host with these responses.
#[track_caller]
pub(super) fn kontor(arguments: &[&str], responses: Vec<String>) -> Ran {
    let (host, answering) = scripted_host(responses);
    let ran = run(&[arguments, &["--host", &host]].concat());
    let printed = ran.printed.replace(&host, "HOST");
    Ran { requests: answering.join().unwrap(), printed, ..ran }
}

/// Runs `kontor` with these arguments.
#[track_caller]
pub(super) fn run(arguments: &[&str]) -> Ran {
    let mut out = Vec::new();
    let line = ["kontor"].iter().chain(arguments);
    let outcome = Cli::try_parse_from(line).unwrap().run(&mut out);
    let exit = outcome.as_ref().err().map_or(Exit::Success, Exit::of);
    Ran {
        requests: Vec::new(),
        printed: String::from_utf8(out).unwrap(),
        error: outcome.err().map(|error| with_causes(error.as_ref())),
        exit,
    }
}

/// Returns true if `kontor` accepts these arguments.
pub(super) fn accepts(arguments: &[&str]) -> bool {
    Cli::try_parse_from(["kontor"].iter().chain(arguments)).is_ok()
}
