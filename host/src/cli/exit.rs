//! The exit codes of the program, by which a script can tell failures apart.

use std::io;

use kontor::config::ConfigError;
use kontor::deploy::BootError;
use kontor::deployed::GateName;
use kontor::host::HostError;

use super::client::ClientError;

/// The exit code of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The command has done its work.
    Success = 0,
    /// The command has failed on this machine, or for a reason without a code of its own.
    Failed = 1,
    /// The command line or the configuration cannot be used. clap has the same code.
    Usage = 2,
    /// The host has refused the request.
    Refused = 3,
    /// No host has answered, or it cannot answer at the moment.
    Unavailable = 4,
    /// 128 + SIGINT.
    Interrupted = 130,
}

/// The failure of a command that cannot be used in this way, found after the command line was parsed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unusable(pub(super) String);

impl Exit {
    const ALL: [Self; 6] =
        [Self::Success, Self::Failed, Self::Usage, Self::Refused, Self::Unavailable, Self::Interrupted];

    /// Returns the exit code for the error of a command.
    pub(super) fn of(error: &anyhow::Error) -> Self {
        if is_broken_pipe(error) {
            return Self::Success;
        }
        let by_host = match error.downcast_ref() {
            Some(HostError::Config(_)) => true,
            Some(HostError::Boot(BootError::Refused(refusals))) => {
                refusals.iter().all(|refusal| refusal.gate.gate == GateName::Configuration)
            }
            _ => false,
        };
        if by_host || error.is::<ConfigError>() || error.is::<Unusable>() {
            return Self::Usage;
        }
        error.downcast_ref::<ClientError>().map_or(Self::Failed, ClientError::exit)
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Success => {
                "Success; also if the reader of the output has gone, as in `kontor events | head`"
            }
            Self::Failed => "Failure on this machine. The error and its causes are printed on standard error",
            Self::Usage => "Unusable command line or configuration; nothing was sent",
            Self::Refused => "The host refused: a gate, a permission, or something that does not exist",
            Self::Unavailable => {
                "No host answered in time, or it cannot answer now; a later attempt may succeed"
            }
            Self::Interrupted => "`kontor serve` was interrupted twice and stopped at once",
        }
    }

    /// Returns a line for each exit code, for `--help`.
    pub(super) fn help() -> String {
        let line = |exit: Self| format!("  {:<5}{}\n", exit as u8, exit.meaning());
        format!("Exit codes:\n{}", Self::ALL.map(line).concat())
    }

    /// Returns a row for each exit code, for the reference.
    #[cfg(test)]
    pub(super) fn rows() -> String {
        let row = |exit: Self| format!("| {} | {}. |\n", exit as u8, exit.meaning().replace('|', "\\|"));
        Self::ALL.map(row).concat()
    }
}

/// Returns true if the reader of the output has gone, as in `kontor events | head`.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::super::scripted_host::{Ran, kontor, run};
    use super::*;

    /// Returns a response with a status and a body.
    fn response(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n{body}")
    }

    #[test]
    fn refused_unavailable_and_wrong_usage_have_codes_of_their_own() {
        let problem = r#"{"title":"No","detail":"It is so.","code":"so"}"#;
        let refused = r#"{"title":"No","code":"refused","report":{"dry_run":false,"live":false,"services":[],
            "gates":[{"gate":"side-by-side","outcome":"refused","took_ms":1,"says":"no"}]}}"#;
        let component = tempfile::NamedTempFile::new().unwrap();
        let deploy = ["deploy", component.path().to_str().unwrap()];
        let nodes = ["nodes"];
        let table: [(&[&str], String, Exit); 14] = [
            (&nodes, response("200 OK", r#"{"items":[]}"#), Exit::Success),
            (&nodes, response("200 OK", "[]"), Exit::Failed),
            (&nodes, response("400 Bad Request", problem), Exit::Refused),
            (&nodes, response("401 Unauthorized", problem), Exit::Refused),
            (&nodes, response("403 Forbidden", "<html>"), Exit::Refused),
            (&nodes, response("404 Not Found", problem), Exit::Refused),
            (&deploy, response("422 Unprocessable Content", refused), Exit::Refused),
            (&nodes, response("302 Found\r\nlocation: http://127.0.0.1:1/", ""), Exit::Failed),
            (&nodes, response("408 Request Timeout", problem), Exit::Unavailable),
            (&nodes, response("429 Too Many Requests", problem), Exit::Unavailable),
            (&nodes, response("500 Internal Server Error", problem), Exit::Unavailable),
            (&nodes, response("503 Service Unavailable", problem), Exit::Unavailable),
            (&nodes, response("502 Bad Gateway", "<html>"), Exit::Unavailable),
            (&nodes, "SSH-2.0-OpenSSH\r\n\r\n".to_owned(), Exit::Unavailable),
        ];
        for (arguments, response, exit) in table {
            let Ran { exit: found, error, .. } = kontor(arguments, vec![response.clone()]);
            assert_eq!(found, exit, "{response}: {error:?}");
        }
    }

    #[test]
    fn a_host_that_is_not_there_and_an_address_that_is_none_have_other_codes() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gone = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        for (host, exit) in [
            (&*gone, Exit::Unavailable),
            ("unix:/nowhere/kontor.sock", Exit::Unavailable),
            ("ftp://127.0.0.1", Exit::Usage),
        ] {
            assert_eq!(run(&["nodes", "--host", host]).exit, exit, "{host}");
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let of = |kind| Exit::of(&anyhow::Error::from(io::Error::from(kind)));
        assert_eq!(of(io::ErrorKind::BrokenPipe), Exit::Success);
        assert_eq!(of(io::ErrorKind::StorageFull), Exit::Failed);
    }
}
