//! `kontor import`: a log from a file.

use std::fs::File;
use std::io::{self, BufReader, Write};

use anyhow::Context as _;
use kontor::backup;
use kontor::config::Place;
use serde_json::json;

use super::backup::{STANDARD, counted_in, open, progress};

const EXAMPLES: &str = "\
Examples:
  kontor import shop.jsonl --data /var/lib/kontor
  kontor import shop.jsonl --log jetstream --nats-url nats://127.0.0.1:4222 --data copy
  zstd -dc shop.jsonl.zst | kontor import -

The log must be empty; or have the beginning of the file, from an import that was broken off, which goes on then. Every event
gets the position that it had, and in the end all of them are read again and compared. No host may run on that log meanwhile.";

/// Make a log of what `kontor export` has written
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Import {
    /// The file to read, - for standard input
    file: String,
    #[command(flatten)]
    place: Place,
}

impl Import {
    pub(super) fn run(self, json: bool, out: &mut dyn Write) -> anyhow::Result<()> {
        let (config, runtime) = open(self.place)?;
        let imported = if self.file == STANDARD {
            runtime.block_on(backup::import(&config, io::stdin().lock(), progress("imported")))?
        } else {
            let file = || File::open(&self.file).with_context(|| format!("{} cannot be read", self.file));
            // Before anything is written.
            backup::check(BufReader::new(file()?)).with_context(|| format!("{} is refused", self.file))?;
            let input = BufReader::new(file()?);
            runtime.block_on(backup::import(&config, input, progress("imported")))?
        };
        let before = imported.there_before;
        if json {
            writeln!(out, "{}", json!({ "imported": imported.summary, "there_before": before }))?;
        } else {
            let before = if before > 0 { format!(", {before} of them there before") } else { String::new() };
            writeln!(out, "imported {}{before}; read again and compared", counted_in(&imported.summary))?;
        }
        Ok(())
    }
}
