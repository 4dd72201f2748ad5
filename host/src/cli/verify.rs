//! `kontor verify`: checks a log or an export.

use std::fs::File;
use std::io::{self, BufReader, Write};

use anyhow::Context as _;
use kontor::backup::{Verified, VerifyError, verify_export, verify_log};
use kontor::config::Place;
use kontor::error::Chain;
use serde_json::json;

use super::backup::{STANDARD, configured};
use super::output::counted;
use super::progress;

const EXAMPLES: &str = "\
Examples:
  kontor verify
  kontor verify --data /var/lib/kontor
  kontor verify shop.jsonl
  zstd -dc shop.jsonl.zst | kontor verify -

Each command's events have a hash that covers all before them. The check recomputes it, and looks for gaps in
the positions and in the versions of each stream. Two logs with the same last hash are the same. A host may
run at the same time. On damage the exit code is 1, and the first damaged position is named.";

/// Check a log, or a file that `kontor export` has written, for damage
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Verify {
    /// The export to check, - for standard input [default: the log in the data directory]
    file: Option<String>,
    #[command(flatten)]
    place: Place,
}

impl Verify {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let progress = progress::of_events("verified");
        let (what, verified) = match self.file {
            None => {
                let config = configured(self.place)?;
                (config.data.display().to_string(), verify_log(&config.data, progress))
            }
            Some(file) if file == STANDARD => (file, verify_export(io::stdin().lock(), progress)),
            Some(file) => {
                let input = File::open(&file).with_context(|| format!("cannot read {file}"))?;
                (file, verify_export(BufReader::new(input), progress))
            }
        };
        if let (true, Err(error)) = (json, &verified) {
            let position = match error {
                VerifyError::Damaged { position, .. } => Some(position),
                _ => None,
            };
            let damaged = json!({ "position": position, "error": Chain(error).to_string() });
            writeln!(out, "{}", json!({ "checked": what, "damaged": damaged }))?;
        }
        let verified = verified?;
        if json {
            writeln!(out, "{}", json!({ "checked": what, "verified": verified }))?;
            return Ok(());
        }
        let Verified { streams, commands, events, hash } = verified;
        let (events, commands) = (counted(events, "event"), counted(commands, "command"));
        let streams = counted(streams, "stream");
        writeln!(out, "no damage: {events} of {commands} in {streams}\nlast hash {hash}")?;
        Ok(())
    }
}
