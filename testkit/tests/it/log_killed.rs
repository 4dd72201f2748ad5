//! A process that is killed in the middle of its work keeps every promise it made.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use kontor::log::EmbeddedLog;
use kontor::model::CommandId;
use kontor_testkit::log::audit;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    // Each round continues on the log of the one before, and ends with a kill after this many
    // acknowledgements.
    for lines in [1, 50, 300, 700, 1_500] {
        let mut appender = Command::new(env!("CARGO_BIN_EXE_log-appender"))
            .arg(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(appender.stdout.take().unwrap());
        for _ in 0..lines {
            acknowledged.extend(next_command(&mut output));
        }
        appender.kill().unwrap();
        // Acknowledgements printed before the kill count as well.
        while let Some(command) = next_command(&mut output) {
            acknowledged.push(command);
        }
        assert!(!appender.wait().unwrap().success(), "the appender ends only by being killed");

        let log = EmbeddedLog::open(dir.path()).unwrap();
        let recorded = audit(&log, &acknowledged).await;
        assert!(recorded >= acknowledged.len());
    }
    assert!(acknowledged.len() >= 2_551, "the appender was at work in every round");
}

/// Returns `None` at the end, and for a line that the kill cut off.
fn next_command(output: &mut impl BufRead) -> Option<CommandId> {
    let mut line = String::new();
    output.read_line(&mut line).ok()?;
    line.strip_suffix('\n').map(|id| CommandId::from(id.to_owned()))
}
